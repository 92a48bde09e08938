//! From the steps of a failure to fewer that still fail: parts are left out, halves first, and what still fails is kept. What hangs on a
//! moment may not fail again; then the list stays as long as it was.

use std::time::Instant;

use super::Orders;
use super::run::run;
use super::steps::Step;
use crate::LabError;

/// The fewest steps that were found to fail in time.
pub(super) fn shrink(orders: &Orders, steps: Vec<Step>, say: &(dyn Fn(&str) + Sync)) -> Result<Vec<Step>, LabError> {
    let start = Instant::now();
    if orders.shrink.is_zero() {
        return Ok(steps);
    }
    minimal(steps, |some| {
        if start.elapsed() > orders.shrink {
            return Ok(None);
        }
        say(&format!("# trying {} steps", some.len()));
        let held = run(orders.workers, &mut rounds(some).into_iter(), None, &|_| ())?.is_ok();
        Ok(Some(!held))
    })
}

/// Cuts at the quiet periods. The last round has one in any case.
pub(super) fn rounds(steps: &[Step]) -> Vec<Vec<Step>> {
    let mut rounds: Vec<Vec<Step>> = steps
        .split_inclusive(|step| step.is_quiet())
        .map(<[Step]>::to_vec)
        .collect();
    if let Some(last) = rounds
        .last_mut()
        .filter(|last| !last.last().is_some_and(Step::is_quiet))
    {
        last.push(Step::Quiet);
    }
    rounds
}

/// Leaves out parts, smaller and smaller ones, as long as the rest still fails. `fails` answers `None` when time is over.
fn minimal<T: Clone>(
    mut steps: Vec<T>,
    mut fails: impl FnMut(&[T]) -> Result<Option<bool>, LabError>,
) -> Result<Vec<T>, LabError> {
    let mut part = steps.len().div_ceil(2);
    while part > 0 {
        let (mut at, mut fewer) = (0, false);
        while at < steps.len() {
            let end = (at + part).min(steps.len());
            let rest = [&steps[..at], &steps[end..]].concat();
            let fails = if rest.is_empty() { Some(false) } else { fails(&rest)? };
            match fails {
                None => return Ok(steps),
                Some(true) => (steps, fewer) = (rest, true),
                Some(false) => at = end,
            }
        }
        if part == 1 && !fewer {
            break;
        }
        part = if part == 1 { 1 } else { part / 2 };
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_to_fail_is_left() {
        let mut tried = 0;
        let left = minimal((0..20).collect(), |some: &[i32]| {
            tried += 1;
            Ok(Some(some.contains(&3) && some.contains(&17)))
        });
        assert_eq!(left.unwrap(), [3, 17]);
        assert!(tried < 60, "{tried}");
    }

    #[test]
    fn when_time_is_over_the_last_failing_list_stays() {
        let mut tried = 0;
        let left = minimal((0..20).collect(), |some: &[i32]| {
            tried += 1;
            Ok((tried < 3).then(|| some.contains(&3)))
        });
        assert_eq!(left.unwrap(), (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn a_list_is_cut_at_its_quiet_periods_and_ends_with_one() {
        let deaf = Step::Deaf { after_ms: 0, for_ms: 0 };
        let cut = rounds(&[deaf.clone(), Step::Quiet, deaf.clone()]);
        assert_eq!(cut, vec![vec![deaf.clone(), Step::Quiet], vec![deaf, Step::Quiet]]);
    }
}
