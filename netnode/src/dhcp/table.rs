//! The table of a DHCP server's namespace: looked at, written, taken away.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use trunkline_agent::files;
use trunkline_proto::VlanId;
use trunkline_proto::resource::Dhcp;

use super::execute::{Error, Paths, Servers, note, open_directory};
use super::plan::Wanted;
use crate::Fingerprint;
use crate::nft::{self, Nft, Noted, State, TABLE};

impl Servers {
    /// It is noted before it is there, so that it is known to be there if this is cut off.
    pub(super) async fn set_filter(&self, wanted: &Wanted) -> Result<(), Error> {
        let Some(batch) = &wanted.filter else { return Ok(()) };
        self.forget(wanted.dhcp.vlan);
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
        self.forget(dhcp.vlan);
        let namespace = self.namespaces().path(&dhcp.namespace());
        Nft::within(namespace).load(nft::delete(TABLE)).await?;
        files::remove_if_there(&self.paths(dhcp.vlan).filter).map_err(Error::State)
    }
}

/// The tables as they were last read.
pub(super) type Read = Arc<Mutex<BTreeMap<VlanId, (u32, Instant, State)>>>;

impl Servers {
    /// A namespace's table. It is read again when the number of the namespace's rules is another one, and now and then.
    pub(super) async fn table(&self, vlan: VlanId, namespace: &Path, rules: Option<u32>) -> Result<State, Error> {
        let known = self.lock().get(&vlan).copied();
        if let (Some(rules), Some((then, at, state))) = (rules, known)
            && rules == then
            && at.elapsed() < nft::READ_FOR
        {
            return Ok(state);
        }
        let state = look(namespace).await?;
        if let Some(rules) = rules {
            self.lock().insert(vlan, (rules, Instant::now(), state));
        }
        Ok(state)
    }

    /// A namespace that was made anew counts from the start again.
    fn forget(&self, vlan: VlanId) {
        self.lock().remove(&vlan);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<VlanId, (u32, Instant, State)>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks.
pub(super) async fn look(namespace: &Path) -> Result<State, Error> {
    let table = Nft::within(namespace.to_owned()).table(TABLE).await?;
    Ok(table.state())
}
