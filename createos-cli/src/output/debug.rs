//! The request log of `--debug` (cli.md 1.17): never a body, a query or a secret.

use createos_sdk::{Event, EventKind};

use super::{printable, unicode, write_stderr};

/// Writes one line about what the client did.
pub(crate) fn request(event: &Event<'_>) {
    if let Some(text) = line(event) {
        write_stderr(&printable(&format!("debug: {text}")));
    }
}

/// Writes which credential is used, masked.
pub(crate) fn credential(origin: &str, secret: &str) {
    let dot = if unicode() { "•" } else { "." };
    write_stderr(&format!("debug: {origin}: {}", mask(secret, dot)));
}

fn line(event: &Event<'_>) -> Option<String> {
    let call = format!("{} {}", event.method, event.path);
    Some(match &event.kind {
        EventKind::Request if event.attempt > 1 => format!("> {call} (attempt {})", event.attempt),
        EventKind::Request => format!("> {call}"),
        EventKind::Response { status, request_id, took } => {
            let id = request_id.map(|id| format!(", request id {id}")).unwrap_or_default();
            format!("< {status} {call} in {} ms{id}", took.as_millis())
        }
        EventKind::Failure { error, took } => {
            format!("< {error} {call} after {} ms", took.as_millis())
        }
        EventKind::Retry { wait, .. } => format!("  again in {} ms", wait.as_millis()),
        EventKind::StreamEnd { bytes, error } => match error {
            Some(error) => format!("< {call} broke off after {bytes} bytes: {error}"),
            None => format!("< {call} ended after {bytes} bytes"),
        },
        _ => return None,
    })
}

/// The first six and last four characters around dots; short secrets are all dots.
fn mask(secret: &str, dot: &str) -> String {
    let letters: Vec<char> = secret.chars().collect();
    if letters.len() <= 10 {
        return dot.repeat(letters.len());
    }
    let head: String = letters[..6].iter().collect();
    let tail: String = letters[letters.len() - 4..].iter().collect();
    format!("{head}{}{tail}", dot.repeat(4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked() {
        assert_eq!(mask("skp_0123456789", "•"), "skp_01••••6789");
        assert_eq!(mask("12345678", "."), "........");
        // Ten characters would show all of themselves.
        assert_eq!(mask("1234567890", "."), ".".repeat(10));
        assert_eq!(mask("", "."), "");
    }
}
