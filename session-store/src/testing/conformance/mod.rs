//! What a session is expected to do, asked of any store and of any layer.

mod layers;
mod stores;
mod subject;
mod time;

use std::{fmt, time::Duration};

use futures_util::future::{LocalBoxFuture, join_all};
use http::{Request, Response};
use tokio::time::timeout;
use tower_layer::Layer;
use tower_service::Service;
use tower_sessions::{Expiry, SessionManagerLayer, SessionStore};

pub use self::subject::Handler;
use self::{subject::Replica, time::Time};

/// Time for one check, after which it has failed.
const CHECK_MAX: Duration = Duration::from_secs(60);

/// What became of one check.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # use session_store::testing::{MemoryNode, conformance};
/// # let node = MemoryNode::new();
/// let report = conformance(async || node.store()).with_time(|time| node.advance(time)).run().await;
/// for check in &report.checks {
///     println!("{}: {}", check.name, check.outcome.as_ref().err().map_or("passed", |why| why));
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Check {
    /// What is expected, in a few words: `a_logout_is_final`.
    pub name: &'static str,
    /// Why it failed.
    pub outcome: Result<(), String>,
}

/// What became of all checks. `Display` is a line for each.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # use session_store::testing::{MemoryNode, conformance};
/// # let node = MemoryNode::new();
/// let report = conformance(async || node.store()).with_time(|time| node.advance(time)).run().await;
/// // Whole records, as `SessionManagerLayer` saves them, lose what another request changes meanwhile.
/// assert!(report.failed().contains(&"changes_at_the_same_time_are_kept"));
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a report that nobody reads shows nothing"]
#[non_exhaustive]
pub struct Report {
    /// In the order in which they are listed by [`conformance_of_layer`].
    pub checks: Vec<Check>,
}

impl Report {
    /// The names of those that failed.
    ///
    /// ```
    /// # fn example(report: session_store::testing::Report) {
    /// assert!(report.failed().is_empty(), "{report}");
    /// # }
    /// ```
    #[must_use]
    pub fn failed(&self) -> Vec<&'static str> {
        self.checks.iter().filter(|check| check.outcome.is_err()).map(|check| check.name).collect()
    }

    /// For a test whose store is to pass all of them.
    ///
    /// # Panics
    ///
    /// When one has failed, with the whole report.
    ///
    /// ```no_run
    /// # fn example(report: session_store::testing::Report) {
    /// report.assert_all_passed();
    /// # }
    /// ```
    pub fn assert_all_passed(&self) {
        assert!(self.failed().is_empty(), "\n{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Check { name, outcome } in &self.checks {
            match outcome {
                Ok(()) => writeln!(f, "passed  {name}")?,
                Err(why) => writeln!(f, "FAILED  {name}: {why}")?,
            }
        }
        write!(f, "{} of {} passed", self.checks.len() - self.failed().len(), self.checks.len())
    }
}

/// Checks that are about to be [run](Self::run).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use session_store::testing::{MemoryNode, conformance};
///
/// let node = MemoryNode::new();
/// let suite = conformance(async || node.store()).with_time(|time| node.advance(time));
/// let report = suite.run().await;
/// # let _ = report.failed();
/// # }
/// ```
#[must_use = "a suite does nothing until it is run"]
pub struct Conformance<'a> {
    checks: Vec<(&'static str, LocalBoxFuture<'a, Result<(), String>>)>,
    /// Those for which time must pass.
    checks_of_time: Vec<(&'static str, TimedCheck<'a>)>,
    time: Time<'a>,
}

type TimedCheck<'a> = Box<dyn FnOnce(Time<'a>) -> LocalBoxFuture<'a, Result<(), String>> + 'a>;

impl fmt::Debug for Conformance<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.checks.iter().map(|(name, _)| name).chain(self.checks_of_time.iter().map(|(name, _)| name));
        f.debug_list().entries(names).finish()
    }
}

impl<'a> Conformance<'a> {
    /// How the time of the store passes. Default: as everywhere, so that the checks of it take some ten seconds.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # use session_store::testing::{MemoryNode, conformance};
    /// let node = MemoryNode::new();
    /// let suite = conformance(async || node.store()).with_time(|time| node.advance(time));
    /// # }
    /// ```
    pub fn with_time(mut self, pass: impl Fn(Duration) + 'a) -> Self {
        self.time = Time::told(pass);
        self
    }

    /// Runs all checks; what came of each.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # use session_store::testing::{MemoryNode, conformance};
    /// # let node = MemoryNode::new();
    /// let report = conformance(async || node.store()).with_time(|time| node.advance(time)).run().await;
    /// # let _ = report.failed();
    /// # }
    /// ```
    pub async fn run(self) -> Report {
        let mut checks = Vec::new();
        for (name, check) in self.checks {
            checks.push(bounded(name, check).await);
        }
        self.time.begin(self.checks_of_time.len());
        let timed = self.checks_of_time.into_iter().map(|(name, check)| {
            let time = self.time.clone();
            async move {
                let check = bounded(name, check(time.clone())).await;
                time.end();
                check
            }
        });
        checks.extend(join_all(timed).await);
        Report { checks }
    }
}

