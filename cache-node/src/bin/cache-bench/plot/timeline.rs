//! Lines over time.

use super::svg::{text, write};
use crate::{
    table::number,
    timeline::{Scale, Timeline},
};

const CAPTION_HEIGHT: usize = 20;
const HEIGHT: usize = 180;
/// For the numbers of the axis, left of the lines.
const AXIS_WIDTH: usize = 56;
/// For the names of the lines, right of them.
const NAMES_WIDTH: usize = 150;
/// For the numbers of the seconds, below.
const SECONDS_HEIGHT: usize = 24;
/// Numbers of an axis.
const TICKS: u32 = 5;
/// The line that matters first.
const COLORS: [&str; 3] = ["#0b7a75", "#e07a1f", "#9aa5b1"];

/// Where values stand.
struct Frame {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
    seconds: [f64; 2],
    values: [f64; 2],
    scale: Scale,
}

impl Frame {
    fn x(&self, seconds: f64) -> f64 {
        let [from, to] = self.seconds;
        self.left + (seconds - from) / (to - from) * self.width
    }

    fn y(&self, value: f64) -> f64 {
        let place = |value: f64| match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic => value.max(self.values[0]).log10(),
        };
        let [from, to] = self.values.map(place);
        self.top + self.height - (place(value) - from) / (to - from) * self.height
    }
}

/// Draws a chart at this place; where it ends.
pub(super) fn chart(out: &mut String, timeline: &Timeline, [x, y]: [usize; 2], width: usize) -> usize {
    text(out, x, y + 12, "font-weight=\"600\"", &timeline.name);
    let bottom = y + CAPTION_HEIGHT + HEIGHT;
    let values = || timeline.lines.iter().flat_map(|(_, values)| values).copied().filter(|value| value.is_finite());
    let highest = values().fold(f64::MIN_POSITIVE, f64::max);
    let seconds = || timeline.seconds.iter().copied().chain(timeline.spans.iter().flat_map(|span| [span.from, span.to]));
    let frame = Frame {
        left: (x + AXIS_WIDTH) as f64,
        top: (y + CAPTION_HEIGHT) as f64,
        width: width.saturating_sub(AXIS_WIDTH + NAMES_WIDTH) as f64,
        height: HEIGHT as f64,
        seconds: [seconds().fold(0.0, f64::min), seconds().fold(1.0, f64::max)],
        values: match timeline.scale {
            Scale::Linear => [0.0, highest * 1.1],
            Scale::Logarithmic => {
                let lowest = values().filter(|&value| value > 0.0).fold(highest, f64::min);
                [10_f64.powf(lowest.log10().floor()), 10_f64.powf(highest.log10().floor() + 1.0)]
            }
        },
        scale: timeline.scale,
    };
    spans(out, timeline, &frame);
    axes(out, &frame, bottom);
    for (place, (name, values)) in timeline.lines.iter().enumerate() {
        let color = COLORS[place.min(COLORS.len() - 1)];
        let points = timeline.seconds.iter().zip(values).filter(|(_, value)| value.is_finite());
        let points: Vec<String> = points.map(|(&at, &value)| format!("{:.1},{:.1}", frame.x(at), frame.y(value))).collect();
        write(
            out,
            format_args!("<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.2\"/>\n", points.join(" ")),
        );
        let (left, top) = ((frame.left + frame.width) as usize + 10, y + CAPTION_HEIGHT + 14 + place * 18);
        text(out, left, top, &format!("fill=\"{color}\" font-weight=\"600\""), name);
    }
    bottom + SECONDS_HEIGHT
}

fn spans(out: &mut String, timeline: &Timeline, frame: &Frame) {
    for span in &timeline.spans {
        let (from, to) = (frame.x(span.from), frame.x(span.to));
        let (top, width, height) = (frame.top, to - from, frame.height);
        write(
            out,
            format_args!("<rect x=\"{from:.1}\" y=\"{top}\" width=\"{width:.1}\" height=\"{height}\" fill=\"#f5f7fa\"/>\n"),
        );
        write(out, format_args!("<path d=\"M{from:.1} {top}V{:.1}\" stroke=\"#9aa5b1\" stroke-width=\"1\"/>\n", top + height));
        text(out, from as usize + 4, top as usize + 12, "fill=\"#7b8794\"", span.name);
    }
}

fn axes(out: &mut String, frame: &Frame, bottom: usize) {
    for value in ticks(frame) {
        let (left, right, y) = (frame.left, frame.left + frame.width, frame.y(value));
        write(out, format_args!("<path d=\"M{left:.1} {y:.1}H{right:.1}\" stroke=\"#dfe3e8\" stroke-width=\"1\"/>\n"));
        let decimals = if value >= 1.0 || value == 0.0 { 0 } else { (-value.log10()).ceil().clamp(0.0, 4.0) as usize };
        text(out, left as usize - 6, y as usize + 4, "text-anchor=\"end\" fill=\"#52606d\"", &number(value, decimals));
    }
    let [from, to] = frame.seconds;
    for tick in 0..=TICKS {
        let seconds = from.max(0.0) + (to - from.max(0.0)) * f64::from(tick) / f64::from(TICKS);
        let label = format!("{} s", number(seconds, 0));
        text(out, frame.x(seconds) as usize, bottom + 16, "text-anchor=\"middle\" fill=\"#52606d\"", &label);
    }
}

/// Values that the axis names: powers of ten, or equal steps of a round length.
fn ticks(frame: &Frame) -> Vec<f64> {
    let [from, to] = frame.values;
    match frame.scale {
        Scale::Logarithmic => {
            let exponents = from.log10().round() as i32..=to.log10().round() as i32;
            exponents.map(|exponent| 10_f64.powi(exponent)).collect()
        }
        Scale::Linear => {
            let rough = to / f64::from(TICKS);
            let power = 10_f64.powf(rough.log10().floor());
            let step =
                [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|&step| step >= rough).unwrap_or(rough);
            (0..=TICKS).map(|tick| f64::from(tick) * step).filter(|&value| value <= to).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::chart;
    use crate::timeline::{Scale, Span, Timeline};

    fn timeline(scale: Scale, values: Vec<f64>) -> Timeline {
        let spans = vec![Span { name: "warm-up", from: -2.0, to: 0.0 }];
        let seconds = (0..values.len()).map(|second| second as f64 - 2.0).collect();
        Timeline { name: "node <1>: ms".to_owned(), scale, spans, seconds, lines: vec![("p99", values)] }
    }

    #[test]
    fn each_value_is_a_point_and_higher_ones_stand_higher() {
        for scale in [Scale::Linear, Scale::Logarithmic] {
            let mut svg = String::new();
            let end = chart(&mut svg, &timeline(scale, vec![0.2, 20.0, f64::NAN, 0.0, 3.0]), [0, 0], 600);
            let points = svg.split("points=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
            let ys: Vec<f64> = points.split(' ').filter_map(|point| point.split_once(',')?.1.parse().ok()).collect();
            assert_eq!(ys.len(), 4, "what was not measured is left out: {points}");
            assert!(ys[1] < ys[3] && ys[3] < ys[0] && ys[0] <= ys[2], "{scale:?}: {ys:?}");
            assert!(ys.iter().all(|&y| y >= 0.0 && y <= end as f64));
            assert!(svg.contains("warm-up") && svg.contains("node &lt;1&gt;") && !svg.contains("NaN") && !svg.contains("inf"));
        }
    }
}
