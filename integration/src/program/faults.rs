//! `fault`: breaks the network between the hosts of the lab in the background, and heals it.

use clap::{ArgGroup, Subcommand};

use super::background::{folder, running};
use super::console::{say, say_line};
use super::control::{Answer, Request, ask};
use crate::LabError;
use crate::lab::fault::{Fault, PartedFrom, Standing};

/// What can be done about faults.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The switch drops a VLAN on a host's port, both ways.
    VlanDrop {
        /// 1 to 4094.
        vlan: u16,
        /// A worker, or nn.
        host: String,
    },
    /// Frames from one host to another are lost on the trunk; the other way they pass.
    OneWay {
        /// Whose frames are lost.
        from: String,
        /// Who does not get them.
        to: String,
        /// Of this VLAN only.
        vlan: Option<u16>,
    },
    /// The switch drops frames with more payload than this on a host's port, both ways.
    Mtu {
        /// A worker, or nn.
        host: String,
        /// Bytes, without Ethernet's header and tag: 1500 is usual.
        size: u32,
    },
    /// A host and the others do not reach each other, on both networks.
    #[command(group = ArgGroup::new("whom"))]
    Partition {
        /// ctl, nn, or a worker.
        host: String,
        /// From the controller only: its trunk goes on.
        #[arg(long, group = "whom")]
        from_controller: bool,
        /// From all hosts (as without an option).
        #[arg(long, group = "whom")]
        from_all: bool,
        /// Only what the host sends is lost; it still hears the others.
        #[arg(long)]
        one_way: bool,
    },
    /// Heal a fault by its number, or all.
    Heal {
        /// `all`, or a number of `fault list`.
        #[arg(default_value = "all", value_parser = which)]
        which: Which,
    },
    /// The faults that stand.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

/// `all`, or one by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Every fault.
    All,
    /// One.
    One(u32),
}

fn which(text: &str) -> Result<Which, String> {
    match text {
        "all" => Ok(Which::All),
        number => number
            .parse()
            .map(Which::One)
            .map_err(|_| "neither \"all\" nor a fault's number".to_owned()),
    }
}

/// Does it to the lab in the background, and says what was done.
pub fn run(command: Command) -> Result<(), LabError> {
    let fault = match command {
        Command::List { json } => return list(json),
        Command::Heal { which } => return heal(which),
        Command::VlanDrop { vlan, host } => Fault::VlanDrop { vlan, host },
        Command::OneWay { from, to, vlan } => Fault::OneWay { from, to, vlan },
        Command::Mtu { host, size } => Fault::Mtu { host, size },
        Command::Partition {
            host,
            from_controller,
            one_way,
            ..
        } => {
            let from = if from_controller {
                PartedFrom::Controller
            } else {
                PartedFrom::All
            };
            Fault::Partition { host, from, one_way }
        }
    };
    for Standing { id, fault, .. } in faults(&Request::AddFault { fault })? {
        say_line(&format!(
            "Fault {id}: {fault}. ./integration/lab fault heal {id} ends it."
        ))?;
    }
    Ok(())
}

fn heal(which: Which) -> Result<(), LabError> {
    let id = match which {
        Which::All => None,
        Which::One(id) => Some(id),
    };
    let healed = faults(&Request::Heal { id })?;
    if healed.is_empty() {
        return say_line("There is no fault.");
    }
    for Standing { id, fault, dropped } in healed {
        say_line(&format!("Healed fault {id}: {fault}. It dropped {dropped} frames."))?;
    }
    Ok(())
}

fn list(json: bool) -> Result<(), LabError> {
    let faults = faults(&Request::Faults)?;
    if json {
        return say_line(&format!("{:#}", serde_json::json!(faults)));
    }
    if faults.is_empty() {
        return say_line("There is no fault.");
    }
    let mut table = super::table(&["ID", "FAULT", "FRAMES DROPPED"]);
    for Standing { id, fault, dropped } in faults {
        table.add_row([id.to_string(), fault.to_string(), dropped.to_string()]);
    }
    say(&format!("{table}\n"))
}

fn faults(request: &Request) -> Result<Vec<Standing>, LabError> {
    let folder = folder()?;
    running(&folder)?;
    match ask(&folder, request)? {
        Answer::Faults { faults } => Ok(faults),
        _ => Err(LabError::Other("the lab answered something else".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_faults_or_one_are_healed_and_nothing_else() {
        assert_eq!(which("all"), Ok(Which::All));
        assert_eq!(which("12"), Ok(Which::One(12)));
        assert!(which("w1").unwrap_err().contains("number"));
    }
}
