//! The states of a sandbox (api.md 7.1).

use std::fmt;

/// Where a sandbox is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum State {
    Creating,
    Running,
    Pausing,
    Paused,
    Resuming,
    Forking,
    Error,
    Destroying,
    Destroyed,
    Failed,
}

impl State {
    /// Every state, in the order of api.md 7.1.
    pub(crate) const ALL: [Self; 10] = [
        Self::Creating,
        Self::Running,
        Self::Pausing,
        Self::Paused,
        Self::Resuming,
        Self::Forking,
        Self::Error,
        Self::Destroying,
        Self::Destroyed,
        Self::Failed,
    ];

    /// The states a destroy may start from. A failed sandbox has nothing left to remove.
    pub(crate) const DESTROYABLE: [Self; 8] = [
        Self::Creating,
        Self::Running,
        Self::Pausing,
        Self::Paused,
        Self::Resuming,
        Self::Forking,
        Self::Error,
        Self::Destroying,
    ];

    /// The word on the wire and in the store.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Running => "running",
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Resuming => "resuming",
            Self::Forking => "forking",
            Self::Error => "error",
            Self::Destroying => "destroying",
            Self::Destroyed => "destroyed",
            Self::Failed => "failed",
        }
    }

    /// Reads the word of [`State::as_str`].
    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Terminal states free the name and the address.
    pub(crate) const fn is_terminal(self) -> bool {
        matches!(self, Self::Destroyed | Self::Failed)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_reads_back() {
        for state in State::ALL {
            assert_eq!(State::parse(state.as_str()), Some(state));
        }
        assert_eq!(State::parse("Running"), None);
        assert_eq!(State::parse(""), None);
    }

    #[test]
    fn whatever_is_not_over_can_be_destroyed() {
        for state in State::ALL {
            assert_eq!(State::DESTROYABLE.contains(&state), !state.is_terminal());
        }
    }
}
