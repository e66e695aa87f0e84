//! What a workload found: for each server, each measure in each round.

use serde_json::{Value as Json, json};

use crate::{
    peer::{FLOOR, Peer},
    statistic::{Direction, Spread, ratio, spread},
    timeline::Timeline,
};

/// What the project wants of a measure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    /// Of the ratio to the first peer.
    RatioAtLeast(f64),
    /// Of the ratio to the first peer.
    RatioAtMost(f64),
    /// Of the value itself.
    AtLeast(f64),
    /// Of the value itself in each round.
    NeverBelow(f64),
    /// Of the value itself.
    AtMost(f64),
}

/// How a measure is compared with the first peer's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Comparison {
    /// What the ratio is called: operations per CPU second, where the measure is CPU per operation.
    pub(crate) name: &'static str,
    pub(crate) direction: Direction,
}

/// One number that is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Measure {
    /// With its unit.
    pub(crate) name: &'static str,
    pub(crate) decimals: usize,
    pub(crate) comparison: Option<Comparison>,
    pub(crate) goal: Option<Goal>,
    /// Of another server than the node under test, by its name.
    pub(crate) goal_of: Option<(&'static str, Goal)>,
    /// Whether it is in the table; JSON has all.
    pub(crate) is_shown: bool,
}

/// What one server did.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) server: String,
    /// For each measure the value of each round.
    pub(crate) values: Vec<Vec<f64>>,
}

/// One workload, all servers. The first row is the node under test, the second the peer it is compared with.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) name: String,
    pub(crate) about: String,
    pub(crate) measures: Vec<Measure>,
    pub(crate) rows: Vec<Row>,
    /// Reports that the plot shows together, when they follow each other.
    pub(crate) group: Option<Group>,
    /// What the plot shows over time.
    pub(crate) timelines: Vec<Timeline>,
}

/// What several reports have in common.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) about: String,
    /// What tells this report from the others.
    pub(crate) label: String,
}

/// Whether a goal was reached.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) text: String,
    pub(crate) is_met: bool,
}

impl Measure {
    /// A measure that is shown and neither compared nor judged.
    pub(crate) const fn new(name: &'static str, decimals: usize) -> Measure {
        Measure { name, decimals, comparison: None, goal: None, goal_of: None, is_shown: true }
    }

    /// Only in the JSON.
    pub(crate) const fn hidden(self) -> Measure {
        Measure { is_shown: false, ..self }
    }

    /// Compared with the first peer.
    pub(crate) const fn compared(self, name: &'static str, direction: Direction) -> Measure {
        Measure { comparison: Some(Comparison { name, direction }), ..self }
    }

    /// Judged.
    pub(crate) const fn goal(self, goal: Option<Goal>) -> Measure {
        Measure { goal, ..self }
    }

    /// Judged for another server as well.
    pub(crate) const fn goal_of(self, server: &'static str, goal: Option<Goal>) -> Measure {
        Measure { goal_of: if let Some(goal) = goal { Some((server, goal)) } else { None }, ..self }
    }
}

impl Report {
    /// A report without values.
    pub(crate) fn new(name: String, about: String, measures: Vec<Measure>, servers: &[String]) -> Report {
        let rows =
            servers.iter().map(|server| Row { server: server.clone(), values: vec![Vec::new(); measures.len()] }).collect();
        Report { name, about, measures, rows, group: None, timelines: Vec::new() }
    }

    /// Adds what one round of one server gave: a value for each measure.
    pub(crate) fn push(&mut self, server: usize, values: &[f64]) {
        assert_eq!(values.len(), self.measures.len(), "a value for each measure");
        for (all, &value) in self.rows[server].values.iter_mut().zip(values) {
            all.push(value);
        }
    }

    /// What it is shown with.
    pub(crate) fn group_name(&self) -> Option<&str> {
        self.group.as_ref().map(|group| &*group.name)
    }

    /// The place of a measure.
    pub(crate) fn measure(&self, name: &str) -> Option<usize> {
        self.measures.iter().position(|measure| measure.name == name)
    }

    /// The value of a measure over the rounds.
    pub(crate) fn value(&self, row: usize, measure: usize) -> Option<Spread> {
        spread(&self.rows.get(row)?.values[measure])
    }

