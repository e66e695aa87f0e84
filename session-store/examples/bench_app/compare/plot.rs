//! The comparison as one SVG file that needs nothing else.

use std::fmt::Write as _;

use super::{report::Report, samples::Spread};
use crate::mode::Mode;

const WIDTH: usize = 980;
const MARGIN: usize = 24;
const ROW_HEIGHT: usize = 22;
const BAR_HEIGHT: usize = 15;
const TITLE_HEIGHT: usize = 30;
/// For the names of the modes, left of the bars.
const NAME_WIDTH: usize = 180;
/// For a value and its ratio, right of the longest bar.
const LABEL_WIDTH: usize = 210;

/// A chart for each load: a bar of the application's CPU per request, and the store's behind it.
pub(super) fn render(report: &Report) -> String {
    let mut body = String::new();
    let mut y = MARGIN;
    text(
        &mut body,
        MARGIN,
        y,
        "CPU per request in µs: application (dark) and store (light). Median of the rounds; × is the ratio to plain axum.",
    );
    y += 20;
    for &connections in &report.connections {
        for &route in &report.routes {
            text(&mut body, MARGIN, y + 18, &format!("{}, {connections} connections", route.name()));
            y += TITLE_HEIGHT;
            let values: Vec<(Mode, f64, f64)> = report
                .modes
                .iter()
                .filter_map(|&mode| {
                    let place = (connections, route, mode);
                    let app = report.samples.value(place, |sample| sample.app_us)?.median;
                    Some((mode, app, report.samples.value(place, |sample| sample.store_us)?.median))
                })
                .collect();
            let longest = values.iter().map(|(_, app, store)| app + store).fold(f64::MIN_POSITIVE, f64::max);
            let scale = (WIDTH - 2 * MARGIN - NAME_WIDTH - LABEL_WIDTH) as f64 / longest;
            for (mode, app, store) in values {
                let ratio = report.samples.ratio((connections, route, mode), Mode::Plain, |sample| sample.app_us);
                row(&mut body, y, mode, [app, store], scale, ratio);
                y += ROW_HEIGHT;
            }
        }
    }
    let height = y + MARGIN;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"#1f2933\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{body}</svg>\n"
    )
}

fn row(body: &mut String, y: usize, mode: Mode, [app, store]: [f64; 2], scale: f64, ratio: Option<Spread>) {
    let left = MARGIN + NAME_WIDTH;
    let (app_width, store_width) = (app * scale, store * scale);
    let color = if matches!(mode, Mode::Ours | Mode::OursAround | Mode::OursExclusive | Mode::NearCache | Mode::NearCacheAround) {
        "#0b7a75"
    } else {
        "#7b8794"
    };
    text(body, MARGIN, y + 12, &mode.to_string());
    let _ = writeln!(body, "<rect x=\"{left}\" y=\"{y}\" width=\"{app_width:.1}\" height=\"{BAR_HEIGHT}\" fill=\"{color}\"/>");
    let _ = writeln!(
        body,
        "<rect x=\"{:.1}\" y=\"{y}\" width=\"{store_width:.1}\" height=\"{BAR_HEIGHT}\" fill=\"{color}\" opacity=\"0.4\"/>",
        left as f64 + app_width
    );
    let ratio = ratio.map_or_else(String::new, |ratio| format!(" ({:.2}×)", ratio.median));
    let end = left + (app_width + store_width) as usize + 6;
    text(body, end, y + 12, &format!("{app:.1}{ratio} + {store:.1}"));
}

/// All texts are names and numbers of this program, without characters that XML reserves.
fn text(body: &mut String, x: usize, y: usize, content: &str) {
    let _ = writeln!(body, "<text x=\"{x}\" y=\"{y}\">{content}</text>");
}
