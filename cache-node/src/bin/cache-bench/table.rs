//! A report as text.

use crate::{
    report::{Measure, Report},
    statistic::Spread,
};

/// The report as a table, with what became of its goals below.
pub(crate) fn render(report: &Report) -> String {
    let shown: Vec<usize> = (0..report.measures.len()).filter(|&index| report.measures[index].is_shown).collect();
    let compared: Vec<usize> = shown
        .iter()
        .copied()
        .filter(|&index| report.measures[index].comparison.is_some() && report.first_peer().is_some())
        .collect();
    let mut header = vec![String::new()];
    header.extend(shown.iter().map(|&index| report.measures[index].name.to_owned()));
    header.extend(
        compared.iter().filter_map(|&index| report.measures[index].comparison).map(|comparison| comparison.name.to_owned()),
    );
    let mut lines = vec![header];
    for row in 0..report.rows.len() {
        let mut line = vec![report.rows[row].server.clone()];
        line.extend(shown.iter().map(|&index| value(&report.measures[index], report.value(row, index))));
        line.extend(
            compared
                .iter()
                .map(|&index| if report.first_peer() == Some(row) { "1".to_owned() } else { ratio(report.ratio(row, index)) }),
        );
        lines.push(line);
    }
    let mut text = format!("{}: {}\n", report.name, report.about);
    text.push_str(&align(&lines));
    for verdict in report.verdicts() {
        let mark = if verdict.is_met { "met " } else { "MISSED" };
        text.push_str(&format!("  {mark:<6} {}\n", verdict.text));
    }
    text
}

/// A number with thousands set apart.
pub(crate) fn number(value: f64, decimals: usize) -> String {
    let plain = format!("{value:.decimals$}");
    let (whole, fraction) = plain.split_once('.').map_or((plain.as_str(), None), |(whole, fraction)| (whole, Some(fraction)));
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("-", digits));
    let mut text = sign.to_owned();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    if let Some(fraction) = fraction {
        text.push('.');
        text.push_str(fraction);
    }
    text
}

fn value(measure: &Measure, spread: Option<Spread>) -> String {
    spread.map_or_else(|| "-".to_owned(), |spread| number(spread.median, measure.decimals))
}

fn ratio(spread: Option<Spread>) -> String {
    spread.map_or_else(|| "-".to_owned(), |Spread { median, min, max }| format!("{median:.2}x ({min:.2}-{max:.2})"))
}

fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for line in lines {
        for (column, cell) in line.iter().enumerate() {
            let width = widths[column];
            let aligned = if column == 0 { format!("  {cell:<width$}") } else { format!("  {cell:>width$}") };
            text.push_str(&aligned);
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{number, render};
    use crate::{
        report::{Goal, Measure, Report},
        statistic::Direction,
    };

    #[test]
    fn numbers_have_their_thousands_apart() {
        let numbers = [(0.0, 0), (999.0, 0), (1000.0, 0), (1_234_567.891, 2), (-1234.5, 1)]
            .map(|(value, decimals)| number(value, decimals));
        assert_eq!(numbers, ["0", "999", "1,000", "1,234,567.89", "-1,234.5"]);
    }

    #[test]
    fn columns_are_aligned_and_ratios_follow_the_values() {
        let cpu =
            Measure::new("CPU µs/op", 1).compared("ops/CPU s", Direction::PeersOverOurs).goal(Some(Goal::RatioAtLeast(3.0)));
        let mut report = Report::new(
            "string".to_owned(),
            "a session".to_owned(),
            vec![Measure::new("ops/s", 0), cpu, Measure::new("client", 0).hidden()],
            &["cache-node".to_owned(), "redis".to_owned()],
        );
        report.push(0, &[1_000_000.0, 1.0, 0.0]);
        report.push(1, &[400.0, 2.5, 0.0]);
        let expected = "\
string: a session
                  ops/s  CPU µs/op         ops/CPU s
  cache-node  1,000,000        1.0  2.50x (2.50-2.50)
  redis             400        2.5                  1
  MISSED ops/CPU s: 2.50 (2.50-2.50), goal ≥ 3×
";
        let lines: Vec<&str> = expected.lines().map(str::trim_end).collect();
        let found = render(&report);
        let found: Vec<&str> = found.lines().collect();
        assert_eq!(found.len(), lines.len(), "{found:#?}");
        assert_eq!(found[2], lines[2]);
        assert_eq!(found[4], lines[4]);
        assert!(found[1].ends_with("ops/CPU s") && !found[1].contains("client"));
        assert_eq!(found[1].chars().count(), found[2].chars().count());
        assert_eq!(found[3].chars().count(), found[2].chars().count());
    }
}
