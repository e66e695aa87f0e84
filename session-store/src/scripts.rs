//! The Lua scripts, and how one is called in one round trip.

mod call;

use std::sync::LazyLock;

use redis::Script;

pub(crate) use self::call::Call;
use crate::{metrics::Operation, wire::Argument};

/// The script of this name behind the functions that it shares with others.
macro_rules! keep {
    ($name:literal) => {
        concat!(
            include_str!("scripts/keep.lua"),
            include_str!("scripts/along.lua"),
            include_str!(concat!("scripts/", $name, ".lua"))
        )
    };
}
macro_rules! in_parts_and_keep {
    ($name:literal) => {
        concat!(include_str!("scripts/in_parts.lua"), keep!($name))
    };
}
macro_rules! leave_only {
    ($script:expr) => {
        concat!(include_str!("scripts/in_parts.lua"), include_str!("scripts/leave_only.lua"), $script)
    };
}
macro_rules! line {
    ($beginning:literal) => {
        concat!(
            include_str!(concat!("scripts/", $beginning, ".lua")),
            include_str!("scripts/line_look.lua"),
            "if due then\n",
            include_str!("scripts/keep.lua"),
            include_str!("scripts/along.lua"),
            include_str!("scripts/line_extend.lua"),
            "end\n",
            include_str!("scripts/line.lua"),
        )
    };
}
macro_rules! change_within {
    () => {
        concat!(
            include_str!("scripts/change_within.lua"),
            include_str!("scripts/change.lua"),
            include_str!("scripts/change_set.lua"),
            include_str!("scripts/change_told.lua"),
            "end\n\n",
            include_str!("scripts/change_set.lua"),
            "return revision\n",
        )
    };
}
macro_rules! all {
    ($name:literal) => {
        concat!(include_str!("scripts/merging.lua"), in_parts_and_keep!($name))
    };
}

pub(crate) static CREATE: LazyLock<Source> = LazyLock::new(|| Source::new(Operation::Create, in_parts_and_keep!("create")));
/// What [`COMMIT`] does for a request that changed fields and nothing else, at less than half of its cost: `keep` stands behind the
/// way that most take, which makes no function.
pub(crate) static CHANGE: LazyLock<Source> = LazyLock::new(|| {
    let code = concat!(
        include_str!("scripts/change_extend.lua"),
        include_str!("scripts/change.lua"),
        include_str!("scripts/change_policy.lua"),
        "end\n\n",
        include_str!("scripts/change_set.lua"),
        include_str!("scripts/change_time.lua"),
        include_str!("scripts/keep.lua"),
        include_str!("scripts/change_keep.lua"),
    );
    Source::new(Operation::Commit, code)
});
/// The same where the session's time is left as it is.
pub(crate) static CHANGE_WITHIN: LazyLock<Source> = LazyLock::new(|| Source::new(Operation::Commit, change_within!()));
/// And where fields are set alone.
pub(crate) static CHANGE_PLAIN: LazyLock<Source> =
    LazyLock::new(|| Source::new(Operation::Commit, concat!(include_str!("scripts/change_plain.lua"), change_within!())));
pub(crate) static COMMIT: LazyLock<Source> = LazyLock::new(|| Source::new(Operation::Commit, all!("commit")));
pub(crate) static ROTATE: LazyLock<Source> = LazyLock::new(|| Source::new(Operation::Rotate, all!("rotate")));
/// Those two where they merge an encrypted cart.
pub(crate) static COMMIT_SEALED: LazyLock<Source> =
    LazyLock::new(|| Source::new(Operation::Commit, concat!(include_str!("scripts/standing.lua"), all!("commit"))));
pub(crate) static ROTATE_SEALED: LazyLock<Source> =
    LazyLock::new(|| Source::new(Operation::Rotate, concat!(include_str!("scripts/standing.lua"), all!("rotate"))));
pub(crate) static PLACE: LazyLock<Source> = LazyLock::new(|| Source::new(Operation::Rotate, in_parts_and_keep!("place")));
pub(crate) static RETIRE: LazyLock<Source> = LazyLock::new(|| Source::new(Operation::Rotate, include_str!("scripts/retire.lua")));
pub(crate) static END: LazyLock<Source> =
    LazyLock::new(|| Source::new(Operation::End, leave_only!(include_str!("scripts/end.lua"))));
