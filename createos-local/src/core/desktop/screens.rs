//! The screens of a desktop: which there are, more of them, and other sizes.

use std::time::Duration;

use createos_sdk::wire::ScreenSize;
use tokio::time::{Instant, sleep};

use super::{Desktop, session};
use crate::core::CoreError;
use crate::runtime::RuntimeError;
use crate::x11::{MAX_PIXELS, MAX_SIDE};

const SCREENS: u8 = 8;
/// A screen without a wish.
const USUAL: (u32, u32) = (1280, 800);
const MIN_SIDE: u32 = 64;
/// How long a new screen may take to appear.
const APPEARS: Duration = Duration::from_secs(30);
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// One of the screens that a desktop may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScreenId(u8);

impl ScreenId {
    pub(super) const FIRST: Self = Self(0);

    /// The screen that a request names; the first unless it does.
    pub(crate) fn parse(name: Option<&str>) -> Result<Self, CoreError> {
        let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(Self::FIRST) };
        let number = name.strip_prefix("screen-").and_then(|number| match number.as_bytes() {
            [digit @ b'0'..=b'7'] => Some(digit - b'0'),
            _ => None,
        });
        let wrong = || CoreError::field("screen_id", "must be from screen-0 to screen-7");
        number.map(Self).ok_or_else(wrong)
    }

    pub(crate) fn number(self) -> u16 {
        self.0.into()
    }

    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..SCREENS).map(Self)
    }

    /// Where its X server listens, inside.
    pub(super) fn socket(self) -> String {
        format!("/tmp/.X11-unix/X{}", self.0)
    }

    /// Where its size is written down, inside.
    fn kept(self) -> String {
        format!("/var/lib/createos-desktop/screen-{}", self.0)
    }

    /// The port of its web page, inside.
    pub(super) fn web_port(self) -> u16 {
        6080 + u16::from(self.0)
    }
}

impl std::fmt::Display for ScreenId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "screen-{}", self.0)
    }
}

/// A screen and its size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OpenScreen {
    pub(crate) id: ScreenId,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

impl Desktop {
    pub(crate) async fn screen(&self, id: ScreenId) -> Result<OpenScreen, CoreError> {
        let mut display = self.display(id).await?;
        let size = self.in_time(display.screen()).await?;
        Ok(OpenScreen { id, width: size.width, height: size.height })
    }

    /// The screens that are there.
    pub(crate) async fn screens(&self) -> Result<Vec<OpenScreen>, CoreError> {
        let mut seen = Vec::new();
        for id in ScreenId::all() {
            match self.screen(id).await {
                Ok(screen) => seen.push(screen),
                // Not there, or not yet.
                Err(CoreError::NoSuch { .. } | CoreError::Desktop(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(seen)
    }

    /// Adds a screen, and returns when one can work on it.
    pub(crate) async fn create_screen(&self, size: ScreenSize) -> Result<OpenScreen, CoreError> {
        let (width, height) = checked(size, USUAL)?;
        let memory = self.slot()?;
        let _one_at_a_time = memory.desktop.screens.lock().await;
        let size = format!("{width}x{height}");
        let output = self.session(ScreenId::FIRST, &["create", &size], None).await?;
        if output.code == session::NO_ROOM {
            let text = format!("the desktop has {SCREENS} screens, the most it can have");
            return Err(CoreError::Conflict(text));
        }
        let number = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.check("the screen could not be started")?;
        let id = ScreenId::parse(Some(&format!("screen-{number}")))
            .map_err(|_| CoreError::Desktop("its session answers with nonsense".to_owned()))?;
        let limit = Instant::now() + APPEARS;
        loop {
            match self.size(id).await {
                Ok((width, height)) => return Ok(OpenScreen { id, width, height }),
                Err(CoreError::NoSuch { .. } | CoreError::Desktop(_)) if Instant::now() < limit => {
                    sleep(BETWEEN_LOOKS).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives a screen another size.
    pub(crate) async fn resize_screen(
        &self,
        id: ScreenId,
        size: ScreenSize,
    ) -> Result<OpenScreen, CoreError> {
        checked(size, USUAL)?;
        let now = self.screen(id).await?;
        let (width, height) = checked(size, (now.width, now.height))?;
        let mut display = self.display(id).await?;
        self.in_time(display.resize(width as u16, height as u16)).await?;
        // For the next time it starts.
        self.write(&id.kept(), &format!("{width}x{height}\n")).await?;
        self.screen(id).await
    }

    /// Ends a screen, and what is shown on it.
    pub(crate) async fn delete_screen(&self, id: ScreenId) -> Result<(), CoreError> {
        let memory = self.slot()?;
        let _one_at_a_time = memory.desktop.screens.lock().await;
        if !self.is_kept(id).await? {
            return Err(self.absent(id).await);
        }
        let output = self.session(id, &["delete", &id.number().to_string()], None).await?;
        output.check("the screen could not be ended")
    }

    /// Whether a screen should be there, be it that it is not.
    pub(super) async fn is_kept(&self, id: ScreenId) -> Result<bool, CoreError> {
        let path = id.kept();
        let read = self.live.runtime().read_file(self.live.id(), path.as_bytes());
        match self.live.life.run_until_cancelled(read).await.ok_or_else(|| self.live.life.lost())? {
            Ok(_) => Ok(true),
            Err(RuntimeError::NoSuchFile(_) | RuntimeError::BadPath(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// The size asked for, within what is possible.
fn checked(size: ScreenSize, usual: (u32, u32)) -> Result<(u32, u32), CoreError> {
    let (width, height) = (size.width.unwrap_or(usual.0), size.height.unwrap_or(usual.1));
    for (field, side) in [("width", width), ("height", height)] {
        if !(MIN_SIDE..=MAX_SIDE).contains(&side) {
            let text = format!("must be from {MIN_SIDE} to {MAX_SIDE}");
            return Err(CoreError::field(field, text));
        }
    }
    if width * height > MAX_PIXELS {
        let text = format!("with the width it makes more than {MAX_PIXELS} pixels");
        return Err(CoreError::field("height", text));
    }
    Ok((width, height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn screens_have_one_name_each() {
        for (name, number) in
            [(None, 0), (Some(""), 0), (Some("screen-0"), 0), (Some("screen-7"), 7)]
        {
            assert_eq!(ScreenId::parse(name).unwrap().number(), number);
        }
        for bad in ["screen-8", "screen-", "screen-00", "0", "screen-1 ", "screen--1", "Screen-1"] {
            assert!(ScreenId::parse(Some(bad)).is_err(), "{bad}");
        }
        assert_eq!(ScreenId::parse(Some("screen-3")).unwrap().to_string(), "screen-3");
    }

    #[test]
    fn sizes_are_possible_ones() {
        let size = |width, height| {
            let mut size = ScreenSize::new(None);
            (size.width, size.height) = (width, height);
            checked(size, USUAL)
        };
        assert_eq!(size(None, None).unwrap(), USUAL);
        assert_eq!(size(Some(1920), None).unwrap(), (1920, 800));
        assert_eq!(size(Some(4096), Some(2304)).unwrap(), (4096, 2304));
        for (width, height) in [(Some(0), None), (None, Some(63)), (Some(u32::MAX), None)] {
            assert!(size(width, height).is_err());
        }
        assert!(size(Some(4096), Some(2305)).is_err());
    }
}
