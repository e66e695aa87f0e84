//! One shopper's ledger: what the shop acknowledged, and what a cart must therefore hold.
//!
//! The ledger never asks the shop what is right. It knows each change that was acknowledged, and compares whole carts
//! with the sum of them. After a difference was told, the cart as it was seen becomes the new truth, so that one loss is
//! counted once.

use std::collections::{BTreeMap, BTreeSet};

use crate::load_test::canary::{Canary, Shelves};

/// A change of one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Add(u32),
    Set(u32),
    Remove,
}

/// A cart as the shop showed it.
#[derive(Debug, Clone, Default)]
pub(crate) struct SeenCart {
    pub(crate) revision: u64,
    pub(crate) lines: BTreeMap<String, u32>,
}

/// What must not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Fault {
    /// Everything that was in the cart is gone.
    LostCart,
    /// A change was acknowledged and is not there.
    LostUpdate,
    /// A change counted more than once.
    Duplicate,
    /// A line that was removed is there again.
    Resurrected,
    /// Something in the cart is another shopper's.
    MixUp,
    /// The cart's revision went back.
    StaleRead,
    /// The shop gave the shopper another session without being asked.
    NewSession,
    /// The cart could not be read at the end, so nothing is known about it.
    Unread,
}

/// A fault, and in words where it was seen.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    pub(crate) fault: Fault,
    pub(crate) detail: String,
}

#[derive(Debug, Clone, Copy, Default)]
struct Line {
    quantity: u32,
    /// The quantity before the last change, as long as no read has confirmed that change.
    before: Option<u32>,
    /// The other quantity that is right, when the outcome of a change is unknown.
    or: Option<u32>,
}

/// What one shopper's cart must hold.
#[derive(Debug)]
pub(crate) struct Ledger {
    shopper: u32,
    canary: Canary,
    lines: BTreeMap<String, Line>,
    touched: BTreeSet<String>,
    revision: u64,
}

impl Ledger {
    pub(crate) fn new(shopper: u32, canary: Canary) -> Self {
        Self { shopper, canary, lines: BTreeMap::new(), touched: BTreeSet::new(), revision: 0 }
    }

    /// What is in the cart of `sku`, by the ledger.
    pub(crate) fn quantity(&self, sku: &str) -> u32 {
        self.lines.get(sku).map_or(0, |line| line.quantity)
    }

    /// The lines that can be changed: those whose quantity is known, the canary left out.
    pub(crate) fn changeable(&self) -> impl Iterator<Item = &str> {
        self.lines
            .iter()
            .filter(|(sku, line)| line.quantity > 0 && line.or.is_none() && **sku != self.canary.sku)
            .map(|(sku, _)| sku.as_str())
    }

    /// Whether the quantity of `sku` depends on a change whose outcome is unknown.
    pub(crate) fn is_uncertain(&self, sku: &str) -> bool {
        self.lines.get(sku).is_some_and(|line| line.or.is_some())
    }

    /// Notes a change that the shop acknowledged.
    pub(crate) fn acknowledge(&mut self, sku: &str, change: Change) {
        let after = self.after(sku, change);
        let line = self.line(sku);
        // Several changes between two reads: what was there before the first of them is the one to recognise.
        line.before = line.before.or(Some(line.quantity));
        line.quantity = after;
    }

    /// Notes a change of which nobody knows whether it was made.
    pub(crate) fn leave_unknown(&mut self, sku: &str, change: Change) {
        let after = self.after(sku, change);
        self.line(sku).or = Some(after);
    }

    /// Notes the revision that came with an acknowledgement.
    pub(crate) fn note_revision(&mut self, revision: u64) -> Option<Finding> {
        let stale = revision < self.revision;
        let was = std::mem::replace(&mut self.revision, revision);
        stale.then(|| self.finding(Fault::StaleRead, format!("revision {revision} after {was}")))
    }

