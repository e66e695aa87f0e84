//! Elements of an SVG file.

use std::fmt::Write as _;

/// Writes a line of text from `x` on, `y` is its base line.
pub(super) fn text(out: &mut String, x: usize, y: usize, attributes: &str, content: &str) {
    write(out, format_args!("<text x=\"{x}\" y=\"{y}\" {attributes}>{}</text>\n", escape(content)));
}

/// Writes anything.
pub(super) fn write(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    out.write_fmt(arguments).expect("a String takes all that is written to it");
}

/// Text as it may stand between tags or in an attribute, without characters that XML forbids.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\t' | '\n' | '\r' => escaped.push(' '),
            character if character < ' ' || ('\u{fffe}'..='\u{ffff}').contains(&character) => escaped.push('\u{fffd}'),
            character => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn text_cannot_leave_its_element() {
        assert_eq!(escape("a<b> & \"c\" 'd'\n\u{0}"), "a&lt;b&gt; &amp; &quot;c&quot; &#39;d&#39; \u{fffd}");
    }
}
