//! Sessions that tower-sessions-redis-store has written become ours.
//!
//! Where one script reaches both records it is one step. In a cluster they are in different slots. What is ours then is put in its place
//! first, without a revision, so that it is no session yet; then theirs is removed, if it is still what was read, which leaves a note
//! beside it; then ours gets its revision. Only the second step counts. A process that dies before it has changed nothing; when one dies
//! after it, the next request that looks for the session finds what was placed and the note, and takes the last step. Without a note it
//! was the other software that has ended the session, or its time: what was placed is dropped. Whoever takes steps holds the place for a
//! moment, reads theirs only then, and places nothing once another holds it: so what was placed last is what was removed.

use std::time::Duration;

use redis::{Pipeline, Value};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};
use tower_sessions::session::{Id, Record};

use crate::{
    CacheStore, StoreError,
    backend::{CommitToken, GRACE_MS, Write, absolute, number_at},
    keys::Tag,
    operation::Answer,
    record::{VERSION, bytes, corrupt, encode, integer, unreadable},
    scripts::{Call, DROP_RECORD, TAKE_OVER, TAKE_OVER_STEPS, reply},
    wire::Argument,
};

/// How long others wait for one who takes the steps before they take him for dead. One who was only slow does no harm: he learns of it
/// with the next step.
const HOLD: Duration = Duration::from_millis(250);
/// Until somebody who waits looks again.
const HOLD_PAUSE: Duration = Duration::from_millis(15);
/// How long is waited for others in all, and for a record that is written again and again.
const STEPS_WITHIN: Duration = Duration::from_secs(3);

/// What there is of ours under an id.
enum Ours {
    Nothing,
    /// It is no session yet, and waits for the last step.
    Placed,
    /// Live, or ended a moment ago.
    Session,
}

/// What a step has found.
enum Step {
    Done(Answer),
    /// There is a session of ours, or there was a moment ago.
    There,
    /// Somebody else takes the steps.
    Held,
    /// Nothing is in its place.
    Nothing,
}

impl CacheStore {
    /// Takes a session of tower-sessions-redis-store over, if there is one of this id; whether there may be a session of
    /// ours now.
    pub(crate) async fn take_over(&self, prefix: &str, id: &Id, tag: &Tag, write: &Write) -> Result<bool, StoreError> {
        let theirs = format!("{prefix}{id}");
        if !self.scripts_cross_slots() {
            return self.take_over_across_slots(&theirs, id, tag, write).await;
        }
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.cmd("GET").arg(&theirs);
        // In this order: when theirs is gone because another request took it over, ours is there.
        pipeline.cmd("EXISTS").arg(self.keys().session(tag));
        let mut answers = self.pipeline(&pipeline).await?.into_iter();
        let (Some(there), Some(ours)) = (answers.next(), answers.next()) else {
            return Err(unreadable("the answer for a record is missing"));
        };
        if there == Value::Nil {
            return Ok(integer(&ours)? == 1);
        }
        let there = bytes(there)?;
        let Some(record) = record_of(id, &there) else { return Ok(false) };
        let mut call = TAKE_OVER.call(&[&self.keys().session(tag) as &dyn Argument, &theirs]);
        call.arg(there).arg(write.policy.encode().as_bytes());
        absolute(&mut call, write.absolute_ms);
        self.fields_of(tag, &record, &mut call)?;
        let answer = self.script(&call).await?;
        // Taken or gone: another request was faster, and did the same.
        Ok(integer(&answer[0])? != reply::OK || number_at(&answer, 1)? > 0)
    }

    /// What is not there costs two round trips: one after the other, for the same reason.
    async fn take_over_across_slots(&self, theirs: &str, id: &Id, tag: &Tag, write: &Write) -> Result<bool, StoreError> {
        if self.their_record(theirs).await?.is_none() {
            match self.ours(tag).await? {
                Ours::Nothing => return Ok(false),
                Ours::Session => return Ok(true),
                Ours::Placed => {}
            }
        }
        self.take_over_in_steps(theirs, id, tag, write).await
    }

