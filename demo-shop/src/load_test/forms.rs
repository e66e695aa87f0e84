//! The shop's own forms, as a browser would find them in a page.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};

/// A form of a page: where it goes, and the fields it is sent with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) action: String,
    pub(crate) fields: Vec<(String, String)>,
}

impl Form {
    /// The value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// Sets a field, as typing into it does.
    pub(crate) fn set(&mut self, name: &str, value: String) {
        match self.fields.iter_mut().find(|(field, _)| field == name) {
            Some((_, old)) => *old = value,
            None => self.fields.push((name.to_owned(), value)),
        }
    }

    /// The body in `application/x-www-form-urlencoded`.
    pub(crate) fn encode(&self) -> String {
        let pairs: Vec<String> =
            self.fields.iter().map(|(name, value)| format!("{}={}", percent_encode(name), percent_encode(value))).collect();
        pairs.join("&")
    }
}

/// The form of `page` that goes to `action` with `sku` in it.
///
/// A scan for the shop's own markup and no HTML parser: the shop is known, and a form that is not found is noticed.
pub(crate) fn find(page: &str, action: &str, sku: &str) -> Option<Form> {
    page.split("<form").skip(1).find_map(|part| {
        let (form, _) = part.split_once("</form>")?;
        let (tag, content) = form.split_once('>')?;
        // A button may send the same form elsewhere.
        if attribute(tag, "action").as_deref() != Some(action) {
            return None;
        }
        let fields = content
            .split("<input")
            .skip(1)
            .filter_map(|input| {
                let (tag, _) = input.split_once('>')?;
                Some((attribute(tag, "name")?, attribute(tag, "value").unwrap_or_default()))
            })
            .collect();
        let form = Form { action: action.to_owned(), fields };
        (form.field("sku") == Some(sku)).then_some(form)
    })
}

/// The value of an attribute of a tag.
pub(crate) fn attribute(tag: &str, name: &str) -> Option<String> {
    let start = tag.find(&format!(" {name}=\""))? + name.len() + 3;
    let (value, _) = tag.get(start..)?.split_once('"')?;
    Some(value.replace("&quot;", "\"").replace("&#34;", "\"").replace("&#39;", "'").replace("&amp;", "&").replace("&#38;", "&"))
}

/// Everything but the unreserved characters of RFC 3986 as `%XX`.
pub(crate) fn percent_encode(text: &str) -> PercentEncode<'_> {
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, RESERVED)
}

#[cfg(test)]
mod tests {
    use crate::load_test::forms::find;

    const PAGE: &str = r#"<form action="/cart/remove" method="post"><input type="hidden" name="sku" value="a"></form>
        <form method="post" action="/cart/update"><input type="hidden" name="sku" value="a">
        <input type="hidden" name="token" value="t1"><input type="number" name="quantity" value="2"></form>
        <form method="post" action="/cart/update"><input type="hidden" name="sku" value="b"></form>"#;

    #[test]
    fn the_form_of_a_line_is_found_and_filled_in() {
        let mut form = find(PAGE, "/cart/update", "a").expect("the page has it");
        assert_eq!(form.field("token"), Some("t1"));
        form.set("quantity", "3".to_owned());
        assert_eq!(form.encode(), "sku=a&token=t1&quantity=3");
        assert!(find(PAGE, "/cart/update", "c").is_none());
        assert!(find(PAGE, "/cart/add", "a").is_none());
        assert!(find("<form", "/cart/add", "a").is_none());
    }
}
