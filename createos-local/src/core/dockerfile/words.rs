//! Words of an instruction: quotes, escapes and variables, as Docker reads them.

use std::collections::BTreeMap;

/// The longest that variables may make a text.
const LONGEST: usize = 64 << 10;

/// How deep `${a:-${b:-…}}` may go.
const DEEPEST: usize = 16;

/// Values of variables.
pub(super) type Variables = BTreeMap<String, String>;

/// Splits at blanks; what is quoted stays together. Quotes and escapes are kept.
pub(super) fn split(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quote) = (String::new(), None);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        word.push(c);
        if c == escape && quote != Some('\'') {
            word.extend(chars.next());
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// A text with its variables replaced, without its quotes and escapes.
pub(super) fn expand(text: &str, variables: &Variables, escape: char) -> Result<String, String> {
    let mut reader = Reader { rest: text, variables, escape, depth: 0 };
    reader.until(None)
}

struct Reader<'a> {
    rest: &'a str,
    variables: &'a Variables,
    escape: char,
    depth: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn until(&mut self, end: Option<char>) -> Result<String, String> {
        let mut out = String::new();
        while let Some(c) = self.peek() {
            if Some(c) == end {
                return Ok(out);
            }
            self.next();
            match c {
                '\'' => self.single_quoted(&mut out)?,
                '"' => self.double_quoted(&mut out)?,
                '$' => out.push_str(&self.variable()?),
                c if c == self.escape => out.extend(self.next()),
                c => out.push(c),
            }
            if out.len() > LONGEST {
                return Err(format!("becomes longer than {} KiB", LONGEST >> 10));
            }
        }
        match end {
            None => Ok(out),
            Some(_) => Err("a `${` has no `}`".to_owned()),
        }
    }

    fn single_quoted(&mut self, out: &mut String) -> Result<(), String> {
        let (quoted, rest) = self.rest.split_once('\'').ok_or("a ' has no second one")?;
        out.push_str(quoted);
        self.rest = rest;
        Ok(())
    }

    fn double_quoted(&mut self, out: &mut String) -> Result<(), String> {
        while let Some(c) = self.next() {
            match c {
                '"' => return Ok(()),
                '$' => out.push_str(&self.variable()?),
                c if c == self.escape => match self.next() {
                    Some(next) if next == '"' || next == '$' || next == self.escape => {
                        out.push(next);
                    }
                    Some(next) => out.extend([c, next]),
                    None => break,
                },
                c => out.push(c),
            }
            if out.len() > LONGEST {
                return Err(format!("becomes longer than {} KiB", LONGEST >> 10));
            }
        }
        Err("a \" has no second one".to_owned())
    }

    fn name(&mut self) -> String {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        name.to_owned()
    }

    /// What stands behind a `$`.
    fn variable(&mut self) -> Result<String, String> {
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(self.variables.get(&name).cloned().unwrap_or_default());
        }
        self.next();
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err("nests `${` too deeply".to_owned());
        }
        let name = self.name();
        if name.is_empty() {
            return Err("a `${` names no variable".to_owned());
        }
        let value = self.variables.get(&name).cloned();
        let mut modifier = self.next().ok_or("a `${` has no `}`")?;
        let counts_empty = modifier == ':';
        if counts_empty {
            modifier = self.next().ok_or("a `${` has no `}`")?;
        }
        let value = if counts_empty { value.filter(|value| !value.is_empty()) } else { value };
        let result = match modifier {
            '}' if !counts_empty => {
                self.depth -= 1;
                return Ok(value.unwrap_or_default());
            }
            '-' => {
                let word = self.until(Some('}'))?;
                value.unwrap_or(word)
            }
            '+' => {
                let word = self.until(Some('}'))?;
                value.map(|_| word).unwrap_or_default()
            }
            '?' => {
                let word = self.until(Some('}'))?;
                value.ok_or_else(|| match word.as_str() {
                    "" => format!("{name} is not set"),
                    word => format!("{name}: {word}"),
                })?
            }
            other => {
                return Err(format!(
                    "`${{{name}{}{other}` is none of `${{x}}`, `${{x:-y}}`, `${{x:+y}}`, \
                     `${{x:?y}}`",
                    if counts_empty { ":" } else { "" }
                ));
            }
        };
        self.next();
        self.depth -= 1;
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        let pairs = [("A", "one"), ("EMPTY", ""), ("PATH", "/bin")];
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    #[test]
    fn words_keep_what_is_quoted_together() {
        assert_eq!(
            split(r#"a=1 b="x y" c=\ d e='f "g'"#, '\\'),
            ["a=1", r#"b="x y""#, r"c=\ d", r#"e='f "g'"#]
        );
        assert!(split("  ", '\\').is_empty());
        assert_eq!(split("a\\", '\\'), ["a\\"]);
    }

    #[test]
    fn variables_quotes_and_escapes() {
        for (text, expanded) in [
            ("$A ${A}b $Ab", "one oneb "),
            ("$PATH:/x", "/bin:/x"),
            ("'$A' \"$A\" \\$A", "$A one $A"),
            (r#""a\"b\$A\\ \n""#, r#"a"b$A\ \n"#),
            (r"a\ b", "a b"),
            ("${B:-two} ${EMPTY:-three} ${EMPTY-four} ${A:-no}", "two three  one"),
            ("${A:+yes} ${B:+no} ${EMPTY:+no}${EMPTY+set}", "yes  set"),
            ("${B:-${A}x} ${B:-'}'}", "onex }"),
            ("100$ $$ ü", "100$ $$ ü"),
            ("a\\", "a"),
        ] {
            assert_eq!(expand(text, &variables(), '\\').as_deref(), Ok(expanded), "{text}");
        }
        assert_eq!(expand("a`$A\\", &variables(), '`').as_deref(), Ok("a$A\\"));
    }

    #[test]
    fn what_is_broken_is_told() {
        for bad in
            ["'a", "\"a", "${", "${}", "${A", "${A:", "${A:-b", "${A#x}", "${A:}", "${B:?no}"]
        {
            assert!(expand(bad, &variables(), '\\').is_err(), "{bad}");
        }
        let deep = "${B:-".repeat(10_000);
        assert!(expand(&deep, &variables(), '\\').is_err());
        let long = Variables::from([("L".to_owned(), "x".repeat(40_000))]);
        assert!(expand("$L", &long, '\\').is_ok());
        assert!(expand("$L$L", &long, '\\').is_err() && expand("\"$L$L\"", &long, '\\').is_err());
    }
}
