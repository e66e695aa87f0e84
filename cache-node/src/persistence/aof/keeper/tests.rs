//! What goes wrong in an order that no test from outside can bring about.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Config,
    command::apply::{Applier, Origin},
    node::Shared,
    persistence::aof::keeper::Keeper,
    protocol::encode_request,
    replication::Position,
    server::now,
};

/// How long a test waits for something that should happen at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// The keeper of a log in `dir`, without its thread.
fn keeper(dir: &tempfile::TempDir) -> Keeper {
    let config = Config { dir: Some(dir.path().to_path_buf()), appendonly: true, ..Config::for_test() };
    let shared = Shared::new(config, SocketAddr::from(([127, 0, 0, 1], 1)), now());
    let mut keeper = Keeper::new(Arc::new(shared));
    keeper.load(now()).expect("the folder is empty, or has a log");
    keeper
}

/// Runs a write, and has the stream take it.
fn write(shared: &Shared, words: &[&str]) {
    let mut request = Vec::new();
    encode_request(&mut request, words.iter().map(|word| word.as_bytes()));
    let mut applier = Applier::default();
    applier.parse(&request).expect("a request").expect("a whole one");
    let origin = Origin { raw: &request, epoch: shared.replication.epoch() };
    applier.apply_from(shared, &request, now(), Some(origin)).expect("it is applied");
}

impl Keeper {
    /// One turn of the thread, as far as it concerns writing.
    fn take_and_write(&mut self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        shared.journal.take_for_log(&mut self.batch, Duration::ZERO);
        self.retry_at = None;
        self.write_and_sync(&shared.config(), false)
    }

    /// Turns until the rewrite that runs has ended.
    fn end_rewrite(&mut self) {
        let began = Instant::now();
        while self.rewrite.is_some() {
            assert!(began.elapsed() < PATIENCE, "the rewrite does not end");
            drop(self.take_and_write());
            self.finish_rewrite();
        }
    }
}

#[test]
fn what_a_disk_could_not_keep_is_rewritten_until_that_succeeds() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut keeper = keeper(&dir);
    let shared = Arc::clone(&keeper.shared);
    write(&shared, &["SET", "k", "v"]);
    // As when fdatasync and the rewrite behind it have failed.
    keeper.is_disk_untrue = true;
    keeper.take_and_write().expect_err("it may not be on disk");
    assert!(!shared.gate.is_open());
    keeper.rewrite_failed(&io::Error::other("the disk is full"));
    keeper.rewrite_if_due(&shared.config());
    assert!(keeper.rewrite.is_none(), "not at once");
    keeper.rewrite_retry_at = Some(Instant::now());
    keeper.rewrite_if_due(&shared.config());
    assert!(keeper.rewrite.is_some(), "but when its time has come");
    keeper.end_rewrite();
    keeper.take_and_write().expect("it is on disk");
    assert!(shared.gate.is_open(), "writes are taken again");
}

#[test]
fn a_rewrite_that_failed_leaves_no_place_for_the_next_one_to_take() {
    for is_taken in [true, false] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut keeper = keeper(&dir);
        let shared = Arc::clone(&keeper.shared);
        write(&shared, &["INCR", "counter"]);
        // One begins, and fails before its place is written.
        assert!(shared.journal.rotate_log());
        if is_taken {
            shared.journal.take_for_log(&mut keeper.batch, Duration::ZERO);
        }
        keeper.rewrite_failed(&io::Error::other("the disk is full"));
        // The next one is still to come to its moment.
        let turn = shared.saver.turn();
        shared.log.want_rewrite();
        keeper.rewrite_if_due(&shared.config());
        keeper.take_and_write().expect("there is room");
        write(&shared, &["INCR", "counter"]);
        keeper.take_and_write().expect("there is room");
        drop(turn);
        let began = Instant::now();
        while !keeper.rewrite.as_ref().is_some_and(|rewrite| rewrite.thread.is_finished()) {
            assert!(began.elapsed() < PATIENCE, "the base is not written");
            thread::sleep(Duration::from_millis(1));
        }
        // What was taken last was taken before its moment.
        keeper.finish_rewrite();
        keeper.end_rewrite();
        write(&shared, &["INCR", "counter"]);
        keeper.take_and_write().expect("there is room");
        drop(keeper);
        let again = self::keeper(&dir);
        let mut keys = again.shared.keyspace.lock_all(0, now(), &*again.shared);
        assert_eq!(keys.string(b"counter").expect("a string"), Some(&b"3"[..]), "each once, taken: {is_taken}");
    }
}

/// A snapshot of a primary was loaded, and the node ends before the log has begun again: what is on disk is other data.
#[test]
fn an_end_behind_a_snapshot_of_a_primary_leaves_the_old_log_as_it_is() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut keeper = keeper(&dir);
    let shared = Arc::clone(&keeper.shared);
    write(&shared, &["SET", "old", "1"]);
    keeper.take_and_write().expect("there is room");
    let position = Position { id: "a".repeat(40), offset: 1_000_000, db: 0 };
    shared.replication.resume(&shared, position, now());
    shared.log.want_renewal();
    write(&shared, &["SET", "new", "1"]);
    shared.log.stop();
    keeper.run().expect("nothing is left to write");
    let again = self::keeper(&dir);
    assert_eq!(again.shared.replication.ids().former, None, "it stands nowhere in that primary's stream");
    let mut keys = again.shared.keyspace.lock_all(0, now(), &*again.shared);
    assert_eq!(keys.string(b"old").expect("a string"), Some(&b"1"[..]));
    assert_eq!(keys.string(b"new").expect("no other value"), None);
}
