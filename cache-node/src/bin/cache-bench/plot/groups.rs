//! Reports side by side: a chart for each measure, in it a group of bars for each report.

use super::{
    GAP, MARGIN, TITLE_HEIGHT, WIDTH, color, heading,
    svg::{text, write},
};
use crate::{
    report::{Group, Report},
    table::number,
};

const CAPTION_HEIGHT: usize = 28;
const HEIGHT: usize = 130;
/// For a report's label and its ratio, below its bars.
const LABEL_HEIGHT: usize = 24;
/// Between two groups.
const SPACE: usize = 32;
const BAR_WIDTH_MAX: usize = 52;

/// Draws reports of one group, which have the same measures and servers, from `y` on; where it ends.
pub(super) fn panel(out: &mut String, group: &Group, reports: &[Report], y: usize) -> usize {
    heading(out, y, &group.name, &group.about);
    let Some(first) = reports.first() else { return y + TITLE_HEIGHT };
    let mut y = y + TITLE_HEIGHT;
    for (measure, _) in first.measures.iter().enumerate().filter(|(_, measure)| measure.is_shown) {
        chart(out, reports, measure, y);
        y += CAPTION_HEIGHT + HEIGHT + LABEL_HEIGHT + GAP / 2;
    }
    y
}

fn chart(out: &mut String, reports: &[Report], measure: usize, y: usize) {
    let Some(first) = reports.first() else { return };
    text(out, MARGIN, y + 12, "font-weight=\"600\"", first.measures[measure].name);
    legend(out, first, y + 12);
    let values = || reports.iter().flat_map(|report| (0..report.rows.len()).filter_map(move |row| report.value(row, measure)));
    let highest = values().map(|spread| spread.max).fold(f64::MIN_POSITIVE, f64::max);
    let bottom = y + CAPTION_HEIGHT + HEIGHT;
    // The highest bar leaves room for its number.
    let scale = |value: f64| value.max(0.0) / highest * (HEIGHT - 14) as f64;
    let group_width = (WIDTH - 2 * MARGIN) / reports.len().max(1);
    let bar_width = (group_width.saturating_sub(SPACE) / first.rows.len().max(1)).min(BAR_WIDTH_MAX);
    for (place, report) in reports.iter().enumerate() {
        let left = MARGIN + place * group_width;
        for row in 0..report.rows.len() {
            let Some(spread) = report.value(row, measure) else { continue };
            let (x, height, color) = (left + row * bar_width, scale(spread.median), color(row));
            let (width, top) = (bar_width.saturating_sub(3), bottom as f64 - height);
            write(
                out,
                format_args!(
                    "<rect x=\"{x}\" y=\"{top:.1}\" width=\"{width}\" height=\"{height:.1}\" rx=\"2\" fill=\"{color}\"/>\n"
                ),
            );
            let middle = x + width / 2;
            let [from, to] = [spread.min, spread.max].map(|value| bottom as f64 - scale(value));
            write(out, format_args!("<path d=\"M{middle} {from:.1}V{to:.1}\" stroke=\"#1f2933\" stroke-width=\"1.5\"/>\n"));
            let value = number(spread.median, report.measures[measure].decimals);
            text(out, middle, to.min(top) as usize - 4, "text-anchor=\"middle\" font-size=\"11\"", &value);
        }
        text(out, left, bottom + 16, "", &label(report, measure));
    }
    let right = WIDTH - MARGIN;
    write(out, format_args!("<path d=\"M{MARGIN} {bottom}H{right}\" stroke=\"#9aa5b1\" stroke-width=\"1\"/>\n"));
}

/// The report's label with the ratio of its first row.
fn label(report: &Report, measure: usize) -> String {
    let label = report.group.as_ref().map_or(&*report.name, |group| &*group.label);
    report.ratio(0, measure).map_or_else(|| label.to_owned(), |ratio| format!("{label}  {:.2}×", ratio.median))
}

/// The servers by their colours, from the right border on.
fn legend(out: &mut String, report: &Report, y: usize) {
    const WIDTH_EACH: usize = 150;
    let left = WIDTH - MARGIN - report.rows.len() * WIDTH_EACH;
    for (place, row) in report.rows.iter().enumerate() {
        let (x, top, color) = (left + place * WIDTH_EACH, y - 10, color(place));
        write(out, format_args!("<rect x=\"{x}\" y=\"{top}\" width=\"12\" height=\"12\" fill=\"{color}\"/>\n"));
        text(out, x + 18, y, "", &row.server);
    }
}
