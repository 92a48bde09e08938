//! Repeated measurements, and how two of them take turns.

use trunkline_integration::LabError;

/// Values of one thing, in the order in which they were measured.
#[derive(Debug, Clone, Default)]
pub(crate) struct Series(Vec<f64>);

impl FromIterator<f64> for Series {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

impl Series {
    /// Adds a value.
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The middle one, or the mean of the two in the middle; not a number when there is none.
    pub(crate) fn median(&self) -> f64 {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        match sorted.get(middle) {
            Some(upper) if sorted.len().is_multiple_of(2) => {
                let lower = middle.checked_sub(1).and_then(|lower| sorted.get(lower));
                (upper + lower.unwrap_or(upper)) / 2.0
            }
            Some(upper) => *upper,
            None => f64::NAN,
        }
    }

    /// The smallest value that at least `hundredths` of 100 values do not exceed (nearest rank).
    pub(crate) fn percentile(&self, hundredths: usize) -> f64 {
        let sorted = self.sorted();
        let rank = (hundredths * sorted.len()).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
    }

    /// Lowest and highest.
    pub(crate) fn spread(&self) -> [f64; 2] {
        let lowest = self.0.iter().copied().fold(f64::NAN, f64::min);
        let highest = self.0.iter().copied().fold(f64::NAN, f64::max);
        [lowest, highest]
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

/// Measures two things `repetitions` times each, in turn. Who goes first changes from round to round, so that a slow drift
/// of the machine is on neither side.
pub(crate) fn interleave(
    repetitions: usize,
    mut ours: impl FnMut() -> Result<f64, LabError>,
    mut floor: impl FnMut() -> Result<f64, LabError>,
) -> Result<(Series, Series), LabError> {
    let (mut of_ours, mut of_floor) = (Series::default(), Series::default());
    for round in 0..repetitions {
        if round % 2 == 0 {
            of_ours.push(ours()?);
            of_floor.push(floor()?);
        } else {
            of_floor.push(floor()?);
            of_ours.push(ours()?);
        }
    }
    Ok((of_ours, of_floor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(left: f64, right: f64) -> bool {
        (left - right).abs() < f64::EPSILON
    }

    fn series(values: &[f64]) -> Series {
        values.iter().copied().collect()
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert!(same(series(&[3.0, 1.0, 2.0]).median(), 2.0));
        assert!(same(series(&[4.0, 1.0, 2.0, 3.0]).median(), 2.5));
        assert!(series(&[]).median().is_nan());
    }

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let hundred: Series = (1..=100_u8).map(f64::from).collect();
        assert!(same(hundred.percentile(99), 99.0));
        assert!(same(hundred.percentile(50), 50.0));
        assert!(same(series(&[5.0, 7.0]).percentile(99), 7.0));
        assert!(series(&[]).percentile(99).is_nan());
    }

    #[test]
    fn the_two_sides_take_turns_in_going_first() {
        let order = std::cell::RefCell::new(String::new());
        let note = |who: char| {
            order.borrow_mut().push(who);
            Ok(1.0)
        };
        interleave(3, || note('o'), || note('f')).unwrap();
        assert_eq!(*order.borrow(), "offoof");
    }
}
