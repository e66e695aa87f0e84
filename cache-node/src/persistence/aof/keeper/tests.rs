//! What goes wrong in an order that no test from outside can bring about.

use std::{
    fs, io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};

use crate::{
    Config,
    command::apply::{Applier, Origin},
    node::{EventKind, LogBatch, Shared},
    persistence::aof::keeper::Keeper,
    protocol::encode_request,
    replication::{Position, PrimaryAddress},
    server::now,
};

/// How long a test waits for something that should happen at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// The keeper of a log in `dir`, without its thread.
fn keeper(dir: &tempfile::TempDir) -> Mutex<Keeper> {
    keeper_of(Config::for_test(), dir)
}

fn keeper_of(config: Config, dir: &tempfile::TempDir) -> Mutex<Keeper> {
    let config = Config { dir: Some(dir.path().to_path_buf()), appendonly: true, ..config };
    let shared = Shared::new(config, SocketAddr::from(([127, 0, 0, 1], 1)), now());
    let mut keeper = Keeper::new(Arc::new(shared));
    keeper.load(now()).expect("the folder is empty, or has a log");
    Mutex::new(keeper)
}

/// Runs a write, and has the stream take it.
fn write(shared: &Shared, words: &[&str]) {
    write_behind(shared, &mut Applier::default(), words);
}

/// As [`write`], in the database that was selected before.
fn write_behind(shared: &Shared, applier: &mut Applier, words: &[&str]) {
    let mut request = Vec::new();
    encode_request(&mut request, words.iter().map(|word| word.as_bytes()));
    applier.parse(&request).expect("a request").expect("a whole one");
    let origin = Origin { raw: &request, epoch: shared.replication.epoch() };
    applier.apply_from(shared, &request, now(), Some(origin)).expect("it is applied");
}

/// One turn of the thread, as far as it concerns writing.
fn take_and_write(keeper: &mut MutexGuard<'_, Keeper>) -> io::Result<()> {
    let shared = Arc::clone(&keeper.shared);
    shared.journal.take_for_log(&mut keeper.batch, false);
    keeper.retry_at = None;
    Keeper::write_and_sync(keeper, &shared.config(), false)
}

/// Turns until the rewrite that runs has ended.
fn end_rewrite(keeper: &mut MutexGuard<'_, Keeper>) {
    let began = Instant::now();
    while keeper.rewrite.is_some() {
        assert!(began.elapsed() < PATIENCE, "the rewrite does not end");
        drop(take_and_write(keeper));
        Keeper::finish_rewrite(keeper);
    }
}

/// Follows a primary that nobody reaches, or nobody.
fn follow(shared: &Shared, is_followed: bool) {
    let mut keys = shared.keyspace.lock_all(0, now(), shared);
    let primary = is_followed.then(|| PrimaryAddress { host: "127.0.0.1".to_owned(), port: 1 });
    shared.replication.take_role(shared, &mut keys, primary, now());
}

/// A snapshot of the primary is on its way: what was here is gone from memory.
fn begin_sync(shared: &Shared) {
    let mut keys = shared.keyspace.lock_all(0, now(), shared);
    shared.replication.set_lacks_data(true);
    keys.apply_only();
    let flushed = keys.flush_all();
    shared.journal.restart_at(0);
    drop(keys);
    drop(flushed);
}

fn string(keeper: &Keeper, key: &str) -> Option<Vec<u8>> {
    let mut keys = keeper.shared.keyspace.lock_all(0, now(), &*keeper.shared);
    keys.string(key.as_bytes()).expect("a string").map(<[u8]>::to_vec)
}

