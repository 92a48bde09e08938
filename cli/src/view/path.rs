//! What probes saw of each direction between two nodes.

use jiff::Timestamp;
use serde::Serialize;
use trunkline_proto::wire;

use super::{nonzero, shown, state as state_name, status::SliceStatusView};
use crate::{
    console::Console,
    table::{Table, or_dash, plain, state},
};

/// A direction on a link's VLAN, as the node at its end saw it.
#[derive(Debug, Serialize)]
pub(crate) struct PathStatusView {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) state: String,
    pub(crate) reason: String,
    /// Bytes of payload; 0: nothing comes; none: not known.
    pub(crate) largest: Option<u32>,
    pub(crate) loss_permille: Option<u32>,
    /// There and back.
    pub(crate) round_trip_us: Option<u32>,
    /// When the last frame came, by the clock of `to`.
    pub(crate) last_seen: Option<Timestamp>,
    /// How often it is probed.
    pub(crate) period_ms: Option<u32>,
}

impl From<&wire::PathStatus> for PathStatusView {
    fn from(path: &wire::PathStatus) -> Self {
        let seen = path.seen.as_ref();
        let last_seen = seen.map(|seen| seen.last_seen_ms).filter(|at| *at > 0);
        Self {
            from: path.from.clone(),
            to: path.to.clone(),
            state: state_name(path.state),
            reason: path.reason.clone(),
            largest: seen.map(|seen| seen.largest),
            loss_permille: seen.map(|seen| seen.loss_permille),
            round_trip_us: seen.and_then(|seen| nonzero(seen.round_trip_us)),
            last_seen: last_seen.and_then(|at| Timestamp::from_millisecond(i64::try_from(at).ok()?).ok()),
            period_ms: nonzero(path.period_ms),
        }
    }
}

/// A line for each direction: all, or those that are not ready.
pub(super) fn paths_text(console: &Console, slices: &[SliceStatusView], all: bool) -> String {
    let heads = [
        if all { "PATH" } else { "NOT PROVED" },
        "VLAN",
        "WAY",
        "STATE",
        "LARGEST",
        "LOSS",
        "ROUND TRIP",
        "LAST SEEN",
        "EVERY",
        "REASON",
    ];
    let mut table = Table::new(console, &heads);
    let mut none = true;
    for slice in slices {
        for link in &slice.links {
            for path in link.paths.iter().filter(|path| all || path.state != "ready") {
                none = false;
                let text = |number: Option<String>| or_dash(&number.unwrap_or_default());
                table.row([
                    plain(format!("{}/{}", slice.name, link.name)),
                    plain(link.vlan),
                    plain(format!("{} -> {}", path.from, path.to)),
                    state(&path.state),
                    text(path.largest.map(|bytes| bytes.to_string())),
                    text(path.loss_permille.map(percent)),
                    text(path.round_trip_us.map(milliseconds)),
                    or_dash(&shown(path.last_seen)),
                    text(path.period_ms.map(|period| seconds(period.into()))),
                    plain(&path.reason),
                ]);
            }
        }
    }
    if none { String::new() } else { table.render("") }
}

/// `0%`, `12.5%`.
fn percent(permille: u32) -> String {
    match permille % 10 {
        0 => format!("{}%", permille / 10),
        tenth => format!("{}.{tenth}%", permille / 10),
    }
}

/// `0.35 ms`.
fn milliseconds(micros: u32) -> String {
    format!("{:.2} ms", f64::from(micros) / 1000.0)
}

/// `1 s`, `2.5 s`.
pub(super) fn seconds(millis: u64) -> String {
    match millis % 1000 {
        0 => format!("{} s", millis / 1000),
        rest => format!("{}.{} s", millis / 1000, format!("{rest:03}").trim_end_matches('0')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_are_short() {
        assert_eq!(
            [0, 5, 120, 125, 1000].map(percent),
            ["0%", "0.5%", "12%", "12.5%", "100%"]
        );
        assert_eq!([350, 4, 12_345].map(milliseconds), ["0.35 ms", "0.00 ms", "12.35 ms"]);
        assert_eq!([1000, 2500, 1005].map(seconds), ["1 s", "2.5 s", "1.005 s"]);
    }
}
