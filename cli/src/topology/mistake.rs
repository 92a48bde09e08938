//! A mistake of a file, and how a person sees it.

use std::{collections::HashSet, fmt, fmt::Write as _};

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode, ThemeCharacters,
    ThemeStyles,
};

use super::Place;

/// Most mistakes shown with the lines around them; the others get a line each.
const MOST_PICTURES: usize = 25;
/// Most mistakes shown at all. Who has a thousand has one that was made a thousand times.
const MOST_LINES: usize = 1000;
/// Longest line of the file that is shown, in bytes.
const LONGEST_LINE: usize = 240;

/// One thing that is wrong, where, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mistake {
    /// Where in the file.
    pub place: Place,
    /// What is wrong: `"Web" is not a name`.
    pub what: String,
    /// What to do about it; empty when that goes without saying.
    pub instead: String,
}

impl Mistake {
    /// `what` is wrong at `place`; write `instead`.
    pub fn new(place: Place, what: impl Into<String>, instead: impl Into<String>) -> Self {
        Self {
            place,
            what: what.into(),
            instead: instead.into(),
        }
    }
}

/// A file with mistakes, in the order of the file. `Display` is a line each, `file:line:column: what: instead`.
#[derive(Debug)]
pub struct Wrong {
    file: String,
    text: String,
    /// Byte at which each line starts.
    lines: Vec<usize>,
    mistakes: Vec<Mistake>,
}

impl Wrong {
    pub(super) fn new(file: &str, text: &str, mistakes: Vec<Mistake>) -> Self {
        // What is wrong with an alias's value is wrong wherever it is used: once is enough.
        let mut seen = HashSet::new();
        let mut mistakes: Vec<_> = mistakes.into_iter().filter(|m| seen.insert(m.clone())).collect();
        mistakes.sort_by_key(|m| m.place.start);
        let starts = text
            .bytes()
            .enumerate()
            .filter(|(_, b)| *b == b'\n')
            .map(|(at, _)| at + 1);
        Self {
            file: file.to_owned(),
            text: text.to_owned(),
            lines: std::iter::once(0).chain(starts).collect(),
            mistakes,
        }
    }

    /// All of them.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }

    /// Line and column of a mistake, both from 1; columns count characters.
    pub fn position(&self, mistake: &Mistake) -> (usize, usize) {
        let at = mistake.place.start.min(self.text.len());
        let line = self.lines.partition_point(|start| *start <= at);
        let start = self.lines[line - 1];
        let column = self.text.get(start..at).map_or(0, |before| before.chars().count());
        (line, column + 1)
    }

    /// With the lines around each mistake, for a terminal of `width` columns.
    pub fn pretty(&self, colour: bool, width: usize) -> String {
        let styles = if colour {
            ThemeStyles::ansi()
        } else {
            ThemeStyles::none()
        };
        let theme = GraphicalTheme {
            characters: ThemeCharacters::unicode(),
            styles,
        };
        let handler = GraphicalReportHandler::new_themed(theme)
            .with_width(width.clamp(60, 120))
            .with_links(false);
        let source = NamedSource::new(&self.file, self.text.clone());
        let mut out = String::new();
        let mut pictures = 0;
        for mistake in self.mistakes.iter().take(MOST_LINES) {
            let picture = Picture {
                mistake,
                source: &source,
            };
            pictures += 1;
            let shown =
                pictures <= MOST_PICTURES && self.shows(mistake) && handler.render_report(&mut out, &picture).is_ok();
            if !shown {
                let _ = writeln!(out, "{}", self.line(mistake));
            }
        }
        out.push_str(&self.summary());
        out
    }

    fn shows(&self, mistake: &Mistake) -> bool {
        let (line, _) = self.position(mistake);
        let start = self.lines[line - 1];
        let end = self.lines.get(line).copied().unwrap_or(self.text.len());
        end - start <= LONGEST_LINE && mistake.place.end <= end && !self.text.is_empty()
    }

    fn line(&self, mistake: &Mistake) -> String {
        let (line, column) = self.position(mistake);
        let Mistake { what, instead, .. } = mistake;
        let colon = if instead.is_empty() { "" } else { ": " };
        format!("{}:{line}:{column}: {what}{colon}{instead}", self.file)
    }

    fn summary(&self) -> String {
        let count = self.mistakes.len();
        let more = count.saturating_sub(MOST_LINES);
        let many = if count == 1 { "mistake" } else { "mistakes" };
        let more = if more > 0 {
            format!(" ({more} not shown)")
        } else {
            String::new()
        };
        format!("{count} {many} in {}{more}; nothing was changed\n", self.file)
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mistake in self.mistakes.iter().take(MOST_LINES) {
            writeln!(f, "{}", self.line(mistake))?;
        }
        f.write_str(&self.summary())
    }
}

/// One mistake as miette wants it.
#[derive(Debug)]
struct Picture<'a> {
    mistake: &'a Mistake,
    source: &'a NamedSource<String>,
}

impl fmt::Display for Picture<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.mistake.what)
    }
}

impl std::error::Error for Picture<'_> {}

impl Diagnostic for Picture<'_> {
    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let Mistake { place, instead, .. } = self.mistake;
        let label = (!instead.is_empty()).then(|| instead.clone());
        Some(Box::new(std::iter::once(LabeledSpan::new(
            label,
            place.start,
            place.len(),
        ))))
    }
}
