//! The commands: each asks the controller, makes a view of the answer and prints it.

mod apply;
mod events;
mod explain;
mod link;
mod netdev;
mod node;
mod slice;
mod status;
mod vm;

use clap::CommandFactory;

use crate::{
    args::{Cli, Command},
    console::Console,
    failure::Failure,
    session::Session,
    view::change::DoneView,
};

impl Command {
    /// For the name of the trace's root span.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Apply(_) => "apply",
            Self::Slice(_) => "slice",
            Self::Vm(_) => "vm",
            Self::Link(_) => "link",
            Self::Status(_) => "status",
            Self::Explain(_) => "explain",
            Self::Node(_) => "node",
            Self::Events(_) => "events",
            Self::Completions { .. } => "completions",
        }
    }
}

/// Does what the command line says.
pub(crate) async fn run(cli: Cli, console: &Console) -> Result<(), Failure> {
    let Cli { global, command } = cli;
    match command {
        Command::Completions { shell } => completions(shell, console),
        // A wrong file is told without a controller, too.
        Command::Apply(args) => {
            let topology = apply::read(&args.file, &global, console).await?;
            apply::check(&args)?;
            apply::run(&Session::open(&global, console).await?, &args, &topology).await
        }
        Command::Slice(command) => slice::run(&Session::open(&global, console).await?, &command).await,
        Command::Vm(command) => vm::run(&Session::open(&global, console).await?, &command).await,
        Command::Link(command) => link::run(&Session::open(&global, console).await?, &command).await,
        Command::Status(args) => status::run(&Session::open(&global, console).await?, &args).await,
        Command::Explain(args) => explain::run(&Session::open(&global, console).await?, &args).await,
        Command::Node(command) => node::run(&Session::open(&global, console).await?, &command).await,
        Command::Events(args) => events::run(&Session::open(&global, console).await?, &args).await,
    }
}

fn completions(shell: clap_complete::Shell, console: &Console) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "trunkctl", &mut script);
    console.print(&String::from_utf8_lossy(&script))
}

/// What a change of a draft did, in a sentence or as data.
fn done(session: &Session, revision: u64, sentence: &str) -> Result<(), Failure> {
    let view = DoneView {
        revision,
        ..DoneView::default()
    };
    session.console.show(&view, || format!("{sentence}\n"))
}
