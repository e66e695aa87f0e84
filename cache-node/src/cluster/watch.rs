//! Watches one process of a node: its end, its silence, and what it says of itself.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use crate::cluster::{
    limits::{BUSY_MAX, PROBE_PERIOD, START_MAX},
    link::{Link, LinkError},
    process::{Activity, NodeProcess},
    report::Report,
};

/// What a watcher saw of one process.
#[derive(Debug)]
pub(super) struct Sight {
    pub(super) member: String,
    /// Which process of the member; a word about an earlier one is void.
    pub(super) life: u64,
    pub(super) what: Seen,
}

#[derive(Debug)]
pub(super) enum Seen {
    /// It answered a question that was asked at `asked_at`.
    Answered { report: Report, asked_at: Instant },
    /// It did not answer in time, this often in a row.
    Missed,
    /// It has been silent for too long.
    Hung(String),
    /// It has ended.
    Ended,
}

/// Where and how to watch.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) member: String,
    pub(super) life: u64,
    pub(super) process: NodeProcess,
    pub(super) address: SocketAddr,
    /// Silence after which an idle or stopped process is taken for hung.
    pub(super) down_after: Duration,
    pub(super) sights: mpsc::Sender<Sight>,
}

impl Watch {
    /// Runs until the process has ended or nobody listens.
    pub(super) async fn run(self) {
        let process = self.process.clone();
        tokio::select! {
            () = process.ended() => self.tell(Seen::Ended).await,
            () = self.probe_all() => {}
        }
    }

    async fn probe_all(&self) {
        let mut period = interval(PROBE_PERIOD);
        // A controller that was itself kept waiting must not count what it had no time to ask.
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut link = None;
        let mut silence = Silence::new(self.down_after);
        loop {
            period.tick().await;
            let asked_at = Instant::now();
            match probe(self.address, &mut link).await {
                Ok(report) => {
                    silence.end();
                    if let Some(report) = report {
                        self.tell(Seen::Answered { report, asked_at }).await;
                    }
                }
                Err(error) => {
                    link = None;
                    match silence.grow(self.process.activity()) {
                        None => self.tell(Seen::Missed).await,
                        Some(silent_for) => {
                            // Said once: the controller ends the process, and with it this watcher's work.
                            self.tell(Seen::Hung(format!("no answer for {silent_for:?}: {error}"))).await;
                            return std::future::pending().await;
                        }
                    }
                }
            }
            if self.sights.is_closed() {
                return;
            }
        }
    }

    async fn tell(&self, what: Seen) {
        let sight = Sight { member: self.member.clone(), life: self.life, what };
        // A controller that is ending no longer listens.
        let told = self.sights.send(sight).await;
        drop(told);
    }
}

/// Asks one question; any answer of the node's is a sign of life, `-LOADING` and `-BUSY` too. `None`: alive, and too busy to say more.
async fn probe(address: SocketAddr, link: &mut Option<Link>) -> Result<Option<Report>, LinkError> {
    let connected = match link.take() {
        Some(connected) => connected,
        None => Link::open(address).await?,
    };
    let link = link.insert(connected);
    match link.call(&["PING"], PROBE_PERIOD).await {
        Ok(_) => {}
        Err(LinkError::Refused(text)) if text.starts_with("LOADING") => {
            return Ok(Some(Report { is_loading: true, ..report(link).await? }));
        }
        // A script that runs, or a replica that lost its primary: it answers.
        Err(LinkError::Refused(_)) => {}
        Err(error) => return Err(error),
    }
    match report(link).await {
        Err(LinkError::Refused(_)) => Ok(None),
        outcome => outcome.map(Some),
    }
}

/// A node's report over a link of the caller's.
pub(super) async fn report(link: &mut Link) -> Result<Report, LinkError> {
    Ok(Report::parse(&link.text(&["INFO", "replication"], PROBE_PERIOD).await?))
}

/// How long a process has not answered, counted in questions and not by the clock: a machine that slept, or a controller that got no
/// processor, has asked nothing meanwhile.
struct Silence {
    questions: u32,
    questions_max: u32,
    has_answered: bool,
    before: Option<Activity>,
}

impl Silence {
    fn new(down_after: Duration) -> Silence {
        Silence { questions: 0, questions_max: questions_in(down_after), has_answered: false, before: None }
    }

    fn end(&mut self) {
        self.questions = 0;
        self.has_answered = true;
        self.before = None;
    }

    /// Counts a question without an answer; gives the silence when it has become too long. A process that works, or would if it got a
    /// processor, is busy and not hung, and so is one that has just been started.
    fn grow(&mut self, now: Option<Activity>) -> Option<Duration> {
        self.questions += 1;
        let before = std::mem::replace(&mut self.before, now);
        let worked = match (before, now) {
            (Some(before), Some(now)) => now.processor_ticks > before.processor_ticks || now.is_runnable,
            (None, Some(now)) => now.is_runnable,
            _ => false,
        };
        let questions_max = match (self.has_answered, worked) {
            (false, _) => questions_in(START_MAX),
            (true, true) => self.questions_max.max(questions_in(BUSY_MAX)),
            (true, false) => self.questions_max,
        };
        (self.questions >= questions_max).then(|| PROBE_PERIOD * self.questions)
    }
}

fn questions_in(time: Duration) -> u32 {
    time.as_millis().div_ceil(PROBE_PERIOD.as_millis()).clamp(1, u128::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Activity, Silence};

    const IDLE: Option<Activity> = Some(Activity { processor_ticks: 7, is_runnable: false });

    #[test]
    fn an_idle_process_is_hung_after_three_questions() {
        let mut silence = Silence::new(Duration::from_millis(600));
        silence.end();
        assert_eq!((silence.grow(IDLE), silence.grow(IDLE)), (None, None));
        assert_eq!(silence.grow(IDLE), Some(Duration::from_millis(600)));
        silence.end();
        assert_eq!(silence.grow(IDLE), None, "an answer begins anew");
    }

    #[test]
    fn a_process_that_works_or_waits_for_a_processor_is_busy() {
        let mut silence = Silence::new(Duration::from_millis(600));
        silence.end();
        for ticks in 0..24 {
            assert_eq!(silence.grow(Some(Activity { processor_ticks: ticks, is_runnable: false })), None, "tick {ticks}");
        }
        assert!(silence.grow(Some(Activity { processor_ticks: 99, is_runnable: false })).is_some(), "but not for ever");
        silence.end();
        for _ in 0..24 {
            assert_eq!(silence.grow(Some(Activity { processor_ticks: 7, is_runnable: true })), None);
        }
    }

    #[test]
    fn a_new_process_may_take_its_time() {
        let mut silence = Silence::new(Duration::from_millis(600));
        for _ in 0..149 {
            assert_eq!(silence.grow(IDLE), None);
        }
        assert!(silence.grow(IDLE).is_some());
    }
}
