//! Durations such as `90s` or `1h30m`, and the range of auto-pause.

use std::time::Duration;

/// The bounds of auto-pause (api.md 1.6).
const AUTO_PAUSE_SECONDS: std::ops::RangeInclusive<u64> = 60..=86_400;

/// Parses one or more `<number><unit>` without blanks; units `ms s m h`.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("it is empty; write for example 30m".to_owned());
    }
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(format!("a unit is missing; write for example {text}s or {text}m"));
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let (part, tail) = component(rest).ok_or_else(form)?;
        seconds += part;
        rest = tail;
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| "it is too large".to_owned())
}

/// Takes one `<number><unit>` off the front: its seconds and the rest.
fn component(text: &str) -> Option<(f64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, rest) = text.split_at(digits);
    let unit = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit);
    let scale = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    Some((number * scale, rest))
}

fn form() -> String {
    "write numbers with the units h, m, s or ms, for example 90s or 1h30m".to_owned()
}

/// The value of `--auto-pause`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AutoPause {
    /// Never pause by itself.
    Off,
    /// Pause after this time without activity; whole seconds.
    After(Duration),
}

/// Parses `off` (also `disable`, `false`, `no`) or a duration from 1 m to 24 h.
pub(crate) fn auto_pause(text: &str) -> Result<AutoPause, String> {
    let word = text.trim().to_ascii_lowercase();
    if matches!(word.as_str(), "off" | "disable" | "false" | "no") {
        return Ok(AutoPause::Off);
    }
    let seconds = parse(text)?.as_secs();
    if AUTO_PAUSE_SECONDS.contains(&seconds) {
        Ok(AutoPause::After(Duration::from_secs(seconds)))
    } else {
        Err("it must lie between 1m and 24h".to_owned())
    }
}

/// `30m`, `2h`, else compound: `1h30m`, `1m5s`.
pub(crate) fn show(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let text: String = parts
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, unit)| format!("{number}{unit}"))
        .collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_forms_parse() {
        let cases = [
            ("10m", 600_000),
            ("1h", 3_600_000),
            ("90s", 90_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("250ms", 250),
            ("1m500ms", 60_500),
            (" 5s ", 5_000),
        ];
        for (text, millis) in cases {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for text in
            ["", " ", "m", "1d", "1h 30m", "-5m", "5x", "1..5h", ".h", "5min", "9e9h", "5m3"]
        {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert!(parse(&format!("{}h", "9".repeat(400))).is_err());
    }

    #[test]
    fn a_bare_number_asks_for_a_unit() {
        let message = parse("30").unwrap_err();
        assert!(message.contains("unit") && message.contains("30m"), "{message}");
    }

    #[test]
    fn auto_pause_knows_off_and_its_bounds() {
        for text in ["off", "OFF", "disable", "False", "no"] {
            assert_eq!(auto_pause(text), Ok(AutoPause::Off), "{text}");
        }
        assert_eq!(auto_pause("60s"), Ok(AutoPause::After(Duration::from_secs(60))));
        assert_eq!(auto_pause("24h"), Ok(AutoPause::After(Duration::from_secs(86_400))));
        assert_eq!(auto_pause("90.9s"), Ok(AutoPause::After(Duration::from_secs(90))));
        for text in ["59s", "59.9s", "24h1s", "0s"] {
            let message = auto_pause(text).unwrap_err();
            assert!(message.contains("1m") && message.contains("24h"), "{text}: {message}");
        }
    }

    #[test]
    fn durations_print_short() {
        let cases = [(1800, "30m"), (7200, "2h"), (5400, "1h30m"), (65, "1m5s"), (0, "0s")];
        for (seconds, text) in cases {
            assert_eq!(show(Duration::from_secs(seconds)), text);
        }
    }
}
