//! What a node has to do at least before it can know that it is in step: load its keys, shake hands with the controller, and read
//! the switch's rows, the kernel's devices and the bridge's flows, once each.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde::{Deserialize, Serialize};
use serde_json::json;
use trunkline_certs::{Bundle, client_config};
use trunkline_integration::LabError;

use crate::part;

use super::database::Database;
use super::netlink::Netlink;
use super::openflow::OpenFlow;
use super::{DATABASE, MANAGEMENT};

/// Its keys, and where the controller is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Places {
    pub(crate) bundle: PathBuf,
    pub(crate) controller: SocketAddr,
}

/// Says what it found.
pub(crate) fn run(places: &Places) -> Result<(), LabError> {
    let connection = shake_hands(places)?;
    let mut database = Database::connect(Path::new(DATABASE))?;
    let rows = database.monitor(&columns())?;
    let devices = Netlink::route()?.devices()?;
    let flows = OpenFlow::connect(Path::new(MANAGEMENT))?.flows()?;
    let tables = rows.as_object().map_or(0, serde_json::Map::len);
    part::say(&[tables, devices, flows])?;
    drop(connection);
    Ok(())
}

/// Until the controller has said its first word, which it says to whom it has taken only.
fn shake_hands(places: &Places) -> Result<StreamOwned<ClientConnection, TcpStream>, LabError> {
    let other = |error: &dyn std::error::Error| LabError::Other(format!("no TLS with the controller: {error}"));
    let bundle = Bundle::load(&places.bundle).map_err(|error| other(&error))?;
    let config = client_config(&bundle).map_err(|error| other(&error))?;
    let name = ServerName::IpAddress(places.controller.ip().into());
    let tls = ClientConnection::new(Arc::new(config), name).map_err(|error| other(&error))?;
    let tcp = TcpStream::connect(places.controller).map_err(LabError::io("cannot reach the controller"))?;
    tcp.set_nodelay(true)
        .map_err(LabError::io("cannot set up a connection"))?;
    let mut stream = StreamOwned::new(tls, tcp);
    stream
        .read_exact(&mut [0; 9])
        .map_err(LabError::io("the controller says nothing"))?;
    Ok(stream)
}

/// What has to be known of ports.
fn columns() -> serde_json::Value {
    json!({
        "Open_vSwitch": [{"columns": ["bridges", "cur_cfg", "next_cfg"]}],
        "Bridge": [{"columns": ["name", "datapath_type", "fail_mode", "ports", "external_ids"]}],
        "Port": [{"columns": ["name", "interfaces", "vlan_mode", "tag", "trunks", "protected", "external_ids"]}],
        "Interface": [{"columns": ["name", "type", "mac", "mac_in_use", "mtu", "mtu_request", "ofport", "ofport_request", "error",
            "ifindex", "external_ids"]}],
    })
}
