//! What the turns of all rounds brought, their medians, and ratios within each round.

use std::collections::HashMap;

use super::Route;
use crate::mode::Mode;

/// Connections, route and mode of a turn.
pub(super) type Place = (u16, Route, Mode);

/// One sample for each round, of each place.
pub(super) struct Samples<S>(HashMap<Place, Vec<S>>);

/// The middle of several rounds and their extremes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl<S> Default for Samples<S> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<S> Samples<S> {
    pub(super) fn add(&mut self, place: Place, sample: S) {
        self.0.entry(place).or_default().push(sample);
    }

    pub(super) fn of(&self, place: Place) -> &[S] {
        self.0.get(&place).map_or(&[], Vec::as_slice)
    }

    pub(super) fn value(&self, place: Place, value: impl Fn(&S) -> f64) -> Option<Spread> {
        spread(self.of(place).iter().map(value).collect())
    }

    /// For a table, where nothing is shown of what was not measured.
    pub(super) fn median(&self, place: Place, value: impl Fn(&S) -> f64) -> f64 {
        self.value(place, value).map_or(f64::NAN, |spread| spread.median)
    }

    /// Within each round, so that what slows the machine for a while slows both sides.
    pub(super) fn ratio(&self, place: Place, to: Mode, value: impl Fn(&S) -> f64) -> Option<Spread> {
        let theirs = self.of((place.0, place.1, to));
        spread(self.of(place).iter().zip(theirs).map(|(ours, theirs)| value(ours) / value(theirs)).collect())
    }
}

fn spread(mut values: Vec<f64>) -> Option<Spread> {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    let (&min, &max) = (values.first()?, values.last()?);
    let middle = values.len() / 2;
    let median = if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
    Some(Spread { median, min, max })
}
