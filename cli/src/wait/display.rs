//! How far it is: bars on a terminal, a line per change on a pipe. On standard error, so that standard output stays data.

use std::{collections::BTreeMap, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::goal::Progress;
use crate::console::Console;

/// Shows progress.
pub(crate) enum Display {
    /// A bar per slice.
    Live {
        bars: MultiProgress,
        by_slice: BTreeMap<String, ProgressBar>,
    },
    /// What was last said of each slice.
    Plain {
        console: Console,
        said: BTreeMap<String, String>,
    },
}

impl Display {
    pub(crate) fn new(console: &Console) -> Self {
        if console.terminal_errors {
            let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            Self::Live {
                bars,
                by_slice: BTreeMap::new(),
            }
        } else {
            Self::Plain {
                console: console.clone(),
                said: BTreeMap::new(),
            }
        }
    }

    /// The state of things.
    pub(crate) fn show(&mut self, all: &[Progress]) {
        match self {
            Self::Live { bars, by_slice } => {
                let gone: Vec<_> = by_slice
                    .keys()
                    .filter(|name| !all.iter().any(|p| p.slice == **name))
                    .cloned()
                    .collect();
                for name in gone {
                    if let Some(bar) = by_slice.remove(&name) {
                        bar.finish_with_message("gone");
                    }
                }
                for progress in all {
                    let bar = by_slice
                        .entry(progress.slice.clone())
                        .or_insert_with(|| new_bar(bars, &progress.slice));
                    bar.set_length(progress.of.into());
                    bar.set_position(progress.ready.into());
                    bar.set_message(progress.words.clone());
                }
            }
            Self::Plain { console, said } => {
                for progress in all {
                    let line = line(progress);
                    if said.get(&progress.slice) != Some(&line) {
                        console.note(&line);
                        said.insert(progress.slice.clone(), line);
                    }
                }
            }
        }
    }

    /// A word in between.
    pub(crate) fn note(&self, text: &str) {
        match self {
            Self::Live { bars, .. } => {
                // A terminal that is gone is no reason to stop waiting.
                let _ = bars.println(text);
            }
            Self::Plain { console, .. } => console.note(text),
        }
    }

    /// Leaves the bars as they are last.
    pub(crate) fn finish(&mut self) {
        if let Self::Live { by_slice, .. } = self {
            for bar in by_slice.values() {
                bar.abandon();
            }
        }
    }
}

fn new_bar(bars: &MultiProgress, slice: &str) -> ProgressBar {
    let bar = bars.add(ProgressBar::new(0));
    let style = ProgressStyle::with_template("{spinner} {prefix:16} [{bar:24}] {pos}/{len} {elapsed:.dim} {wide_msg}");
    // The template is fixed and right; were it not, the plain bar would do.
    bar.set_style(
        style
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> "),
    );
    bar.set_prefix(slice.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// `shop: 12/20 ready, pending: ...`
pub(crate) fn line(progress: &Progress) -> String {
    let Progress {
        slice,
        ready,
        of,
        words,
        done,
    } = progress;
    if *done && words == "ready" {
        return format!("{slice}: {ready}/{of} ready");
    }
    if *of == 0 {
        return format!("{slice}: {words}");
    }
    format!("{slice}: {ready}/{of} ready, {words}")
}
