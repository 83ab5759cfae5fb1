//! What a program inside did to the screen, so that it can be undone when the program is cut
//! off: the settings of the terminal are not all that there is to put back.

use std::io::Write;

/// Modes that outlive a program and spoil the next one: application keys, a hidden cursor,
/// mouse reports, the second screen, focus reports, marked pastes.
const WATCHED: [u16; 13] = [1, 25, 47, 1000, 1002, 1003, 1004, 1005, 1006, 1015, 1047, 1049, 2004];
/// The only one of them that is usually on.
const CURSOR: u16 = 25;

/// Where in a sequence the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Text,
    Escape,
    /// Behind `ESC [`.
    Control,
    /// Behind `ESC [ ?`.
    Mode,
}

/// Follows output. Dropping it undoes what is left.
#[derive(Debug)]
pub(crate) struct Screen {
    at: At,
    numbers: Vec<u16>,
    changed: Vec<u16>,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Self { at: At::Text, numbers: Vec::new(), changed: Vec::new() }
    }

    /// Takes in what is shown.
    pub(crate) fn shown(&mut self, output: &[u8]) {
        for &byte in output {
            self.at = match (self.at, byte) {
                (_, 0x1b) => At::Escape,
                (At::Escape, b'[') => At::Control,
                (At::Escape, b'c') => {
                    self.changed.clear();
                    At::Text
                }
                (At::Control, b'?') => {
                    self.numbers = vec![0];
                    At::Mode
                }
                (At::Mode, b'0'..=b'9') => {
                    if let Some(last) = self.numbers.last_mut() {
                        *last = last.saturating_mul(10).saturating_add((byte - b'0').into());
                    }
                    At::Mode
                }
                // More than a program ever sets at once.
                (At::Mode, b';') if self.numbers.len() < 32 => {
                    self.numbers.push(0);
                    At::Mode
                }
                (At::Mode, b'h' | b'l') => {
                    self.set(byte == b'h');
                    At::Text
                }
                _ => At::Text,
            };
        }
    }

    fn set(&mut self, on: bool) {
        for number in std::mem::take(&mut self.numbers) {
            self.changed.retain(|changed| *changed != number);
            if WATCHED.contains(&number) && on != (number == CURSOR) {
                self.changed.push(number);
            }
        }
    }

    /// What undoes the changes, the newest first.
    fn undo(&self) -> String {
        let undo = |number: &u16| {
            let letter = if *number == CURSOR { 'h' } else { 'l' };
            format!("\x1b[?{number}{letter}")
        };
        self.changed.iter().rev().map(undo).collect()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if !self.changed.is_empty() {
            let mut stdout = std::io::stdout().lock();
            // A terminal that is gone needs nothing.
            let _ = write!(stdout, "{}\x1b[0m", self.undo()).and_then(|()| stdout.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn undo(output: &str) -> String {
        let mut screen = Screen::new();
        screen.shown(output.as_bytes());
        let mut single = Screen::new();
        output.bytes().for_each(|byte| single.shown(&[byte]));
        let undo = screen.undo();
        assert_eq!(undo, single.undo());
        screen.changed.clear();
        single.changed.clear();
        undo
    }

    #[test]
    fn what_is_left_on_is_put_off_and_nothing_else() {
        for (output, wanted) in [
            ("plain \x1b[31mred\x1b[0m", ""),
            ("\x1b[?1049h\x1b[?25l\x1b[?1000;1006h", "\x1b[?1006l\x1b[?1000l\x1b[?25h\x1b[?1049l"),
            ("\x1b[?1049h\x1b[?1049l", ""),
            ("\x1b[?25l\x1b[?25h", ""),
            ("\x1b[?2004h\x1b[?2004h", "\x1b[?2004l"),
            ("\x1b[?7h\x1b[?12l", ""),
            ("\x1b[1049h", ""),
            ("\x1b[?10\x1b[?1049h", "\x1b[?1049l"),
            ("\x1b[?1049h\x1bc", ""),
            ("\x1b[?99999999h", ""),
        ] {
            assert_eq!(undo(output), wanted, "{output:?}");
        }
    }
}
