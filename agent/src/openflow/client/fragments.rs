//! How the switch looks at fragments.

use super::{Client, refusal};
use crate::openflow::codec::{self, Config};
use crate::openflow::session::Planned;
use crate::openflow::{Error, Fragments};

impl Client {
    /// How the bridge looks at fragments. Nobody tells of a change, so it is read with every table.
    pub(super) async fn fragments(&self) -> Result<Fragments, Error> {
        Ok(self.config().await?.fragments())
    }

    /// Lets matches see the ports and types of first fragments: ovs-vswitchd begins with [`Fragments::Hidden`], and does again after a
    /// restart.
    ///
    /// # Errors
    /// [`Error::Refused`] when it stays as it was. The switch gives no error of its own for that, so it is read back.
    pub async fn match_fragments(&self) -> Result<(), Error> {
        const WHAT: &str = "to show the ports of fragments";
        let config = self.config().await?;
        if config.fragments() == Fragments::Matched {
            return Ok(());
        }
        let messages = vec![
            Planned::Plain(codec::set_config(config.with(Fragments::Matched))),
            Planned::Plain(codec::config_request()),
        ];
        let answer = self.exchange(messages, None).await?;
        if let Some(error) = refusal(&answer, |_| WHAT.to_owned()) {
            return Err(error);
        }
        match read(&answer.bodies)?.fragments() {
            Fragments::Matched => Ok(()),
            still => Err(Error::Refused {
                what: WHAT.to_owned(),
                reason: format!("they are still `{still}`"),
            }),
        }
    }

    async fn config(&self) -> Result<Config, Error> {
        read(&self.ask(codec::config_request(), "its configuration").await?)
    }
}

fn read(bodies: &[Vec<u8>]) -> Result<Config, Error> {
    let body = bodies.first().map(Vec::as_slice).unwrap_or_default();
    codec::get_config(body)
}