/// The first increment takes every byte, and cannot be brought to disk.
#[test]
fn a_file_that_could_not_be_brought_to_disk_before_the_next_one_is_not_forgotten() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    drop(keeper(&dir));
    let increment = dir.path().join("appendonlydir/appendonly.aof.1.incr.aof");
    fs::remove_file(&increment).expect("it is there");
    std::os::unix::fs::symlink("/dev/null", &increment).expect("a link");
    let first = keeper(&dir);
    let mut keeper = first.lock();
    let shared = Arc::clone(&keeper.shared);
    shared.log.want_rewrite();
    // Nothing is written before the rewrite, and something before its moment.
    let turn = shared.saver.turn();
    Keeper::rewrite_if_due(&mut keeper, &shared.config());
    write(&shared, &["SET", "k", "v"]);
    drop(turn);
    let began = Instant::now();
    while !keeper.rewrite.as_ref().is_some_and(|rewrite| rewrite.thread.is_finished()) {
        assert!(began.elapsed() < PATIENCE, "the base is not written");
        thread::sleep(Duration::from_millis(1));
    }
    take_and_write(&mut keeper).expect_err("it may not be on disk");
    assert!(!shared.gate.is_open(), "writes are refused");
    assert!(keeper.is_disk_untrue && shared.log.is_rewrite_wanted(), "and only another log helps");
    let told = || shared.events.since(0).into_iter().map(|event| event.kind).collect::<Vec<_>>();
    assert_eq!(told(), [EventKind::LogSyncFailed]);
    keeper.is_disk_untrue = false;
    keeper.tell(Some(&io::Error::other("full")));
    keeper.disk_failed();
    keeper.tell(Some(&io::Error::other("gone")));
    keeper.close();
    let kinds = [EventKind::LogSyncFailed, EventKind::LogWriteFailed, EventKind::LogSyncFailed, EventKind::LogRecovered];
    assert_eq!(told(), kinds, "what is worse is told as well, and that it is over");
}

/// The cut of a rewrite waits for a shard, and a sync begins meanwhile: half of its data is no base.
#[test]
fn a_rewrite_of_a_part_of_a_snapshot_leaves_the_log_as_it_is() {
    for is_asked_before in [true, false] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let first = keeper(&dir);
        let mut keeper = first.lock();
        let shared = Arc::clone(&keeper.shared);
        write(&shared, &["SET", "old", "1"]);
        take_and_write(&mut keeper).expect("there is room");
        follow(&shared, true);
        if is_asked_before {
            let turn = shared.saver.turn();
            shared.log.want_rewrite();
            Keeper::rewrite_if_due(&mut keeper, &shared.config());
            begin_sync(&shared);
            drop(turn);
            end_rewrite(&mut keeper);
            assert!(!shared.log.was_last_rewrite_good.load(Ordering::Acquire));
        } else {
            begin_sync(&shared);
            shared.log.want_rewrite();
            Keeper::rewrite_if_due(&mut keeper, &shared.config());
            assert!(keeper.rewrite.is_none() && shared.log.is_rewrite_wanted(), "it waits for the data");
        }
        drop(keeper);
        drop(first);
        assert_eq!(string(self::keeper(&dir).get_mut(), "old").as_deref(), Some(&b"1"[..]), "before: {is_asked_before}");
    }
}

/// As that, with a log that begins: the sync that ends has it begin at once, whatever failed before.
#[test]
fn a_log_begins_behind_a_snapshot_and_not_in_it() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let first = keeper(&dir);
    let mut keeper = first.lock();
    let shared = Arc::clone(&keeper.shared);
    write(&shared, &["SET", "old", "1"]);
    take_and_write(&mut keeper).expect("there is room");
    follow(&shared, true);
    // A sync ended, and the next one begins before the log has.
    let turn = shared.saver.turn();
    shared.log.want_renewal();
    Keeper::follow(&mut keeper, &shared.config());
    begin_sync(&shared);
    drop(turn);
    end_rewrite(&mut keeper);
    assert!(keeper.log.is_none(), "there is no data to begin with");
    keeper.rewrite_retry_at = None;
    Keeper::follow(&mut keeper, &shared.config());
    assert!(keeper.log.is_none(), "there still is none");
    keeper.rewrite_failed(&io::Error::other("the disk was full"));
    shared.replication.set_lacks_data(false);
    write(&shared, &["SET", "new", "1"]);
    shared.log.want_renewal();
    Keeper::follow(&mut keeper, &shared.config());
    assert!(keeper.rewrite.is_some(), "at once");
    end_rewrite(&mut keeper);
    assert!(shared.log.is_kept.load(Ordering::Acquire));
    drop(keeper);
    drop(first);
    let mut again = self::keeper(&dir);
    assert_eq!(string(again.get_mut(), "old"), None);
    assert_eq!(string(again.get_mut(), "new").as_deref(), Some(&b"1"[..]));
}

