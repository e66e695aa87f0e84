//! One measure as a bar for each server.

use super::{
    color,
    svg::{text, write},
};
use crate::{
    report::{Measure, Report},
    statistic::Spread,
    table::number,
};

const CAPTION_HEIGHT: usize = 20;
const BAR_HEIGHT: usize = 16;
const ROW_HEIGHT: usize = 22;
/// For the servers' names, left of the bars.
const NAME_WIDTH: usize = 130;
/// For a value and its ratio, right of the longest bar.
const LABEL_WIDTH: usize = 200;

/// How high the chart of a measure is.
pub(super) fn height(report: &Report) -> usize {
    CAPTION_HEIGHT + report.rows.len() * ROW_HEIGHT
}

/// Draws measure `index`.
pub(super) fn chart(out: &mut String, report: &Report, index: usize, [x, y]: [usize; 2], width: usize) {
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
        let color = color(row);
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