    /// The ratio of a row to the first peer's row; `None` for the first peer itself and for measures that are not compared.
    pub(crate) fn ratio(&self, row: usize, measure: usize) -> Option<Spread> {
        let comparison = self.measures[measure].comparison?;
        let peer = self.first_peer().filter(|&peer| peer != row)?;
        ratio(&self.rows.get(row)?.values[measure], &self.rows[peer].values[measure], comparison.direction)
    }

    /// The row that ratios refer to; `None` when there is nothing but this program's own servers.
    pub(crate) fn first_peer(&self) -> Option<usize> {
        (1..self.rows.len()).find(|&row| !Peer::is_own(&self.rows[row].server))
    }

    /// What became of the goals that could be judged.
    pub(crate) fn verdicts(&self) -> Vec<Verdict> {
        (0..self.measures.len()).flat_map(|measure| [self.own_verdict(measure), self.verdict_of(measure)]).flatten().collect()
    }

    fn own_verdict(&self, measure: usize) -> Option<Verdict> {
        self.verdict(0, measure, self.measures[measure].goal?)
    }

    fn verdict_of(&self, measure: usize) -> Option<Verdict> {
        let (server, goal) = self.measures[measure].goal_of?;
        let row = self.rows.iter().position(|row| row.server == server)?;
        let Verdict { text, is_met } = self.verdict(row, measure, goal)?;
        Some(Verdict { text: format!("{server}, {text}"), is_met })
    }

    fn verdict(&self, row: usize, index: usize, goal: Goal) -> Option<Verdict> {
        let measure = &self.measures[index];
        let (found, wanted, is_met) = match goal {
            Goal::RatioAtLeast(goal) => (self.ratio(row, index)?, format!("≥ {goal}×"), self.ratio(row, index)?.median >= goal),
            Goal::RatioAtMost(goal) => (self.ratio(row, index)?, format!("≤ {goal}×"), self.ratio(row, index)?.median <= goal),
            Goal::AtLeast(goal) => (self.value(row, index)?, format!("≥ {goal}"), self.value(row, index)?.median >= goal),
            Goal::NeverBelow(goal) => (self.value(row, index)?, format!("never < {goal}"), self.value(row, index)?.min >= goal),
            Goal::AtMost(goal) => (self.value(row, index)?, format!("≤ {goal}"), self.value(row, index)?.median <= goal),
        };
        let (name, floor) = match (goal, measure.comparison) {
            (Goal::RatioAtLeast(_) | Goal::RatioAtMost(_), Some(comparison)) => (comparison.name, self.floor(index)),
            _ => (measure.name, None),
        };
        // It serves by epoll, and bounds no server that serves otherwise.
        let floor = floor.filter(|_| row == 0);
        let floor = floor.map_or_else(String::new, |floor| format!("; {FLOOR} with epoll and one thread {}", spread_text(floor)));
        Some(Verdict { text: format!("{name}: {}, goal {wanted}{floor}", spread_text(found)), is_met })
    }

    /// The ratio of the server that stores nothing: no store with epoll and one thread could reach a better one.
    fn floor(&self, measure: usize) -> Option<Spread> {
        self.ratio(self.rows.iter().position(|row| row.server == FLOOR)?, measure)
    }

    /// All of it, for machines.
    pub(crate) fn to_json(&self) -> Json {
        let rows: Vec<Json> = (0..self.rows.len()).map(|row| self.row_to_json(row)).collect();
        let goals: Vec<Json> =
            self.verdicts().into_iter().map(|verdict| json!({"text": verdict.text, "met": verdict.is_met})).collect();
        let mut json = json!({"workload": self.name, "about": self.about, "servers": rows, "goals": goals});
        if !self.timelines.is_empty() {
            json["timelines"] = self.timelines.iter().map(Timeline::to_json).collect();
        }
        json
    }

    fn row_to_json(&self, row: usize) -> Json {
        let measures: Vec<Json> = (0..self.measures.len())
            .map(|measure| {
                json!({
                    "name": self.measures[measure].name,
                    "rounds": self.rows[row].values[measure],
                    "median": self.value(row, measure).map(|spread| spread.median),
                    "ratio": self.ratio(row, measure).map(|Spread { median, min, max }| json!({
                        "of": self.measures[measure].comparison.map(|comparison| comparison.name),
                        "median": median, "min": min, "max": max,
                    })),
                })
            })
            .collect();
        json!({"server": self.rows[row].server, "measures": measures})
    }
}

