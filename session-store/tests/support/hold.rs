//! A handler that is held at a certain point until the test lets it go on: what happens meanwhile happens meanwhile, however busy the
//! machine is.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

/// Numbers of holds begin here; smaller ones are milliseconds.
const FIRST: u64 = 1_000_000_000;

/// How long anybody waits for the other.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum State {
    Expected,
    Held,
    Released,
}

static HOLDS: LazyLock<Mutex<HashMap<u64, watch::Sender<State>>>> = LazyLock::new(Mutex::default);

/// Stands in a path where the milliseconds of a slow handler would: `/slow-set/{hold}/name/ada`.
pub struct Hold {
    number: u64,
    state: watch::Sender<State>,
}

impl Hold {
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(FIRST);
        let (number, state) = (NEXT.fetch_add(1, Ordering::Relaxed), watch::Sender::new(State::Expected));
        HOLDS.lock().unwrap().insert(number, state.clone());
        Self { number, state }
    }

    /// Waits until the handler is held.
    pub async fn reached(&self) {
        wait(&self.state, State::Held, "no handler comes to this point").await;
    }

    /// Lets the handler go on.
    pub fn release(&self) {
        self.state.send_replace(State::Released);
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number.fmt(f)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.release();
        HOLDS.lock().unwrap().remove(&self.number);
    }
}

/// In a handler: so many milliseconds, or until a hold with this number is released.
pub async fn pause(ms_or_hold: u64) {
    let hold = HOLDS.lock().unwrap().get(&ms_or_hold).cloned();
    let Some(state) = hold else {
        assert!(ms_or_hold < FIRST, "there is no such hold");
        return tokio::time::sleep(Duration::from_millis(ms_or_hold)).await;
    };
    state.send_if_modified(|state| {
        let is_expected = *state == State::Expected;
        if is_expected {
            *state = State::Held;
        }
        is_expected
    });
    // The test may have let go of it already, where this thread had no core meanwhile: it is to have waited all the same.
    tokio::task::yield_now().await;
    wait(&state, State::Released, "nobody lets the handler go on").await;
}

async fn wait(state: &watch::Sender<State>, least: State, otherwise: &str) {
    let mut seen = state.subscribe();
    let reached = seen.wait_for(|state| *state >= least);
    assert!(tokio::time::timeout(PATIENCE, reached).await.is_ok(), "{otherwise}");
}
