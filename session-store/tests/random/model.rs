//! What should come of requests, by a model that has no store.

use std::collections::BTreeMap;

use super::{IDLE_S, requests::Op};

type Lines = BTreeMap<&'static str, u32>;

/// A session as the store should have it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stored {
    pub fields: BTreeMap<&'static str, u32>,
    /// Of a session without a user.
    pub cart: Lines,
    pub owner: Option<&'static str>,
    pub idle_s: i64,
}

/// The visitor's sessions that have not ended, by their ids, and how many ids there were. Two begin where two requests come without a cookie.
#[derive(Debug, Default)]
pub struct Model {
    pub live: BTreeMap<u32, Stored>,
    ids: u32,
    /// The carts of users.
    carts: BTreeMap<&'static str, Lines>,
}

/// What a request knows, and what it has said so far; `None`: the model does not say.
#[derive(Debug, Default)]
pub struct Handle {
    pub base: Option<u32>,
    is_loaded: bool,
    /// The session was over when it was first asked for.
    pub is_late: bool,
    is_given_up: bool,
    known: BTreeMap<&'static str, u32>,
    shown: BTreeMap<&'static str, u32>,
    read_idle_s: i64,
    idle_s: i64,
    is_idle_chosen: bool,
    /// No commit has said so yet.
    is_idle_due: bool,
    owner: Option<&'static str>,
    /// Who has logged in, and is not yet the session's user.
    pending: Option<&'static str>,
    /// The session's own cart is to be merged into that user's.
    merges: bool,
    cycles: bool,
    ends: bool,
    /// The handle shows what it has deleted.
    is_deserted: bool,
    /// The handle has no id.
    is_new: bool,
    /// A `flush` of a handle without an id has emptied it.
    is_emptied: bool,
    is_modified: bool,
    pub said: Option<Vec<String>>,
    pub is_lost: bool,
}

impl Handle {
    /// It got a new id, and was emptied.
    fn is_over_behind_cycle(&self) -> bool {
        self.cycles
            && self.is_new
            && self.shown.is_empty()
            && (self.is_emptied || !self.known.is_empty())
            && self.pending.is_none()
    }
}

pub struct Conflict;

impl Model {
    pub fn begin(&self, sent: Option<u32>) -> Handle {
        Handle {
            base: sent,
            is_new: sent.is_none(),
            idle_s: IDLE_S,
            read_idle_s: IDLE_S,
            said: Some(Vec::new()),
            ..Handle::default()
        }
    }

    fn live(&mut self, handle: &Handle) -> Result<&mut Stored, Conflict> {
        handle.base.and_then(|id| self.live.get_mut(&id)).ok_or(Conflict)
    }

    fn load(&mut self, handle: &mut Handle) {
        if handle.is_loaded || handle.base.is_none() {
            return;
        }
        handle.is_loaded = true;
        let Ok(live) = self.live(handle) else {
            handle.is_late = true;
            return;
        };
        (handle.known, handle.shown, handle.read_idle_s) = (live.fields.clone(), live.fields.clone(), live.idle_s);
        handle.owner = live.owner;
        if !handle.is_idle_chosen {
            handle.idle_s = live.idle_s;
        }
    }

    /// The one that a change is made to.
    fn cart(&mut self, handle: &Handle) -> Result<&mut Lines, Conflict> {
        if let Some(user) = handle.pending {
            return Ok(self.carts.entry(user).or_default());
        }
        let live = handle.base.and_then(|id| self.live.get_mut(&id)).ok_or(Conflict)?;
        Ok(match live.owner {
            Some(user) => self.carts.entry(user).or_default(),
            None => &mut live.cart,
        })
    }

    fn create(&mut self, handle: &mut Handle) {
        self.ids += 1;
        self.live.insert(self.ids, Stored { idle_s: handle.idle_s, ..Stored::default() });
        (handle.base, handle.is_loaded, handle.read_idle_s) = (Some(self.ids), true, handle.idle_s);
        handle.is_idle_due = false;
        handle.known.clear();
    }

