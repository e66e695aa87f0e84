//! One operation: its deadline, its attempts, and how long a request waits through an outage.

mod problem;

use std::{
    fmt, iter,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt as _, future::try_join_all};
use redis::{Cmd, ErrorKind, Pipeline, RedisError, ServerErrorKind, Value};
use smallvec::{SmallVec, smallvec};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::Instrument as _;

use self::problem::{Problem, Verdict};
use crate::{
    CacheStore, Stage, StoreError,
    deadline::Deadline,
    metrics::InFlight,
    nodes::{Address, Failure, Node, Origin},
    pool::Taken,
    record::{malformed, number},
    scripts::{Call, reply},
    topology::{Asking, Slot, split},
    wire::{Packed, Reply, Unanswered},
};

/// Attempts of an operation whose connection broke: the first, and two on fresh ones. All within the deadline.
const ATTEMPTS: u32 = 3;
/// Before a node that said it is not, or not yet, the one to ask is asked again. The deadline bounds how often.
const RETRY_PAUSE: Duration = Duration::from_millis(15);
/// Redirections of a cluster that are followed without a pause.
const REDIRECTIONS_AT_ONCE: u32 = 3;
/// While a request waits through an outage: until it looks again, when nothing tells it that the node is back.
const WAIT_PAUSE: Duration = Duration::from_millis(50);

/// What a script answered, by far the most two numbers.
pub(crate) type Answer = SmallVec<[Value; 2]>;

/// How long the request that uses this store still waits through an outage, and whether it met one.
#[derive(Default)]
pub(crate) struct Patience {
    left_us: AtomicU64,
    met_outage: AtomicBool,
}

impl Patience {
    /// From now on, operations wait this long in all, beyond the deadline of each.
    pub(crate) fn set(&self, max: Duration) {
        self.left_us.store(u64::try_from(max.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether an operation of this request failed because of an outage.
    pub(crate) fn met_outage(&self) -> bool {
        self.met_outage.load(Ordering::Relaxed)
    }

    fn left(&self) -> Duration {
        Duration::from_micros(self.left_us.load(Ordering::Relaxed))
    }

    fn spend(&self, waited: Duration) {
        let waited_us = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        let spend = |left: u64| Some(left.saturating_sub(waited_us));
        let _ = self.left_us.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend);
    }
}

impl fmt::Debug for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patience").field("left", &self.left()).finish_non_exhaustive()
    }
}

/// An operation that has a place, and did not get by the short way what was asked for.
struct Begun<'a> {
    place: Taken<'a>,
    in_flight: InFlight,
    /// What came of its first attempt; `None`: the place had no connection to use.
    first: Option<(Origin, Result<Reply, Unanswered>)>,
}

