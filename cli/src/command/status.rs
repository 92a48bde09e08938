//! `status`.

use trunkline_proto::wire;

use crate::{
    args::Status,
    console::Format,
    failure::Failure,
    session::{Session, call},
    view::status::{Shown, StatusView, status_text},
    wait::{Goal, Next, Until, follow, wait},
};

/// Clears a terminal and goes to its upper left corner (ECMA-48: CUP, ED 2).
const CLEAR: &str = "\x1b[H\x1b[2J";

pub(super) async fn run(session: &Session, args: &Status) -> Result<(), Failure> {
    if args.watch {
        return watch(session, args).await;
    }
    if args.wait {
        wait(session, &goal(args), args.timeout).await?;
    }
    let status = call!(
        session,
        slices.get_status(wire::GetStatusRequest {
            slices: args.slices.clone(),
            brief: false,
        })
    )?;
    let view = StatusView::from(&status);
    session
        .console
        .show(&view, || status_text(&session.console, &view, shown(args)))?;
    if session.console.format == Format::Table {
        say_drafts(session, &view).await?;
    }
    Ok(())
}

/// What is deployed may be as it should while somebody waits for what is in the draft only.
async fn say_drafts(session: &Session, status: &StatusView) -> Result<(), Failure> {
    for slice in session.slices(None).await? {
        let shown = status.slices.iter().any(|s| s.name == slice.name);
        if let Some(deployed) = slice.deployed.filter(|_| shown && slice.draft_differs) {
            session.console.note(format!(
                "note: the draft of {0} differs from what is deployed (#{1}); `trunkctl slice deploy {0}` makes it true",
                slice.name, deployed.number
            ));
        }
    }
    Ok(())
}

fn shown(args: &Status) -> Shown {
    Shown {
        parts: !args.slices.is_empty(),
        paths: args.paths,
    }
}

fn goal(args: &Status) -> Goal {
    Goal {
        slices: args.slices.clone(),
        until: Until::Ready,
        after: (0, 0),
    }
}

/// Shows it whenever it changes: the whole on a terminal, what changed on a pipe.
async fn watch(session: &Session, args: &Status) -> Result<(), Failure> {
    let console = &session.console;
    let goal = goal(args);
    let mut said = std::collections::BTreeMap::new();
    let mut lost = false;
    follow(session, &args.slices, false, |next| {
        let shown = match next {
            Next::Missing => return None,
            Next::Lost(why) => {
                if !std::mem::replace(&mut lost, true) {
                    console.note(format!("lost the controller, trying again: {why}"));
                }
                return None;
            }
            Next::Status(status) if console.format != Format::Table => {
                console.show_next(&StatusView::from(&status), String::new)
            }
            Next::Status(status) if console.terminal => {
                let text = status_text(console, &StatusView::from(&status), shown(args));
                console.print(&format!("{CLEAR}{text}"))
            }
            Next::Status(status) => {
                let mut changed = String::new();
                for progress in goal.progress(&status) {
                    let line = crate::wait::line(&progress);
                    if said.insert(progress.slice, line.clone()).as_ref() != Some(&line) {
                        changed += &format!("{line}\n");
                    }
                }
                console.print(&changed)
            }
        };
        // Nobody reads any more: that ends it.
        shown.err().map(Err)
    })
    .await?
}