pub(crate) static TOUCH: LazyLock<Source> = LazyLock::new(|| Source::new(Operation::Touch, keep!("touch")));
pub(crate) static CART: LazyLock<Source> = LazyLock::new(|| Source::new(Operation::Cart, keep!("cart")));
/// What [`CART`] does for one line that is added to or set, without creating a session. What sets a session's time is in a branch that few
/// take, with its functions.
pub(crate) static LINE: LazyLock<Source> = LazyLock::new(|| Source::new(Operation::Cart, line!("line_clear")));
/// Those two for encrypted carts.
pub(crate) static LINE_SEALED: LazyLock<Source> = LazyLock::new(|| Source::new(Operation::Cart, line!("line_sealed")));
pub(crate) static CART_SEALED: LazyLock<Source> =
    LazyLock::new(|| Source::new(Operation::Cart, concat!(include_str!("scripts/standing.lua"), keep!("cart"))));
pub(crate) static LIST: LazyLock<Source> = LazyLock::new(|| Source::new(Operation::List, keep!("list")));
pub(crate) static QUARANTINE: LazyLock<Source> = LazyLock::new(|| Source::new(Operation::Quarantine, keep!("quarantine")));
pub(crate) static TAKE_OVER: LazyLock<Source> =
    LazyLock::new(|| Source::new(Operation::TakeOver, in_parts_and_keep!("take_over")));
pub(crate) static TAKE_OVER_STEPS: LazyLock<Source> =
    LazyLock::new(|| Source::new(Operation::TakeOver, leave_only!(keep!("take_over_steps"))));
pub(crate) static DROP_RECORD: LazyLock<Source> =
    LazyLock::new(|| Source::new(Operation::TakeOver, include_str!("scripts/drop_record.lua")));
pub(crate) static MERGE: LazyLock<Source> = LazyLock::new(|| {
    Source::new(Operation::Merge, concat!(include_str!("scripts/merging.lua"), include_str!("scripts/merge.lua")))
});
pub(crate) static MERGE_SEALED: LazyLock<Source> = LazyLock::new(|| {
    let code =
        concat!(include_str!("scripts/standing.lua"), include_str!("scripts/merging.lua"), include_str!("scripts/merge.lua"));
    Source::new(Operation::Merge, code)
});

/// Names and values of fields that [`CHANGE`], [`CHANGE_WITHIN`] and [`CHANGE_PLAIN`] take: they unpack them in one go, and Lua no more than some 8,000.
pub(crate) const CHANGE_ARGUMENTS_MAX: usize = 1_000;

/// The first number of every script's answer.
pub(crate) mod reply {
    /// The session does not exist.
    pub(crate) const GONE: i64 = 0;
    /// Done, now or by an earlier attempt of the same call.
    pub(crate) const OK: i64 = 1;
    /// The session was ended or rotated a moment ago.
    pub(crate) const ENDED: i64 = 2;
    /// The id that was to be created is taken.
    pub(crate) const TAKEN: i64 = 3;
    /// The session belongs to a user whose cart is elsewhere; the second element tells which.
    pub(crate) const OWNED: i64 = 4;
    /// The anonymous cart changed since it was merged.
    pub(crate) const CART_CHANGED: i64 = 5;
    /// One line more than allowed.
    pub(crate) const TOO_MANY_LINES: i64 = 6;
    /// A larger quantity than allowed.
    pub(crate) const QUANTITY_TOO_LARGE: i64 = 7;
    /// A value is not the expected one; the second element is what it is.
    pub(crate) const CHANGED: i64 = 8;
    /// Somebody else takes a record over.
    pub(crate) const HELD: i64 = 9;
    /// The lines of the cart are bound to something else; the second element is what the session says of it.
    pub(crate) const BOUND: i64 = 10;
    /// A line of the cart is damaged, or it or a value is encrypted where that cannot be handled. Nothing was changed.
    pub(crate) const UNREADABLE_LINE: i64 = 11;
}

/// A script and the SHA-1 under which the store knows it.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) operation: Operation,
    code: &'static str,
    sha: Script,
}

impl Source {
    fn new(operation: Operation, code: &'static str) -> Self {
        Self { operation, code, sha: Script::new(code) }
    }

    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    pub(crate) fn hash(&self) -> &str {
        self.sha.get_hash()
    }

    /// A call of it; the caller adds the arguments.
    pub(crate) fn call(&'static self, keys: &[impl Argument]) -> Call {
        Call::new(self, keys)
    }
}