    /// Compares a whole cart. `is_last` compares also when the cart is an older one than was seen before.
    pub(crate) fn check(&mut self, seen: &SeenCart, shelves: &Shelves, is_last: bool) -> Vec<Finding> {
        let mut findings: Vec<Finding> = self.note_revision(seen.revision).into_iter().collect();
        if !findings.is_empty() && !is_last {
            return findings;
        }
        let must_hold_something = self.lines.values().any(|line| line.quantity > 0 && line.or != Some(0));
        if seen.lines.is_empty() && must_hold_something {
            let count = self.lines.values().filter(|line| line.quantity > 0).count();
            findings.push(self.finding(Fault::LostCart, format!("an empty cart where {count} lines were acknowledged")));
            self.lines.clear();
            return findings;
        }
        let skus: BTreeSet<String> = self.lines.keys().chain(seen.lines.keys()).cloned().collect();
        for sku in skus {
            let quantity = seen.lines.get(&sku).copied().unwrap_or(0);
            let line = self.lines.get(&sku).copied().unwrap_or_default();
            if quantity != line.quantity && Some(quantity) != line.or {
                let (fault, what) = self.judge(&sku, line, quantity, shelves);
                findings.push(self.finding(
                    fault,
                    format!("{sku}: {quantity} in the cart, {} by the acknowledgements ({what})", line.quantity),
                ));
            }
            self.lines.insert(sku, Line { quantity, ..Line::default() });
        }
        findings
    }

    fn judge(&self, sku: &str, line: Line, seen: u32, shelves: &Shelves) -> (Fault, String) {
        let owner = shelves.owner(sku, seen).filter(|owner| *owner != self.shopper);
        match owner {
            Some(owner) if seen > 0 => {
                return (Fault::MixUp, format!("the canary of shopper {owner}"));
            }
            _ => {}
        }
        let is_own_canary = sku == self.canary.sku;
        if seen > 0 && (shelves.is_set_aside(sku) && !is_own_canary || !self.touched.contains(sku)) {
            return (Fault::MixUp, "this shopper never put it there".to_owned());
        }
        if line.before == Some(seen) {
            return (Fault::LostUpdate, "as it was before the last change".to_owned());
        }
        if line.quantity == 0 {
            return (Fault::Resurrected, "removed, and there again".to_owned());
        }
        if seen > line.quantity {
            return (Fault::Duplicate, "something counted twice".to_owned());
        }
        (Fault::LostUpdate, "something is missing".to_owned())
    }

    fn after(&self, sku: &str, change: Change) -> u32 {
        match change {
            Change::Add(quantity) => self.quantity(sku).saturating_add(quantity),
            Change::Set(quantity) => quantity,
            Change::Remove => 0,
        }
    }

    fn line(&mut self, sku: &str) -> &mut Line {
        if !self.touched.contains(sku) {
            self.touched.insert(sku.to_owned());
        }
        self.lines.entry(sku.to_owned()).or_default()
    }

    pub(crate) fn finding(&self, fault: Fault, detail: impl std::fmt::Display) -> Finding {
        Finding { fault, detail: format!("shopper {}: {detail}", self.shopper) }
    }
}

#[cfg(test)]
mod tests {
    use crate::load_test::canary::Shelves;
    use crate::load_test::ledger::{Change, Fault, Ledger, SeenCart};

    fn shelves() -> Shelves {
        Shelves::divide(["a", "b", "c", "x", "y", "z"].map(str::to_owned).into(), 9).expect("products")
    }

