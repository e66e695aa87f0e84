//! `standing.lua`.

use super::Args;
use crate::testing::memory::keyspace::{Keyspace, Refusal};

/// A line of a cart in the arguments of a script.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    pub(super) name: &'a [u8],
    pub(super) quantity: &'a [u8],
    tail: &'a [u8],
    pub(super) others: Args<'a>,
}

/// Where a line stands, and how much there is of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub(super) quantity: i64,
    pub(super) fields: i64,
    pub(super) elsewhere: bool,
}

/// Those of so many names each; `None`: they are clear.
pub(super) fn lines<'a>(args: Args<'a>, names: Option<usize>) -> Vec<Line<'a>> {
    let parts = names.map_or(2, |names| names + 2);
    let line = |line: Args<'a>| Line {
        name: line[0],
        quantity: line[1],
        tail: line.get(2).copied().unwrap_or_default(),
        others: line.get(3..).unwrap_or_default(),
    };
    args.chunks_exact(parts).map(line).collect()
}

impl Line<'_> {
    /// `None`: it is damaged.
    pub(super) fn standing(&self, keyspace: &mut Keyspace, cart: &[u8], sealed: bool) -> Result<Option<Standing>, Refusal> {
        let mut standing = Standing { quantity: 0, fields: 0, elsewhere: false };
        for (place, name) in std::iter::once(self.name).chain(self.others.iter().copied()).enumerate() {
            let Some(value) = keyspace.field(cart, name)? else { continue };
            let digits = value.iter().position(|byte| !byte.is_ascii_digit()).map_or(&value[..], |end| &value[..end]);
            if digits.is_empty() && sealed {
                return Ok(None);
            }
            standing.quantity += super::number(digits)?;
            standing.fields += 1;
            standing.elsewhere |= place > 0;
        }
        Ok(Some(standing))
    }

    /// So much of it is there from now on, under its first name alone.
    pub(super) fn put(&self, keyspace: &mut Keyspace, cart: &[u8], before: &Standing, after: i64) -> Result<(), Refusal> {
        if before.elsewhere {
            keyspace.remove_fields(cart, self.others)?;
        }
        if after > 0 {
            keyspace.set_field(cart, self.name, [&super::digits(after)[..], self.tail].concat())
        } else if before.fields > 0 {
            keyspace.remove_fields(cart, &[self.name])
        } else {
            Ok(())
        }
    }
}