/// The stream begins at 0 with a sync, and goes on from there when that breaks off and this node becomes the primary.
#[test]
fn behind_a_sync_that_broke_off_a_new_primary_brings_its_log_to_disk() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut config = Config::for_test();
    config.set("appendfsync", &["always"]).expect("a directive");
    let first = keeper_of(config, &dir);
    let mut keeper = first.lock();
    let shared = Arc::clone(&keeper.shared);
    let keys = shared.keyspace.lock_all(0, now(), &*shared);
    shared.replication.open_backlog(&shared);
    drop(keys);
    write(&shared, &["SET", "old", &"v".repeat(1_000)]);
    take_and_write(&mut keeper).expect("there is room");
    follow(&shared, true);
    begin_sync(&shared);
    follow(&shared, false);
    take_and_write(&mut keeper).expect("there is room");
    for value in ["1", "2"] {
        write(&shared, &["SET", "new", value]);
        take_and_write(&mut keeper).expect("there is room");
        assert_eq!(shared.journal.barrier.synced_offset(), shared.journal.offset());
        assert!(shared.journal.barrier.is_reached(shared.journal.offset()));
    }
    let stood_at = (shared.replication.ids().id, shared.journal.offset());
    drop(keeper);
    drop(first);
    let mut again = self::keeper(&dir);
    assert_eq!(string(again.get_mut(), "old"), None);
    assert_eq!(string(again.get_mut(), "new").as_deref(), Some(&b"2"[..]));
    assert_eq!(again.get_mut().shared.replication.ids().former, Some(stood_at), "the log is the stream again");
}

/// What stands behind the snapshot of a primary is written by the thread alone, which begins another log for it.
#[test]
fn who_waits_for_the_file_leaves_an_old_log_alone_behind_a_snapshot() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let first = keeper(&dir);
    let mut keeper = first.lock();
    let shared = Arc::clone(&keeper.shared);
    write(&shared, &["SET", "old", "1"]);
    keeper.write_waiting();
    shared.log.want_renewal();
    write(&shared, &["SET", "new", "1"]);
    assert!(!keeper.write_waiting());
    drop(keeper);
    drop(first);
    let mut again = self::keeper(&dir);
    assert_eq!(string(again.get_mut(), "old").as_deref(), Some(&b"1"[..]));
    assert_eq!(string(again.get_mut(), "new"), None);
}

#[test]
fn what_a_disk_could_not_keep_is_rewritten_until_that_succeeds() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let first = keeper(&dir);
    let mut keeper = first.lock();
    let shared = Arc::clone(&keeper.shared);
    write(&shared, &["SET", "k", "v"]);
    // As when fdatasync and the rewrite behind it have failed.
    keeper.is_disk_untrue = true;
    take_and_write(&mut keeper).expect_err("it may not be on disk");
    assert!(!shared.gate.is_open());
    keeper.rewrite_failed(&io::Error::other("the disk is full"));
    Keeper::rewrite_if_due(&mut keeper, &shared.config());
    assert!(keeper.rewrite.is_none(), "not at once");
    keeper.rewrite_retry_at = Some(Instant::now());
    Keeper::rewrite_if_due(&mut keeper, &shared.config());
    assert!(keeper.rewrite.is_some(), "but when its time has come");
    end_rewrite(&mut keeper);
    take_and_write(&mut keeper).expect("it is on disk");
    assert!(shared.gate.is_open(), "writes are taken again");
}

#[test]
fn a_rewrite_that_failed_leaves_no_place_for_the_next_one_to_take() {
    for is_taken in [true, false] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let first = keeper(&dir);
        let mut keeper = first.lock();
        let shared = Arc::clone(&keeper.shared);
        write(&shared, &["INCR", "counter"]);
        // One begins, and fails before its place is written.
        assert!(shared.journal.rotate_log(None));
        if is_taken {
            shared.journal.take_for_log(&mut keeper.batch, false);
        }
        keeper.rewrite_failed(&io::Error::other("the disk is full"));
        // The next one is still to come to its moment.
        let turn = shared.saver.turn();
        shared.log.want_rewrite();
        Keeper::rewrite_if_due(&mut keeper, &shared.config());
        take_and_write(&mut keeper).expect("there is room");
        write(&shared, &["INCR", "counter"]);
        take_and_write(&mut keeper).expect("there is room");
        drop(turn);
        let began = Instant::now();
        while !keeper.rewrite.as_ref().is_some_and(|rewrite| rewrite.thread.is_finished()) {
            assert!(began.elapsed() < PATIENCE, "the base is not written");
            thread::sleep(Duration::from_millis(1));
        }
        // What was taken last was taken before its moment.
        Keeper::finish_rewrite(&mut keeper);
        end_rewrite(&mut keeper);
        write(&shared, &["INCR", "counter"]);
        take_and_write(&mut keeper).expect("there is room");
        drop(keeper);
        drop(first);
        let again = self::keeper(&dir).into_inner();
        let mut keys = again.shared.keyspace.lock_all(0, now(), &*again.shared);
        assert_eq!(keys.string(b"counter").expect("a string"), Some(&b"3"[..]), "each once, taken: {is_taken}");
    }
}

