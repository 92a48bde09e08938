//! The configuration file. Every key is documented in `controller.example.toml`, and a test keeps the two alike.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use trunkline_proto::{
    Invalid, LinkSubnet, VlanId,
    daemon::{ConfigError, DurationText, MetricsConfig, TelemetryConfig, config},
};

use crate::{journal, settings::Settings};

/// The file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Directory of the certificate bundle.
    pub bundle: PathBuf,
    /// What is durable.
    pub state: StateConfig,
    /// The journal.
    #[serde(default)]
    pub events: EventsConfig,
    /// Sessions of nodes.
    #[serde(default)]
    pub nodes: NodesConfig,
    /// Rules for allocation.
    #[serde(default)]
    pub network: NetworkConfig,
    /// Logs and traces.
    #[serde(default)]
    pub telemetry: TelemetryConfig,
    /// Metrics; none without it.
    pub metrics: Option<MetricsConfig>,
}

/// Section `[state]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateConfig {
    /// The state directory.
    pub dir: PathBuf,
    /// Longest time between a change and its export, which is written within seconds as a rule; zero for none.
    #[serde(default = "StateConfig::export_every")]
    pub export_every: DurationText,
    /// Answers kept.
    #[serde(default = "StateConfig::requests_kept")]
    pub requests_kept: usize,
    /// Commits kept for watches.
    #[serde(default = "StateConfig::watch_history")]
    pub watch_history: usize,
}

impl StateConfig {
    /// A state directory with everything else as by default.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            export_every: Self::export_every(),
            requests_kept: Self::requests_kept(),
            watch_history: Self::watch_history(),
        }
    }

    fn export_every() -> DurationText {
        DurationText(Duration::from_secs(60))
    }

    fn requests_kept() -> usize {
        1000
    }

    fn watch_history() -> usize {
        1000
    }
}

/// Section `[events]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventsConfig {
    /// Journal entries kept.
    pub keep: usize,
    /// Days that they are kept.
    pub keep_days: u32,
}

impl Default for EventsConfig {
    fn default() -> Self {
        Self {
            keep: 10_000,
            keep_days: 30,
        }
    }
}

impl EventsConfig {
    /// As the journal wants them.
    pub fn bounds(&self) -> journal::Bounds {
        journal::Bounds {
            entries: self.keep,
            age: Duration::from_secs(u64::from(self.keep_days) * 86_400),
        }
    }
}

/// Section `[nodes]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodesConfig {
    /// Time between two heartbeats.
    pub heartbeat: DurationText,
    /// Longest wait for an acknowledgement.
    pub ack_timeout: DurationText,
}

impl Default for NodesConfig {
    fn default() -> Self {
        Self {
            heartbeat: DurationText(Duration::from_secs(5)),
            ack_timeout: DurationText(Duration::from_secs(60)),
        }
    }
}

/// Section `[network]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    vlan_first: VlanId,
    vlan_last: VlanId,
    vlan_pool_size: u32,
    management_vlan: Option<VlanId>,
    reserved_vlans: BTreeSet<VlanId>,
    internet_subnet: LinkSubnet,
    dns: Vec<Ipv4Addr>,
    default_mtu: u16,
    lease: DurationText,
    /// Frames a second; 0: no limit.
    broadcast_limit: u32,
    /// Frames a second; 0: no limit.
    unknown_unicast_limit: u32,
    quarantine: DurationText,
    revisions_kept: usize,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        let Settings {
            vlan_first,
            vlan_last,
            vlan_pool_size,
            management_vlan,
            reserved_vlans,
            internet_subnet,
            dns,
            default_mtu,
            lease,
            broadcast_limit,
            unknown_unicast_limit,
            quarantine,
            revisions_kept,
        } = Settings::default();
        Self {
            vlan_first,
            vlan_last,
            vlan_pool_size,
            management_vlan,
            reserved_vlans,
            internet_subnet,
            dns,
            default_mtu,
            lease: DurationText(lease),
            broadcast_limit: broadcast_limit.map_or(0, NonZeroU32::get),
            unknown_unicast_limit: unknown_unicast_limit.map_or(0, NonZeroU32::get),
            quarantine: DurationText(quarantine),
            revisions_kept,
        }
    }
}

