//! The reports as one SVG file that needs nothing else.

use std::fmt::Write as _;

use crate::{
    report::{Measure, Report},
    statistic::Spread,
    table::number,
};

const WIDTH: usize = 1120;
const MARGIN: usize = 24;
const GAP: usize = 28;
const TITLE_HEIGHT: usize = 46;
const CAPTION_HEIGHT: usize = 20;
const BAR_HEIGHT: usize = 16;
const ROW_HEIGHT: usize = 22;
/// For the servers' names, left of the bars.
const NAME_WIDTH: usize = 104;
/// For a value and its ratio, right of the longest bar.
const LABEL_WIDTH: usize = 200;
/// Charts side by side.
const COLUMNS_MAX: usize = 3;
/// The node under test, the first peer, the others.
const COLORS: [&str; 4] = ["#0b7a75", "#9aa5b1", "#c3cad2", "#dfe3e8"];

/// A chart for each measure that is compared or has a goal, bars with the spread of the rounds.
pub(crate) fn render(reports: &[Report]) -> String {
    let mut body = String::new();
    let legend = match reports.first().and_then(|report| report.rows.get(1)) {
        Some(peer) => format!("Bars: median of the rounds. Lines: lowest to highest. Ratios (×) are to {}.", peer.server),
        None => "Bars: median of the rounds. Lines: lowest to highest.".to_owned(),
    };
    text(&mut body, MARGIN, MARGIN, "fill=\"#52606d\"", &legend);
    let mut y = MARGIN + GAP;
    for report in reports {
        y = panel(&mut body, report, y) + GAP;
    }
    let height = y + MARGIN;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"#1f2933\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{body}</svg>\n"
    )
}

/// Draws a report from `y` on; where it ends.
fn panel(out: &mut String, report: &Report, y: usize) -> usize {
    text(out, MARGIN, y + 14, "font-size=\"16\" font-weight=\"600\"", &report.name);
    text(out, MARGIN, y + 32, "fill=\"#52606d\"", &report.about);
    let charts: Vec<usize> = (0..report.measures.len())
        .filter(|&index| report.measures[index].is_shown)
        .filter(|&index| report.measures[index].comparison.is_some() || report.measures[index].goal.is_some())
        .collect();
    let columns = charts.len().clamp(1, COLUMNS_MAX);
    let width = (WIDTH - 2 * MARGIN - (columns - 1) * GAP) / columns;
    let height = CAPTION_HEIGHT + report.rows.len() * ROW_HEIGHT;
    for (place, &measure) in charts.iter().enumerate() {
        let x = MARGIN + (place % columns) * (width + GAP);
        let y = y + TITLE_HEIGHT + (place / columns) * (height + GAP / 2);
        chart(out, report, measure, [x, y], width);
    }
    let lines = charts.len().div_ceil(columns);
    y + TITLE_HEIGHT + lines * (height + GAP / 2)
}

fn chart(out: &mut String, report: &Report, index: usize, [x, y]: [usize; 2], width: usize) {
    let measure = &report.measures[index];
    text(out, x, y + 12, "font-weight=\"600\"", measure.name);
    let spreads: Vec<Option<Spread>> = (0..report.rows.len()).map(|row| report.value(row, index)).collect();
    let longest = spreads.iter().flatten().map(|spread| spread.max).fold(f64::MIN_POSITIVE, f64::max);
    let room = width.saturating_sub(NAME_WIDTH + LABEL_WIDTH) as f64;
    let scale = |value: f64| (value.max(0.0) / longest * room).min(room);
    for (row, spread) in spreads.into_iter().enumerate() {
        let top = y + CAPTION_HEIGHT + row * ROW_HEIGHT;
        let (left, middle) = (x + NAME_WIDTH, top + BAR_HEIGHT / 2);
        text(out, x, top + 12, "", &report.rows[row].server);
        let Some(spread) = spread else {
            text(out, left, top + 12, "fill=\"#7b8794\"", "does not apply");
            continue;
        };
        let color = COLORS[row.min(COLORS.len() - 1)];
        let length = scale(spread.median);
        write(
            out,
            format_args!(
                "<rect x=\"{left}\" y=\"{top}\" width=\"{length:.1}\" height=\"{BAR_HEIGHT}\" rx=\"2\" fill=\"{color}\"/>\n"
            ),
        );
        let [from, to] = [spread.min, spread.max].map(|value| left as f64 + scale(value));
        write(out, format_args!("<path d=\"M{from:.1} {middle}H{to:.1}\" stroke=\"#1f2933\" stroke-width=\"1.5\"/>\n"));
        let end = to.max(left as f64 + length) as usize + 6;
        text(out, end, top + 12, "", &label(report, measure, index, row, spread));
    }
}

fn label(report: &Report, measure: &Measure, index: usize, row: usize, spread: Spread) -> String {
    let value = number(spread.median, measure.decimals);
    match (report.ratio(row, index), measure.comparison) {
        (Some(ratio), Some(comparison)) => format!("{value}  ({} {:.2}×)", comparison.name, ratio.median),
        _ => value,
    }
}

fn text(out: &mut String, x: usize, y: usize, attributes: &str, content: &str) {
    write(out, format_args!("<text x=\"{x}\" y=\"{y}\" {attributes}>{}</text>\n", escape(content)));
}

fn write(out: &mut String, arguments: std::fmt::Arguments<'_>) {
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
    use super::{escape, render};
    use crate::{
        report::{Goal, Measure, Report},
        statistic::Direction,
    };

    #[test]
    fn text_cannot_leave_its_element() {
        assert_eq!(escape("a<b> & \"c\" 'd'\n\u{0}"), "a&lt;b&gt; &amp; &quot;c&quot; &#39;d&#39; \u{fffd}");
    }

    #[test]
    fn a_file_has_a_bar_for_each_server_that_was_measured() {
        let cpu = Measure::new("CPU µs/op", 1).compared("ops", Direction::PeersOverOurs).goal(Some(Goal::RatioAtLeast(2.0)));
        let servers = ["cache-node", "redis <7>", "memcached"].map(str::to_owned);
        let mut report = Report::new("hash".to_owned(), "a & b".to_owned(), vec![cpu, Measure::new("RSS", 0)], &servers);
        report.push(0, &[1.0, 1.0]);
        report.push(1, &[2.0, 1.0]);
        report.push(2, &[f64::NAN, f64::NAN]);
        let svg = render(&[report]);
        assert_eq!(svg.matches("rx=\"2\"").count(), 2);
        assert!(svg.contains("redis &lt;7&gt;") && svg.contains("a &amp; b") && svg.contains("does not apply"));
        assert!(svg.contains("(ops 2.00×)") && !svg.contains("NaN") && !svg.contains("RSS"));
        assert_eq!(svg.matches('<').count(), svg.matches('>').count());
    }
}
