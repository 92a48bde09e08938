//! A node's configuration: the sections that every node has.
//!
//! A kind of node with sections of its own repeats these five and puts a [`NodeConfig`] together: flattening would let misspelt keys
//! through.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use trunkline_proto::{
    Name,
    daemon::{ConfigError, MetricsConfig, TelemetryConfig},
};

use crate::ovsdb;

/// A worker's file; and what every node's file has.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Who this node is and where it keeps things.
    pub node: NodeSection,
    /// Where the controller is.
    pub controller: ControllerSection,
    /// Open vSwitch.
    #[serde(default)]
    pub switch: SwitchSection,
    /// Logs and traces.
    #[serde(default)]
    pub telemetry: TelemetryConfig,
    /// Metrics; absent: not served.
    pub metrics: Option<MetricsConfig>,
}

/// Who this node is and where it keeps things.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSection {
    /// Name of the node, as its certificate has it.
    pub name: Name,
    /// Directory with `ca.pem`, `cert.pem` and `key.pem`.
    pub bundle: PathBuf,
    /// Directory for what must survive a restart.
    pub state_dir: PathBuf,
}

/// Where the controller is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControllerSection {
    /// `https://host:port`.
    pub endpoint: String,
    /// Name in the controller's certificate, when it is not the endpoint's host.
    pub server_name: Option<String>,
}

/// Open vSwitch.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SwitchSection {
    /// The database's socket.
    pub socket: PathBuf,
    /// The bridge.
    pub bridge: String,
    /// Interface, or OVS bond, that joins this node to the others.
    pub uplink: Option<String>,
    /// Take over a bridge of that name that somebody else made.
    pub adopt: bool,
    /// Which datapath a new bridge gets.
    pub datapath: DatapathChoice,
}

/// Which datapath a new bridge gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DatapathChoice {
    /// The kernel's where it has one, otherwise the userspace one.
    #[default]
    Auto,
    /// The kernel's.
    System,
    /// The userspace one.
    Netdev,
}

impl Default for SwitchSection {
    fn default() -> Self {
        Self {
            socket: ovsdb::DEFAULT_SOCKET.into(),
            bridge: "br-int".to_owned(),
            uplink: None,
            adopt: false,
            datapath: DatapathChoice::Auto,
        }
    }
}

impl NodeConfig {
    /// Reads a worker's file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        trunkline_proto::daemon::load(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../agent.example.toml");

    fn parse(text: &str) -> Result<NodeConfig, ConfigError> {
        trunkline_proto::daemon::config::parse(Path::new("agent.toml"), text)
    }

    #[test]
    fn the_example_is_a_valid_file_and_shows_every_key() {
        let config = parse(EXAMPLE).unwrap();
        assert_eq!(config.node.name.as_str(), "w1");
        assert_eq!(config.switch.bridge, "br-int");
        // Exhaustive, so that a new key has to be thought of here and in the example.
        let NodeConfig {
            node: NodeSection { .. },
            controller: ControllerSection { .. },
            switch: SwitchSection { .. },
            telemetry: TelemetryConfig { .. },
            metrics: Some(MetricsConfig { .. }),
        } = config
        else {
            panic!("the example has no [metrics]")
        };
        for key in [
            "name",
            "bundle",
            "state_dir",
            "endpoint",
            "server_name",
            "socket",
            "bridge",
            "uplink",
            "adopt",
            "datapath",
            "log_format",
            "log_filter",
            "otlp_endpoint",
            "listen",
        ] {
            let documented = |line: &str| line.trim_start_matches("# ").starts_with(&format!("{key} = "));
            assert!(EXAMPLE.lines().any(documented), "{key} is not in the example");
        }
    }

    #[test]
    fn every_commented_key_of_the_example_is_a_key() {
        let text: String = EXAMPLE
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(rest) if rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) => rest,
                _ => line,
            })
            .flat_map(|line| [line, "\n"])
            .collect();
        parse(&text).unwrap();
    }

    #[test]
    fn a_wrong_key_is_refused_by_name() {
        for (section, text) in [
            ("node", EXAMPLE.replace("state_dir =", "statedir =")),
            ("switch", EXAMPLE.replace("adopt =", "adoptt =")),
            ("controller", EXAMPLE.replace("endpoint =", "endpiont =")),
            ("top", format!("colour = 1\n{EXAMPLE}")),
        ] {
            let error = parse(&text).unwrap_err().to_string();
            let named = ["statedir", "adoptt", "endpiont", "colour"]
                .iter()
                .any(|key| error.contains(key));
            assert!(named, "{section}: {error}");
        }
    }

    #[test]
    fn a_name_that_cannot_be_a_node_is_refused() {
        let error = parse(&EXAMPLE.replace("\"w1\"", "\"../w1\"")).unwrap_err().to_string();
        assert!(error.contains("a name"), "{error}");
    }
}
