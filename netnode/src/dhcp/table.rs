//! The table of a DHCP server's namespace: looked at, written, taken away.

use std::path::Path;

use trunkline_agent::files;
use trunkline_proto::resource::Dhcp;

use super::execute::{Error, Paths, Servers, note, open_directory};
use super::plan::Wanted;
use crate::Fingerprint;
use crate::nft::{self, Nft, Noted, State, TABLE};

impl Servers {
    /// It is noted before it is there, so that it is known to be there if this is cut off.
    pub(super) async fn set_filter(&self, wanted: &Wanted) -> Result<(), Error> {
        let Some(batch) = &wanted.filter else { return Ok(()) };
        let Paths { directory, filter, .. } = self.paths(wanted.dhcp.vlan);
        open_directory(&directory).map_err(Error::State)?;
        note(&filter, &Noted::default())?;
        let namespace = self.namespaces().path(&wanted.dhcp.namespace());
        Nft::within(namespace.clone()).load(batch.as_str()).await?;
        if let State::Ours(readback) = look(&namespace).await? {
            let noted = Noted {
                rendered: Some(Fingerprint::of(batch)),
                readback: Some(readback),
            };
            note(&filter, &noted)?;
        }
        Ok(())
    }

    pub(super) async fn drop_filter(&self, dhcp: &Dhcp) -> Result<(), Error> {
        let namespace = self.namespaces().path(&dhcp.namespace());
        Nft::within(namespace).load(nft::delete(TABLE)).await?;
        files::remove_if_there(&self.paths(dhcp.vlan).filter).map_err(Error::State)
    }
}

/// Looks.
pub(super) async fn look(namespace: &Path) -> Result<State, Error> {
    let table = Nft::within(namespace.to_owned()).table(TABLE).await?;
    Ok(table.state())
}
