//! A compare-and-set of one key, on its way from [`SessionExt::update`](crate::SessionExt::update) to the commit.
//!
//! `tower_sessions::Session` keeps its store to itself. What it does is to call it, in the same task, when it is saved: so
//! the wish lies beside the task while `Session::save` runs, and the unit of work finds it there. That holds for every clone of
//! the handle, also in a task of its own, and needs no registry.

use std::sync::Arc;

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::{sync::Semaphore, time::timeout};

use super::{UnitOfWork, commit::Known, state::Base};
use crate::{
    StoreError,
    keys::Tag,
    metrics,
    record::{RawField, field_name, value_of},
    turns::{Turn, Turns, WAIT_MAX},
};

tokio::task_local! {
    static CURRENT: Arc<Swap>;
}

/// A name or a value, most of which are short: each that is allocated instead is a two-hundredth of what a change costs.
type Short = SmallVec<[u8; 32]>;

/// Set this key to this value, if nobody else has changed it.
#[derive(Debug)]
pub(crate) struct Swap {
    pub(super) field: Short,
    state: Mutex<SwapState>,
}

#[derive(Debug, Default)]
struct SwapState {
    from: Basis,
    value: Vec<u8>,
    outcome: Option<Swapped>,
    /// Where to wait for a turn, once it was needed.
    queue: Option<(Arc<Turns>, Tag)>,
    turn: Option<Turn>,
    /// Those of the same handle, one after the other.
    updates: Option<Arc<Updates>>,
    alone: Option<Alone>,
}

/// The updates of one handle. Each saves the session and then shows the new value in the handle: another one in between would
/// start from a value that is not there any more.
#[derive(Debug)]
pub(super) struct Updates {
    one_at_a_time: Semaphore,
    /// What the handle showed when a key was swapped, or was found to be changed by others, until it shows the new value. It never does when
    /// the update is dropped in between, or gives up.
    // Few at a time: looked through, which is cheaper than to hash them.
    echoes: Mutex<SmallVec<[Echo; 1]>>,
}

/// What the handle shows of a key in the place of what the store has.
#[derive(Debug)]
struct Echo {
    field: Short,
    shown: Option<Short>,
}

impl Default for Updates {
    fn default() -> Self {
        Self { one_at_a_time: Semaphore::new(1), echoes: Mutex::default() }
    }
}

/// Until it is dropped, no other update of the handle begins.
// A permit that owns its semaphore would have it in an allocation of its own.
#[derive(Debug)]
struct Alone(Arc<Updates>);

impl Drop for Alone {
    fn drop(&mut self) {
        self.0.one_at_a_time.add_permits(1);
    }
}

impl Updates {
    fn try_alone(self: &Arc<Self>) -> Option<Alone> {
        self.one_at_a_time.try_acquire().ok()?.forget();
        Some(Alone(Arc::clone(self)))
    }

    async fn alone(self: &Arc<Self>) -> Option<Alone> {
        self.one_at_a_time.acquire().await.ok()?.forget();
        Some(Alone(Arc::clone(self)))
    }

    pub(super) fn has_echoes(&self) -> bool {
        !self.echoes.lock().is_empty()
    }

    /// Whether the handle only does not show yet what was swapped.
    pub(super) fn is_echo(&self, field: &[u8], shown: Option<&[u8]>) -> bool {
        self.echoes.lock().iter().any(|echo| echo.field[..] == *field && echo.shown.as_deref() == shown)
    }
}

/// The value from which the new one was made, as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Basis {
    /// It was read from the handle, which may hold what this request has inserted and not saved.
    Handle(Option<Vec<u8>>),
    /// A swap that failed has told it.
    Store(Option<Vec<u8>>),
}

impl Default for Basis {
    fn default() -> Self {
        Self::Handle(None)
    }
}

#[derive(Debug)]
pub(crate) enum Swapped {
    Done,
    /// The value that the store holds instead, as JSON.
    Changed(Option<Vec<u8>>),
    /// Another update of the same handle is under way.
    Busy,
    Failed(StoreError),
}

impl Swap {
    pub(crate) fn of(key: &str) -> Arc<Self> {
        Arc::new(Self { field: field_name(key).as_bytes().into(), state: Mutex::default() })
    }

    /// What came of it, after `save` has run; `None`: it saved to another store.
    // `save` makes the future: given as one, it would be in this one twice.
    pub(crate) async fn with<F: Future>(
        self: &Arc<Self>,
        from: Basis,
        value: Vec<u8>,
        save: impl FnOnce() -> F,
    ) -> (Option<Swapped>, F::Output) {
        {
            let mut state = self.state.lock();
            state.from = from;
            state.value = value;
            state.outcome = None;
        }
        let saved = CURRENT.scope(Arc::clone(self), save()).await;
        (self.state.lock().outcome.take(), saved)
    }

