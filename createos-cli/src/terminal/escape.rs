//! The way out of a session that hangs: `~.` at the beginning of a line, as in ssh.

/// Looks for it among what is typed.
#[derive(Debug)]
pub(crate) struct Escape {
    line_begins: bool,
    tilde: bool,
}

impl Escape {
    pub(crate) fn new() -> Self {
        Self { line_begins: true, tilde: false }
    }

    /// Takes keys in and puts those that go on into `through`. Whether it was asked for; what
    /// came after that is dropped.
    pub(crate) fn filter(&mut self, keys: &[u8], through: &mut Vec<u8>) -> bool {
        for &key in keys {
            if std::mem::take(&mut self.tilde) {
                match key {
                    b'.' => return true,
                    // Twice is one.
                    b'~' => {}
                    _ => through.push(b'~'),
                }
            } else if self.line_begins && key == b'~' {
                self.tilde = true;
                continue;
            }
            through.push(key);
            self.line_begins = matches!(key, b'\r' | b'\n');
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What goes through of keys that come one by one and all at once.
    fn typed(keys: &str) -> (String, bool) {
        let (mut at_once, mut single) = (Vec::new(), Vec::new());
        let ended = Escape::new().filter(keys.as_bytes(), &mut at_once);
        let mut escape = Escape::new();
        let ended_single = keys.bytes().any(|key| escape.filter(&[key], &mut single));
        assert_eq!((&at_once, ended), (&single, ended_single), "{keys:?}");
        (String::from_utf8(at_once).expect("text"), ended)
    }

    #[test]
    fn it_is_found_at_the_beginning_of_a_line_alone() {
        for (keys, through, ended) in [
            ("~.", "", true),
            ("ls\r~.rest", "ls\r", true),
            ("ls\n~.", "ls\n", true),
            ("a~.", "a~.", false),
            ("cd ~\r", "cd ~\r", false),
            ("~~.", "~.", false),
            ("~/bin\r", "~/bin\r", false),
            ("~\r~.", "~\r", true),
            ("\u{3}~.", "\u{3}~.", false),
        ] {
            assert_eq!(typed(keys), (through.to_owned(), ended), "{keys:?}");
        }
    }
}
