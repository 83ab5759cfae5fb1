//! What servers are known to refuse in a Dockerfile (api.md 6.8). It is sent all the same: the
//! server knows its own rules.

/// Longest Dockerfile.
const MAX_BYTES: usize = 64 * 1024;

/// What is wrong with it, in the order of its lines.
pub(super) fn warnings(dockerfile: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut bases = 0;
    for (number, line) in instructions(dockerfile) {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((&line, ""));
        match word.to_ascii_uppercase().as_str() {
            "FROM" => {
                bases += 1;
                if rest.contains('$') {
                    warnings.push(format!("line {number}: FROM takes no variable"));
                }
            }
            word @ ("COPY" | "ADD") => warnings.push(format!(
                "line {number}: {word} has nothing to copy from; no files are sent with the \
                 Dockerfile"
            )),
            "RUN" if rest.contains("<<") && !rest.contains("<<<") => {
                warnings.push(format!("line {number}: heredocs are not understood"));
            }
            _ => {}
        }
    }
    if bases != 1 {
        warnings.push(format!("there has to be one FROM, and there are {bases}"));
    }
    if dockerfile.len() > MAX_BYTES {
        warnings.push("it is longer than 64 KiB".to_owned());
    }
    warnings
}

/// The instructions with the number of their first line; continued lines are joined.
fn instructions(dockerfile: &str) -> Vec<(usize, String)> {
    let mut all: Vec<(usize, String)> = Vec::new();
    let mut continued = false;
    for (at, line) in dockerfile.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (text, goes_on) = match line.strip_suffix('\\') {
            Some(text) => (text, true),
            None => (line, false),
        };
        match all.last_mut() {
            Some((_, last)) if continued => last.push_str(text),
            _ => all.push((at + 1, text.to_owned())),
        }
        continued = goes_on;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_one_has_no_warnings() {
        let good = "# a comment\nfrom nodeops/sandbox:debian\nRUN apt-get update && \\\n  # in between\n  \
                    apt-get install -y curl\nENV COPY=1\nRUN grep x <<<y\n";
        assert_eq!(warnings(good), Vec::<String>::new());
    }

    #[test]
    fn every_rule_is_named_with_its_line() {
        let text =
            warnings("FROM $BASE\n\nCOPY . /app\nadd x /y\nRUN cat <<EOF\nFROM b\n").join("\n");
        for part in ["line 1: FROM", "line 3: COPY", "line 4: ADD", "line 5: heredocs", "are 2"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(warnings("RUN true").join("").contains("are 0"));
        let long = format!("FROM x\n# {}", "x".repeat(MAX_BYTES));
        assert!(warnings(&long).join("").contains("64 KiB"));
    }
}