impl NetworkConfig {
    /// As the pure part wants them.
    ///
    /// # Errors
    /// A value breaks a rule.
    pub fn settings(&self) -> Result<Settings, Invalid> {
        let Self {
            vlan_first,
            vlan_last,
            vlan_pool_size,
            management_vlan,
            reserved_vlans,
            internet_subnet,
            dns,
            default_mtu,
            lease,
            broadcast_limit,
            unknown_unicast_limit,
            quarantine,
            revisions_kept,
        } = self.clone();
        let settings = Settings {
            vlan_first,
            vlan_last,
            vlan_pool_size,
            management_vlan,
            reserved_vlans,
            internet_subnet,
            dns,
            default_mtu,
            lease: lease.0,
            broadcast_limit: NonZeroU32::new(broadcast_limit),
            unknown_unicast_limit: NonZeroU32::new(unknown_unicast_limit),
            quarantine: quarantine.0,
            revisions_kept,
        };
        settings.check()?;
        Ok(settings)
    }
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read, or a key is wrong.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// A value in `[network]` breaks a rule.
    #[error("{}: [network]", path.display())]
    Network {
        /// The file.
        path: PathBuf,
        /// The rule.
        #[source]
        source: Invalid,
    },
    /// A value elsewhere breaks a rule.
    #[error("{}: {key}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// Section and key.
        key: &'static str,
        /// The rule.
        #[source]
        source: Invalid,
    },
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The file cannot be read, has a key that does not exist, or a value that breaks a rule.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let config: Self = config::load(path)?;
        config.check(path)?;
        Ok(config)
    }

    fn check(&self, path: &Path) -> Result<(), LoadError> {
        self.network.settings().map_err(|source| LoadError::Network {
            path: path.to_owned(),
            source,
        })?;
        let wrong = |key, value: String, wanted, instead: &str| LoadError::Value {
            path: path.to_owned(),
            key,
            source: Invalid::new(value, wanted, instead),
        };
        let beat = self.nodes.heartbeat;
        if beat.0 < Duration::from_millis(50) || beat.0 > Duration::from_secs(300) {
            return Err(wrong(
                "nodes.heartbeat",
                beat.to_string(),
                "a heartbeat",
                "write 50ms to 5m",
            ));
        }
        let ack = self.nodes.ack_timeout;
        if ack.0 < Duration::from_secs(1) {
            return Err(wrong(
                "nodes.ack_timeout",
                ack.to_string(),
                "a timeout",
                "write 1s or more",
            ));
        }
        let kept = [
            ("events.keep", self.events.keep),
            ("state.requests_kept", self.state.requests_kept),
            ("state.watch_history", self.state.watch_history),
        ];
        if let Some((key, count)) = kept.into_iter().find(|(_, count)| !(1..=1_000_000).contains(count)) {
            return Err(wrong(key, count.to_string(), "a count", "write 1 to 1000000"));
        }
        match self.events.keep_days {
            1..=3650 => Ok(()),
            days => Err(wrong(
                "events.keep_days",
                days.to_string(),
                "a number of days",
                "write 1 to 3650",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const EXAMPLE: &str = include_str!("../controller.example.toml");

    fn load(text: &str) -> Result<Config, LoadError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("controller.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path)
    }

    /// The example with the keys that have no default switched on too.
    fn everything() -> String {
        EXAMPLE
            .replace("# management_vlan", "management_vlan")
            .replace("# otlp_endpoint", "otlp_endpoint")
    }

    #[test]
    fn the_example_loads_and_says_the_defaults() {
        let config = load(EXAMPLE).unwrap();
        assert_eq!(config.network.settings().unwrap(), Settings::default());
        assert_eq!(
            format!("{:?}", config.state),
            format!("{:?}", StateConfig::new(&config.state.dir))
        );
        assert_eq!(format!("{:?}", config.events), format!("{:?}", EventsConfig::default()));
        assert_eq!(format!("{:?}", config.nodes), format!("{:?}", NodesConfig::default()));
        assert_eq!(
            format!("{:?}", config.telemetry),
            format!("{:?}", TelemetryConfig::default())
        );
    }

    /// serde names the keys that it knows when it meets one that it does not: so every key of every section is found here
    /// without a second list.
    #[test]
    fn the_example_names_every_key_there_is() {
        let all = everything();
        let table: toml::Table = toml::from_str(&all).unwrap();
        load(&all).unwrap();
        let mut looked_at = 0;
        for section in ["", "state", "events", "nodes", "network", "telemetry", "metrics"] {
            let mut probe = table.clone();
            let place = if section.is_empty() {
                &mut probe
            } else {
                probe[section].as_table_mut().unwrap()
            };
            let documented: BTreeSet<String> = place.keys().cloned().collect();
            place.insert("no_such_key".into(), true.into());
            let error = load(&toml::to_string(&probe).unwrap()).unwrap_err().to_string();
            assert!(error.contains("no_such_key"), "{error}");
            let (_, expected) = error.split_once("expected").unwrap();
            let known: BTreeSet<String> = expected.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            assert_eq!(known, documented, "[{section}]");
            looked_at += known.len();
        }
        assert!(looked_at > 20, "{looked_at}");
    }

    #[test]
    fn a_limit_of_zero_is_none() {
        let limit = "broadcast_limit = 1000";
        assert!(EXAMPLE.contains(limit));
        let config = load(&EXAMPLE.replace(limit, "broadcast_limit = 0")).unwrap();
        let settings = config.network.settings().unwrap();
        assert_eq!(settings.broadcast_limit, None);
        assert_eq!(settings.unknown_unicast_limit, NonZeroU32::new(1000));
    }

    #[test]
    fn a_value_that_breaks_a_rule_is_refused_with_its_section() {
        for (from, to) in [
            ("heartbeat = \"5s\"", "heartbeat = \"1ms\""),
            ("vlan_first = 100", "vlan_first = 5000"),
            ("vlan_pool_size = 20", "vlan_pool_size = 0"),
            ("default_mtu = 1500", "default_mtu = 100"),
            ("keep = 10000", "keep = 0"),
            ("keep_days = 30", "keep_days = 0"),
            ("listen = \"127.0.0.1:9464\"", "listen = \"0.0.0.0:9464\""),
        ] {
            assert!(EXAMPLE.contains(from), "{from}");
            assert!(load(&EXAMPLE.replace(from, to)).is_err(), "{to}");
        }
    }
}
