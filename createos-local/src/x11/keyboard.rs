//! The keyboard: any text, and keys by their symbols.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::sleep;
use x11rb_protocol::protocol::xproto::{
    ChangeKeyboardMappingRequest, GetKeyboardMappingRequest, KEY_PRESS_EVENT, KEY_RELEASE_EVENT,
};
use xkeysym::key;

use super::{Display, XError};

/// Before keys that lend their symbols to other characters get new ones, programs must have
/// read what was typed with the old ones.
const SETTLE: Duration = Duration::from_millis(300);

/// A key, and whether Shift makes it what is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    code: u8,
    shifted: bool,
}

/// What happens to keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Press {
    /// All go down together and up again.
    Stroke,
    Down,
    Up,
}

/// Which key has which symbols.
#[derive(Debug)]
pub(crate) struct Keys {
    first: u8,
    per_key: usize,
    symbols: Vec<u32>,
}

impl Keys {
    fn rows(&self) -> impl Iterator<Item = (u8, &[u32])> {
        let rows = self.symbols.chunks_exact(self.per_key);
        (self.first..=u8::MAX).zip(rows)
    }

    /// The key that has this symbol, without Shift if there is a choice.
    fn find(&self, symbol: u32) -> Option<Key> {
        let on_level = |level: usize| {
            let mut rows = self.rows();
            rows.find(|(_, row)| row.get(level) == Some(&symbol)).map(|(code, _)| code)
        };
        let shifted = || {
            // Where there is no second symbol, Shift makes a letter large.
            let small = char::from_u32(symbol).filter(char::is_ascii_uppercase);
            let small = small.map(|c| u32::from(c.to_ascii_lowercase()));
            let mut rows = self.rows();
            let implied = rows.find(|(_, row)| {
                small.is_some()
                    && row.first().copied() == small
                    && row.get(1).is_none_or(|s| *s == 0)
            });
            on_level(1).or(implied.map(|(code, _)| code))
        };
        on_level(0)
            .map(|code| Key { code, shifted: false })
            .or_else(|| shifted().map(|code| Key { code, shifted: true }))
    }

    /// Keys without any symbol.
    fn spare(&self) -> Vec<u8> {
        let empty = self.rows().filter(|(_, row)| row.iter().all(|symbol| *symbol == 0));
        empty.map(|(code, _)| code).collect()
    }

    /// Keys that were given one symbol for both levels, as is done here and by others who
    /// type.
    fn lent(&self) -> Vec<u8> {
        let same = |row: &[u32]| row[0] != 0 && row.get(1) == Some(&row[0]) && row[0] >= 0x80;
        // Modifiers and the like are such keys, too, but have no character.
        let lent = self.rows().filter(|(_, row)| same(row) && !(0xfd00..=0xffff).contains(&row[0]));
        lent.map(|(code, _)| code).collect()
    }
}

impl Display {
    /// Types a text, given as symbols, with this time between two keys.
    pub(crate) async fn type_text(
        &mut self,
        symbols: &[u32],
        delay: Duration,
    ) -> Result<(), XError> {
        let mut keys = self.keys().await?;
        let mut rest = symbols;
        while !rest.is_empty() {
            let now = self.provide(&mut keys, rest).await?;
            let shift = keys.find(key::Shift_L);
            for symbol in &rest[..now] {
                let key = keys.find(*symbol).ok_or_else(|| no_key(*symbol))?;
                self.stroke(key, shift).await?;
                if !delay.is_zero() {
                    self.flush().await?;
                    sleep(delay).await;
                }
            }
            self.sync().await?;
            rest = &rest[now..];
        }
        Ok(())
    }

    /// Presses keys, given as symbols.
    pub(crate) async fn press_keys(&mut self, symbols: &[u32], how: Press) -> Result<(), XError> {
        let mut keys = self.keys().await?;
        self.provide(&mut keys, symbols).await?;
        let found = symbols.iter().map(|symbol| keys.find(*symbol).ok_or_else(|| no_key(*symbol)));
        let found: Vec<Key> = found.collect::<Result<_, _>>()?;
        let shift = keys.find(key::Shift_L).map(|key| key.code);
        let mut codes: Vec<u8> = found.iter().map(|key| key.code).collect();
        // Shift once, and only if none of them is it.
        if let Some(shift) =
            shift.filter(|shift| found.iter().any(|key| key.shifted) && !codes.contains(shift))
        {
            codes.insert(0, shift);
        }
        if how != Press::Up {
            for code in &codes {
                self.fake(KEY_PRESS_EVENT, *code, (0, 0)).await?;
            }
        }
        if how != Press::Down {
            for code in codes.iter().rev() {
                self.fake(KEY_RELEASE_EVENT, *code, (0, 0)).await?;
            }
        }
        self.sync().await
    }

