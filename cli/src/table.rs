//! Tables without lines, as `ps` and `ip -br` have them.

use comfy_table::{Cell, Color, ContentArrangement, Table as Grid, presets::NOTHING};
use trunkline_proto::resource::State;

use crate::console::{Console, Paint, Tone};

/// Rows under a heading.
pub(crate) struct Table {
    grid: Grid,
    paint: Paint,
}

impl Table {
    /// With these column heads.
    pub(crate) fn new(console: &Console, heads: &[&str]) -> Self {
        let mut grid = Grid::new();
        grid.load_style(NOTHING).set_header(heads.iter().map(Cell::new));
        // On a terminal long reasons wrap within their column; on a pipe a row is a line.
        if console.terminal {
            grid.set_content_arrangement(ContentArrangement::Dynamic);
        } else {
            grid.force_no_tty();
        }
        if console.paint.0 {
            grid.enforce_styling();
        }
        Self {
            grid,
            paint: console.paint,
        }
    }

    /// A row of texts, each in its tone.
    pub(crate) fn row<const N: usize>(&mut self, cells: [(String, Tone); N]) {
        let paint = self.paint;
        self.grid.add_row(cells.map(|(text, tone)| cell(paint, text, tone)));
    }

    /// As text; the heading alone when there are no rows is not worth showing, so `empty` is said instead.
    pub(crate) fn render(mut self, empty: &str) -> String {
        if self.grid.row_count() == 0 {
            return format!("{empty}\n");
        }
        for column in self.grid.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let lines = self.grid.lines().map(|line| line.trim_end().to_owned() + "\n");
        lines.collect()
    }
}

fn cell(paint: Paint, text: String, tone: Tone) -> Cell {
    // A reason comes from a node; what it holds must not move the cursor.
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let cell = Cell::new(text);
    match tone {
        _ if !paint.0 => cell,
        Tone::Plain => cell,
        Tone::Good => cell.fg(Color::Green),
        Tone::Warn => cell.fg(Color::Yellow),
        Tone::Bad => cell.fg(Color::Red),
        Tone::Faint => cell.fg(Color::DarkGrey),
    }
}

/// As it is.
pub(crate) fn plain(text: impl ToString) -> (String, Tone) {
    (text.to_string(), Tone::Plain)
}

/// `-` when there is nothing to say.
pub(crate) fn or_dash(text: &str) -> (String, Tone) {
    if text.is_empty() {
        ("-".to_owned(), Tone::Faint)
    } else {
        plain(text)
    }
}

/// The tone of a state, by its name.
pub(crate) fn tone_of(state: &str) -> Tone {
    let is = |s: State| s.to_string() == state;
    if is(State::Ready) {
        Tone::Good
    } else if is(State::Pending) || is(State::Degraded) || state == "removing" {
        Tone::Warn
    } else if is(State::Failed) || is(State::Unknown) {
        Tone::Bad
    } else {
        Tone::Faint
    }
}

/// A state in its tone.
pub(crate) fn state(state: &str) -> (String, Tone) {
    (state.to_owned(), tone_of(state))
}
