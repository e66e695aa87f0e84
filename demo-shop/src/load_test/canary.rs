//! The canary: a line of each shopper's cart that no other shopper has.
//!
//! Half of the shop's products are set aside. Each shopper puts one of them into the cart, in a quantity that nobody else
//! has of it, and never touches it again. No other line of a set-aside product may ever be seen in that cart; if one is,
//! its product and quantity tell whose it is.

/// The shop's products, divided: those shopped for, and those kept for canaries.
#[derive(Debug, Clone)]
pub(crate) struct Shelves {
    /// What shoppers add, change and remove.
    pub(crate) shopping: Vec<String>,
    /// What only canaries are made of.
    canaries: Vec<String>,
    shoppers: u32,
}

/// One shopper's canary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Canary {
    pub(crate) sku: String,
    pub(crate) quantity: u32,
}

impl Shelves {
    /// Divides the products; `None` when there are fewer than two.
    pub(crate) fn divide(mut skus: Vec<String>, shoppers: u32) -> Option<Self> {
        skus.sort();
        skus.dedup();
        let canaries = skus.split_off(skus.len() / 2);
        (!skus.is_empty()).then_some(Self { shopping: skus, canaries, shoppers })
    }

    /// The canary of shopper `index`, counted from 0.
    pub(crate) fn canary(&self, index: u32) -> Canary {
        let count = self.canaries.len();
        let place = index as usize % count;
        let sku = self.canaries.get(place).cloned().expect("the place is below the count");
        Canary { sku, quantity: 1 + index / u32::try_from(count).unwrap_or(u32::MAX) }
    }

    /// Whether only canaries are made of this product.
    pub(crate) fn is_set_aside(&self, sku: &str) -> bool {
        self.canaries.iter().any(|canary| canary == sku)
    }

    /// Whose canary this line is.
    pub(crate) fn owner(&self, sku: &str, quantity: u32) -> Option<u32> {
        let place = self.canaries.iter().position(|canary| canary == sku)?;
        let count = u32::try_from(self.canaries.len()).ok()?;
        let index = quantity.checked_sub(1)?.checked_mul(count)?.checked_add(u32::try_from(place).ok()?)?;
        (index < self.shoppers).then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use crate::load_test::canary::Shelves;

    #[test]
    fn every_canary_is_one_shoppers_alone() {
        let shelves = Shelves::divide((0..42).map(|sku| format!("s{sku}")).collect(), 500).expect("products");
        assert_eq!(shelves.shopping.len(), 21);
        let mut seen = HashSet::new();
        for index in 0..500 {
            let canary = shelves.canary(index);
            assert_eq!(shelves.owner(&canary.sku, canary.quantity), Some(index));
            assert!(shelves.is_set_aside(&canary.sku));
            assert!(seen.insert((canary.sku, canary.quantity)));
        }
        assert_eq!(shelves.owner("s0", 1), None);
        assert!(Shelves::divide(vec!["only".to_owned()], 1).is_none());
    }
}
