//! Where output goes: formats, colours, terminals.

use std::{
    env,
    fmt::Display,
    io::{self, IsTerminal, Write},
};

use clap::ValueEnum;
use serde::Serialize;

use crate::failure::Failure;

/// How a read is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs
    Json,
    /// For both
    Yaml,
}

/// When colours are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColourChoice {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl ColourChoice {
    /// NO_COLOR counts when it is set to anything but the empty text (no-color.org).
    fn on(self, terminal: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => terminal && env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        }
    }
}

/// Colours a text, or leaves it as it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint(pub(crate) bool);

/// What a colour is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it is.
    Plain,
    /// Ready, created.
    Good,
    /// Degraded, pending, changed.
    Warn,
    /// Failed, removed.
    Bad,
    /// Less important.
    Faint,
}

impl Paint {
    /// `text` in a tone.
    pub(crate) fn tone(self, tone: Tone, text: impl Display) -> String {
        let code = match tone {
            _ if !self.0 => return text.to_string(),
            Tone::Plain => return text.to_string(),
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "31",
            Tone::Faint => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Standard output and standard error as they are today.
#[derive(Debug, Clone)]
pub(crate) struct Console {
    pub(crate) format: Format,
    /// For standard output.
    pub(crate) paint: Paint,
    /// For standard error.
    pub(crate) paint_errors: Paint,
    /// True when standard output is a terminal.
    pub(crate) terminal: bool,
    /// True when standard error is a terminal.
    pub(crate) terminal_errors: bool,
}

impl Console {
    pub(crate) fn new(format: Format, colour: ColourChoice) -> Self {
        let (terminal, terminal_errors) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        Self {
            format,
            paint: Paint(colour.on(terminal)),
            paint_errors: Paint(colour.on(terminal_errors)),
            terminal,
            terminal_errors,
        }
    }

    /// Prints text as it is.
    pub(crate) fn print(&self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(Failure::Output)
    }

    /// Prints a view: as a table for people, or as data.
    pub(crate) fn show<T: Serialize>(&self, view: &T, table: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.format {
            Format::Table => self.print(&table()),
            _ => self.print(&self.data(view)?),
        }
    }

    /// Prints one of a stream of views: a line each in JSON, a document each in YAML.
    pub(crate) fn show_next<T: Serialize>(&self, view: &T, line: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.format {
            Format::Table => self.print(&line()),
            Format::Json => self.print(&(serde_json::to_string(view).map_err(Failure::Json)? + "\n")),
            Format::Yaml => self.print(&format!("---\n{}", self.data(view)?)),
        }
    }

    fn data<T: Serialize>(&self, view: &T) -> Result<String, Failure> {
        match self.format {
            Format::Yaml => serde_saphyr::to_string(view).map_err(|e| Failure::Yaml(e.to_string())),
            _ => Ok(serde_json::to_string_pretty(view).map_err(Failure::Json)? + "\n"),
        }
    }

    /// Says something beside the output, on standard error.
    pub(crate) fn note(&self, text: impl Display) {
        // When standard error is gone there is nobody to tell.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_asked_for_or_for_terminals_only() {
        assert!(ColourChoice::Always.on(false));
        assert!(!ColourChoice::Never.on(true));
        assert!(!ColourChoice::Auto.on(false));
        assert_eq!(Paint(false).tone(Tone::Bad, "x"), "x");
        assert_eq!(Paint(true).tone(Tone::Bad, "x"), "\x1b[31mx\x1b[0m");
    }
}
