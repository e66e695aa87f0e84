//! Where data stands in a stream. It is kept with the data, so that a node that starts again goes on from there and is spared a snapshot.

use crate::{
    keyspace::Now,
    node::Shared,
    replication::{Ids, Replication, new_id},
};

/// Data has everything before `offset` of the stream `id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// 40 hexadecimal digits.
    pub(crate) id: String,
    pub(crate) offset: u64,
    /// The database that the stream has selected there.
    pub(crate) db: usize,
}

const DB: &str = "repl-stream-db";
const ID: &str = "repl-id";
const OFFSET: &str = "repl-offset";

impl Position {
    /// As a snapshot tells it: Redis's names, and values.
    pub(crate) fn fields(&self) -> Vec<(&'static str, String)> {
        vec![(DB, self.db.to_string()), (ID, self.id.clone()), (OFFSET, self.offset.to_string())]
    }
}

/// What was read of a position so far.
#[derive(Debug, Default)]
pub(crate) struct PositionFields {
    id: Option<String>,
    offset: Option<u64>,
    db: Option<usize>,
}

impl PositionFields {
    /// Takes a field, if it is one of them.
    pub(crate) fn take(&mut self, name: &[u8], value: &[u8]) {
        let Ok(value) = std::str::from_utf8(value) else { return };
        match std::str::from_utf8(name) {
            Ok(DB) => self.db = value.parse().ok(),
            Ok(ID) => self.id = Some(value.to_owned()).filter(|id| id.len() == 40),
            Ok(OFFSET) => self.offset = value.parse().ok(),
            _ => {}
        }
    }

    pub(crate) fn db(&self) -> Option<usize> {
        self.db
    }

    /// The position, if all of it was told.
    pub(crate) fn position(self) -> Option<Position> {
        Some(Position { id: self.id?, offset: self.offset?, db: self.db? })
    }
}

impl Replication {
    /// Where the data stands now; `None` while nobody was ever sent this node's stream, or there is no whole data. With every shard locked,
    /// or when nothing writes any more.
    pub(crate) fn position(&self, shared: &Shared) -> Option<Position> {
        if self.lacks_data() || shared.journal.backlog().is_none() {
            return None;
        }
        let db = match self.primary() {
            Some(_) => self.stream_db(),
            // None is selected: the next request says which.
            None => shared.journal.selected_db().unwrap_or(0),
        };
        Some(Position { id: self.ids().id, offset: shared.journal.offset(), db })
    }

    /// What was loaded stands at `position`. A replica goes on from there. A primary begins a stream of its own with it, which replicas that
    /// stand at the same place can follow.
    pub(crate) fn resume(&self, shared: &Shared, position: Position, now: Now) {
        let _keys = shared.keyspace.lock_all(0, now, shared);
        let Position { id, offset, db } = position;
        tracing::info!(id, offset, "the data is that of a stream, which is gone on with from there");
        *self.ids.lock() = match self.primary() {
            Some(_) => Ids { id, former: None },
            None => Ids { id: new_id(), former: Some((id, offset)) },
        };
        shared.journal.restart_at(offset);
        shared.journal.name(&self.ids().id);
        shared.journal.open_backlog(shared.config().repl_backlog_size);
        self.set_stream_db(db);
    }
}
