//! An open loop: requests are sent when they are due, whether the ones before were answered or not, and their latency counts from then.

use std::{
    cell::RefCell,
    collections::VecDeque,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::{sync::Semaphore, task::LocalSet};

use super::{
    alarm::Alarm,
    load::{Client, Load, Turn},
    schedule::Schedule,
};

/// What is sent later than this after it was due was not sent in time.
const LATE_AFTER: Duration = Duration::from_millis(1);

/// What one turn of an open loop brought.
pub(super) struct OpenTurn {
    pub(super) turn: Turn,
    /// Requests that were due and had to wait for a connection, or for this program.
    pub(super) late: u64,
}

/// Requests that are due and not yet sent: at most those of a turn.
struct Due {
    since: RefCell<VecDeque<Instant>>,
    /// One for each of them, and at the end of the turn one for each connection. Whoever has waited longest is served first.
    count: Semaphore,
}

impl Due {
    fn push(&self, since: Instant) {
        self.since.borrow_mut().push_back(since);
        self.count.add_permits(1);
    }

    /// `None` when all of the turn were sent.
    async fn next(&self) -> Result<Option<Instant>> {
        self.count.acquire().await?.forget();
        Ok(self.since.borrow_mut().pop_front())
    }
}

impl Load {
    /// Every request that is due in the turn is sent and counted, however late.
    pub(super) async fn run_open(&self, schedule: Schedule) -> Result<OpenTurn> {
        let ring = async |due: &Due, began: Instant| {
            let mut alarm = Alarm::new()?;
            for at in schedule {
                alarm.ring_at(began + at).await?;
                due.push(began + at);
            }
            Ok(())
        };
        self.run_paced(ring).await
    }

    /// `pace` says of each request when it is due.
    async fn run_paced(&self, pace: impl AsyncFnOnce(&Due, Instant) -> Result<()>) -> Result<OpenTurn> {
        let found = Rc::new(RefCell::new(OpenTurn { turn: Turn::new()?, late: 0 }));
        let due = Rc::new(Due { since: RefCell::default(), count: Semaphore::new(0) });
        let clients = self.clients().await?;
        let connections = clients.len();
        let began = Instant::now();
        let tasks = LocalSet::new();
        let mut handles = Vec::new();
        for (connection, first) in clients {
            handles.push(tasks.spawn_local(send(
                connection,
                Rc::clone(&self.requests),
                first,
                Rc::clone(&due),
                Rc::clone(&found),
            )));
        }
        // When it fails nothing is ever due again, for which all clients would wait.
        tasks.run_until(pace(&due, began)).await?;
        due.count.add_permits(connections);
        tasks.await;
        for handle in handles {
            handle.await??;
        }
        let mut found = Rc::into_inner(found).context("all clients are done")?.into_inner();
        found.turn.elapsed = began.elapsed();
        Ok(found)
    }
}

async fn send(
    mut connection: Client,
    requests: Rc<[Vec<u8>]>,
    mut next: usize,
    due: Rc<Due>,
    found: Rc<RefCell<OpenTurn>>,
) -> Result<()> {
    while let Some(since) = due.next().await? {
        let is_late = since.elapsed() > LATE_AFTER;
        let answer = connection.ask(&requests[next]).await?;
        let mut found = found.borrow_mut();
        found.turn.count(answer, since.elapsed());
        found.late += u64::from(is_late);
        next = (next + 1) % requests.len();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::{Load, OpenTurn, Schedule};

    /// An application that answers `pause` after it has read a request.
    async fn turn(pause: Duration, per_second: f64, connections: u16) -> OpenTurn {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut request = [0; 1_024];
                    while connection.read(&mut request).await.is_ok_and(|read| read > 0) {
                        tokio::time::sleep(pause).await;
                        let written = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                        if written.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        let load = Load::new(addr, &["id=1".to_owned()], |_| "/".to_owned(), connections);
        load.run_open(Schedule::new(per_second, Duration::from_millis(400), 1)).await.expect("it answers")
    }

    #[tokio::test]
    async fn what_waits_for_a_connection_is_late_and_its_latency_counts_from_when_it_was_due() {
        // Twenty a second are answered, of a hundred that are due: a closed loop would send twenty, and see 50 ms each.
        let found = turn(Duration::from_millis(50), 100.0, 1).await;
        let due = Schedule::new(100.0, Duration::from_millis(400), 1).count() as u64;
        assert_eq!(found.turn.requests, due);
        assert_eq!(found.turn.failed, 0);
        assert!(found.late > due / 2, "{} of {due}", found.late);
        let longest = Duration::from_micros(found.turn.latency.max());
        assert!(longest > Duration::from_millis(50) * (due as u32) / 2, "{longest:?}");
    }

    #[tokio::test]
    async fn a_pace_that_fails_ends_the_turn() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let load = Load::new(addr, &["id=1".to_owned()], |_| "/".to_owned(), 4);
        let turn = load.run_paced(async |_, _| anyhow::bail!("the alarm is broken"));
        let failure = tokio::time::timeout(Duration::from_secs(30), turn).await.expect("it ends").err().expect("it fails");
        assert_eq!(failure.to_string(), "the alarm is broken");
    }

    #[tokio::test]
    async fn with_a_connection_free_a_request_does_not_wait_for_the_one_before() {
        let found = turn(Duration::from_millis(50), 100.0, 64).await;
        assert_eq!(found.turn.requests, Schedule::new(100.0, Duration::from_millis(400), 1).count() as u64);
        // Of those before it, twenty in the middle, each would add 50 ms.
        let middle = Duration::from_micros(found.turn.latency.value_at_quantile(0.5));
        assert!((Duration::from_millis(50)..Duration::from_millis(400)).contains(&middle), "{middle:?}");
    }
}
