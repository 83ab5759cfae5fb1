//! What a sync leaves out.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::error::{Error, Result};

/// Names that begin so are the sync's own, on both sides.
pub(super) const OWN: &[u8] = b".createos-sync-";

/// Where version control keeps its state.
const VCS: [&str; 7] = [".git", ".hg", ".svn", ".bzr", "_darcs", "CVS", ".jj"];

/// Decides which paths take part.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    matcher: Gitignore,
    vcs: bool,
    /// Patterns that `find` can apply by itself, so that what they leave out is not even listed.
    simple: Vec<String>,
}

impl Filter {
    pub(super) fn new(patterns: &[String], ignore_vcs: bool) -> Result<Self> {
        let mut builder = GitignoreBuilder::new("");
        for pattern in patterns.iter().filter(|pattern| !pattern.trim().is_empty()) {
            builder.add_line(None, pattern).map_err(|error| {
                Error::invalid_argument("exclude", format!("{pattern:?}: {error}"))
            })?;
        }
        let built = builder.build();
        let matcher =
            built.map_err(|error| Error::invalid_argument("exclude", error.to_string()))?;
        let negated = patterns.iter().any(|pattern| pattern.starts_with('!'));
        let simple = patterns.iter().filter(|pattern| !negated && is_simple(pattern));
        Ok(Self { matcher, vcs: ignore_vcs, simple: simple.cloned().collect() })
    }

    /// Whether a path below the root is left out; its directories are not.
    pub(super) fn excludes(&self, path: &[u8], is_dir: bool) -> bool {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        name.starts_with(OWN)
            || (self.vcs && VCS.iter().any(|vcs| vcs.as_bytes() == name))
            || self.matcher.matched(Path::new(OsStr::from_bytes(path)), is_dir).is_ignore()
    }

    /// Whether a path, or a directory it is in, is left out.
    pub(super) fn excludes_deep(&self, path: &[u8]) -> bool {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        ends.into_iter().any(|end| self.excludes(&path[..end], true)) || self.excludes(path, false)
    }

    /// Names that `find -name` leaves out.
    pub(super) fn pruned(&self) -> Vec<&str> {
        let vcs = VCS.iter().copied().filter(|_| self.vcs);
        vcs.chain(self.simple.iter().map(String::as_str)).collect()
    }
}

/// A plain name, which means the same to every matcher.
fn is_simple(pattern: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !pattern.is_empty() && pattern.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(patterns: &[&str], vcs: bool) -> Filter {
        let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        Filter::new(&patterns, vcs).unwrap()
    }

    #[test]
    fn patterns_mean_what_they_mean_to_git() {
        let filter = filter(&["target/", "*.log", "/top", "a/b", "!keep.log", " "], true);
        for out in ["x.log", "d/x.log", "top", "a/b", ".git", "d/.git", ".createos-sync-1.new"] {
            assert!(filter.excludes(out.as_bytes(), false), "{out}");
        }
        for stays in ["keep.log", "d/top", "x/a/b", ".gitignore", "target"] {
            assert!(!filter.excludes(stays.as_bytes(), false), "{stays}");
        }
        assert!(filter.excludes(b"target", true) && filter.excludes(b"x/target", true));
        assert!(filter.excludes(b"\xff.log", false));
        assert!(filter.excludes_deep(b"x/target/debug/a") && !filter.excludes_deep(b"x/a/c"));
    }

    #[test]
    fn only_what_find_understands_alike_is_left_to_it() {
        assert_eq!(filter(&["node_modules", "*.o", "a/b", "d/"], false).pruned(), ["node_modules"]);
        assert!(filter(&["node_modules", "!x"], false).pruned().is_empty());
        assert!(filter(&[], true).pruned().contains(&".git"));
        assert!(!filter(&[], false).excludes(b".git", true));
    }

    #[test]
    fn a_pattern_that_is_none_is_refused() {
        let error = Filter::new(&["[z-a]".to_owned()], true).unwrap_err();
        assert!(error.to_string().contains("[z-a]"), "{error}");
    }
}
