//! A line of text that is not shown.

use std::io;

use console::{Key, Term, style};

use super::ask;
use crate::failure::Failure;
use crate::terminal::Hold;

/// Longer than any key.
const MOST: usize = 64 * 1024;

/// Asks for a secret and shows a `*` for each letter; `None` for Esc.
pub(crate) async fn secret(question: &'static str) -> Result<Option<String>, Failure> {
    ask(move |term| Ok(read(term, question)?)).await
}

fn read(term: &Term, question: &str) -> io::Result<Option<String>> {
    term.write_str(&format!("{} ", style(format!("{question}:")).for_stderr().bold()))?;
    // Between two keys, too: what is pasted comes faster than it is read.
    let raw = Hold::raw()?;
    let answer = letters(term);
    drop(raw);
    term.write_line("")?;
    answer
}

fn letters(term: &Term) -> io::Result<Option<String>> {
    let mut text = String::new();
    loop {
        match term.read_key()? {
            Key::Enter => return Ok(Some(text)),
            Key::Escape => return Ok(None),
            Key::Backspace if text.pop().is_some() => term.clear_chars(1)?,
            Key::Char(letter) if !letter.is_control() && text.len() < MOST => {
                text.push(letter);
                term.write_str("*")?;
            }
            _ => {}
        }
    }
}