fn spread_text(Spread { median, min, max }: Spread) -> String {
    format!("{median:.2} ({min:.2}-{max:.2})")
}

#[cfg(test)]
mod tests {
    use super::{Direction, Goal, Measure, Report};
    use crate::peer::IO_URING;

    #[test]
    fn goals_are_judged_by_the_median_of_the_ratio_to_the_first_peer() {
        let cpu =
            Measure::new("CPU µs/op", 2).compared("ops per CPU s", Direction::PeersOverOurs).goal(Some(Goal::RatioAtLeast(1.5)));
        let size = Measure::new("bytes", 0).goal(Some(Goal::AtMost(32.0)));
        let servers = ["node", "redis", "other"].map(str::to_owned);
        let mut report = Report::new("w".to_owned(), String::new(), vec![cpu, size], &servers);
        for (server, cpu) in [(0, 4.0), (1, 8.0), (2, 2.0), (0, 5.0), (1, 8.0), (2, 2.0), (0, 1.0), (1, 1.0), (2, 1.0)] {
            report.push(server, &[cpu, 33.0]);
        }
        let verdicts = report.verdicts();
        assert_eq!(verdicts[0].text, "ops per CPU s: 1.60 (1.00-2.00), goal ≥ 1.5×");
        assert!(verdicts[0].is_met && !verdicts[1].is_met);
        assert_eq!(report.ratio(1, 0), None, "the first peer is what the others are compared with");
        assert_eq!(report.ratio(2, 0).map(|ratio| ratio.median), Some(4.0));
    }

    #[test]
    fn the_floor_stands_beside_the_goal_and_is_no_peer() {
        let goal = Some(Goal::RatioAtLeast(1.5));
        let cpu = Measure::new("CPU", 2).compared("ops", Direction::PeersOverOurs).goal(goal).goal_of(IO_URING, goal);
        let report = |servers: &[&str]| {
            let servers: Vec<String> = servers.iter().map(|&server| server.to_owned()).collect();
            let mut report = Report::new("w".to_owned(), String::new(), vec![cpu], &servers);
            (0..servers.len()).for_each(|row| report.push(row, &[8.0 - row as f64]));
            report
        };
        let verdicts = report(&["cache-node", "redis", "floor"]).verdicts();
        assert_eq!(verdicts[0].text, "ops: 0.88 (0.88-0.88), goal ≥ 1.5×; floor with epoll and one thread 1.17 (1.17-1.17)");
        let verdicts = report(&["cache-node", "redis", IO_URING, "floor"]).verdicts();
        assert_eq!(verdicts[1].text, format!("{IO_URING}, ops: 1.17 (1.17-1.17), goal ≥ 1.5×"));
        assert!(report(&["cache-node", "cache-node io_uring", "floor"]).verdicts().is_empty());
    }

    #[test]
    fn one_round_below_is_never_made_up_for() {
        let gain = Measure::new("2 over 1", 2).goal(Some(Goal::AtLeast(1.0))).goal_of("node", Some(Goal::NeverBelow(0.7)));
        let mut report = Report::new("w".to_owned(), String::new(), vec![gain], &["node".to_owned()]);
        [1.1, 0.8, 1.2].into_iter().for_each(|value| report.push(0, &[value]));
        assert!(report.verdicts().iter().all(|verdict| verdict.is_met));
        [0.6, 1.2].into_iter().for_each(|value| report.push(0, &[value]));
        let verdicts = report.verdicts();
        assert_eq!(verdicts[1].text, "node, 2 over 1: 1.10 (0.60-1.20), goal never < 0.7");
        assert!(verdicts[0].is_met && !verdicts[1].is_met);
    }

    #[test]
    fn without_a_peer_only_values_are_judged() {
        let cpu = Measure::new("CPU", 2).compared("ops", Direction::PeersOverOurs).goal(Some(Goal::RatioAtLeast(1.5)));
        let mut report = Report::new("w".to_owned(), String::new(), vec![cpu], &["node".to_owned()]);
        report.push(0, &[1.0]);
        assert!(report.verdicts().is_empty());
    }
}