    fn commit(&mut self, handle: &mut Handle, counts: bool) -> Result<(), Conflict> {
        if handle.is_late {
            return Err(Conflict);
        }
        if handle.ends {
            self.end(handle);
        }
        if handle.base.is_none() {
            self.create(handle);
        }
        self.load(handle);
        if handle.is_late {
            return Err(Conflict);
        }
        let changes_idle = std::mem::take(&mut handle.is_idle_due) || handle.idle_s != handle.read_idle_s;
        if handle.known != handle.shown || changes_idle || handle.cycles || counts || handle.pending.is_some() {
            let (known, shown, idle_s) = (handle.known.clone(), handle.shown.clone(), handle.idle_s);
            let live = handle.base.and_then(|id| self.live.get_mut(&id)).ok_or(Conflict)?;
            live.fields.extend(shown.iter().filter(|(key, value)| known.get(*key) != Some(value)));
            live.fields.retain(|key, _| !known.contains_key(key) || shown.contains_key(key));
            if counts {
                let count = live.fields.get("count").map_or(1, |count| count + 1);
                live.fields.insert("count", count);
                handle.shown.insert("count", count);
            }
            if changes_idle {
                live.idle_s = idle_s;
            }
            // What others have chosen meanwhile is not this request's choice.
            handle.is_idle_chosen &= live.idle_s == idle_s;
            (handle.idle_s, handle.read_idle_s) = (live.idle_s, live.idle_s);
            handle.known = handle.shown.clone();
            if let Some(user) = handle.pending.take() {
                let cart = self.carts.entry(user).or_default();
                // What is in the cart of another user stays there.
                if live.owner.is_none() {
                    for (sku, quantity) in std::mem::take(&mut live.cart) {
                        *cart.entry(sku).or_default() += quantity;
                    }
                }
                (live.owner, handle.owner) = (Some(user), Some(user));
            }
            if handle.cycles {
                self.ids += 1;
                let session = handle.base.replace(self.ids).and_then(|former| self.live.remove(&former)).ok_or(Conflict)?;
                self.live.insert(self.ids, session);
                handle.cycles = false;
            }
        }
        handle.is_new = false;
        Ok(())
    }

    fn end(&mut self, handle: &mut Handle) {
        self.live.remove(&handle.base.unwrap_or_default());
        if !handle.is_idle_chosen {
            handle.idle_s = IDLE_S;
        }
        (handle.ends, handle.base, handle.read_idle_s, handle.owner) = (false, None, handle.idle_s, None);
        handle.known.clear();
    }

    pub fn carry_out(&mut self, handle: &mut Handle, op: Op) {
        if handle.is_lost || handle.is_given_up {
            return;
        }
        if handle.is_late {
            return Self::carry_out_late(handle, op);
        }
        match self.outcome(handle, op) {
            Ok(text) => match text {
                Some(text) if !handle.is_late => handle.said.iter_mut().for_each(|said| said.push(text.clone())),
                _ => handle.said = None,
            },
            Err(Conflict) => handle.is_lost = true,
        }
        if handle.is_late {
            Self::carry_out_late(handle, op);
        }
    }

    /// The session was over when it was first asked for: its request can still begin another one.
    fn carry_out_late(handle: &mut Handle, op: Op) {
        handle.said = None;
        match op {
            Op::Get(_) | Op::Set(..) | Op::Remove(_) | Op::Lines | Op::Pause => {}
            Op::Expire(seconds) => (handle.idle_s, handle.is_idle_chosen) = (seconds, true),
            Op::Flush | Op::Delete => {
                (handle.is_late, handle.base, handle.is_modified) = (false, None, true);
                (handle.is_new, handle.is_deserted) = (op == Op::Flush, op == Op::Delete);
                handle.shown.clear();
                handle.known.clear();
            }
            // With an id that leads nowhere any more, or none, nothing else can be done.
            Op::Count | Op::Save | Op::Cycle | Op::LogIn(_) | Op::Add(_) | Op::SetLine(..) => handle.is_given_up = true,
        }
    }

