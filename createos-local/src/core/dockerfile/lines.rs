//! A Dockerfile as a list of instructions: directives, comments and continued lines resolved.

use super::Fault;

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Instruction {
    /// Where it begins, from 1.
    pub(super) line: usize,
    /// Upper case.
    pub(super) keyword: String,
    pub(super) arguments: String,
}

/// Splits a Dockerfile, and tells its escape character.
pub(super) fn split(text: &str) -> Result<(Vec<Instruction>, char), Fault> {
    if let Some(at) = text.find('\0') {
        return Err(Fault::new(text[..at].lines().count().max(1), "contains a NUL character"));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let escape = escape_of(text)?;
    let mut instructions = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let trimmed = line.trim_start();
        // Comments and empty lines may stand in the middle of an instruction.
        if trimmed.starts_with('#') || trimmed.is_empty() {
            continue;
        }
        let (piece, continues) = match continued(line, escape) {
            Some(piece) => (piece, true),
            None => (line, false),
        };
        let (first, mut whole) = open.take().unwrap_or((number, String::new()));
        whole.push_str(if whole.is_empty() { piece.trim_start() } else { piece });
        if continues {
            open = Some((first, whole));
        } else {
            instructions.extend(instruction(first, &whole));
        }
    }
    if let Some((first, whole)) = open {
        instructions.extend(instruction(first, &whole));
    }
    Ok((instructions, escape))
}

/// A line without the escape character that continues it on the next.
fn continued(line: &str, escape: char) -> Option<&str> {
    let line = line.trim_end_matches([' ', '\t']);
    let before = line.strip_suffix(escape)?;
    // One that is escaped itself is a character like any other.
    (!before.ends_with(escape)).then_some(before)
}

fn instruction(line: usize, whole: &str) -> Option<Instruction> {
    let whole = whole.trim();
    let (keyword, arguments) = whole.split_once(char::is_whitespace).unwrap_or((whole, ""));
    let arguments = arguments.trim_start().to_owned();
    let keyword = keyword.to_ascii_uppercase();
    (!keyword.is_empty()).then_some(Instruction { line, keyword, arguments })
}

/// Directives are comments of the form `# name=value` before anything else.
fn escape_of(text: &str) -> Result<char, Fault> {
    for (index, line) in text.lines().enumerate() {
        let Some(comment) = line.trim_start().strip_prefix('#') else { break };
        let Some((name, value)) = comment.split_once('=') else { break };
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        match (name.as_str(), value) {
            ("escape", "\\") => return Ok('\\'),
            ("escape", "`") => return Ok('`'),
            ("escape", _) => {
                return Err(Fault::new(index + 1, "the escape character must be \\ or `"));
            }
            ("syntax" | "check", _) => {}
            _ => break,
        }
    }
    Ok('\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(usize, String, String)> {
        let (instructions, _) = split(text).unwrap();
        instructions.into_iter().map(|it| (it.line, it.keyword, it.arguments)).collect()
    }

    fn one(line: usize, keyword: &str, arguments: &str) -> (usize, String, String) {
        (line, keyword.to_owned(), arguments.to_owned())
    }

    #[test]
    fn continued_lines_comments_and_line_ends() {
        assert_eq!(
            read("# c\n\n  from x \r\nrun a \\\n  # in between\n\n  b \\  \n c\\\\\nENV A=1"),
            [one(3, "FROM", "x"), one(4, "RUN", "a   b  c\\\\"), one(9, "ENV", "A=1")]
        );
        assert_eq!(read("RUN a \\"), [one(1, "RUN", "a")]);
        assert_eq!(read("RUN"), [one(1, "RUN", "")]);
        assert_eq!(read("\u{feff}FROM x"), [one(1, "FROM", "x")]);
        assert!(read("").is_empty() && read("\\\n").is_empty());
    }

    #[test]
    fn the_escape_character_is_a_directive_at_the_top() {
        assert_eq!(read("# syntax=x\n# escape=`\nRUN a `\n b\\"), [one(3, "RUN", "a  b\\")]);
        assert_eq!(read("# x\n# escape=`\nRUN a `"), [one(3, "RUN", "a `")]);
        assert!(split("# escape=x\n").is_err());
        assert!(split("RUN a\0b").is_err());
    }
}
