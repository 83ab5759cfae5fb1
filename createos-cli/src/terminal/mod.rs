//! The terminal's settings: changed under a guard, put back whatever happens
//! (cli.md 1.15).
//!
//! Dropping [`Hold`] puts back what it found. Where nothing is dropped any more,
//! in a panic or when a second Ctrl+C ends the process, [`restore`] does.

mod escape;
mod keys;
mod screen;
#[cfg(unix)]
mod settings;
#[cfg(not(unix))]
#[path = "settings_none.rs"]
mod settings;
#[cfg(test)]
#[cfg(unix)]
mod tests;

use std::io;
use std::sync::{Mutex, PoisonError};

pub(crate) use escape::Escape;
pub(crate) use keys::{Keys, Sizes, size};
pub(crate) use screen::Screen;
use settings::Settings;

/// What the guards that live now have found; the first is how the user had it.
static HELD: Mutex<Vec<Settings>> = Mutex::new(Vec::new());

/// Holds the settings of the terminal on standard input. Dropping it puts them
/// back and shows the cursor.
#[derive(Debug)]
#[must_use = "dropping it puts the settings back"]
pub(crate) struct Hold {
    found: Option<Settings>,
}

impl Hold {
    #[allow(dead_code, reason = "for programs on this terminal, which come next")]
    /// Remembers the settings, for code that changes them by itself. Without a
    /// terminal there is nothing to remember.
    pub(crate) fn keep() -> Self {
        let found = Settings::read().ok();
        held().extend(found.clone());
        Self { found }
    }

    /// Gives every key to the program as it is, Ctrl+C included; output stays
    /// as it is.
    ///
    /// # Errors
    /// Standard input is no terminal.
    pub(crate) fn keys() -> io::Result<Self> {
        let found = Settings::read()?;
        let keys = found.keys();
        Self::change(found, &keys)
    }

    /// Gives every key to the program as it is, Ctrl+C included, and takes every
    /// byte of output as it is.
    ///
    /// # Errors
    /// Standard input is no terminal.
    pub(crate) fn raw() -> io::Result<Self> {
        let found = Settings::read()?;
        let raw = found.raw();
        Self::change(found, &raw)
    }

    fn change(found: Settings, wanted: &Settings) -> io::Result<Self> {
        // Known before it changes, so that no moment is without a way back.
        let hold = Self { found: Some(found.clone()) };
        held().push(found);
        wanted.apply()?;
        Ok(hold)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(found) = self.found.take() {
            put_back(&found);
            let mut held = held();
            if let Some(at) = held.iter().rposition(|one| *one == found) {
                held.remove(at);
            }
        }
    }
}

/// Puts the terminal back as the user had it; nothing to do when no guard lives.
pub(crate) fn restore() {
    // Copied out: what ends the process may do so while a guard is being made.
    let first = match HELD.try_lock() {
        Ok(held) => held.first().cloned(),
        Err(_) => None,
    };
    if let Some(first) = first {
        put_back(&first);
    }
}

/// From now on a panic restores the terminal before it says what happened.
pub(crate) fn restore_on_panic() {
    let say = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        restore();
        say(panic);
    }));
}

fn put_back(settings: &Settings) {
    // A terminal that is gone needs no restoring.
    let _ = settings.apply();
    let _ = console::Term::stderr().show_cursor();
}

fn held() -> std::sync::MutexGuard<'static, Vec<Settings>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}
