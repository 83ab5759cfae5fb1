//! Sizes, times and detail lines for people (cli.md 1.6).

use std::time::Duration;

use createos_sdk::Timestamp;
use jiff::tz::TimeZone;

/// Bytes in 1024 steps with one decimal: `512 B`, `4.2 kB`, `1.2 GB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would print as "1024.0".
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A list's time: local, to the minute.
pub(crate) fn minute(time: Timestamp) -> String {
    local(time, "%Y-%m-%d %H:%M")
}

/// A detail's time: local, to the second.
pub(crate) fn second(time: Timestamp) -> String {
    local(time, "%Y-%m-%d %H:%M:%S")
}

/// A time outside the calendar is shown as it came.
fn local(time: Timestamp, form: &str) -> String {
    match jiff::Timestamp::try_from(time.to_system_time()) {
        Ok(moment) => moment.to_zoned(TimeZone::system()).strftime(form).to_string(),
        Err(_) => time.to_string(),
    }
}

/// What a transfer took: `4.2 kB in 1.3 s, 3.2 kB/s`.
pub(crate) fn rate(count: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(0.001);
    let rate = (count as f64 / seconds) as u64;
    format!("{} in {seconds:.1} s, {}/s", bytes(count), bytes(rate))
}

/// Label and value lines, values in one column.
pub(crate) fn columns(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(label, _)| label.len()).max().unwrap_or_default();
    let mut lines = Vec::new();
    for (label, value) in rows {
        let mut label = *label;
        // A value of several lines keeps its column.
        for value in value.lines() {
            lines.push(format!("{label:<width$}  {value}"));
            label = "";
        }
    }
    lines.join("\n")
}

/// The same, indented under a title.
pub(crate) fn details(title: &str, rows: &[(&str, String)]) -> String {
    columns(rows).lines().fold(title.to_owned(), |text, line| format!("{text}\n  {line}"))
}

/// `name (id)`, or the id alone when there is no name.
pub(crate) fn label(name: Option<&str>, id: &str) -> String {
    match name {
        Some(name) if !name.is_empty() && name != id => format!("{name} ({id})"),
        _ => id.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_step_by_1024() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 kB"),
            (4300, "4.2 kB"),
            (1_048_575, "1.0 MB"),
            (5_368_709_120, "5.0 GB"),
            (u64::MAX, "16777216.0 TB"),
        ];
        for (count, text) in cases {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn times_have_the_documented_form() {
        let time: Timestamp = "2026-01-05T14:02:11.5Z".parse().unwrap();
        assert_eq!(local(time, "%S"), "11");
        assert_eq!(minute(time).len(), "2026-01-05 14:02".len());
        assert_eq!(second(time).len(), "2026-01-05 14:02:11".len());
    }

    #[test]
    fn details_share_a_column() {
        let rows = [("ip", "10.0.0.1\n10.0.0.2".to_owned()), ("public url", "off".to_owned())];
        let text = "box\n  ip          10.0.0.1\n              10.0.0.2\n  public url  off";
        assert_eq!(details("box", &rows), text);
    }

    #[test]
    fn labels_name_both() {
        assert_eq!(label(Some("demo"), "sb-1"), "demo (sb-1)");
        assert_eq!(label(Some(""), "sb-1"), "sb-1");
        assert_eq!(label(None, "sb-1"), "sb-1");
    }
}