    /// Shopper 1 with its canary (1 × y) and 2 × a in the cart, both confirmed by a read.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::new(1, shelves().canary(1));
        ledger.acknowledge("y", Change::Add(1));
        ledger.acknowledge("a", Change::Add(2));
        assert!(ledger.check(&seen(2, &[("y", 1), ("a", 2)]), &shelves(), false).is_empty());
        ledger
    }

    fn seen(revision: u64, lines: &[(&str, u32)]) -> SeenCart {
        SeenCart { revision, lines: lines.iter().map(|(sku, quantity)| ((*sku).to_owned(), *quantity)).collect() }
    }

    fn faults(ledger: &mut Ledger, revision: u64, lines: &[(&str, u32)]) -> Vec<Fault> {
        ledger.check(&seen(revision, lines), &shelves(), true).into_iter().map(|finding| finding.fault).collect()
    }

    #[test]
    fn what_was_acknowledged_and_is_there_is_no_fault() {
        let mut ledger = ledger();
        ledger.acknowledge("b", Change::Add(1));
        ledger.acknowledge("a", Change::Set(5));
        ledger.acknowledge("b", Change::Remove);
        assert_eq!(faults(&mut ledger, 5, &[("y", 1), ("a", 5)]), []);
    }

    #[test]
    fn each_loss_has_its_name_and_counts_once() {
        let mut ledger = ledger();
        ledger.acknowledge("a", Change::Add(1));
        assert_eq!(faults(&mut ledger, 3, &[("y", 1), ("a", 2)]), [Fault::LostUpdate]);
        assert_eq!(faults(&mut ledger, 3, &[("y", 1), ("a", 2)]), []);
        ledger.acknowledge("a", Change::Set(1));
        assert_eq!(faults(&mut ledger, 4, &[("y", 1), ("a", 2)]), [Fault::LostUpdate]);
        assert_eq!(faults(&mut ledger, 4, &[("y", 1)]), [Fault::LostUpdate]);
        assert_eq!(faults(&mut ledger, 4, &[]), [Fault::LostCart]);
        assert_eq!(faults(&mut ledger, 4, &[]), []);
    }

    #[test]
    fn what_counts_twice_and_what_comes_back() {
        let mut ledger = ledger();
        ledger.acknowledge("a", Change::Add(3));
        assert_eq!(faults(&mut ledger, 3, &[("y", 1), ("a", 8)]), [Fault::Duplicate]);
        ledger.acknowledge("a", Change::Remove);
        assert_eq!(faults(&mut ledger, 4, &[("y", 1)]), []);
        assert_eq!(faults(&mut ledger, 5, &[("y", 1), ("a", 8)]), [Fault::Resurrected]);
    }

    #[test]
    fn another_shoppers_things_are_recognised() {
        let mut ledger = ledger();
        let findings = ledger.check(&seen(3, &[("y", 1), ("a", 2), ("z", 2)]), &shelves(), false);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].fault, Fault::MixUp);
        assert!(findings[0].detail.contains("canary of shopper 5"), "{}", findings[0].detail);
        assert_eq!(faults(&mut ledger, 4, &[("y", 1), ("a", 2), ("z", 2), ("b", 1)]), [Fault::MixUp]);
        assert_eq!(faults(&mut ledger, 5, &[("y", 2), ("a", 2), ("z", 2), ("b", 1)]), [Fault::MixUp]);
    }

    #[test]
    fn an_unknown_outcome_may_be_either_and_is_settled_by_a_read() {
        for after in [2, 6] {
            let mut ledger = ledger();
            ledger.leave_unknown("a", Change::Add(4));
            assert!(ledger.is_uncertain("a"));
            assert_eq!(ledger.changeable().count(), 0);
            assert_eq!(faults(&mut ledger, 3, &[("y", 1), ("a", after)]), []);
            assert_eq!(ledger.quantity("a"), after);
            assert!(!ledger.is_uncertain("a"));
        }
        let mut ledger = ledger();
        ledger.leave_unknown("a", Change::Add(4));
        assert_eq!(faults(&mut ledger, 3, &[("y", 1), ("a", 10)]), [Fault::Duplicate]);
    }

    #[test]
    fn a_revision_never_goes_back() {
        let mut ledger = ledger();
        let findings = ledger.check(&seen(1, &[]), &shelves(), false);
        assert_eq!(findings.iter().map(|finding| finding.fault).collect::<Vec<_>>(), [Fault::StaleRead]);
        assert_eq!(faults(&mut ledger, 1, &[]), [Fault::LostCart]);
    }
}
