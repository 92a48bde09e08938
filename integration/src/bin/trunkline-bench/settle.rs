//! Waits until a process has no more to do: what it still does of one measurement would be in the next one.

use std::time::{Duration, Instant};

use trunkline_integration::LabError;

/// How long it is looked at.
const WINDOW: Duration = Duration::from_millis(300);
/// Clock ticks of 10 ms that it may run meanwhile without being looked at twice: probes and heartbeats go on for ever.
const IDLE: u64 = 7;
/// What goes on for ever may be more with much to probe: after so long, the least that was seen is that.
const KNOWN: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(120);

/// Waits until none of these processes, as the machine counts, is busy.
pub(crate) fn settle(pids: &[u32]) -> Result<(), LabError> {
    let start = Instant::now();
    let mut least = vec![u64::MAX; pids.len()];
    loop {
        let before = ran(pids);
        std::thread::sleep(WINDOW);
        let used: Vec<u64> = ran(pids)
            .iter()
            .zip(&before)
            .map(|(now, then)| now.saturating_sub(*then))
            .collect();
        least
            .iter_mut()
            .zip(&used)
            .for_each(|(least, used)| *least = (*least).min(*used));
        let known = start.elapsed() >= KNOWN;
        let quiet = |(used, least): (&u64, &u64)| *used <= IDLE || (known && *used <= least + IDLE);
        if used.iter().zip(&least).all(quiet) {
            return Ok(());
        }
        if start.elapsed() > LIMIT {
            return Err(LabError::Timeout {
                what: "an end of the work".to_owned(),
                after: LIMIT,
                seen: format!("processes {pids:?} took {used:?} ticks of {WINDOW:?}"),
            });
        }
    }
}

/// Clock ticks that each has run, all of its threads together, also those that have ended.
fn ran(pids: &[u32]) -> Vec<u64> {
    let of_process = |pid: &u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After the name, which may hold anything: from field 3 on. 14 and 15 are time in the program and in the kernel.
        let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        fields
            .skip(11)
            .take(2)
            .filter_map(|ticks| ticks.parse::<u64>().ok())
            .sum()
    };
    pids.iter().map(of_process).collect()
}
