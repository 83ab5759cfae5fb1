//! What keys are called, and which symbol of X each name and character is.

use std::collections::HashMap;
use std::sync::LazyLock;

use xkeysym::{Keysym, key};

/// Names that people use, beside those of X (`Return`, `Control_L`, `XF86AudioMute`, …).
const ALIASES: [(&str, u32); 41] = [
    ("ctrl", key::Control_L),
    ("control", key::Control_L),
    ("shift", key::Shift_L),
    ("alt", key::Alt_L),
    ("option", key::Alt_L),
    ("altgr", key::ISO_Level3_Shift),
    ("super", key::Super_L),
    ("meta", key::Super_L),
    ("win", key::Super_L),
    ("windows", key::Super_L),
    ("cmd", key::Super_L),
    ("command", key::Super_L),
    ("enter", key::Return),
    ("return", key::Return),
    ("esc", key::Escape),
    ("tab", key::Tab),
    ("space", key::space),
    ("backspace", key::BackSpace),
    ("del", key::Delete),
    ("delete", key::Delete),
    ("ins", key::Insert),
    ("insert", key::Insert),
    ("up", key::Up),
    ("down", key::Down),
    ("left", key::Left),
    ("right", key::Right),
    ("arrowup", key::Up),
    ("arrowdown", key::Down),
    ("arrowleft", key::Left),
    ("arrowright", key::Right),
    ("home", key::Home),
    ("end", key::End),
    ("pageup", key::Prior),
    ("page_up", key::Prior),
    ("pagedown", key::Next),
    ("page_down", key::Next),
    ("capslock", key::Caps_Lock),
    ("numlock", key::Num_Lock),
    ("scrolllock", key::Scroll_Lock),
    ("printscreen", key::Print),
    ("menu", key::Menu),
];

/// The symbols that have names: those of the core, and those of keyboards with more keys.
const NAMED: [std::ops::RangeInclusive<u32>; 3] =
    [0x20..=0xffff, 0x1008_fe00..=0x1008_ffff, 0x1008_1000..=0x1008_12ff];

static NAMES: LazyLock<HashMap<String, u32>> = LazyLock::new(|| {
    let mut names = HashMap::new();
    for symbol in NAMED.into_iter().flatten() {
        if let Some(name) = Keysym::new(symbol).name() {
            let name = name.strip_prefix("XK_").unwrap_or(name);
            // X spells it `XF86AudioMute`.
            let name = name.replacen("XF86XK_", "XF86", 1).replacen("XF86_", "XF86", 1);
            names.entry(name.to_lowercase()).or_insert(symbol);
            names.insert(name, symbol);
        }
    }
    names.extend(ALIASES.map(|(name, symbol)| (name.to_owned(), symbol)));
    names
});

/// The symbol of a key: a character, a name of X, or what people call it. Only where two
/// names differ by their case alone does the case matter.
pub(crate) fn keysym_of_name(name: &str) -> Option<u32> {
    let mut chars = name.chars();
    if let (Some(only), None) = (chars.next(), chars.next()) {
        return keysym_of_char(only);
    }
    NAMES.get(name).or_else(|| NAMES.get(&name.to_lowercase())).copied().or_else(|| {
        let code = name.strip_prefix(['U', 'u']).filter(|hex| (4..=6).contains(&hex.len()))?;
        keysym_of_char(char::from_u32(u32::from_str_radix(code, 16).ok()?)?)
    })
}

/// The symbol that types a character; `None` for those that no key types.
pub(crate) fn keysym_of_char(c: char) -> Option<u32> {
    match c {
        '\n' | '\r' => Some(key::Return),
        '\t' => Some(key::Tab),
        '\u{8}' => Some(key::BackSpace),
        '\u{1b}' => Some(key::Escape),
        '\u{7f}' => Some(key::Delete),
        c if c.is_control() => None,
        c => Some(Keysym::from_char(c).raw()).filter(|symbol| *symbol != 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_names_of_x_and_of_people() {
        for (name, symbol) in [
            ("Return", 0xff0d),
            ("ENTER", 0xff0d),
            ("ctrl", 0xffe3),
            ("Control_L", 0xffe3),
            ("Control_R", 0xffe4),
            ("l", 0x6c),
            ("L", 0x4c),
            ("F12", 0xffc9),
            ("f1", 0xffbe),
            ("plus", 0x2b),
            ("+", 0x2b),
            ("eacute", 0xe9),
            ("Eacute", 0xc9),
            ("Page_Up", 0xff55),
            ("PageDown", 0xff56),
            ("KP_Enter", 0xff8d),
            ("XF86AudioMute", 0x1008_ff12),
            ("ISO_Left_Tab", 0xfe20),
            ("U20AC", 0x20ac),
            ("\u{1f600}", 0x0101_f600),
            ("space", 0x20),
            (" ", 0x20),
        ] {
            assert_eq!(keysym_of_name(name), Some(symbol), "{name:?}");
        }
        for none in ["", "nokey", "ctrl+l", "\u{1}", "U110000", "Uxyzw"] {
            assert_eq!(keysym_of_name(none), None, "{none:?}");
        }
    }

    #[test]
    fn characters_have_symbols() {
        for (c, symbol) in
            [('a', 0x61), ('ä', 0xe4), ('\n', 0xff0d), ('€', 0x20ac), ('漢', 0x0100_6f22)]
        {
            assert_eq!(keysym_of_char(c), Some(symbol), "{c:?}");
        }
        assert_eq!(keysym_of_char('\0'), None);
        assert_eq!(keysym_of_char('\u{9f}'), None);
    }
}
