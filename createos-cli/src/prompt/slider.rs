//! A number that is moved instead of typed (cli.md 2.5).

use std::io;
use std::ops::RangeInclusive;

use console::{Key, Term, style};

use super::Answer;
use super::screen::Screen;

/// Steps of the bar.
const BAR: u64 = 40;

/// A number within bounds.
pub(super) struct Slider {
    pub(super) title: String,
    pub(super) range: RangeInclusive<u64>,
    pub(super) start: u64,
    /// What is counted, for example GB.
    pub(super) unit: &'static str,
}

impl Slider {
    /// Ctrl+C goes back, as Esc does: nothing has begun here that it could end.
    pub(super) fn ask(self, term: &Term) -> io::Result<Answer<u64>> {
        let mut screen = Screen::new(term)?;
        let mut value = self.start;
        loop {
            screen.draw(&self.lines(value))?;
            match term.read_key_raw()? {
                Key::Enter => {
                    let title = style(&self.title).for_stderr().bold();
                    screen.leave(&format!("{title} {value} {}", self.unit))?;
                    return Ok(Answer::Given(value));
                }
                Key::Escape | Key::Char('q') | Key::CtrlC => {
                    screen.leave(&format!("{} -", style(&self.title).for_stderr().bold()))?;
                    return Ok(Answer::Left);
                }
                key => value = self.moved(value, &key),
            }
        }
    }

    fn moved(&self, value: u64, key: &Key) -> u64 {
        let value = match key {
            Key::ArrowRight | Key::Char('+' | '=') => value + 1,
            Key::ArrowLeft | Key::Char('-') => value.saturating_sub(1),
            Key::ArrowUp => value + 10,
            Key::ArrowDown => value.saturating_sub(10),
            Key::Home => *self.range.start(),
            Key::End => *self.range.end(),
            _ => value,
        };
        value.clamp(*self.range.start(), *self.range.end())
    }

    fn lines(&self, value: u64) -> Vec<String> {
        let (first, last) = (*self.range.start(), *self.range.end());
        let filled = (value - first) * BAR / (last - first).max(1);
        let bar = |letter: &str, count: u64| letter.repeat(count.try_into().unwrap_or(0));
        let hint = "left and right move by 1, up and down by 10, Enter takes it, q goes back";
        vec![
            style(&self.title).for_stderr().bold().to_string(),
            style(hint).for_stderr().dim().to_string(),
            format!("[{}{}] {value} {}", bar("=", filled), bar(" ", BAR - filled), self.unit),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_move_within_the_bounds() {
        let slider = Slider { title: String::new(), range: 1..=100, start: 5, unit: "GB" };
        let after = |value, keys: &[Key]| keys.iter().fold(value, |v, key| slider.moved(v, key));
        assert_eq!(after(5, &[Key::ArrowRight, Key::Char('+'), Key::ArrowUp]), 17);
        assert_eq!(after(5, &[Key::ArrowDown]), 1);
        assert_eq!(after(95, &[Key::ArrowUp, Key::ArrowRight]), 100);
        assert_eq!(after(5, &[Key::ArrowLeft, Key::Char('-')]), 3);
        assert_eq!(after(5, &[Key::Char('x'), Key::Tab]), 5);
    }

    #[test]
    fn the_bar_is_as_long_everywhere() {
        let slider = Slider { title: String::new(), range: 1..=100, start: 5, unit: "GB" };
        for value in [1, 2, 50, 100] {
            let bar = slider.lines(value).pop().unwrap();
            assert_eq!(bar.find(']'), Some(41), "{bar}");
        }
    }
}
