//! An alarm that rings to the microsecond: tokio's timers count milliseconds, in which dozens of requests are due.

#[cfg(target_os = "linux")]
use std::os::fd::OwnedFd;
use std::time::Instant;

use anyhow::Result;
#[cfg(target_os = "linux")]
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};
#[cfg(target_os = "linux")]
use tokio::io::unix::AsyncFd;

/// A timer of the kernel among the sockets that the runtime waits for: neither a thread of its own that would have to wake this one, nor a core
/// that spins while the application needs it.
#[cfg(target_os = "linux")]
pub(super) struct Alarm(AsyncFd<OwnedFd>);

#[cfg(target_os = "linux")]
impl Alarm {
    pub(super) fn new() -> Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        #[allow(deprecated, reason = "its successor is unsafe, since a descriptor may not be the one it says; this one is owned")]
        let timer = AsyncFd::new(timer)?;
        Ok(Self(timer))
    }

    pub(super) async fn ring_at(&mut self, at: Instant) -> Result<()> {
        // A value of zero would turn the timer off.
        let Some(left) = at.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else { return Ok(()) };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: Timespec::try_from(left)? };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
        while Instant::now() < at {
            // Not read: setting it the next time forgets that it rang. It may say so of a former time once more, so the clock decides.
            self.0.readable().await?.clear_ready();
        }
        Ok(())
    }
}

/// Elsewhere it rings to the millisecond. There nothing else of the comparison works either.
#[cfg(not(target_os = "linux"))]
pub(super) struct Alarm;

#[cfg(not(target_os = "linux"))]
impl Alarm {
    pub(super) fn new() -> Result<Self> {
        Ok(Self)
    }

    pub(super) async fn ring_at(&mut self, at: Instant) -> Result<()> {
        tokio::time::sleep_until(at.into()).await;
        Ok(())
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn it_rings_again_and_again_and_to_less_than_a_millisecond() {
    use std::time::Duration;

    let mut alarm = Alarm::new().expect("the kernel has timers");
    let mut late: Vec<Duration> = Vec::new();
    for _ in 0..200 {
        let at = Instant::now() + Duration::from_micros(300);
        alarm.ring_at(at).await.expect("it rings");
        late.push(at.elapsed());
    }
    late.sort();
    // One in ten is enough, on a machine that is busy with other things: tokio's own timer would never do it.
    assert!(late[20] < Duration::from_micros(500), "{late:?}");
    alarm.ring_at(Instant::now()).await.expect("what is over rings at once");
}