    async fn stroke(&mut self, key: Key, shift: Option<Key>) -> Result<(), XError> {
        let shift = shift.filter(|_| key.shifted);
        if let Some(shift) = shift {
            self.fake(KEY_PRESS_EVENT, shift.code, (0, 0)).await?;
        }
        self.fake(KEY_PRESS_EVENT, key.code, (0, 0)).await?;
        self.fake(KEY_RELEASE_EVENT, key.code, (0, 0)).await?;
        if let Some(shift) = shift {
            self.fake(KEY_RELEASE_EVENT, shift.code, (0, 0)).await?;
        }
        Ok(())
    }

    async fn keys(&mut self) -> Result<Keys, XError> {
        let (first, last) = (self.setup().min_keycode, self.setup().max_keycode);
        let count = last.saturating_sub(first).saturating_add(1);
        let mapping = self.ask(GetKeyboardMappingRequest { first_keycode: first, count }).await?;
        let per_key = usize::from(mapping.keysyms_per_keycode);
        if per_key == 0 || mapping.keysyms.len() != per_key * usize::from(count) {
            return Err(XError::nonsense("its keyboard"));
        }
        Ok(Keys { first, per_key, symbols: mapping.keysyms })
    }

    /// Sees to it that the first symbols have keys, and says how many have: spare keys lend
    /// themselves to those that are on no key.
    async fn provide(&mut self, keys: &mut Keys, symbols: &[u32]) -> Result<usize, XError> {
        let mut spare = keys.spare();
        let missing = |keys: &Keys| {
            symbols.iter().copied().filter(|symbol| keys.find(*symbol).is_none()).collect()
        };
        let wanted: BTreeSet<u32> = missing(keys);
        if wanted.len() > spare.len() {
            let needed: BTreeSet<u32> = symbols.iter().copied().collect();
            let lent = keys.lent().into_iter();
            let free = |code: &u8| {
                let row = keys.rows().find(|(key, _)| key == code);
                row.is_none_or(|(_, row)| !needed.contains(&row[0]))
            };
            spare.extend(lent.filter(free));
            sleep(SETTLE).await;
        }
        let mut spare = spare.into_iter();
        for (index, symbol) in symbols.iter().enumerate() {
            if keys.find(*symbol).is_some() {
                continue;
            }
            match spare.next() {
                Some(code) => self.lend(keys, code, *symbol).await?,
                // The rest comes next, with keys that are free again then.
                None if index > 0 => {
                    self.sync().await?;
                    return Ok(index);
                }
                None => return Err(no_key(*symbol)),
            }
        }
        self.sync().await?;
        Ok(symbols.len())
    }

    async fn lend(&mut self, keys: &mut Keys, code: u8, symbol: u32) -> Result<(), XError> {
        let start = usize::from(code - keys.first) * keys.per_key;
        // The same with and without Shift.
        let levels = keys.per_key.min(2);
        keys.symbols[start..start + keys.per_key].fill(0);
        keys.symbols[start..start + levels].fill(symbol);
        self.send(ChangeKeyboardMappingRequest {
            keycode_count: 1,
            first_keycode: code,
            keysyms_per_keycode: levels as u8,
            keysyms: Cow::Owned(vec![symbol; levels]),
        })
        .await
    }
}

fn no_key(symbol: u32) -> XError {
    XError::Unfit(format!("the keyboard has no key left for the symbol {symbol:#x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_with_and_without_shift() {
        let symbols = vec![
            0x61,
            0x41,
            0, // a A
            0x62,
            0,
            0, // b, and B by what Shift does to letters
            0,
            0,
            0, // spare
            0x31,
            0x21,
            0, // 1 !
            0x0100_6f22,
            0x0100_6f22,
            0, // lent
            0xffe1,
            0,
            0, // Shift
        ];
        let keys = Keys { first: 10, per_key: 3, symbols };
        let key = |code, shifted| Some(Key { code, shifted });
        assert_eq!(keys.find(0x61), key(10, false));
        assert_eq!(keys.find(0x41), key(10, true));
        assert_eq!(keys.find(0x42), key(11, true));
        assert_eq!(keys.find(0x21), key(13, true));
        assert_eq!(keys.find(0x0100_6f22), key(14, false));
        assert_eq!(keys.find(0x7a), None);
        assert_eq!((keys.spare(), keys.lent()), (vec![12], vec![14]));
    }
}