/// The value of the first key that `bytes` write, and the database in which they do.
fn first_write(mut bytes: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut applier = Applier::default();
    let mut db = b"0".to_vec();
    while let Some(length) = applier.parse(bytes).expect("requests") {
        let args = applier.args(bytes);
        match args.at(0) {
            b"SELECT" => db = args.at(1).to_vec(),
            _ => return Some((args.at(2).to_vec(), db)),
        }
        bytes = &bytes[length..];
    }
    None
}

#[test]
fn a_file_that_begins_beside_a_select_of_the_primary_says_the_right_database() {
    const FILES: usize = 300;
    // On a busy machine the two threads meet less often: fewer files have to do then.
    const FILES_MIN: usize = 30;
    const FILES_TIME: Duration = Duration::from_secs(10);
    let dir = tempfile::tempdir().expect("a temporary folder");
    let keeper = keeper(&dir);
    let shared = Arc::clone(&keeper.lock().shared);
    follow(&shared, true);
    let is_over = AtomicBool::new(false);
    let (mut wrong, mut files) = (0, 0);
    let began = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut applier = Applier::default();
            for db in ["1", "0"].into_iter().cycle() {
                write_behind(&shared, &mut applier, &["SELECT", db]);
                write_behind(&shared, &mut applier, &["SET", "k", db]);
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        while files < FILES && (files < FILES_MIN || began.elapsed() < FILES_TIME) {
            let keys = shared.keyspace.lock_all(0, now(), &*shared);
            shared.journal.rotate_log(shared.replication.followed_db());
            drop(keys);
            let mut batch = LogBatch::default();
            let rotated = Instant::now();
            let found = loop {
                shared.journal.take_for_log(&mut batch, false);
                let at = batch.rotation.unwrap_or_default();
                match first_write(&batch.bytes[at..]) {
                    None if rotated.elapsed() < PATIENCE => thread::yield_now(),
                    found => break found,
                }
            };
            let Some((value, db)) = found else { break };
            wrong += usize::from(value != db);
            files += 1;
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(files >= FILES_MIN, "nothing is written");
    assert_eq!(wrong, 0, "so many files would be loaded into the other database");
}

/// A snapshot of a primary was loaded, and the node ends before the log has begun again: what is on disk is other data.
#[test]
fn an_end_behind_a_snapshot_of_a_primary_leaves_the_old_log_as_it_is() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let first = keeper(&dir);
    let mut keeper = first.lock();
    let shared = Arc::clone(&keeper.shared);
    write(&shared, &["SET", "old", "1"]);
    take_and_write(&mut keeper).expect("there is room");
    let position = Position { id: "a".repeat(40), offset: 1_000_000, db: 0 };
    shared.replication.resume(&shared, position, now());
    shared.log.want_renewal();
    write(&shared, &["SET", "new", "1"]);
    shared.log.stop();
    drop(keeper);
    Keeper::run(&first).expect("nothing is left to write");
    let again = self::keeper(&dir).into_inner();
    assert_eq!(again.shared.replication.ids().former, None, "it stands nowhere in that primary's stream");
    let mut keys = again.shared.keyspace.lock_all(0, now(), &*again.shared);
    assert_eq!(keys.string(b"old").expect("a string"), Some(&b"1"[..]));
    assert_eq!(keys.string(b"new").expect("no other value"), None);
}

/// As that, and the node is killed: what was written behind the snapshot says nothing of where the old log stands.
#[test]
fn a_death_behind_a_snapshot_of_a_primary_leaves_a_log_that_stands_nowhere() {
    for is_followed in [false, true] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let first = keeper(&dir);
        let mut keeper = first.lock();
        let shared = Arc::clone(&keeper.shared);
        let keys = shared.keyspace.lock_all(0, now(), &*shared);
        shared.replication.open_backlog(&shared);
        drop(keys);
        write(&shared, &["SET", "old", "1"]);
        assert!(!keeper.write_waiting(), "the thread has something to bring to disk");
        let stood_at = (shared.replication.ids().id, shared.journal.offset());
        if is_followed {
            shared.replication.resume(&shared, Position { id: "a".repeat(40), offset: 1_000_000, db: 0 }, now());
            write(&shared, &["SET", "new", "1"]);
            keeper.write_waiting();
        }
        drop(keeper);
        drop(first);
        let again = self::keeper(&dir).into_inner();
        let expected = (!is_followed).then_some(stood_at);
        assert_eq!(again.shared.replication.ids().former, expected, "followed: {is_followed}");
    }
}
