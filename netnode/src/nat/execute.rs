//! Makes a plan true.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use trunkline_agent::process::{self, Run};
use trunkline_agent::{files, netns};

use super::limits;
use super::observe::{self, HostNetwork, Observed, Record, Table, Uplink};
use super::plan::{Forwarding, ForwardingStep, Plan, TableStep};
use super::render::Filter;
use super::way::Way;
use crate::config::NatSection;
use crate::nft::{self, Nft, Noted};
use crate::{BootId, Fingerprint};

const IP_FORWARD: &str = "net/ipv4/ip_forward";

/// Why the filter could not be looked at or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// nft failed.
    #[error(transparent)]
    Nft(#[from] nft::Error),
    /// conntrack failed.
    #[error("end the connections of {addresses}")]
    Conntrack {
        /// Whose.
        addresses: Ipv4Net,
        /// What happened.
        #[source]
        source: process::Error,
    },
    /// Forwarding could not be read or set.
    #[error("forwarding")]
    Forwarding(#[source] netns::Error),
    /// A file of ours could not be read or written.
    #[error("state")]
    State(#[source] io::Error),
    /// A file of ours does not hold what we write.
    #[error("{} is damaged; delete it", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// The driver of the table, of forwarding and of connections.
#[derive(Debug, Clone)]
pub struct Nats {
    directory: PathBuf,
    section: NatSection,
    boot: BootId,
    rules: observe::Read,
}

/// `ip_forward.json`. A reboot makes it void: the value is then the system's own again.
#[derive(Debug, Serialize, Deserialize)]
struct ForwardingNote {
    boot: BootId,
    before: bool,
}

impl Nats {
    /// Notes are kept in `directory`.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn new(directory: PathBuf, section: NatSection, boot: BootId) -> Result<Self, Error> {
        files::state_dir(&directory).map_err(Error::State)?;
        Ok(Self {
            directory,
            section,
            boot,
            rules: observe::Read::default(),
        })
    }

    /// The way to the internet, as things are.
    pub fn way(&self, beside: &BTreeSet<Ipv4Net>) -> Way {
        Way::new(&self.section, beside)
    }

    /// Looks.
    ///
    /// # Errors
    /// When anything cannot be read: then nothing is known.
    pub async fn observe(&self, host: &HostNetwork) -> Result<Observed, Error> {
        let observe::Listed {
            table,
            dropping,
            limits,
        } = self.rules.list().await?;
        Ok(Observed {
            table,
            dropping,
            record: self.read("table.json")?.unwrap_or_default(),
            forwarding: Forwarding {
                on: netns::read_sysctl(None, IP_FORWARD).await.map_err(Error::Forwarding)? != "0",
                before: self.note()?.map(|note| note.before),
            },
            uplink: Uplink::find(self.section.uplink.as_str(), host),
            limits,
        })
    }

    /// The counters of the masquerade rules.
    ///
    /// # Errors
    /// When nft fails.
    pub async fn counters(&self) -> Result<std::collections::BTreeMap<trunkline_proto::VlanId, super::Counter>, Error> {
        observe::counters().await
    }

    /// Reads the counters again, whenever the rest was read. Where their table is gone, or cannot be read, what is known stays: the rules
    /// matter more.
    pub async fn count(&self, observed: &mut Observed) {
        if let Table::Ours(readback) = &mut observed.table
            && !readback.counters.is_empty()
            && let Ok(counters) = self.counters().await
        {
            readback.counters = counters;
        }
    }

    /// Does it.
    ///
    /// # Errors
    /// The first step that failed; the next pass goes on from there.
    pub async fn execute(&self, plan: &Plan, observed: &Observed) -> Result<(), Error> {
        let Plan {
            forwarding,
            limits,
            table,
            forget,
            served,
            conflict: _,
        } = plan;
        if plan.is_empty() {
            return Ok(());
        }
        if let ForwardingStep::Restore { off } = forwarding {
            self.restore_forwarding(*off).await?;
        }
        // Until their connections have been ended those who left stay noted, so that a crash in between loses nothing.
        let mut record = observed.record.clone();
        record.served.subnets.extend(&served.subnets);
        record.served.users.extend(&served.users);
        record.limits = self.set_limits(limits, &record).await?;
        match table {
            TableStep::Keep => {}
            TableStep::Replace { batch, rendered } => {
                self.write(
                    "table.json",
                    &Record {
                        noted: Noted::default(),
                        ..record.clone()
                    },
                )?;
                record.noted = Noted {
                    rendered: Some(*rendered),
                    readback: self.replace(batch).await?,
                };
            }
            TableStep::Delete => {
                Nft::default().load(Filter::removal()).await?;
                record = Record {
                    noted: Noted::default(),
                    ..record
                };
            }
        }
        if !forget.is_empty() {
            // What cannot be ended now is no reason to write the table again.
            self.write("table.json", &record)?;
        }
        // The table passes none of them any more, so nothing that they still send opens a new one.
        for addresses in forget {
            end_connections(*addresses).await?;
        }
        record.served.clone_from(served);
        self.write("table.json", &record)?;
        self.switch_forwarding_on(*forwarding).await
    }

    /// Writes the table and says how it reads. Everything is read, because the next look would: it finds this reading.
    async fn replace(&self, batch: &str) -> Result<Option<Fingerprint>, Error> {
        Nft::default().load(batch).await?;
        match self.rules.list().await?.table {
            Table::Ours(readback) => Ok(Some(readback.fingerprint)),
            // Somebody took it away at once; the next pass sees the difference.
            Table::Absent | Table::Foreign(_) => Ok(None),
        }
    }

    async fn set_limits(&self, step: &limits::Step, record: &Record) -> Result<Noted, Error> {
        match step {
            limits::Step::Keep => Ok(record.limits),
            limits::Step::Delete => {
                Nft::default().load(nft::delete(limits::TABLE)).await?;
                Ok(Noted::default())
            }
            limits::Step::Replace(batch) => {
                Nft::default().load(batch.as_str()).await?;
                let readback = limits::look().await?.table.fingerprint();
                Ok(Noted {
                    rendered: Some(Fingerprint::of(batch)),
                    readback,
                })
            }
        }
    }

    async fn restore_forwarding(&self, off: bool) -> Result<(), Error> {
        if off {
            netns::write_sysctl(None, IP_FORWARD, "0")
                .await
                .map_err(Error::Forwarding)?;
        }
        files::remove_if_there(&self.directory.join("ip_forward.json")).map_err(Error::State)
    }

    async fn switch_forwarding_on(&self, step: ForwardingStep) -> Result<(), Error> {
        let (on, record) = match step {
            ForwardingStep::Keep | ForwardingStep::Restore { .. } => return Ok(()),
            ForwardingStep::RecordOn => (false, Some(true)),
            ForwardingStep::Enable { record } => (true, record),
        };
        if let Some(before) = record {
            self.write(
                "ip_forward.json",
                &ForwardingNote {
                    boot: self.boot.clone(),
                    before,
                },
            )?;
        }
        if on {
            netns::write_sysctl(None, IP_FORWARD, "1")
                .await
                .map_err(Error::Forwarding)?;
        }
        Ok(())
    }

    fn note(&self) -> Result<Option<ForwardingNote>, Error> {
        let note: Option<ForwardingNote> = self.read("ip_forward.json")?;
        Ok(note.filter(|note| note.boot == self.boot))
    }

    fn read<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        let path = self.directory.join(name);
        let Some(bytes) = files::read_if_there(&path).map_err(Error::State)? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| Error::Damaged { path, source })
    }

    fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Error> {
        let bytes = serde_json::to_vec_pretty(value).map_err(|error| Error::State(error.into()))?;
        files::write_atomic(&self.directory.join(name), &bytes, 0o600).map_err(Error::State)?;
        Ok(())
    }
}

/// Without this an open connection would go on for ever, because established ones are not looked at again by NAT.
async fn end_connections(addresses: Ipv4Net) -> Result<(), Error> {
    // A connection has two directions and one entry: it goes as a whole. Nobody but a guest opens one here.
    let run = Run::new("conntrack")
        .args(["-D", "-f", "ipv4", "-s", &addresses.to_string()])
        .run()
        .await;
    match run {
        // conntrack exits with 1 when there was nothing to delete.
        Err(process::Error::Failed { status, ref stderr, .. })
            if status.code() == Some(1) && stderr.contains("0 flow entries") =>
        {
            Ok(())
        }
        Err(source) => Err(Error::Conntrack { addresses, source }),
        Ok(_) => Ok(()),
    }
}
