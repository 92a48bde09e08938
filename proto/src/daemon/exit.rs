//! How a daemon that cannot go on says so: one line on standard error, and an exit code that tells a wrong configuration from the rest.

use std::error::Error;
use std::process::ExitCode;

/// The configuration is wrong: starting again does not help.
const WRONG_CONFIG: u8 = 2;

/// Says that the configuration cannot be used; exit code 2.
pub fn wrong_config(program: &str, error: &dyn Error) -> ExitCode {
    say(program, error);
    WRONG_CONFIG.into()
}

/// Says why the program ends; exit code 1.
pub fn failed(program: &str, error: &dyn Error) -> ExitCode {
    say(program, error);
    ExitCode::FAILURE
}

fn say(program: &str, error: &dyn Error) {
    eprintln!("{program}: {}", chain(error));
}

/// An error and its causes in one line. A cause that the text before it tells already is not told again.
pub fn chain(error: &dyn Error) -> String {
    let mut text = one_line(&error.to_string());
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = one_line(&cause.to_string());
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Told {
        text: &'static str,
        source: Option<Box<Told>>,
    }

    #[test]
    fn causes_follow_in_one_line_and_none_is_told_twice() {
        let told = |text, source: Option<Told>| Told {
            text,
            source: source.map(Box::new),
        };
        let error = told(
            "the bundle cannot be used",
            Some(told("ca.pem: cannot be\nread", Some(told("cannot be read", None)))),
        );
        assert_eq!(chain(&error), "the bundle cannot be used: ca.pem: cannot be read");
    }
}
