//! Time in which the machine had time: what is promised within some milliseconds is not owed while nobody runs.

use std::{
    collections::VecDeque,
    sync::{LazyLock, Mutex},
    thread,
    time::{Duration, Instant},
};

/// How often a thread that has nothing else to do looks at the clock.
const BEAT: Duration = Duration::from_millis(5);

/// A beat that came later than this was kept waiting by the machine.
const LATE: Duration = Duration::from_millis(10);

/// Stalls that are remembered.
const STALLS_MAX: usize = 10_000;

struct Pulse {
    last: Instant,
    /// When each stall ended, and how long it was.
    stalls: VecDeque<(Instant, Duration)>,
}

static PULSE: LazyLock<Mutex<Pulse>> = LazyLock::new(|| {
    thread::spawn(|| {
        loop {
            thread::sleep(BEAT);
            let mut pulse = PULSE.lock().unwrap();
            let now = Instant::now();
            let took = now - pulse.last;
            pulse.last = now;
            if took > LATE {
                pulse.stalls.push_back((now, took - BEAT));
                if pulse.stalls.len() > STALLS_MAX {
                    pulse.stalls.pop_front();
                }
            }
        }
    });
    Mutex::new(Pulse { last: Instant::now(), stalls: VecDeque::new() })
});

/// As [`Instant`], except that time in which the machine stood still does not count.
#[derive(Debug, Clone, Copy)]
pub struct Moment(Instant);

impl Moment {
    pub fn now() -> Self {
        drop(PULSE.lock().unwrap());
        Self(Instant::now())
    }

    pub fn elapsed(&self) -> Duration {
        let elapsed = self.0.elapsed();
        elapsed.saturating_sub(self.stalled())
    }

    /// How long the machine stood still since then.
    pub fn stalled(&self) -> Duration {
        let pulse = PULSE.lock().unwrap();
        let past: Duration = pulse.stalls.iter().rev().take_while(|(at, _)| *at > self.0).map(|(_, took)| *took).sum();
        // The present one has not ended.
        let present = pulse.last.max(self.0).elapsed();
        past + if present > LATE { present.saturating_sub(BEAT) } else { Duration::ZERO }
    }
}

/// Sleeps until so much time has passed in which the machine did not stand still.
pub async fn sleep(time: Duration) {
    let began = Moment::now();
    while let Some(left) = time.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) {
        tokio::time::sleep(left).await;
    }
}
