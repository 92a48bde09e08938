//! The one flow that makes the node's bridge forward.
//!
//! The bridge is `standalone`, so Open vSwitch gives it a flow that forwards as a learning switch does whenever it starts, before this
//! program runs and without it. But whoever deletes that flow (`ovs-ofctl del-flows`) ends all forwarding, and nothing brings it back.
//! So the node has one of its own beside it, of the same effect, and the bridge's management socket tells of its end at once. Flows of
//! others may take frames away before either: they are kept, and named.

use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trunkline_agent::openflow::{self, Actions, Client, Cookie, Flow, FlowSet, Match};
use trunkline_agent::{chain, flows};
use trunkline_proto::resource::State;

/// How long the bridge may take to answer: it does at once, unless it was made just now.
const WAIT: Duration = Duration::from_secs(2);
/// Flows of others that a reason names.
const NAMED: usize = 3;

/// What a pass did about it.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Why frames may not be forwarded as they should be.
    pub(crate) trouble: Option<(State, String)>,
    /// It was gone, and is there again.
    pub(crate) repaired: Option<String>,
}

/// The driver of the bridge's flows.
#[derive(Debug)]
pub(crate) struct Bridge {
    name: String,
    openflow: Client,
    /// An earlier pass has left the flow there.
    settled: bool,
}

impl Bridge {
    /// Connects to the bridge's management socket, which is beside the database's.
    pub(crate) fn start(name: &str, database: &Path, cancel: CancellationToken) -> Self {
        let directory = database.parent().unwrap_or(Path::new("/run/openvswitch"));
        Self {
            name: name.to_owned(),
            openflow: Client::start(directory.join(format!("{name}.mgmt")), cancel),
            settled: false,
        }
    }

    /// Ticks when somebody else changed a flow, and when the connection comes or goes.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.openflow.changes()
    }

    /// Brings the flow back if it is gone, and looks whether it is there.
    pub(crate) async fn hold(&mut self) -> Held {
        let mut done = self.try_hold().await;
        if matches!(done, Err(openflow::Error::ConnectionLost)) {
            // A bridge that was just made anew has the old one's connection end with the first question.
            done = self.try_hold().await;
        }
        match done {
            Ok(held) => held,
            Err(error) => {
                let text = format!(
                    "the flow that makes {} forward cannot be had from ovs-vswitchd: {}",
                    self.name,
                    chain(&error)
                );
                tracing::warn!(error = text, "the bridge's flows are not as they should be");
                let state = if error.is_answer() {
                    State::Failed
                } else {
                    State::Unknown
                };
                Held {
                    trouble: Some((state, text)),
                    repaired: None,
                }
            }
        }
    }

    async fn try_hold(&mut self) -> Result<Held, openflow::Error> {
        self.openflow.ready(WAIT).await?;
        let wanted = wanted();
        let plan = openflow::plan(&wanted, &self.openflow.table().await?.set);
        let mut repaired = None;
        if !plan.is_empty() {
            openflow::execute(&plan, &self.openflow).await?;
            tracing::info!(
                add = plan.add.len(),
                remove = plan.remove.len(),
                "the bridge's flows set"
            );
            if self.settled {
                repaired = Some(repair(&plan));
            }
        }
        let rest = openflow::plan(&wanted, &self.openflow.table().await?.set);
        // One that went again between the two looks is put back by the next pass, and is told of then.
        self.settled = rest.conflicts.is_empty() && (self.settled || rest.add.is_empty());
        Ok(Held {
            trouble: trouble(&self.name, &rest),
            repaired,
        })
    }
}

fn wanted() -> FlowSet {
    let cookie = flows::Purpose::Forward.cookie(0);
    let mut wanted = FlowSet::default();
    // Above Open vSwitch's own, which stands at 0, and below whatever else there may be.
    wanted.insert(Flow::new(0, 1, cookie, Match::any(), Actions::normal()));
    wanted
}

fn repair(plan: &openflow::Plan) -> String {
    if plan.add.is_empty() {
        "the bridge had flows that were not ours to have".to_owned()
    } else {
        "the flow that makes the bridge forward was gone".to_owned()
    }
}

fn trouble(bridge: &str, rest: &openflow::Plan) -> Option<(State, String)> {
    if !rest.add.is_empty() {
        return Some((
            State::Failed,
            format!("the flow that makes {bridge} forward is not there"),
        ));
    }
    let others: Vec<&Flow> = rest.strangers.iter().filter(|flow| !is_standalone(flow)).collect();
    let named: Vec<String> = others.iter().take(NAMED).map(ToString::to_string).collect();
    let more = match others.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let text = format!(
        "flows of others on {bridge} may stop what ours let pass: {}{more}; remove them",
        named.join("; ")
    );
    (!others.is_empty()).then_some((State::Degraded, text))
}

/// The one that Open vSwitch itself gives a bridge that is `standalone`.
fn is_standalone(flow: &Flow) -> bool {
    *flow == Flow::new(0, 0, Cookie(0), Match::any(), Actions::normal())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble_with(strange: Flow) -> Option<(State, String)> {
        let mut there = wanted();
        there.insert(strange);
        trouble("br-int", &openflow::plan(&wanted(), &there))
    }

    #[test]
    fn open_vswitchs_own_flow_is_no_strangers_but_any_other_is_named() {
        let own = Flow::new(0, 0, Cookie(0), Match::any(), Actions::normal());
        assert_eq!(trouble_with(own.clone()), None);
        for strange in [
            Flow {
                actions: Actions::drop(),
                ..own.clone()
            },
            Flow::new(0, 7, Cookie(0), Match::any().in_port(3), Actions::drop()),
            // In the place of ours.
            Flow::new(0, 1, Cookie(0), Match::any(), Actions::normal()),
        ] {
            let (state, reason) = trouble_with(strange.clone()).unwrap_or_else(|| panic!("{strange}"));
            assert_eq!(state, State::Degraded);
            assert!(
                reason.contains(&format!(
                    "flows of others on br-int may stop what ours let pass: {strange}"
                )),
                "{reason}"
            );
        }
    }

    #[test]
    fn without_its_flow_the_bridge_does_not_forward() {
        let rest = openflow::plan(&wanted(), &FlowSet::default());
        assert!(matches!(trouble("br-int", &rest), Some((State::Failed, _))));
    }
}
