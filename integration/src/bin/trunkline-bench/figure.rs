//! What a figure is, and the rows that it comes to.

use std::time::Instant;

use serde::Serialize;
use trunkline_integration::LabError;
use trunkline_integration::program::console::tell;

use crate::series::Series;

/// One entry of the list: a name, what it measures, and how.
pub(crate) struct Figure {
    /// As on the command line.
    pub(crate) name: &'static str,
    /// What is measured, in a few words.
    pub(crate) what: &'static str,
    /// What it is measured against.
    pub(crate) floor: &'static str,
    /// Measures. An error means that the measurement failed, never that a goal was missed.
    pub(crate) run: fn(&Bench) -> Result<Vec<Row>, LabError>,
}

/// What all figures of a run share.
pub(crate) struct Bench {
    /// Small sizes and few repetitions.
    pub(crate) short: bool,
    start: Instant,
}

impl Bench {
    /// Begins a run.
    pub(crate) fn new(short: bool) -> Self {
        let start = Instant::now();
        Self { short, start }
    }

    /// `full`, or `short` in a short run: sizes and repetitions.
    pub(crate) fn size<T>(&self, full: T, short: T) -> T {
        if self.short { short } else { full }
    }

    /// Tells on standard error how far it is.
    pub(crate) fn say(&self, text: &str) {
        tell(&format!("[{:6.1} s] {text}", self.start.elapsed().as_secs_f64()));
    }
}

/// What a row has to reach.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    /// The value is at most so many times the floor.
    AtMostTimes(f64),
    /// The value is at least so many times the floor.
    AtLeastTimes(f64),
    /// The value is at most the floor and so much more, in the row's unit.
    AtMostMore(f64),
    /// The value itself is at most so much.
    AtMost(f64),
    /// Only shown.
    None,
}

/// One line of the result.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// `one/p50/800`: the figure, then what of it.
    pub(crate) name: String,
    /// Ours: the median, unless the name says otherwise.
    pub(crate) value: f64,
    /// `ms`, `s`, `1/s`, `bytes`, `operations`.
    pub(crate) unit: &'static str,
    /// The floor, in the same unit.
    pub(crate) floor: Option<f64>,
    /// `value / floor`.
    pub(crate) ratio: Option<f64>,
    /// What it has to reach.
    pub(crate) goal: Goal,
    /// Whether it did; absent where there is no goal.
    pub(crate) met: Option<bool>,
    /// How often each side was measured.
    pub(crate) repetitions: usize,
    /// Lowest and highest of ours.
    pub(crate) spread: [f64; 2],
    /// Lowest and highest of the floor's.
    pub(crate) floor_spread: Option<[f64; 2]>,
}

impl Row {
    /// The medians of two series.
    pub(crate) fn of(name: impl Into<String>, unit: &'static str, ours: &Series, floor: &Series, goal: Goal) -> Self {
        Self::at(name, unit, ours, ours.median(), Some((floor, floor.median())), goal)
    }

    /// Ours alone, where there is nothing to compare with.
    pub(crate) fn alone(name: impl Into<String>, unit: &'static str, ours: &Series, goal: Goal) -> Self {
        Self::at(name, unit, ours, ours.median(), None, goal)
    }

    /// The same measurement held against another goal, without the floor.
    pub(crate) fn within(&self, name: impl Into<String>, goal: Goal) -> Self {
        Self {
            name: name.into(),
            floor: None,
            ratio: None,
            goal,
            met: met(goal, self.value, None),
            floor_spread: None,
            ..self.clone()
        }
    }

    /// The figure that it is of.
    pub(crate) fn figure(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }

    /// How much of what the goal allows is used: 1 is just met, more is missed.
    pub(crate) fn used(&self) -> Option<f64> {
        let floor = self.floor.unwrap_or(f64::NAN);
        let used = match self.goal {
            Goal::AtMostTimes(times) => self.value / (times * floor),
            Goal::AtLeastTimes(times) => times * floor / self.value,
            Goal::AtMostMore(more) => self.value / (floor + more),
            Goal::AtMost(most) => self.value / most,
            Goal::None => return None,
        };
        Some(used)
    }

    /// Any value of two series, such as the same percentile of both.
    pub(crate) fn at(
        name: impl Into<String>,
        unit: &'static str,
        ours: &Series,
        value: f64,
        floor: Option<(&Series, f64)>,
        goal: Goal,
    ) -> Self {
        let against = floor.map(|(_, value)| value);
        Self {
            name: name.into(),
            value,
            unit,
            floor: against,
            ratio: against.map(|floor| value / floor),
            goal,
            met: met(goal, value, against),
            repetitions: ours.len(),
            spread: ours.spread(),
            floor_spread: floor.map(|(floor, _)| floor.spread()),
        }
    }
}

fn met(goal: Goal, value: f64, floor: Option<f64>) -> Option<bool> {
    match (goal, floor) {
        (Goal::AtMostTimes(times), Some(floor)) => Some(value <= times * floor),
        (Goal::AtLeastTimes(times), Some(floor)) => Some(value >= times * floor),
        (Goal::AtMostMore(more), Some(floor)) => Some(value <= floor + more),
        (Goal::AtMost(most), _) => Some(value <= most),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: &[f64]) -> Series {
        values.iter().copied().collect()
    }

    #[test]
    fn a_goal_is_met_up_to_its_very_limit_and_missed_beyond() {
        let row = |value: f64, goal| Row::of("x", "ms", &series(&[value]), &series(&[100.0]), goal).met;
        assert_eq!(row(125.0, Goal::AtMostTimes(1.25)), Some(true));
        assert_eq!(row(126.0, Goal::AtMostTimes(1.25)), Some(false));
        assert_eq!(row(2000.0, Goal::AtLeastTimes(20.0)), Some(true));
        assert_eq!(row(1999.0, Goal::AtLeastTimes(20.0)), Some(false));
        assert_eq!(row(115.0, Goal::AtMostMore(15.0)), Some(true));
        assert_eq!(row(115.5, Goal::AtMostMore(15.0)), Some(false));
        assert_eq!(row(1.0, Goal::AtMost(0.0)), Some(false));
        assert_eq!(row(1.0, Goal::None), None);
    }
}
