//! Pickers: one or any number of rows (cli.md 1.7).

use std::io;

use console::{Key, Term, style};

use super::screen::Screen;
use super::{Answer, mark};

/// What is picked from.
pub(super) struct List {
    pub(super) title: String,
    pub(super) items: Vec<String>,
    /// The row that is current at first.
    pub(super) start: usize,
}

/// What a key means here.
enum Step {
    Up,
    Down,
    First,
    Last,
    Mark,
    Take,
    Leave,
    Interrupt,
    Nothing,
}

fn step(key: &Key) -> Step {
    match key {
        Key::ArrowUp | Key::BackTab | Key::Char('k') => Step::Up,
        Key::ArrowDown | Key::Tab | Key::Char('j') => Step::Down,
        Key::Home | Key::PageUp => Step::First,
        Key::End | Key::PageDown => Step::Last,
        Key::Char(' ') => Step::Mark,
        Key::Enter => Step::Take,
        Key::Escape | Key::Char('q') => Step::Leave,
        Key::CtrlC => Step::Interrupt,
        _ => Step::Nothing,
    }
}

impl List {
    /// Enter or Space picks the current row.
    pub(super) fn one(self, term: &Term) -> io::Result<Answer<usize>> {
        let mut screen = Screen::new(term)?;
        let mut at = self.start.min(self.items.len().saturating_sub(1));
        loop {
            let hint = "arrows or k and j move, Enter picks, q leaves";
            screen.draw(&self.lines(hint, at, None, screen.size().0))?;
            match step(&term.read_key_raw()?) {
                Step::Take | Step::Mark => {
                    screen.leave(&self.said(&self.items[at]))?;
                    return Ok(Answer::Given(at));
                }
                Step::Leave => return self.left(screen, Answer::Left),
                Step::Interrupt => return self.left(screen, Answer::Interrupted),
                step => at = self.moved(at, &step),
            }
        }
    }

    /// Space marks the current row, Enter takes what is marked.
    pub(super) fn several(self, term: &Term) -> io::Result<Answer<Vec<usize>>> {
        let mut screen = Screen::new(term)?;
        let mut at = 0;
        let mut marked = vec![false; self.items.len()];
        loop {
            let hint = "arrows or k and j move, Space marks, Enter confirms, q leaves";
            screen.draw(&self.lines(hint, at, Some(&marked), screen.size().0))?;
            match step(&term.read_key_raw()?) {
                Step::Take => {
                    let taken: Vec<usize> = (0..marked.len()).filter(|&at| marked[at]).collect();
                    let names: Vec<&str> =
                        taken.iter().map(|&at| self.items[at].as_str()).collect();
                    let names = if names.is_empty() { "none".into() } else { names.join(", ") };
                    screen.leave(&self.said(&names))?;
                    return Ok(Answer::Given(taken));
                }
                Step::Mark => marked[at] = !marked[at],
                Step::Leave => return self.left(screen, Answer::Left),
                Step::Interrupt => return self.left(screen, Answer::Interrupted),
                step => at = self.moved(at, &step),
            }
        }
    }

    fn moved(&self, at: usize, step: &Step) -> usize {
        let last = self.items.len() - 1;
        match step {
            Step::Up => at.checked_sub(1).unwrap_or(last),
            Step::Down if at == last => 0,
            Step::Down => at + 1,
            Step::First => 0,
            Step::Last => last,
            _ => at,
        }
    }

    /// Title, hint and as many rows around the current one as fit on the screen.
    fn lines(&self, hint: &str, at: usize, marked: Option<&[bool]>, rows: usize) -> Vec<String> {
        let room = rows.saturating_sub(3).max(1).min(self.items.len());
        let first = at.saturating_sub(room / 2).min(self.items.len() - room);
        let mut hint = hint.to_owned();
        if room < self.items.len() {
            hint.push_str(&format!(" ({} of {})", at + 1, self.items.len()));
        }
        let mut lines = vec![
            style(&self.title).for_stderr().bold().to_string(),
            style(hint).for_stderr().dim().to_string(),
        ];
        let current = mark();
        for (row, item) in self.items.iter().enumerate().skip(first).take(room) {
            let mark = match marked {
                Some(marked) if marked[row] => "[x] ",
                Some(_) => "[ ] ",
                None => "",
            };
            lines.push(match row == at {
                true => style(format!("{current} {mark}{item}")).for_stderr().cyan().to_string(),
                false => format!("  {mark}{item}"),
            });
        }
        lines
    }

    fn said(&self, answer: &str) -> String {
        format!("{} {answer}", style(&self.title).for_stderr().bold())
    }

    fn left<T>(&self, screen: Screen<'_>, answer: Answer<T>) -> io::Result<Answer<T>> {
        screen.leave(&self.said("-"))?;
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(count: usize) -> List {
        console::set_colors_enabled_stderr(false);
        let items = (0..count).map(|at| format!("row {at}")).collect();
        List { title: "which?".to_owned(), items, start: 0 }
    }

    #[test]
    fn the_window_follows_the_current_row() {
        let list = list(10);
        let shown = |at| list.lines("hint", at, None, 8)[2..].join("\n").replace(mark(), "›");
        assert_eq!(shown(0), "› row 0\n  row 1\n  row 2\n  row 3\n  row 4");
        assert_eq!(shown(5), "  row 3\n  row 4\n› row 5\n  row 6\n  row 7");
        assert_eq!(shown(9), "  row 5\n  row 6\n  row 7\n  row 8\n› row 9");
        assert_eq!(list.lines("hint", 9, None, 8)[1], "hint (10 of 10)");
        // A screen without room still shows where one is.
        assert_eq!(list.lines("hint", 4, None, 1)[2..], [format!("{} row 4", mark())]);
    }

    #[test]
    fn both_ends_lead_to_each_other() {
        let list = list(3);
        assert_eq!(list.moved(0, &Step::Up), 2);
        assert_eq!(list.moved(2, &Step::Down), 0);
        assert_eq!((list.moved(1, &Step::Last), list.moved(1, &Step::First)), (2, 0));
    }

    #[test]
    fn marks_are_shown() {
        let lines = list(2).lines("hint", 1, Some(&[true, false]), 24);
        assert_eq!(lines[2..], ["  [x] row 0".to_owned(), format!("{} [ ] row 1", mark())]);
    }
}