    /// Waits for the turn, when others of this process were faster. Not while the session is being saved: the handle is locked
    /// then, and whose turn it is may need it.
    pub(crate) async fn wait_turn(&self) -> Result<(), StoreError> {
        let queue = self.state.lock().queue.take();
        if let Some((turns, tag)) = queue {
            let turn = turns.take(tag).await.ok_or(StoreError::Contended { attempts: 1 })?;
            self.state.lock().turn = Some(turn);
        }
        Ok(())
    }

    /// Waits until no other update of the handle is under way. Not while the session is being saved, likewise.
    pub(crate) async fn wait_until_alone(&self) -> Result<(), StoreError> {
        let updates = self.state.lock().updates.clone();
        if let Some(updates) = updates {
            let alone = timeout(WAIT_MAX, updates.alone()).await.ok().flatten();
            self.state.lock().alone = Some(alone.ok_or(StoreError::Contended { attempts: 1 })?);
        }
        Ok(())
    }

    /// Whether no other update of the handle is under way, nor will be until this one is dropped.
    pub(super) fn is_alone(&self, updates: Arc<Updates>) -> bool {
        let mut state = self.state.lock();
        if state.alone.is_none() {
            state.alone = updates.try_alone();
        }
        state.updates = Some(updates);
        state.alone.is_some()
    }

    /// The handle shows the new value.
    pub(crate) fn is_shown(&self) {
        if let Some(updates) = &self.state.lock().updates {
            updates.echoes.lock().retain(|echo| echo.field != self.field);
        }
    }

    /// The handle shows this, and the store is known to hold another value.
    fn note_behind(&self, shown: Option<&[u8]>) {
        if let Some(updates) = &self.state.lock().updates {
            let mut echoes = updates.echoes.lock();
            echoes.retain(|echo| echo.field != self.field);
            echoes.push(Echo { field: self.field.clone(), shown: shown.map(Short::from) });
        }
    }

    /// What the value is by now, when this request itself has changed it since the new one was made of it.
    pub(super) fn overtaken(&self, handle: Option<&[u8]>, store: Option<&[u8]>) -> Option<Option<Vec<u8>>> {
        let state = self.state.lock();
        let is_echo = state.updates.as_ref().is_some_and(|updates| updates.is_echo(&self.field, handle));
        let (from, now) = match &state.from {
            Basis::Store(from) => (from, store),
            Basis::Handle(from) if is_echo => (from, store),
            Basis::Handle(from) => (from, handle),
        };
        (from.as_deref() != now).then(|| now.map(<[u8]>::to_vec))
    }

    pub(super) fn is_settled(&self) -> bool {
        self.state.lock().outcome.is_some()
    }

    pub(super) fn settle(&self, outcome: Swapped) {
        self.state.lock().outcome = Some(outcome);
    }

    /// The session's fields with the new value among them.
    pub(super) fn put_into(&self, fields: &[RawField]) -> Vec<RawField> {
        let state = self.state.lock();
        let mut all = Vec::with_capacity(fields.len() + 1);
        all.extend_from_slice(fields);
        // In its place, where the difference finds it.
        match all.iter_mut().find(|field| field.name() == &self.field[..]) {
            Some(field) => *field = field.with_value(&state.value),
            None => all.push(RawField::new(&self.field, state.value.clone())),
        }
        all
    }
}

pub(super) fn current() -> Option<Arc<Swap>> {
    CURRENT.try_with(Arc::clone).ok()
}

impl UnitOfWork {
    /// It is done, and the unit knows it; `shown`: what the handle shows until it shows the new value.
    pub(super) fn swapped(&self, swap: &Swap, shown: &[RawField]) {
        // A handle that has not been given the session yet will be given what it is now.
        if !matches!(&self.state().base, Base::Live(live) if live.fresh) {
            swap.note_behind(value_of(shown, &swap.field));
        }
        swap.settle(Swapped::Done);
    }

    /// Another request was faster. The next attempt starts from what the store holds, in turn with others of this process.
    pub(super) fn lost_swap(
        &self,
        swap: &Swap,
        Known { tag, binding, .. }: &Known,
        shown: &[RawField],
        now: Option<Vec<u8>>,
    ) -> Result<(), StoreError> {
        metrics::conflict(metrics::Conflict::ValueChanged);
        {
            let mut state = swap.state.lock();
            if state.turn.is_none() {
                state.queue = Some((Arc::clone(self.store.turns()), *tag));
            }
        }
        let now = now.map(|stored| {
            let mut field = RawField::new(&swap.field, stored);
            self.store.vault().open(binding, &mut field).map(|()| field)
        });
        let now = now.transpose()?;
        let value = now.as_ref().map(|field| field.value().to_vec());
        let mut state = self.state();
        if !matches!(&state.base, Base::Live(live) if live.fresh) {
            // Until the next attempt has done it, or for good: no commit may take what the handle shows for a change.
            swap.note_behind(value_of(shown, &swap.field));
        }
        state.base.learn_field(&swap.field, now);
        drop(state);
        swap.settle(Swapped::Changed(value));
        Ok(())
    }
}