    fn outcome(&mut self, handle: &mut Handle, op: Op) -> Result<Option<String>, Conflict> {
        let shown = |value: Option<&u32>| Some(value.map_or_else(|| "-".to_owned(), u32::to_string));
        match op {
            Op::Get(key) => {
                self.load(handle);
                return Ok(shown(handle.shown.get(key)));
            }
            Op::Set(key, value) => {
                self.load(handle);
                handle.is_modified |= handle.shown.insert(key, value) != Some(value);
            }
            Op::Remove(key) => {
                self.load(handle);
                handle.is_modified = true;
                return Ok(shown(handle.shown.remove(key).as_ref()));
            }
            Op::Count => {
                self.load(handle);
                self.commit(handle, true)?;
                return Ok(shown(handle.shown.get("count")));
            }
            Op::Save => {
                self.load(handle);
                self.commit(handle, false)?;
            }
            Op::Cycle => {
                self.load(handle);
                handle.cycles = handle.base.is_some() && !handle.is_new;
                (handle.is_modified, handle.is_new) = (true, true);
            }
            Op::Flush => {
                handle.shown.clear();
                (handle.is_modified, handle.is_loaded) = (true, true);
                handle.ends = handle.base.is_some() && !handle.is_new;
                handle.is_emptied = handle.is_new;
                (handle.is_new, handle.pending) = (true, None);
            }
            // A handle without an id deletes nothing.
            Op::Delete => {
                // It is asked what is in it, in case it was emptied.
                if handle.is_modified {
                    self.load(handle);
                }
                if !handle.is_new && !handle.is_late {
                    (handle.ends, handle.is_deserted, handle.pending) = (true, true, None);
                }
            }
            Op::Expire(seconds) => {
                (handle.idle_s, handle.is_idle_chosen, handle.is_idle_due, handle.is_modified) = (seconds, true, true, true);
            }
            Op::Add(sku) | Op::SetLine(sku, _) => {
                if handle.ends || handle.is_over_behind_cycle() {
                    handle.cycles = false;
                    self.end(handle);
                }
                if handle.pending.is_some() && handle.merges {
                    self.commit(handle, false)?;
                }
                if handle.base.is_none() && handle.pending.is_none() {
                    if op == Op::SetLine(sku, 0) {
                        return Ok(Some("0".to_owned()));
                    }
                    self.create(handle);
                    // The handle is told.
                    handle.is_new = false;
                }
                if handle.pending.is_none() {
                    handle.owner = self.live(handle)?.owner;
                }
                let cart = self.cart(handle)?;
                let line = cart.entry(sku).or_default();
                *line = if let Op::SetLine(_, quantity) = op { quantity } else { *line + 1 };
                let quantity = *line;
                cart.retain(|_, quantity| *quantity > 0);
                return Ok(Some(quantity.to_string()));
            }
            Op::Lines => {
                self.load(handle);
                if handle.pending.is_some() && handle.merges {
                    self.commit(handle, false)?;
                }
                if handle.base.is_none() && handle.pending.is_none() {
                    return Ok(Some("[]".to_owned()));
                }
                // Within the grace it may be shown as it was.
                let owner = handle.owner;
                let is_as_read = handle.pending.is_some() || self.live(handle).is_ok_and(|live| live.owner == owner);
                let cart = self.cart(handle).ok().filter(|_| is_as_read);
                return Ok(cart.map(|cart| format!("{:?}", cart.iter().collect::<Vec<_>>())));
            }
            Op::LogIn(user) => {
                self.load(handle);
                if handle.base.is_some() && !handle.is_late && handle.owner == Some(user) && handle.pending.is_none() {
                    return Ok(Some(String::new()));
                }
                handle.merges = handle.base.is_some() && handle.owner.is_none();
                handle.pending = Some(user);
            }
            Op::Pause => {}
        }
        Ok(Some(String::new()))
    }

    pub fn finish(&mut self, handle: &mut Handle) {
        if handle.is_late {
            return;
        }
        if handle.is_deserted {
            if handle.ends {
                self.end(handle);
            }
            return;
        }
        if !handle.is_modified && handle.pending.is_none() {
            return;
        }
        let is_empty = handle.is_new && handle.shown.is_empty();
        // What was emptied and got a new id may have been flushed behind it, which nobody is told of.
        if (handle.ends || handle.is_over_behind_cycle()) && is_empty && handle.pending.is_none() {
            handle.cycles = false;
            self.end(handle);
            return;
        }
        // A session that holds nothing gets a new id, and a visitor who stored nothing gets nothing.
        if is_empty && !handle.cycles && handle.pending.is_none() {
            return;
        }
        if self.commit(handle, false).is_err() {
            handle.is_lost = true;
        }
    }
}
