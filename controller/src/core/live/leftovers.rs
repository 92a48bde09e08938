//! What nodes say of leftovers and of removals that they hold back, and the way back to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::time::Instant;
use trunkline_proto::Name;

use super::{Live, SessionId, Story};
use crate::{
    leftovers::{HeldBack, Orphan, Word},
    model::Position,
    transition::NewEvent,
};

/// What a report says of leftovers; `None` where it says nothing.
#[derive(Debug, Default)]
pub struct Leftovers {
    /// All of them.
    pub orphans: Option<Vec<Orphan>>,
    /// What is held back, which may be nothing.
    pub held: Option<Option<HeldBack>>,
}

/// What was told of a node's leftovers last, in whatever session.
#[derive(Debug, Default)]
pub(super) struct Told {
    held: Position,
    orphans: BTreeSet<(String, String)>,
}

impl Live {
    /// What the node has and should not have. What is new of it is told, once in all its sessions.
    pub fn leftovers(&mut self, node: &Name, id: SessionId, actor: &str, said: Leftovers) -> Vec<NewEvent> {
        let mut events = Vec::new();
        if !self.is_current(node, id) {
            return events;
        }
        let Some(view) = self.views.get_mut(node) else {
            return events;
        };
        let told = self.told.entry(node.clone()).or_default();
        let mut tell = |kind, message| {
            if self.quotas.admits(node, Story::Leftovers, None, Instant::now()) {
                events.push(NewEvent {
                    kind,
                    actor: actor.to_owned(),
                    slice: None,
                    node: Some(node.clone()),
                    vlan: None,
                    revision: 0,
                    message,
                });
            }
        };
        if let Some(orphans) = said.orphans {
            let all: BTreeSet<(String, String)> = orphans.iter().map(|o| (o.kind.clone(), o.name.clone())).collect();
            let new: Vec<String> = all
                .difference(&told.orphans)
                .map(|(kind, name)| format!("{kind} {name}"))
                .collect();
            if !new.is_empty() {
                let text = format!(
                    "{node} found leftovers that nobody wants, and removes what it does not hold back when it sees it again: {}",
                    some(&new)
                );
                tell("node.orphans", text);
            }
            told.orphans = all;
            view.orphans = orphans;
        }
        if let Some(held) = said.held {
            if let Some(held) = held.as_ref().filter(|held| held.at != told.held) {
                let text = format!(
                    "{node} holds back {} until an operator confirms: {}; see `trunkctl node show {node}`, and if they are meant, \
                     `trunkctl node confirm {node}`",
                    held.count_words(),
                    held.some()
                );
                tell("removals.held", text);
                told.held = held.at;
            }
            if held.is_some() {
                self.held_by.insert(node.clone());
            } else {
                self.held_by.remove(node);
            }
            view.held = held.map(Arc::new);
        }
        events
    }

    /// How many connected nodes hold something back.
    pub fn holding(&self) -> usize {
        let here = |node: &&Name| self.sessions.contains_key(*node);
        self.held_by.iter().filter(here).count()
    }

    /// What connected nodes hold back, as far as it belongs to what they have.
    pub fn held(&self) -> BTreeMap<Name, Arc<HeldBack>> {
        let connected = self.held_by.iter().filter(|node| self.sessions.contains_key(*node));
        connected
            .filter_map(|node| Some((node.clone(), self.views.get(node)?.held.clone()?)))
            .collect()
    }

    /// Tells the node's session that removals are confirmed. False when there is none, or it does not listen.
    pub fn confirm(&self, node: &Name, word: Word) -> bool {
        let session = self.sessions.get(node);
        session.is_some_and(|session| session.confirm.try_send(word).is_ok())
    }
}

/// The first few of a list, in words.
fn some(names: &[String]) -> String {
    let named = &names[..names.len().min(5)];
    match names.len() - named.len() {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}
