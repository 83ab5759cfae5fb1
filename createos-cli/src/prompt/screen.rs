//! Lines that are drawn again and again in the same place.

use std::io;

use console::{Term, measure_text_width, truncate_str};

use super::mark;
use crate::output::unicode;

/// A block of lines above the cursor.
pub(super) struct Screen<'a> {
    term: &'a Term,
    drawn: usize,
}

impl<'a> Screen<'a> {
    pub(super) fn new(term: &'a Term) -> io::Result<Self> {
        term.hide_cursor()?;
        Ok(Self { term, drawn: 0 })
    }

    /// Rows and columns that are there now.
    pub(super) fn size(&self) -> (usize, usize) {
        let (rows, columns) = self.term.size();
        (rows.into(), columns.into())
    }

    /// Replaces the block. Lines are cut: one that wraps could not be taken back.
    pub(super) fn draw(&mut self, lines: &[String]) -> io::Result<()> {
        self.clear()?;
        let (_, columns) = self.size();
        let tail = if unicode() { "…" } else { "~" };
        for line in lines {
            self.term.write_line(&truncate_str(line, columns.saturating_sub(1), tail))?;
        }
        self.drawn = lines.len();
        self.term.flush()
    }

    /// Takes the block away and leaves a line in its place.
    pub(super) fn leave(mut self, line: &str) -> io::Result<()> {
        self.draw(&[line.to_owned()])?;
        self.term.show_cursor()?;
        self.term.flush()
    }

    fn clear(&mut self) -> io::Result<()> {
        self.term.clear_last_lines(std::mem::take(&mut self.drawn))
    }
}

/// A line that is typed: it is drawn over itself and scrolls sideways.
pub(super) struct Row<'a> {
    term: &'a Term,
    prompt: String,
}

impl<'a> Row<'a> {
    /// A prompt that leaves no room stands in a line of its own.
    pub(super) fn new(term: &'a Term, prompt: String) -> io::Result<Self> {
        let columns = usize::from(term.size().1);
        if measure_text_width(&prompt) + 20 <= columns {
            return Ok(Self { term, prompt });
        }
        term.write_line(&prompt)?;
        Ok(Self { term, prompt: format!("{} ", mark()) })
    }

    /// Draws the text with the cursor before its letter number `at`.
    pub(super) fn draw(&self, letters: &[char], at: usize) -> io::Result<()> {
        let columns = usize::from(self.term.size().1);
        let room = columns.saturating_sub(measure_text_width(&self.prompt) + 1).max(1);
        let mut first = 0;
        while width(&letters[first..at]) > room {
            first += 1;
        }
        let mut end = at;
        while end < letters.len() && width(&letters[first..=end]) <= room {
            end += 1;
        }
        self.term.clear_line()?;
        let shown: String = letters[first..end].iter().collect();
        self.term.write_str(&format!("{}{shown}", self.prompt))?;
        let behind = width(&letters[at..end]);
        if behind > 0 {
            self.term.move_cursor_left(behind)?;
        }
        self.term.flush()
    }
}

fn width(letters: &[char]) -> usize {
    measure_text_width(&letters.iter().collect::<String>())
}
