//! The cart as the shop's own page shows it: what a visitor sees may be wrong where the JSON beside it is right.

use crate::load_test::forms::attribute;
use crate::load_test::ledger::SeenCart;

/// The cart on `page`; `None` when the page tells none, because the cart is out of reach or the page is another shop's.
pub(crate) fn read(page: &str) -> Option<SeenCart> {
    let (_, rest) = page.split_once("id=\"cart-revision\">")?;
    let revision = rest.split('<').next()?.trim().parse().ok()?;
    let mut cart = SeenCart { revision, ..SeenCart::default() };
    for tag in page.split("<li ").skip(1).filter_map(|part| part.split_once('>')).map(|(tag, _)| format!(" {tag}")) {
        let line = attribute(&tag, "data-sku").zip(attribute(&tag, "data-quantity").and_then(|text| text.parse::<u32>().ok()));
        if let Some((sku, quantity)) = line {
            *cart.lines.entry(sku).or_default() += quantity;
        }
    }
    Some(cart)
}

#[cfg(test)]
mod tests {
    use crate::load_test::cart_page::read;

    #[test]
    fn the_lines_of_the_page_are_read_and_an_absent_cart_is_not_an_empty_one() {
        let page = r#"<li class="card">x</li><li class="line" data-sku="a&#38;b" data-quantity="2"><li data-sku="c" data-quantity="1">
            <b id="cart-revision">7</b>"#;
        let cart = read(page).expect("the page has it");
        assert_eq!(cart.revision, 7);
        assert_eq!(cart.lines.into_iter().collect::<Vec<_>>(), [("a&b".to_owned(), 2), ("c".to_owned(), 1)]);
        assert!(read(r#"<b id="cart-revision">–</b>"#).is_none());
        assert!(read("another shop").is_none());
    }
}
