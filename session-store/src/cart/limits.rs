//! How large a cart may become, and what may be in it.

use super::CartError;

/// Bounds of a cart. They are enforced in the store, in the same atomic step as the change.
///
/// ```
/// use session_store::CartLimits;
///
/// let limits = CartLimits { quantity_max: 10, ..CartLimits::default() };
/// assert_eq!(limits.lines_max, 100);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CartLimits {
    /// Lines at most. Default: 100.
    pub lines_max: u32,
    /// Quantity of one line at most. Default: 99.
    pub quantity_max: u32,
}

impl Default for CartLimits {
    fn default() -> Self {
        Self { lines_max: 100, quantity_max: 99 }
    }
}

/// Bytes of the longest SKU.
pub(crate) const SKU_BYTES_MAX: usize = 64;

/// A SKU is 1 to 64 printable ASCII characters without spaces, and does not begin with `@`.
pub(crate) fn check_sku(sku: &str) -> Result<(), CartError> {
    let printable = sku.bytes().all(|byte| byte.is_ascii_graphic());
    if sku.is_empty() || sku.len() > SKU_BYTES_MAX || sku.starts_with('@') || !printable {
        return Err(CartError::InvalidSku);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check_sku;

    #[test]
    fn a_sku_cannot_be_a_reserved_field() {
        for good in ["a", "TEA-001", "x/y:z~", &"s".repeat(64)] {
            assert!(check_sku(good).is_ok(), "{good}");
        }
        for bad in ["", "@", "@rev", "a b", "a\n", "é", &"s".repeat(65)] {
            assert!(check_sku(bad).is_err(), "{bad:?}");
        }
    }
}
