//! What the scripts of this library do, in Rust: each function is the twin of the file of its name in `src/scripts`, whose comments
//! say what it is for. That both do the same is shown by a test that sends the same requests to both.

mod cart;
mod commit;
mod keep;
mod merging;
mod records;
mod rotate;
mod session;
mod standing;

use std::{collections::HashMap, sync::LazyLock};

use super::{
    answer::Answer,
    keyspace::{Keyspace, Refusal},
};
use crate::scripts;

/// One call of a script.
pub(super) struct Call<'a> {
    keyspace: &'a mut Keyspace,
    keys: Args<'a>,
    args: Args<'a>,
}

type Args<'a> = &'a [&'a [u8]];

type Script = fn(&mut Call<'_>) -> Result<Answer, Refusal>;

/// By the hash under which they are called. Those that only a cluster needs are not among them.
static SCRIPTS: LazyLock<HashMap<&'static [u8], Script>> = LazyLock::new(|| {
    let scripts: [(&scripts::Source, Script); 16] = [
        (&scripts::CREATE, session::create),
        (&scripts::CHANGE, commit::change),
        (&scripts::CHANGE_WITHIN, commit::change_within),
        (&scripts::CHANGE_PLAIN, commit::change_plain),
        (&scripts::COMMIT, commit::commit),
        (&scripts::ROTATE, rotate::rotate),
        (&scripts::END, session::end),
        (&scripts::TOUCH, session::touch),
        (&scripts::CART, cart::cart),
        (&scripts::LINE, cart::line),
        (&scripts::LINE_SEALED, cart::line),
        (&scripts::CART_SEALED, cart::cart),
        (&scripts::COMMIT_SEALED, commit::commit),
        (&scripts::ROTATE_SEALED, rotate::rotate),
        (&scripts::QUARANTINE, records::quarantine),
        (&scripts::TAKE_OVER, records::take_over),
    ];
    scripts.map(|(source, script)| (source.hash().as_bytes(), script)).into()
});

/// `rest`: the keys, of which there are `count`, and the arguments.
pub(super) fn run(keyspace: &mut Keyspace, hash: &[u8], count: &[u8], rest: &[&[u8]]) -> Result<Answer, Refusal> {
    let script = SCRIPTS.get(hash).ok_or(Refusal("ERR a node in memory does not know this script"))?;
    let count = usize::try_from(number(count)?).ok().filter(|count| *count <= rest.len());
    let (keys, args) = rest.split_at(count.ok_or(Refusal("ERR the number of keys is wrong"))?);
    script(&mut Call { keyspace, keys, args })
}

impl<'a> Call<'a> {
    /// As in Lua, counted from 1.
    fn key(&self, place: usize) -> Result<&'a [u8], Refusal> {
        self.keys.get(place - 1).copied().ok_or(Refusal("ERR a key is missing"))
    }

    fn arg(&self, place: usize) -> Result<&'a [u8], Refusal> {
        self.args.get(place - 1).copied().ok_or(Refusal("ERR an argument is missing"))
    }

    fn number(&self, place: usize) -> Result<i64, Refusal> {
        number(self.arg(place)?)
    }

    /// The arguments from this place on: so many as it says, and those behind them.
    fn counted(&self, place: usize) -> Result<(Args<'a>, Args<'a>), Refusal> {
        let count = usize::try_from(self.number(place)?).map_err(|_| Refusal("ERR a count is negative"))?;
        self.args[place..].split_at_checked(count).ok_or(Refusal("ERR there are fewer arguments than said"))
    }
}

fn number(text: &[u8]) -> Result<i64, Refusal> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(Refusal("ERR it is not a number"))
}

fn digits(number: i64) -> Vec<u8> {
    number.to_string().into_bytes()
}

/// What is between the braces of a key.
fn tag_of(key: &[u8]) -> &[u8] {
    let begin = key.iter().position(|byte| *byte == b'{').map_or(0, |at| at + 1);
    let length = key[begin..].iter().position(|byte| *byte == b'}');
    &key[begin..][..length.unwrap_or(0)]
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}

/// Whether a commit with this token was made, among those that the session remembers.
fn remembers(tokens: Option<&[u8]>, token: &[u8]) -> bool {
    tokens.is_some_and(|tokens| contains(tokens, token))
}

/// A token before those that are remembered, of which the last go.
fn remember(token: &[u8], seen: &[u8], most: usize) -> Vec<u8> {
    let mut tokens = [token, b" ", seen].concat();
    tokens.truncate(most * (token.len() + 1));
    tokens
}
