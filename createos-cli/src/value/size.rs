//! Amounts of bytes such as `5GB`, `500MB` or `1024`.

/// Parses a number with a unit: `kB MB GB TB` count in thousands (`k M G T` too),
/// `KiB MiB GiB TiB` in 1024; plain digits are bytes. Any case.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let form = || "write a number with a unit, for example 5GB, 500MB or 1GiB".to_owned();
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = scale(unit.trim()).ok_or_else(form)?;
    let number: f64 = number.parse().map_err(|_| form())?;
    let bytes = (number * scale).round();
    // Above this the API has no number for it.
    if bytes >= i64::MAX as f64 {
        return Err("it is too large".to_owned());
    }
    if bytes < 1.0 {
        return Err("it must be at least one byte".to_owned());
    }
    Ok(bytes as u64)
}

fn scale(unit: &str) -> Option<f64> {
    let power = |base: f64, exponent| Some(base.powi(exponent));
    match unit.to_ascii_lowercase().as_str() {
        "" | "b" => Some(1.0),
        "k" | "kb" => power(1000.0, 1),
        "m" | "mb" => power(1000.0, 2),
        "g" | "gb" => power(1000.0, 3),
        "t" | "tb" => power(1000.0, 4),
        "kib" => power(1024.0, 1),
        "mib" => power(1024.0, 2),
        "gib" => power(1024.0, 3),
        "tib" => power(1024.0, 4),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_count_as_documented() {
        let cases = [
            ("5GB", 5_000_000_000),
            ("500mb", 500_000_000),
            ("1024", 1024),
            ("2K", 2000),
            ("1GiB", 1 << 30),
            ("3 TiB", 3 << 40),
            ("1.5GB", 1_500_000_000),
            (" 7b ", 7),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "GB", "-5GB", "5XB", "5GBs", "1e3", "0", "0.1b", "9999999999TB", "1..5GB"]
        {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