    async fn take_over_in_steps(&self, theirs: &str, id: &Id, tag: &Tag, write: &Write) -> Result<bool, StoreError> {
        let (token, began) = (CommitToken::random(), Instant::now());
        let taken_over = self.keys().taken_over(theirs);
        let mut rounds = 0;
        while began.elapsed() < STEPS_WITHIN {
            rounds += 1;
            let is_placed = match self.hold_place(tag, &token).await? {
                Step::Done(answer) => number_at(&answer, 1)? == 1,
                Step::There => return Ok(true),
                Step::Held | Step::Nothing => {
                    sleep(HOLD_PAUSE).await;
                    continue;
                }
            };
            match self.their_record(theirs).await? {
                None if !is_placed => return Ok(false),
                // Placed by one who died, or by this one, and then removed by one of us.
                None if self.exists(&taken_over).await? => {}
                None => match self.step_of(tag, "drop", &token).await? {
                    Step::There => return Ok(true),
                    Step::Done(_) | Step::Nothing => return Ok(false),
                    Step::Held => continue,
                },
                Some(there) => {
                    let Some(record) = record_of(id, &there) else { return Ok(false) };
                    let kept_ms = match self.place_record(tag, &token, &record, write).await? {
                        Step::Done(answer) => number_at(&answer, 1)?,
                        Step::There => return Ok(true),
                        Step::Held | Step::Nothing => continue,
                    };
                    if kept_ms <= 0 {
                        return Ok(false);
                    }
                    let mut call = DROP_RECORD.call(&[theirs, &*taken_over]);
                    call.arg(there).arg(kept_ms);
                    if integer(&self.script(&call).await?[0])? != reply::OK {
                        // It was written once more, or the answer to an earlier attempt of this very step was lost.
                        continue;
                    }
                }
            }
            match self.step_of(tag, "adopt", &token).await? {
                Step::Done(_) => {
                    // It has served: should this fail, it goes by itself.
                    let mut remove = redis::cmd("DEL");
                    let _ = self.command(remove.arg(&taken_over)).await;
                    return Ok(true);
                }
                Step::There => return Ok(true),
                Step::Held | Step::Nothing => {}
            }
        }
        Err(StoreError::Contended { attempts: rounds })
    }

    async fn their_record(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let mut command = redis::cmd("GET");
        match self.command(command.arg(key)).await? {
            Value::Nil => Ok(None),
            value => bytes(value).map(Some),
        }
    }

    async fn exists(&self, key: &str) -> Result<bool, StoreError> {
        let mut command = redis::cmd("EXISTS");
        Ok(integer(&self.command(command.arg(key)).await?)? == 1)
    }

    async fn ours(&self, tag: &Tag) -> Result<Ours, StoreError> {
        let mut command = redis::cmd("HMGET");
        command.arg(self.keys().session(tag)).arg(&["@rev", "@ended", "@placed"]);
        let answer = self.command(&command).await?.into_sequence().map_err(|_| unreadable("an answer is not a list"))?;
        match &answer[..] {
            [Value::Nil, Value::Nil, Value::Nil] => Ok(Ours::Nothing),
            [Value::Nil, Value::Nil, _] => Ok(Ours::Placed),
            [_, _, _] => Ok(Ours::Session),
            _ => Err(unreadable("an answer has another length")),
        }
    }

    async fn hold_place(&self, tag: &Tag, token: &CommitToken) -> Result<Step, StoreError> {
        let mut call = TAKE_OVER_STEPS.call(&[&self.keys().session(tag)]);
        self.step(tag, call.arg("hold").arg(token.as_bytes()).arg(HOLD.as_millis().to_string()).arg(GRACE_MS)).await
    }

    async fn place_record(&self, tag: &Tag, token: &CommitToken, record: &Record, write: &Write) -> Result<Step, StoreError> {
        let mut call = TAKE_OVER_STEPS.call(&[&self.keys().session(tag)]);
        call.arg("place").arg(token.as_bytes()).arg(write.policy.encode().as_bytes());
        absolute(&mut call, write.absolute_ms);
        self.fields_of(tag, record, &mut call)?;
        self.step(tag, &call).await
    }

    /// A step that needs nothing else.
    async fn step_of(&self, tag: &Tag, name: &str, token: &CommitToken) -> Result<Step, StoreError> {
        self.step(tag, TAKE_OVER_STEPS.call(&[&self.keys().session(tag)]).arg(name).arg(token.as_bytes())).await
    }

    async fn step(&self, tag: &Tag, call: &Call) -> Result<Step, StoreError> {
        let _changes = self.changes(tag);
        let answer = self.script(call).await?;
        match integer(&answer[0])? {
            reply::OK => Ok(Step::Done(answer)),
            reply::TAKEN => Ok(Step::There),
            reply::HELD => Ok(Step::Held),
            reply::GONE => Ok(Step::Nothing),
            other => Err(unreadable(&format!("a step of taking over answered {other}"))),
        }
    }

    fn fields_of(&self, tag: &Tag, record: &Record, call: &mut Call) -> Result<(), StoreError> {
        call.arg("@v").arg(VERSION);
        for field in &*self.vault().seal(tag, &[], encode(&record.data)?.into())? {
            call.arg(field.name()).arg(field.stored());
        }
        Ok(())
    }
}

/// A record that is one of this session, and whose time is not over.
fn record_of(id: &Id, there: &[u8]) -> Option<Record> {
    match rmp_serde::from_slice::<Record>(there) {
        Ok(record) => (record.id == *id && record.expiry_date > OffsetDateTime::now_utc()).then_some(record),
        Err(error) => {
            // Left as it is: it is not ours, and goes when its time is over.
            let error = corrupt(&format!("a record of tower-sessions is not MessagePack of its layout: {error}"));
            tracing::debug!(%error, "a record was not taken over");
            None
        }
    }
}
