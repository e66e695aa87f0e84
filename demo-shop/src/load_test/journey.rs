//! What a shopper does next.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// One thing a shopper does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Home,
    Category,
    Search,
    Product,
    CartPage,
    ListProducts,
    ReadCart,
    Add,
    Set,
    Remove,
    AddByForm,
    UpdateByForm,
    RemoveByForm,
}

/// How often each is done, out of the sum: half browsing, a third changing the cart, the rest looking at it. Reads of
/// the whole cart are frequent, since each compares it with the ledger.
const WEIGHTS: [(Action, u32); 13] = [
    (Action::Home, 16),
    (Action::Category, 10),
    (Action::Search, 5),
    (Action::Product, 16),
    (Action::CartPage, 6),
    (Action::ListProducts, 2),
    (Action::ReadCart, 14),
    (Action::Add, 11),
    (Action::Set, 5),
    (Action::Remove, 4),
    (Action::AddByForm, 6),
    (Action::UpdateByForm, 3),
    (Action::RemoveByForm, 2),
];

const CATEGORIES: [&str; 6] = ["ceramics", "lighting", "plants", "paper", "textiles", "seating"];
const SEARCHES: [&str; 6] = ["lamp", "wool", "mug", "tree", "paper", "no such thing"];

/// A shopper's own chance: the same seed and index make the same choices.
#[derive(Debug)]
pub(crate) struct Chance(StdRng);

impl Chance {
    pub(crate) fn new(seed: u64, shopper: u32) -> Self {
        // Neighbouring seeds of neighbouring shoppers must not meet, so the index is spread over all bits.
        Self(StdRng::seed_from_u64(seed ^ u64::from(shopper).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }

    pub(crate) fn action(&mut self) -> Action {
        let sum: u32 = WEIGHTS.iter().map(|(_, weight)| weight).sum();
        let mut point = self.0.random_range(0..sum);
        for (action, weight) in WEIGHTS {
            match point.checked_sub(weight) {
                Some(rest) => point = rest,
                None => return action,
            }
        }
        Action::Home
    }

    pub(crate) fn category(&mut self) -> &'static str {
        self.pick(&CATEGORIES).copied().unwrap_or_default()
    }

    pub(crate) fn search(&mut self) -> &'static str {
        self.pick(&SEARCHES).copied().unwrap_or_default()
    }

    pub(crate) fn pick<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        if choices.is_empty() {
            return None;
        }
        choices.get(self.0.random_range(0..choices.len()))
    }

    pub(crate) fn quantity(&mut self) -> u32 {
        self.0.random_range(1..=3)
    }

    pub(crate) fn new_quantity(&mut self) -> u32 {
        self.0.random_range(1..=9)
    }

    /// A time to think: exponential around `mean`, as arrivals of independent people are, and cut off at five times it.
    pub(crate) fn think(&mut self, mean: std::time::Duration) -> std::time::Duration {
        let uniform: f64 = self.0.random();
        mean.mul_f64((-(1.0 - uniform).ln()).min(5.0))
    }

    /// A key that no other change has, also not one of another test against the same shop.
    pub(crate) fn idempotency_key(&mut self) -> String {
        // Not from the seed: a second run with it would repeat the keys of the first, and its changes would not count.
        format!("{:032x}", rand::random::<u128>())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::load_test::journey::{Action, Chance};

    #[test]
    fn the_same_seed_makes_the_same_journey() {
        let journey = |seed, shopper| {
            let mut chance = Chance::new(seed, shopper);
            (0..50).map(|_| chance.action()).collect::<Vec<Action>>()
        };
        assert_eq!(journey(1, 2), journey(1, 2));
        assert_ne!(journey(1, 2), journey(1, 3));
        assert_ne!(journey(1, 2), journey(2, 2));
    }

    #[test]
    fn thinking_takes_the_mean_on_average() {
        let mut chance = Chance::new(7, 0);
        let sum: Duration = (0..10_000).map(|_| chance.think(Duration::from_millis(100))).sum();
        let mean = sum / 10_000;
        assert!((Duration::from_millis(95)..Duration::from_millis(105)).contains(&mean), "{mean:?}");
    }
}
