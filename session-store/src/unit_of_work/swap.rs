//! A compare-and-set of one key, on its way from [`SessionExt::update`](crate::SessionExt::update) to the commit.
//!
//! `tower_sessions::Session` keeps its store to itself. What it does is to call it, in the same task, when it is saved: so
//! the wish lies beside the task while `Session::save` runs, and the unit of work finds it there. That holds for every clone of
//! the handle, also in a task of its own, and needs no registry.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{UnitOfWork, commit::Known};
use crate::{
    StoreError, metrics,
    record::{RawField, field_name},
    turns::Turn,
};

tokio::task_local! {
    static CURRENT: Arc<Swap>;
}

/// Set this key to this value, if nobody else has changed it.
#[derive(Debug)]
pub(crate) struct Swap {
    pub(super) field: Vec<u8>,
    state: Mutex<SwapState>,
}

#[derive(Debug, Default)]
struct SwapState {
    value: Vec<u8>,
    outcome: Option<Swapped>,
    turn: Option<Turn>,
}

#[derive(Debug)]
pub(crate) enum Swapped {
    Done,
    /// The value that the store holds instead, as JSON.
    Changed(Option<Bytes>),
    Failed(StoreError),
}

impl Swap {
    pub(crate) fn of(key: &str) -> Arc<Self> {
        Arc::new(Self { field: field_name(key).into_owned().into_bytes(), state: Mutex::default() })
    }

    /// What came of it, after `save` has run; `None`: it saved to another store.
    pub(crate) async fn with<F: Future>(self: &Arc<Self>, value: Vec<u8>, save: F) -> (Option<Swapped>, F::Output) {
        {
            let mut state = self.state.lock();
            state.value = value;
            state.outcome = None;
        }
        let saved = CURRENT.scope(Arc::clone(self), save).await;
        (self.state.lock().outcome.take(), saved)
    }

    pub(super) fn settle(&self, outcome: Swapped) {
        self.state.lock().outcome = Some(outcome);
    }

    /// The session's fields with the new value among them.
    pub(super) fn put_into(&self, fields: &[RawField]) -> Vec<RawField> {
        let mut fields: Vec<_> = fields.iter().filter(|field| field.name != self.field).cloned().collect();
        fields.push(RawField::new(self.field.clone(), self.state.lock().value.clone()));
        fields
    }
}

pub(super) fn current() -> Option<Arc<Swap>> {
    CURRENT.try_with(Arc::clone).ok()
}

impl UnitOfWork {
    /// Another request was faster. The next attempt starts from what the store holds, in turn with others of this process.
    pub(super) async fn lost_swap(
        &self,
        swap: &Swap,
        Known { tag, binding, .. }: &Known,
        mut now: Option<Vec<u8>>,
    ) -> Result<(), StoreError> {
        metrics::conflict(metrics::Conflict::ValueChanged);
        if swap.state.lock().turn.is_none() {
            let turn = self.store.turns().take(*tag).await.ok_or(StoreError::Contended { attempts: 1 })?;
            swap.state.lock().turn = Some(turn);
            // Others have changed it while this one waited.
            now = self.store.read_field(tag, &swap.field).await?;
        }
        let now = now.map(|stored| {
            let mut field = RawField::new(swap.field.clone(), stored);
            self.store.vault().open(binding, &mut field).map(|()| field)
        });
        let now = now.transpose()?;
        let value = now.as_ref().map(|field| field.value.clone());
        self.state.lock().base.learn_field(&swap.field, now);
        swap.settle(Swapped::Changed(value));
        Ok(())
    }
}