impl CacheStore {
    /// One script call in one round trip; in two when the store does not know the script yet.
    pub(crate) async fn script(&self, call: &Call) -> Result<Answer, StoreError> {
        let mut answer = match self.send(call).await {
            Err(Problem::Refused(error)) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.send(&call.with_code()).await.map_err(Problem::into_error)?
            }
            answer => answer.map_err(Problem::into_error)?,
        };
        match answer.value().map_err(malformed)? {
            Value::Array(values) if !values.is_empty() => Ok(values.into()),
            // What is done and says one number: a list costs the store a tenth of a commit.
            number @ Value::Int(_) => Ok(smallvec![Value::Int(reply::OK), number]),
            // Or several, as they stand in the store.
            Value::BulkString(digits) => iter::once(Ok(reply::OK))
                .chain(digits.split(|byte| *byte == b' ').map(number))
                .map(|number| number.map(Value::Int))
                .collect(),
            _ => Err(StoreError::Unreadable { reason: "a script answered with no list".to_owned() }),
        }
    }

    pub(crate) async fn pipeline(&self, pipeline: &Pipeline) -> Result<Vec<Value>, StoreError> {
        let mut reply = self.ask(pipeline).await?;
        let values = (0..pipeline.len()).map(|_| {
            let value = reply.value().map_err(malformed)?;
            // It may be one after the first, which is none.
            value.extract_error().map_err(|error| Problem::Refused(error).into_error())
        });
        values.collect()
    }

    pub(crate) async fn command(&self, command: &Cmd) -> Result<Value, StoreError> {
        self.ask(command).await?.value().map_err(malformed)
    }

    /// The replies as they came: for those who read them in place.
    pub(crate) async fn ask(&self, request: &dyn Packed) -> Result<Reply, StoreError> {
        self.send(request).await.map_err(Problem::into_error)
    }

    async fn send(&self, request: &dyn Packed) -> Result<Reply, Problem> {
        let name = request.operation().name();
        let span = tracing::debug_span!("store operation", db.system.name = "redis", operation = name);
        if span.is_disabled() {
            return self.measured(request).await;
        }
        Box::pin(self.measured(request).instrument(span)).await
    }

    async fn measured(&self, request: &dyn Packed) -> Result<Reply, Problem> {
        let (operation, began) = (request.operation(), Instant::now());
        let begun = match self.at_once(request, began).await {
            Ok((reply, ended)) => {
                operation.ended(ended - began, None);
                return Ok(reply);
            }
            Err(begun) => begun,
        };
        // Boxed, so that the future of each handler has a pointer to it and not a kilobyte for each place where it may ask. Boxes up to that
        // size are what an allocator is fast with.
        let outcome = Box::pin(self.send_patiently(request, began, begun)).await;
        operation.ended(began.elapsed(), outcome.as_ref().err().map(Problem::name));
        outcome
    }

    /// The answer, and when it was there, as nearly all operations go: a place is free, the node is known and connected, and it answers in
    /// time. Layers and a box for what else may happen were a fortieth of a read. Otherwise there is what has come of it so far.
    async fn at_once(&self, request: &dyn Packed, began: Instant) -> Result<(Reply, Instant), Option<Box<Begun<'_>>>> {
        #[cfg(feature = "testing")]
        if self.inner.faults.is_some() {
            return Err(None);
        }
        let topology = &self.inner.topology;
        if !topology.is_one_node() {
            return Err(None);
        }
        let Some(place) = self.inner.pool.take_at_hand() else { return Err(None) };
        let in_flight = InFlight::begin();
        let Some(handle) = place.handle_at_hand(began).filter(|handle| topology.is_all_at(handle.node())) else {
            // With this place, whose connection is mended then.
            return Err(Some(Box::new(Begun { place, in_flight, first: None })));
        };
        let deadline = Deadline::at(began + self.inner.deadline);
        let asked = deadline.bound(handle.connection.wire.ask_until(request, &deadline)).await;
        match asked.unwrap_or(Err(Unanswered::Late)) {
            Ok(reply) if reply.error().is_none() => {
                let ended = Instant::now();
                handle.answered(ended);
                Ok((reply, ended))
            }
            asked => {
                let origin = handle.origin(None);
                Err(Some(Box::new(Begun { place, in_flight, first: Some((origin, asked)) })))
            }
        }
    }

    /// In a cluster, commands that go together find their own ways, at the same time.
    async fn send_patiently(
        &self,
        request: &dyn Packed,
        began: Instant,
        begun: Option<Box<Begun<'_>>>,
    ) -> Result<Reply, Problem> {
        if self.inner.topology.is_one_node() {
            return self.send_to(request, None, began, begun).await;
        }
        Box::pin(self.send_by_slot(request, began)).await
    }

    async fn send_by_slot(&self, request: &dyn Packed, began: Instant) -> Result<Reply, Problem> {
        let mut commands = split(request);
        if let [command] = &commands[..] {
            return self.send_to(command, command.slot(), began, None).await;
        }
        let replies = commands.drain(..).map(|command| async move { self.send_to(&command, command.slot(), began, None).await });
        Ok(Reply::concat(&try_join_all(replies).await?))
    }

    async fn send_to(
        &self,
        request: &dyn Packed,
        slot: Option<Slot>,
        began: Instant,
        begun: Option<Box<Begun<'_>>>,
    ) -> Result<Reply, Problem> {
        match self.within(request, slot, began, began + self.inner.deadline, begun).await {
            Err(problem) if problem.is_outage() => {
                let left = self.patience.left();
                let outcome =
                    // Boxed, as everything is that most operations do not come to: each of them would be larger.
                    if left.is_zero() { Err(problem) } else { Box::pin(self.wait_through(request, slot, problem, began + left)).await };
                if outcome.as_ref().is_err_and(Problem::is_outage) {
                    self.patience.met_outage.store(true, Ordering::Relaxed);
                }
                outcome
            }
            outcome => outcome,
        }
    }

    /// Repeats the operation whenever the store may be back, until the request's patience is at its end. Every operation
    /// may be repeated: reads, touches, and scripts that carry a token.
    async fn wait_through(
        &self,
        request: &dyn Packed,
        slot: Option<Slot>,
        mut problem: Problem,
        until: Instant,
    ) -> Result<Reply, Problem> {
        let began = Instant::now();
        let outcome = loop {
            let pause = sleep_until(until.min(Instant::now() + WAIT_PAUSE));
            tokio::select! {
                // A node that is back at once, and fails again, is not asked without a pause.
                () = async { sleep(RETRY_PAUSE).await; self.inner.topology.recovered(slot).await } => {}
                () = pause => {}
            }
            if Instant::now() >= until {
                break Err(problem);
            }
            let again = Instant::now();
            match self.within(request, slot, again, until.min(again + self.inner.deadline), None).await {
                Err(again) if again.is_outage() => problem = again,
                outcome => break outcome,
            }
        };
        self.patience.spend(began.elapsed());
        outcome
    }

    async fn within(
        &self,
        request: &dyn Packed,
        slot: Option<Slot>,
        began: Instant,
        deadline: Instant,
        begun: Option<Box<Begun<'_>>>,
    ) -> Result<Reply, Problem> {
        let deadline = Deadline::at(deadline);
        // Outside of the attempt, so that it is still known when the attempt is dropped at the deadline.
        let mut origin = None;
        if let Some(answer) = deadline.bound(self.attempts(request, slot, began, &deadline, begun, &mut origin)).await {
            return answer;
        }
        Err(self.too_late(began, origin.as_ref()))
    }

    /// What an operation ends with whose deadline has passed.
    fn too_late(&self, began: Instant, origin: Option<&Origin>) -> Problem {
        let deadline = self.inner.deadline;
        let stage = match origin {
            None => Stage::Pool,
            Some(origin) => {
                origin.unanswered(began, deadline);
                Stage::Answer
            }
        };
        Problem::Store(StoreError::Timeout { deadline, stage })
    }

    async fn attempts(
        &self,
        request: &dyn Packed,
        slot: Option<Slot>,
        began: Instant,
        deadline: &Deadline,
        begun: Option<Box<Begun<'_>>>,
        origin: &mut Option<Origin>,
    ) -> Result<Reply, Problem> {
        let topology = &self.inner.topology;
        let Begun { mut place, in_flight: _in_flight, mut first } = match begun {
            Some(begun) => *begun,
            None => {
                let place = self.inner.pool.take().await.map_err(Problem::Store)?;
                Begun { place, in_flight: InFlight::begin(), first: None }
            }
        };
        let mut broken: Option<RedisError> = None;
        let mut redirected: Option<Arc<Node>> = None;
        let mut asking = false;
        let (mut attempt, mut redirections) = (1, 0);
        loop {
            let (node, asked) = match first.take() {
                Some((from, asked)) => {
                    let node = from.node();
                    *origin = Some(from);
                    (node, asked)
                }
                None => {
                    let node = match redirected.take() {
                        Some(node) => node,
                        None => match topology.node(slot).now_or_never() {
                            Some(node) => node,
                            None => Box::pin(topology.node(slot)).await,
                        }
                        .map_err(Problem::Store)?,
                    };
                    let handle = match (place.handle(&node, began).await, &broken) {
                        (Ok((handle, from)), _) => {
                            *origin = Some(from);
                            handle
                        }
                        (Err(error), broken) => {
                            topology.refresh();
                            return Err(Problem::Store(match broken {
                                None => error,
                                // What broke may have been carried out, whatever the new connection fails at.
                                Some(broken) => StoreError::Disconnected { reason: format!("{broken}; then: {error}") },
                            }));
                        }
                    };
                    let wire = &handle.connection.wire;
                    let ask = || async {
                        if asking { Asking(request).send(wire, deadline).await } else { wire.ask_until(request, deadline).await }
                    };
                    #[cfg(not(feature = "testing"))]
                    let asked = ask().await;
                    #[cfg(feature = "testing")]
                    let asked = match &self.inner.faults {
                        // Apart, so that an operation without faults is no larger than it is in production.
                        Some(faults) => Box::pin(faults.around(ask, broken_on_purpose)).await,
                        None => ask().await,
                    };
                    (node, asked)
                }
            };
            let origin = origin.as_ref().expect("it was set above");
            let error = match asked {
                Ok(reply) => match reply.error() {
                    None => {
                        origin.answered();
                        return Ok(reply);
                    }
                    Some(error) => error,
                },
                Err(Unanswered::Closed(error)) => error,
                Err(Unanswered::Late) => return Err(self.too_late(began, Some(origin))),
            };
            asking = false;
            match Verdict::of(&error) {
                Verdict::Broken => {
                    origin.broke();
                    topology.refresh();
                    if attempt == ATTEMPTS {
                        return Err(Problem::Store(StoreError::Disconnected { reason: error.to_string() }));
                    }
                    // On a fresh connection in the same place, since the others may be as broken without knowing it.
                    attempt += 1;
                    broken = Some(error);
                }
                Verdict::Elsewhere { for_good } => {
                    origin.answered();
                    let to = error.redirect_node().and_then(|(address, _)| Address::of_answer(address, node.address()));
                    redirected = slot.zip(to).and_then(|(slot, to)| topology.redirected(slot, to, for_good));
                    if redirected.is_none() {
                        return Err(Problem::Refused(error));
                    }
                    asking = !for_good;
                    redirections += 1;
                    if redirections > REDIRECTIONS_AT_ONCE {
                        pause(error, broken.as_ref(), deadline).await?;
                    }
                }
                Verdict::Later => {
                    origin.answered();
                    pause(error, broken.as_ref(), deadline).await?;
                }
                Verdict::WrongNode => {
                    // After a failover the name may lead elsewhere: the next attempt connects anew.
                    origin.broke();
                    node.failed(Failure::NotServing, error.detail().unwrap_or(error.category()));
                    topology.refresh();
                    if node.admit().is_err() {
                        return Err(Problem::Refused(error));
                    }
                    sleep(RETRY_PAUSE).await;
                }
                Verdict::Refused => {
                    origin.answered();
                    return Err(Problem::Refused(error));
                }
            }
        }
    }
}

/// Until a node is asked again that has answered with this, in time. When none is left for another answer it is what the operation ends with, and
/// not the deadline: nothing was done, unless it was by an attempt whose connection broke.
async fn pause(error: RedisError, broken: Option<&RedisError>, deadline: &Deadline) -> Result<(), Problem> {
    if Instant::now() + 2 * RETRY_PAUSE < deadline.at {
        sleep(RETRY_PAUSE).await;
        return Ok(());
    }
    Err(match broken {
        None => Problem::Refused(error),
        Some(broken) => Problem::Store(StoreError::Disconnected { reason: format!("{broken}; then: {error}") }),
    })
}

#[cfg(feature = "testing")]
fn broken_on_purpose(reason: &'static str) -> Unanswered {
    Unanswered::Closed(std::io::Error::new(std::io::ErrorKind::ConnectionReset, reason).into())
}
