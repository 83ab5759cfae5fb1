//! What a person does at a screen.

use std::time::Duration;

use createos_sdk::wire::{
    MouseButton, MouseClick, MouseDrag, MouseScroll, Point, ScrollDirection, TypeText,
};

use super::look::check_places;
use super::{Desktop, ScreenId, session};
use crate::core::{CoreError, validate};
use crate::x11::{self, Button, Press};

/// The wheel is turned so far unless said otherwise.
const NOTCHES: u32 = 3;
const MAX_NOTCHES: u32 = 100;
const MAX_CLICKS: u32 = 20;
const MAX_KEYS: usize = 16;
/// The longest text that is typed, in characters, and the longest it may take.
const MAX_TYPED: usize = 64 << 10;
const MAX_TYPING: Duration = Duration::from_secs(3600);
/// The largest text for the clipboard, in bytes.
const MAX_COPIED: usize = 4 << 20;

/// What is done to a window.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Deed {
    Focus,
    Maximize,
    Minimize,
    Restore,
    Move { x: i32, y: i32 },
    Resize { width: u32, height: u32 },
    Close,
}

impl Desktop {
    pub(crate) async fn move_pointer(&self, screen: ScreenId, to: Point) -> Result<(), CoreError> {
        let mut display = self.display(screen).await?;
        check_places(self, &mut display, &[("x", (to.x, to.y))]).await?;
        self.in_time(display.move_pointer((to.x, to.y))).await
    }

    pub(crate) async fn click(&self, screen: ScreenId, click: MouseClick) -> Result<(), CoreError> {
        let button = button(click.button.as_ref())?;
        let count = number("count", click.count.unwrap_or(1), MAX_CLICKS)?;
        let at = match (click.x, click.y) {
            (Some(x), Some(y)) => Some((x, y)),
            (None, None) => None,
            (None, _) => return Err(CoreError::field("x", "is missing; give both or none")),
            (_, None) => return Err(CoreError::field("y", "is missing; give both or none")),
        };
        let mut display = self.display(screen).await?;
        if let Some(at) = at {
            check_places(self, &mut display, &[("x", at)]).await?;
            self.in_time(display.move_pointer(at)).await?;
        }
        self.in_time(display.click(button, count)).await
    }

    pub(crate) async fn scroll(
        &self,
        screen: ScreenId,
        scroll: MouseScroll,
    ) -> Result<(), CoreError> {
        let button = match scroll.direction {
            ScrollDirection::Up => Button::WheelUp,
            ScrollDirection::Down => Button::WheelDown,
            other => {
                let shown = validate::shown(other.as_str());
                return Err(CoreError::field("direction", format!("{shown:?} is not up or down")));
            }
        };
        let notches = number("amount", scroll.amount.unwrap_or(NOTCHES), MAX_NOTCHES)?;
        let mut display = self.display(screen).await?;
        self.in_time(display.click(button, notches)).await
    }

    pub(crate) async fn drag(&self, screen: ScreenId, drag: MouseDrag) -> Result<(), CoreError> {
        let (from, to) = ((drag.from.x, drag.from.y), (drag.to.x, drag.to.y));
        let mut display = self.display(screen).await?;
        check_places(self, &mut display, &[("from", from), ("to", to)]).await?;
        self.in_time(display.drag(from, to)).await
    }

    /// Holds a button down, or lets it go.
    pub(crate) async fn hold(
        &self,
        screen: ScreenId,
        which: Option<MouseButton>,
        down: bool,
    ) -> Result<(), CoreError> {
        let button = button(which.as_ref())?;
        let mut display = self.display(screen).await?;
        self.in_time(display.hold(button, down)).await
    }

    pub(crate) async fn type_text(
        &self,
        screen: ScreenId,
        request: TypeText,
    ) -> Result<(), CoreError> {
        let text = request.text.expose();
        let symbols = symbols_of(text)?;
        let delay = Duration::from_millis(request.delay_in_ms.unwrap_or(0));
        let all = u32::try_from(symbols.len()).ok().and_then(|count| delay.checked_mul(count));
        let Some(all) = all.filter(|all| *all <= MAX_TYPING) else {
            let text = "makes this take more than an hour; type it in pieces".to_owned();
            return Err(CoreError::field("delay_in_ms", text));
        };
        let mut display = self.display(screen).await?;
        let typing = tokio::time::timeout(
            all + super::PATIENCE * 3,
            self.until_end(display.type_text(&symbols, delay)),
        );
        typing.await.unwrap_or_else(|_| {
            Err(CoreError::Desktop("its X server does not answer any more".to_owned()))
        })
    }

    pub(crate) async fn press_keys(
        &self,
        screen: ScreenId,
        keys: &[String],
        how: Press,
    ) -> Result<(), CoreError> {
        if keys.is_empty() || keys.len() > MAX_KEYS {
            let text = format!("must name from 1 to {MAX_KEYS} keys");
            return Err(CoreError::field("keys", text));
        }
        let unknown = |name: &str| {
            let name = validate::shown(name);
            let text = format!(
                "{name:?} is no key; name a character, or a key such as ctrl, \
                                Return, F5 or XF86AudioMute"
            );
            CoreError::field("keys", text)
        };
        let symbol = |name: &String| x11::keysym_of_name(name).ok_or_else(|| unknown(name));
        let symbols: Vec<u32> = keys.iter().map(symbol).collect::<Result<_, _>>()?;
        let mut display = self.display(screen).await?;
        self.in_time(display.press_keys(&symbols, how)).await
    }

