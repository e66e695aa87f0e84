//! What goes wrong between an application and its store, on purpose.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::time::sleep;

/// Faults in all when nothing else is said.
const FAULTS_MAX: u64 = 100_000;
/// The longest delay when nothing else is said.
const DELAY_MAX: Duration = Duration::from_millis(20);
/// A fault that hangs ends after this, as an error: nothing waits for ever.
const HANG_MAX: Duration = Duration::from_secs(60);
/// Faults that may have been asked for and not met an operation yet.
const ASKED_FOR_MAX: usize = 1_024;

/// Something that goes wrong with one operation.
///
/// ```
/// use session_store::testing::Fault;
///
/// assert_eq!(Fault::Drop.to_string(), "drop");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Fault {
    /// It takes a while.
    Delay,
    /// It is not done, and fails.
    Error,
    /// It is not done, and no answer comes.
    Hang,
    /// It is done, and fails all the same: the answer is lost.
    Drop,
    /// It is done twice.
    Duplicate,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Delay => "delay",
            Self::Error => "error",
            Self::Hang => "hang",
            Self::Drop => "drop",
            Self::Duplicate => "duplicate",
        })
    }
}

/// Faults that operations of a store meet: at random, from a seed, or one that is asked for. Clones are the same.
///
/// For a [`CacheStore`](crate::CacheStore), in memory or with a real server, by
/// [`CacheStoreBuilder::faults`](crate::CacheStoreBuilder::faults): there they happen between the store and its connection, so that its
/// deadline, its retries and its tokens are put to the test. For any other `SessionStore`, by
/// [`FaultyStore`](super::FaultyStore).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), session_store::StoreError> {
/// use session_store::testing::{Fault, Faults, MemoryNode};
///
/// let faults = Faults::seeded(7);
/// let store = MemoryNode::new().builder().faults(faults.clone()).connect().await?;
/// faults.next(Fault::Error);
/// store.ping().await?; // on the second attempt
/// assert_eq!(faults.count(Fault::Error), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Faults(Arc<Mutex<State>>);

struct State {
    random: StdRng,
    chances: BTreeMap<Fault, f64>,
    asked_for: VecDeque<Fault>,
    counts: BTreeMap<Fault, u64>,
    left: u64,
    delay_max: Duration,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("met", &self.0.lock().counts).finish_non_exhaustive()
    }
}

