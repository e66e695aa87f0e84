//! Charts as SVG: a value over the seconds of a run, with the kills as vertical marks.

use std::fmt::Write;

use crate::load_test::recorder::{Kill, Second};

const WIDTH: f64 = 920.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 34.0;
/// Labels on the time axis, about.
const TIME_LABELS: u64 = 10;

/// One line of a chart.
pub(crate) struct Series {
    /// Its CSS class, which gives it a colour.
    pub(crate) class: &'static str,
    pub(crate) name: &'static str,
    pub(crate) value: fn(&Second) -> f64,
}

/// How values become heights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// From zero.
    Linear,
    /// Decades: a spike of a second and a median below a millisecond are both seen.
    Logarithmic,
}

/// A chart; `title` is read to those who cannot see it.
pub(crate) fn chart(title: &str, timeline: &[Second], kills: &[Kill], series: &[Series], scale: Scale) -> String {
    let whole: Vec<&Second> = complete_seconds(timeline);
    let values = || whole.iter().flat_map(|second| series.iter().map(|one| (one.value)(second)));
    let axis = Axis::over(values(), scale);
    let last = whole.last().map_or(1, |second| second.second + 1);
    let x = |second: f64| LEFT + (WIDTH - LEFT - RIGHT) * (second / to_f64(last)).clamp(0.0, 1.0);

    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\" xmlns=\"http://www.w3.org/2000/svg\">"
    );
    for tick in &axis.ticks {
        let y = axis.y(*tick);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            y + 4.0,
            short(*tick)
        );
    }
    for second in (0..=last).step_by(usize::try_from(time_step(last)).unwrap_or(1)) {
        let _ = write!(
            svg,
            "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{second} s</text>",
            x(to_f64(second)),
            HEIGHT - BOTTOM + 20.0
        );
    }
    for kill in kills {
        let at = x(kill.at_s);
        let _ = write!(
            svg,
            "<g class=\"kill\"><title>{failure} of {name} at {at_s:.1} s</title>\
             <line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom:.1}\"/>\
             <text x=\"{at:.1}\" y=\"{label:.1}\" text-anchor=\"middle\">✕ {name}</text></g>",
            failure = kill.failure.name(),
            name = escape(&kill.replica),
            at_s = kill.at_s,
            bottom = HEIGHT - BOTTOM,
            label = TOP - 8.0
        );
    }
    for one in series {
        let mut path = String::new();
        for second in &whole {
            let command = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{command}{:.1} {:.1}", x(to_f64(second.second) + 0.5), axis.y((one.value)(second)));
        }
        let _ = write!(svg, "<path class=\"line {}\" d=\"{path}\"><title>{}</title></path>", one.class, one.name);
    }
    svg.push_str("</svg>");
    svg
}

/// The first and the last second are cut off by the run's start and end, and would show a rate that never was.
fn complete_seconds(timeline: &[Second]) -> Vec<&Second> {
    let inner: Vec<&Second> = timeline.iter().skip(1).take(timeline.len().saturating_sub(2)).collect();
    if inner.len() < 2 { timeline.iter().collect() } else { inner }
}

struct Axis {
    low: f64,
    high: f64,
    scale: Scale,
    ticks: Vec<f64>,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64> + Clone, scale: Scale) -> Self {
        let highest = values.clone().fold(0.0, f64::max);
        match scale {
            Scale::Linear => {
                let step = nice_step(highest / 4.0);
                let count = (highest / step).ceil().max(1.0);
                let ticks = (0..=8_u64).map(|tick| to_f64(tick) * step).filter(|tick| *tick <= count * step).collect();
                Self { low: 0.0, high: count * step, scale, ticks }
            }
            Scale::Logarithmic => {
                let lowest = values.filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
                let from = if lowest.is_finite() { lowest.log10().floor().max(-2.0) } else { 0.0 };
                let to = highest.max(0.01).log10().ceil().max(from + 1.0);
                let ticks = (0..=9_u64).map(|decade| from + to_f64(decade)).filter(|tick| *tick <= to);
                Self { low: from, high: to, scale, ticks: ticks.map(|exponent| 10_f64.powf(exponent)).collect() }
            }
        }
    }

    fn y(&self, value: f64) -> f64 {
        let place = match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic => value.max(1e-3).log10(),
        };
        let part = ((place - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)
    }
}

/// The next of 1, 2, 5 × 10ⁿ.
fn nice_step(step: f64) -> f64 {
    if step <= 0.0 {
        return 1.0;
    }
    let decade = 10_f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * decade).find(|nice| *nice >= step).unwrap_or(step)
}

fn time_step(last: u64) -> u64 {
    [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1_800, 3_600, 7_200]
        .into_iter()
        .find(|step| last / step <= TIME_LABELS)
        .unwrap_or(14_400)
}

#[expect(clippy::cast_precision_loss, reason = "seconds of a run are far below 2^52")]
fn to_f64(number: u64) -> f64 {
    number as f64
}

fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Text that may stand in HTML and in SVG, in attributes too.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use crate::load_test::chart::{Scale, Series, chart, escape, nice_step};
    use crate::load_test::recorder::Second;

    #[test]
    fn charts_of_nothing_and_of_one_second_have_no_broken_numbers() {
        let second = Second { second: 0, requests: 0, errors: 0, p50_ms: 0.0, p99_ms: 0.0 };
        for timeline in [vec![], vec![second.clone()], vec![second; 5]] {
            for scale in [Scale::Linear, Scale::Logarithmic] {
                let series = [Series { class: "p50", name: "p50", value: |second| second.p50_ms }];
                let svg = chart("t", &timeline, &[], &series, scale);
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            }
        }
    }

    #[test]
    fn steps_are_easy_to_read() {
        assert_eq!([0.3, 1.0, 3.0, 70.0].map(nice_step), [0.5, 1.0, 5.0, 100.0]);
        assert_eq!(escape("<a href=\"&\">"), "&lt;a href=&quot;&amp;&quot;&gt;");
    }
}