async fn bounded(name: &'static str, check: LocalBoxFuture<'_, Result<(), String>>) -> Check {
    let late = || Err(format!("it was not done after {} s", CHECK_MAX.as_secs()));
    Check { name, outcome: timeout(CHECK_MAX, check).await.unwrap_or_else(|_| late()) }
}

/// Asks of a store, with `SessionManagerLayer` on it, what [`conformance_of_layer`] asks of a layer, and of the store itself:
///
/// | check | what is expected |
/// |---|---|
/// | `records_come_back` | a record is loaded as it was saved |
/// | `a_taken_id_is_not_overwritten` | `create` under an id that is taken leaves the record of that id as it is |
/// | `a_deleted_record_stays_deleted` | `save` does not bring a record back that was deleted |
/// | `a_record_ends_at_its_time` | a record whose time is over is not loaded |
///
/// `store` is called for each replica: what it returns must be the same store, by a client of its own where there is one.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use session_store::testing::{MemoryNode, conformance};
///
/// let node = MemoryNode::new();
/// let report = conformance(async || node.store()).with_time(|time| node.advance(time)).run().await;
/// assert!(!report.failed().contains(&"a_deleted_record_stays_deleted"), "{report}");
/// # }
/// ```
pub fn conformance<'a, S>(store: impl AsyncFn() -> S + Clone + 'a) -> Conformance<'a>
where
    S: SessionStore + Clone,
{
    let of_layer = store.clone();
    let mut suite = conformance_of_layer(async move |expiry| {
        SessionManagerLayer::new(of_layer().await).with_expiry(expiry).with_secure(false)
    });
    stores::add_checks(&mut suite, store);
    suite
}

/// Asks of a layer, which gives `tower_sessions::Session` to handlers, what holds for the sessions of an application that runs on several
/// replicas:
///
/// | check | what is expected |
/// |---|---|
/// | `values_come_back` | what one replica has stored, another one reads |
/// | `nothing_is_kept_for_nothing` | a visitor for whom nothing is stored gets no cookie |
/// | `an_id_from_outside_is_not_adopted` | who comes with an id that nobody gave out gets another one |
/// | `changes_at_the_same_time_are_kept` | two requests that change different keys both keep their change |
/// | `a_logout_is_final` | a slower request does not bring back a session that was ended |
/// | `a_dead_session_gets_no_cookie` | nor does it give out its id once more |
/// | `a_new_id_keeps_the_data` | after `cycle_id` everything is there, under another id |
/// | `an_old_id_sees_nothing_new` | who still has the old id neither reads nor changes what the new one has |
/// | `a_new_id_logs_nobody_out` | a request that was under way with the old id removes no cookie |
/// | `an_error_after_a_new_id_loses_nothing` | a request that fails after `cycle_id` leaves a session as it was, or moved |
/// | `an_id_ends_with_its_session` | what is inserted after `flush` gets a new id |
/// | `of_two_new_ids_one_lives` | two requests that give the same session a new id leave one session |
/// | `an_idle_session_ends` | after the idle timeout it is gone |
/// | `reads_extend_the_idle_timeout` | who reads does not idle |
/// | `an_expiry_of_its_own_lasts` | `set_expiry` holds for later requests too |
///
/// `replica` is called for each replica, and makes a layer of the same store with this expiry, whose cookie goes over plain HTTP or
/// HTTPS as it likes. What it sets beside that cookie, after it, is sent back too; the same name twice in one answer is an error.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use session_store::{SessionLayer, testing::{MemoryNode, conformance_of_layer}};
///
/// let node = MemoryNode::new();
/// let replica = async |expiry| SessionLayer::new(node.store()).with_expiry(expiry);
/// conformance_of_layer(replica).with_time(|time| node.advance(time)).run().await.assert_all_passed();
/// # }
/// ```
pub fn conformance_of_layer<'a, L>(replica: impl AsyncFn(Expiry) -> L + 'a) -> Conformance<'a>
where
    L: Layer<Handler>,
    L::Service: Service<Request<()>, Response = Response<String>> + Clone + 'static,
    <L::Service as Service<Request<()>>>::Error: fmt::Debug,
{
    let mut suite = Conformance { checks: Vec::new(), checks_of_time: Vec::new(), time: Time::Real };
    let make = std::rc::Rc::new(replica);
    layers::add_checks(&mut suite, move |expiry| {
        let make = std::rc::Rc::clone(&make);
        Box::pin(async move { Replica::new(make(expiry).await.layer(Handler::default())) })
    });
    suite
}
