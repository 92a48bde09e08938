//! Changes by hand while nothing else happens.

use std::time::{Duration, Instant};

use super::{Run, words};
use crate::campaign::drift::{self, Drift};
use crate::wait::until;

/// Until the journal tells of it.
const REPAIRED_LIMIT: Duration = Duration::from_secs(90);

impl Run<'_> {
    /// Somebody changes something while nothing else happens: the journal tells of it, and it is put right.
    pub(super) fn by_hand(&mut self, host: &str, what: Drift, pick: usize) -> Result<(), String> {
        let (slices, ..) = self.settle()?;
        let at = self.lab.host(host).map_err(words)?;
        let Some(said) = drift::make(at, what, pick).map_err(words)? else {
            (self.say)("# nothing to change");
            return Ok(());
        };
        let kind = format!(
            "by_hand {}",
            serde_json::to_value(what)
                .unwrap_or_default()
                .as_str()
                .unwrap_or_default()
        );
        *self.figures.faults.entry(kind).or_default() += 1;
        let (start, mut seen) = (Instant::now(), Vec::new());
        let (journal, api) = (&mut self.journal, &self.operator.api);
        let told = until(
            &format!("the journal to tell of {what:?} on {host} as {said:?}"),
            REPAIRED_LIMIT,
            || {
                for event in journal.new_events(api)? {
                    if event.node != host {
                        continue;
                    }
                    let is_it = event.message.contains(&said.words) && said.vlan.is_none_or(|vlan| vlan == event.vlan);
                    match event.r#type.as_str() {
                        "drift.repaired" if is_it => return Ok(true),
                        // So many in one minute that not all are kept, which it says.
                        "events.left_out" => return Ok(false),
                        _ => seen.push(event.message),
                    }
                }
                Err(format!("{seen:?}"))
            },
        );
        let told = told.map_err(words)?;
        let repaired = &mut self.figures.repaired;
        *repaired = (repaired.0 + usize::from(told), repaired.1 + usize::from(!told));
        self.await_equal(&slices)?;
        (self.say)(&format!(
            "# put right and told of after {:.1} s",
            start.elapsed().as_secs_f64()
        ));
        Ok(())
    }
}
