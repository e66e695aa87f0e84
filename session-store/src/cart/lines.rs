//! What is in a cart, and what a change made of it.

use crate::{
    StoreError,
    encryption::Lines,
    record::{number, pairs, text},
    wire::Reply,
};

/// What an answer is that should be a cart.
const NOT_A_HASH: &str = "a cart is not a hash";

/// One line of a cart.
///
/// ```
/// use session_store::CartLine;
///
/// let line = CartLine { sku: "TEA-001".to_owned(), quantity: 2 };
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CartLine {
    /// The item.
    pub sku: String,
    /// How many of it, at least 1.
    pub quantity: u32,
}

/// A cart as it was at one moment.
///
/// ```
/// use session_store::{CartLine, CartSnapshot};
///
/// let cart = CartSnapshot { revision: 7, lines: vec![CartLine { sku: "TEA-001".to_owned(), quantity: 2 }] };
/// assert_eq!(cart.count(), 2);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CartSnapshot {
    /// Grows with each change, and never goes back as long as the cart is kept. 0: nothing was ever in it.
    pub revision: u64,
    /// Ordered by SKU.
    pub lines: Vec<CartLine>,
}

impl CartSnapshot {
    /// The sum of all quantities.
    ///
    /// ```
    /// assert_eq!(session_store::CartSnapshot::default().count(), 0);
    /// ```
    #[must_use]
    pub fn count(&self) -> u64 {
        self.lines.iter().map(|line| u64::from(line.quantity)).sum()
    }

    /// Takes the answer to HGETALL of a cart that is of nobody's interest.
    pub(crate) fn skip(reply: &mut Reply) -> Result<(), StoreError> {
        for _ in 0..2 * pairs(reply, NOT_A_HASH)? {
            text(reply)?;
        }
        Ok(())
    }

    /// The answer to HGETALL. All of it is taken, also when a line cannot be read.
    pub(crate) fn parse(reply: &mut Reply, lines: Lines<'_>) -> Result<Self, StoreError> {
        let pairs = pairs(reply, NOT_A_HASH)?;
        let mut cart = Self { revision: 0, lines: Vec::with_capacity(pairs.saturating_sub(1)) };
        let mut read = Ok(());
        for _ in 0..pairs {
            let (name, value) = (text(reply)?, text(reply)?);
            read = read.and(cart.take(reply.at(&name), reply.at(&value), &lines));
        }
        read.map(|()| cart.in_order())
    }

    /// Of the fields of a cart.
    pub(crate) fn of<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>, lines: &Lines<'_>) -> Result<Self, StoreError> {
        let mut cart = Self::default();
        for (name, value) in fields {
            cart.take(name, value, lines)?;
        }
        Ok(cart.in_order())
    }

    fn take(&mut self, name: &[u8], value: &[u8], lines: &Lines<'_>) -> Result<(), StoreError> {
        if name.first() != Some(&b'@') {
            let (sku, quantity) = lines.open(name, value)?;
            self.lines.push(CartLine { sku, quantity });
        } else if name == b"@" {
            self.revision = number(value.split(|&byte| byte == b' ').next().unwrap_or_default())?;
        }
        Ok(())
    }

    fn in_order(mut self) -> Self {
        // The store orders fields as it likes; a page should not shuffle its lines.
        self.lines.sort_unstable_by(|a, b| a.sku.cmp(&b.sku));
        // A replica that had not got all keys yet may have begun a second one of the same.
        self.lines.dedup_by(|more, line| {
            let is_same = more.sku == line.sku;
            if is_same {
                line.quantity = line.quantity.saturating_add(more.quantity);
            }
            is_same
        });
        self
    }
}

/// What a change made of the cart.
///
/// ```no_run
/// # async fn example(cart: session_store::Cart) -> Result<(), session_store::CartError> {
/// let change = cart.add("TEA-001", 1).await?;
/// println!("{} of it, {} items in {} lines", change.quantity, change.count, change.lines);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CartChange {
    /// The cart's revision after the change.
    pub revision: u64,
    /// The quantity of the line in question now; 0 when there is no such line, or no single one.
    pub quantity: u32,
    /// Lines of the cart.
    pub lines: usize,
    /// The sum of all quantities.
    pub count: u64,
    /// `false`: this token was seen before, and the cart is as the first one left it, or as others did since.
    pub applied: bool,
}
