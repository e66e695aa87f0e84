//! The reports as one SVG file that needs nothing else.

mod bars;
mod groups;
mod svg;
mod timeline;

use self::svg::text;
use crate::report::Report;

const WIDTH: usize = 1120;
const MARGIN: usize = 24;
const GAP: usize = 28;
const TITLE_HEIGHT: usize = 46;
/// Charts side by side.
const COLUMNS_MAX: usize = 3;
/// The node under test, the first peer, the others.
const COLORS: [&str; 4] = ["#0b7a75", "#9aa5b1", "#c3cad2", "#dfe3e8"];

fn color(row: usize) -> &'static str {
    COLORS[row.min(COLORS.len() - 1)]
}

/// What stands above the charts of a report, or of a group of them.
fn heading(out: &mut String, y: usize, name: &str, about: &str) {
    text(out, MARGIN, y + 14, "font-size=\"16\" font-weight=\"600\"", name);
    text(out, MARGIN, y + 32, "fill=\"#52606d\"", about);
}

/// A chart for each measure that is compared or has a goal, bars with the spread of the rounds.
pub(crate) fn render(reports: &[Report]) -> String {
    let mut body = String::new();
    let legend = match reports.first().and_then(|report| report.rows.get(report.first_peer()?)) {
        Some(peer) => format!("Bars: median of the rounds. Lines: lowest to highest. Ratios (×) are to {}.", peer.server),
        None => "Bars: median of the rounds. Lines: lowest to highest.".to_owned(),
    };
    text(&mut body, MARGIN, MARGIN, "fill=\"#52606d\"", &legend);
    let mut y = MARGIN + GAP;
    for reports in reports.chunk_by(|one, next| one.group.is_some() && one.group_name() == next.group_name()) {
        y = match &reports[0].group {
            Some(group) => groups::panel(&mut body, group, reports, y),
            None => panel(&mut body, &reports[0], y),
        } + GAP;
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
    heading(out, y, &report.name, &report.about);
    let charts: Vec<usize> = (0..report.measures.len())
        .filter(|&index| report.measures[index].is_shown)
        .filter(|&index| report.measures[index].comparison.is_some() || report.measures[index].goal.is_some())
        .collect();
    let columns = charts.len().clamp(1, COLUMNS_MAX);
    let width = (WIDTH - 2 * MARGIN - (columns - 1) * GAP) / columns;
    let height = bars::height(report);
    for (place, &measure) in charts.iter().enumerate() {
        let x = MARGIN + (place % columns) * (width + GAP);
        let y = y + TITLE_HEIGHT + (place / columns) * (height + GAP / 2);
        bars::chart(out, report, measure, [x, y], width);
    }
    let lines = charts.len().div_ceil(columns);
    let mut end = y + TITLE_HEIGHT + lines * (height + GAP / 2);
    for timeline in &report.timelines {
        end = timeline::chart(out, timeline, [MARGIN, end + GAP / 2], WIDTH - 2 * MARGIN);
    }
    end
}

#[cfg(test)]
mod tests {
    use super::render;
    use crate::{
        report::{Goal, Group, Measure, Report},
        statistic::Direction,
    };

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

    #[test]
    fn reports_of_a_group_share_a_chart_of_each_measure() {
        let hits = |name| Measure::new(name, 1).compared("hits", Direction::OursOverPeers);
        let servers = ["cache-node", "valkey-server"].map(str::to_owned);
        let report = |label: &str, ours: f64| {
            let mut report =
                Report::new(format!("eviction {label}"), String::new(), vec![hits("8 MiB"), hits("16 MiB")], &servers);
            report.group = Some(Group { name: "eviction".to_owned(), about: "hits".to_owned(), label: label.to_owned() });
            report.push(0, &[ours, 2.0 * ours]);
            report.push(1, &[20.0, 40.0]);
            report
        };
        let alone = Report::new("string".to_owned(), String::new(), vec![hits("8 MiB")], &servers);
        let svg = render(&[report("lru", 25.0), report("lfu", 30.0), alone]);
        assert_eq!(svg.matches("rx=\"2\"").count(), 8, "two policies, two sizes, two servers");
        assert_eq!((svg.matches("lru  1.25×").count(), svg.matches("lfu  1.50×").count()), (2, 2));
        assert_eq!(svg.matches(">eviction<").count(), 1);
        assert!(svg.contains(">string<") && svg.contains(">60.0<"));
    }
}