    pub(crate) async fn act_on_window(
        &self,
        screen: ScreenId,
        id: u32,
        deed: Deed,
    ) -> Result<(), CoreError> {
        const FAR: std::ops::RangeInclusive<i32> = -16_384..=16_384;
        match deed {
            Deed::Move { x, y } if !FAR.contains(&x) || !FAR.contains(&y) => {
                return Err(CoreError::field("x", "is too far away"));
            }
            Deed::Resize { width, height } => {
                number("width", width, x11::MAX_SIDE)?;
                number("height", height, x11::MAX_SIDE)?;
            }
            _ => {}
        }
        let mut display = self.display(screen).await?;
        self.in_time(async {
            match deed {
                Deed::Focus => display.focus(id).await,
                Deed::Maximize => display.maximize(id).await,
                Deed::Minimize => display.minimize(id).await,
                Deed::Restore => display.restore(id).await,
                Deed::Move { x, y } => display.move_window(id, (x, y)).await,
                Deed::Resize { width, height } => display.resize_window(id, (width, height)).await,
                Deed::Close => display.close(id).await,
            }
        })
        .await
    }

    /// What is copied; nothing is an empty text.
    pub(crate) async fn clipboard(&self, screen: ScreenId) -> Result<String, CoreError> {
        self.display(screen).await?;
        let output = self.session(screen, &["paste"], None).await?;
        Ok(String::from_utf8(output.stdout)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    pub(crate) async fn copy(&self, screen: ScreenId, text: &str) -> Result<(), CoreError> {
        if text.len() > MAX_COPIED {
            let text = format!("is larger than {} MiB", MAX_COPIED >> 20);
            return Err(CoreError::field("text", text));
        }
        self.display(screen).await?;
        let text = bytes::Bytes::copy_from_slice(text.as_bytes());
        let output = self.session(screen, &["copy"], Some(text)).await?;
        output.check("the clipboard did not take the text")
    }

    /// Opens an address or a file with the program that is set for it.
    pub(crate) async fn open(&self, screen: ScreenId, target: &str) -> Result<(), CoreError> {
        check_word("target", target)?;
        self.display(screen).await?;
        let output = self.session(screen, &["open", target], None).await?;
        match output.code {
            2 => Err(CoreError::field("target", "there is no such file in the sandbox")),
            3 => Err(CoreError::Desktop(
                "no program is set for it; launch one with the target as its uri".to_owned(),
            )),
            _ => output.check("it could not be opened"),
        }
    }

    /// Starts a program that may have something to open.
    pub(crate) async fn launch(
        &self,
        screen: ScreenId,
        application: &str,
        uri: Option<&str>,
    ) -> Result<(), CoreError> {
        check_word("application", application)?;
        if let Some(uri) = uri {
            check_word("uri", uri)?;
        }
        self.display(screen).await?;
        let words: Vec<&str> = ["launch", application].into_iter().chain(uri).collect();
        let output = self.session(screen, &words, None).await?;
        if output.code == session::NOT_FOUND {
            let shown = validate::shown(application);
            let text = format!("there is no program {shown:?} in the sandbox");
            return Err(CoreError::field("application", text));
        }
        output.check("it could not be started")
    }
}

/// Text that becomes one word of a command, and never an option of it.
fn check_word(field: &str, text: &str) -> Result<(), CoreError> {
    let why = match text {
        text if text.trim().is_empty() => "is empty",
        text if text.contains('\0') => "must not contain a NUL character",
        text if text.starts_with('-') => "must not begin with `-`",
        text if text.len() > 8192 => "is longer than 8192 bytes",
        _ => return Ok(()),
    };
    Err(CoreError::field(field, why))
}

fn button(button: Option<&MouseButton>) -> Result<Button, CoreError> {
    Ok(match button {
        None | Some(MouseButton::Left) => Button::Left,
        Some(MouseButton::Middle) => Button::Middle,
        Some(MouseButton::Right) => Button::Right,
        Some(other) => {
            let shown = validate::shown(other.as_str());
            let text = format!("{shown:?} is not left, middle or right");
            return Err(CoreError::field("button", text));
        }
    })
}

fn number(field: &str, number: u32, most: u32) -> Result<u32, CoreError> {
    let wrong = || CoreError::field(field, format!("must be from 1 to {most}"));
    (1..=most).contains(&number).then_some(number).ok_or_else(wrong)
}

fn symbols_of(text: &str) -> Result<Vec<u32>, CoreError> {
    if text.is_empty() {
        return Err(CoreError::field("text", "is empty"));
    }
    if text.chars().nth(MAX_TYPED).is_some() {
        let text = format!("is longer than {MAX_TYPED} characters; type it in pieces, or paste it");
        return Err(CoreError::field("text", text));
    }
    let untypable = || CoreError::field("text", "has a character that no key types");
    // Both halves of a line's end are one key.
    let text = text.replace("\r\n", "\n");
    text.chars().map(|c| x11::keysym_of_char(c).ok_or_else(untypable)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_typed_is_refused() {
        assert_eq!(symbols_of("a\r\n").unwrap(), [0x61, 0xff0d]);
        for bad in ["", "\0", "a\u{1}", &"a".repeat(MAX_TYPED + 1)] {
            assert!(symbols_of(bad).is_err());
        }
        assert!(symbols_of(&"ä".repeat(MAX_TYPED)).is_ok());
    }

    #[test]
    fn words_are_no_options() {
        assert!(check_word("target", "https://example.org/?a=b c").is_ok());
        for bad in ["", " ", "-x", "--", "a\0b", &"x".repeat(8193)] {
            assert!(check_word("target", bad).is_err(), "{bad:?}");
        }
    }
}
