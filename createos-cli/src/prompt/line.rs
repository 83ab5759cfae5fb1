//! One typed line, shown or hidden behind stars.

use std::io;

use console::{Key, Term, style};

use super::Answer;
use super::screen::Row;

/// A line to be typed.
pub(super) struct Line {
    pub(super) question: String,
    /// What stands there at first.
    pub(super) text: String,
    /// Whether every letter shows as a star.
    pub(super) hidden: bool,
}

impl Line {
    pub(super) fn ask(self, term: &Term) -> io::Result<Answer<String>> {
        let colon = if self.question.ends_with(['?', ']']) { "" } else { ":" };
        let question = style(format!("{}{colon}", self.question)).for_stderr().bold();
        let row = Row::new(term, format!("{question} "))?;
        let mut typed = Typed::new(&self.text);
        loop {
            match self.hidden {
                true => row.draw(&vec!['*'; typed.letters.len()], typed.at)?,
                false => row.draw(&typed.letters, typed.at)?,
            }
            let answer = match term.read_key_raw()? {
                Key::Enter => Answer::Given(typed.letters.iter().collect()),
                Key::Escape => Answer::Left,
                Key::CtrlC => Answer::Interrupted,
                key => {
                    typed.key(&key);
                    continue;
                }
            };
            term.write_line("")?;
            term.flush()?;
            return Ok(answer);
        }
    }
}

/// The letters and the cursor among them.
struct Typed {
    letters: Vec<char>,
    at: usize,
}

impl Typed {
    fn new(text: &str) -> Self {
        let letters: Vec<char> = text.chars().filter(|letter| !letter.is_control()).collect();
        Self { at: letters.len(), letters }
    }

    fn key(&mut self, key: &Key) {
        match key {
            Key::Char('\u{15}') => {
                self.letters.drain(..self.at);
                self.at = 0;
            }
            Key::Char('\u{17}') => {
                let from = self.word_start();
                self.letters.drain(from..self.at);
                self.at = from;
            }
            Key::Char(letter) if !letter.is_control() => {
                self.letters.insert(self.at, *letter);
                self.at += 1;
            }
            Key::Backspace if self.at > 0 => {
                self.at -= 1;
                self.letters.remove(self.at);
            }
            Key::Del if self.at < self.letters.len() => {
                self.letters.remove(self.at);
            }
            Key::ArrowLeft => self.at = self.at.saturating_sub(1),
            Key::ArrowRight => self.at = (self.at + 1).min(self.letters.len()),
            Key::Home => self.at = 0,
            Key::End => self.at = self.letters.len(),
            _ => {}
        }
    }

    fn word_start(&self) -> usize {
        let blank = |letter: &&char| letter.is_whitespace();
        let before = self.letters[..self.at].iter().rev();
        let blanks = before.clone().take_while(blank).count();
        let word = before.skip(blanks).take_while(|letter| !blank(letter)).count();
        self.at - blanks - word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(text: &str, keys: &[Key]) -> (String, usize) {
        let mut typed = Typed::new(text);
        keys.iter().for_each(|key| typed.key(key));
        (typed.letters.iter().collect(), typed.at)
    }

    #[test]
    fn keys_edit_around_the_cursor() {
        use Key::{ArrowLeft, ArrowRight, Backspace, Char, Del, End, Home};
        assert_eq!(after("ab", &[ArrowLeft, Char('ü')]), ("aüb".to_owned(), 2));
        assert_eq!(after("ab", &[Backspace, Backspace, Backspace]), (String::new(), 0));
        assert_eq!(after("ab", &[Home, Del, Del, Del]), (String::new(), 0));
        assert_eq!(after("ab", &[Home, ArrowLeft, End, ArrowRight]), ("ab".to_owned(), 2));
        assert_eq!(after("ab", &[Char('\u{7}'), Key::Tab]), ("ab".to_owned(), 2));
    }

    #[test]
    fn control_u_and_w_erase() {
        let (line, word) = (Key::Char('\u{15}'), Key::Char('\u{17}'));
        assert_eq!(after("/mnt/a b", &[Key::ArrowLeft, line]), ("b".to_owned(), 0));
        assert_eq!(after("one two  ", std::slice::from_ref(&word)), ("one ".to_owned(), 4));
        assert_eq!(after("", &[word]), (String::new(), 0));
    }
}