impl Faults {
    /// None, until some are [given a chance](Self::with) or [asked for](Self::next). The same seed draws the same faults for the same
    /// operations.
    ///
    /// ```
    /// let faults = session_store::testing::Faults::seeded(1);
    /// ```
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            random: StdRng::seed_from_u64(seed),
            chances: BTreeMap::new(),
            asked_for: VecDeque::new(),
            counts: BTreeMap::new(),
            left: FAULTS_MAX,
            delay_max: DELAY_MAX,
        })))
    }

    /// Lets one operation in so many meet this fault: 0.1 is one in ten. An operation meets one fault at most.
    ///
    /// # Panics
    ///
    /// For a chance that is not 0 to 1.
    ///
    /// ```
    /// use session_store::testing::{Fault, Faults};
    ///
    /// let faults = Faults::seeded(1).with(Fault::Hang, 0.01);
    /// ```
    #[must_use]
    pub fn with(self, fault: Fault, chance: f64) -> Self {
        assert!((0.0..=1.0).contains(&chance), "a chance is 0 to 1, not {chance}");
        self.0.lock().chances.insert(fault, chance);
        self
    }

    /// The longest delay; each is drawn between nothing and this. Default: 20 ms.
    ///
    /// ```
    /// use std::time::Duration;
    /// use session_store::testing::Faults;
    ///
    /// let faults = Faults::seeded(1).with_delay_max(Duration::from_millis(400));
    /// ```
    #[must_use]
    pub fn with_delay_max(self, max: Duration) -> Self {
        self.0.lock().delay_max = max;
        self
    }

    /// Faults in all, after which everything goes well. Default: 100,000.
    ///
    /// ```
    /// use session_store::testing::{Fault, Faults};
    ///
    /// let faults = Faults::seeded(1).with(Fault::Error, 1.0).with_at_most(2);
    /// ```
    #[must_use]
    pub fn with_at_most(self, faults: u64) -> Self {
        self.0.lock().left = faults;
        self
    }

    /// The next operation meets this fault, whatever its chance; several calls are for as many operations, in order.
    ///
    /// # Panics
    ///
    /// When 1,024 are waiting for an operation already.
    ///
    /// ```
    /// use session_store::testing::{Fault, Faults};
    ///
    /// Faults::seeded(1).next(Fault::Drop);
    /// ```
    pub fn next(&self, fault: Fault) {
        let mut state = self.0.lock();
        assert!(state.asked_for.len() < ASKED_FOR_MAX, "{ASKED_FOR_MAX} faults wait for an operation that meets them");
        state.asked_for.push_back(fault);
    }

    /// How many operations have met this fault.
    ///
    /// ```
    /// use session_store::testing::{Fault, Faults};
    ///
    /// assert_eq!(Faults::seeded(1).count(Fault::Drop), 0);
    /// ```
    #[must_use]
    pub fn count(&self, fault: Fault) -> u64 {
        self.0.lock().counts.get(&fault).copied().unwrap_or(0)
    }

    /// What the next operation meets, and the delay that goes with it.
    fn draw(&self) -> Option<(Fault, Duration)> {
        let mut state = self.0.lock();
        // Drawn in any case: whether others were asked for changes nothing for later operations.
        let (drawn, delay) = (state.random.random_range(0.0..1.0), state.random.random_range(0.0..1.0));
        if state.left == 0 {
            return None;
        }
        let mut below = 0.0;
        let by_chance = state.chances.iter().find_map(|(fault, chance)| {
            below += chance;
            (drawn < below).then_some(*fault)
        });
        let fault = state.asked_for.pop_front().or(by_chance)?;
        state.left -= 1;
        *state.counts.entry(fault).or_default() += 1;
        Some((fault, state.delay_max.mul_f64(delay)))
    }

    /// One operation, with what it meets. `error`: of this kind of operation, with a reason.
    pub(crate) async fn around<T, E, F>(&self, act: impl Fn() -> F, error: impl Fn(&'static str) -> E) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        match self.draw() {
            None => act().await,
            Some((Fault::Delay, delay)) => {
                sleep(delay).await;
                act().await
            }
            Some((Fault::Error, _)) => Err(error("a fault was injected before the operation")),
            Some((Fault::Hang, _)) => {
                sleep(HANG_MAX).await;
                Err(error("a fault was injected, and no answer came"))
            }
            Some((Fault::Drop, _)) => {
                act().await?;
                Err(error("a fault was injected after the operation, and its answer was lost"))
            }
            Some((Fault::Duplicate, _)) => {
                act().await?;
                act().await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Fault, Faults};

    #[test]
    fn the_same_seed_draws_the_same_faults_and_no_more_than_allowed() {
        let drawn = |seed| {
            let faults = Faults::seeded(seed).with(Fault::Drop, 0.3).with(Fault::Error, 0.2).with_at_most(40);
            let drawn: Vec<_> = (0..200).map(|_| faults.draw()).collect();
            assert_eq!(faults.count(Fault::Drop) + faults.count(Fault::Error), 40);
            drawn
        };
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
    }

    #[test]
    fn what_is_asked_for_comes_next_and_in_order() {
        let faults = Faults::seeded(1);
        faults.next(Fault::Hang);
        faults.next(Fault::Drop);
        let next = || faults.draw().map(|(fault, _)| fault);
        assert_eq!([next(), next(), next()], [Some(Fault::Hang), Some(Fault::Drop), None]);
    }
}
