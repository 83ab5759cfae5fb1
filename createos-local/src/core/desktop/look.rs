//! Looking at a screen.

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{Desktop, ScreenId};
use crate::core::CoreError;
use crate::x11::{Rect, Window, XError};

/// Pictures of one desktop: so many at once, and so many in a second.
const PICTURES: f64 = 10.0;
/// Pictures in the making at once, of all desktops: each takes much of a CPU and of memory.
static MAKING: Semaphore = Semaphore::const_new(2);

/// What is left of the right to take pictures.
#[derive(Debug)]
pub(super) struct Pace {
    left: f64,
    at: Instant,
}

impl Default for Pace {
    fn default() -> Self {
        Self { left: PICTURES, at: Instant::now() }
    }
}

impl Pace {
    fn take(&mut self) -> bool {
        let now = Instant::now();
        let gained = now.duration_since(self.at).as_secs_f64() * PICTURES;
        (self.left, self.at) = ((self.left + gained).min(PICTURES), now);
        let granted = self.left >= 1.0;
        if granted {
            self.left -= 1.0;
        }
        granted
    }
}

/// What a picture shows. What is not given is all there is.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    pub(crate) window: Option<u32>,
    pub(crate) x: Option<i32>,
    pub(crate) y: Option<i32>,
    pub(crate) width: Option<u32>,
    pub(crate) height: Option<u32>,
}

impl Desktop {
    /// The size of a screen on which one can work.
    pub(crate) async fn size(&self, screen: ScreenId) -> Result<(u32, u32), CoreError> {
        let mut display = self.display(screen).await?;
        let (size, is_managed) = self
            .in_time(async { Ok((display.screen().await?, display.is_managed().await?)) })
            .await?;
        if !is_managed {
            return Err(self.absent(screen).await);
        }
        Ok((size.width, size.height))
    }

    pub(crate) async fn cursor(&self, screen: ScreenId) -> Result<(i32, i32), CoreError> {
        let mut display = self.display(screen).await?;
        self.in_time(display.cursor()).await
    }

    /// The windows of an application, or all of them.
    pub(crate) async fn windows(
        &self,
        screen: ScreenId,
        application: Option<&str>,
    ) -> Result<Vec<Window>, CoreError> {
        let mut display = self.display(screen).await?;
        let mut windows = self.in_time(display.windows()).await?;
        if let Some(wanted) = application.map(str::to_lowercase) {
            let is_wanted = |name: &String| name.to_lowercase().contains(&wanted);
            windows.retain(|window| window.class.iter().any(is_wanted));
        }
        Ok(windows)
    }

    pub(crate) async fn current_window(&self, screen: ScreenId) -> Result<Window, CoreError> {
        let mut display = self.display(screen).await?;
        self.in_time(display.current_window()).await
    }

    pub(crate) async fn window(&self, screen: ScreenId, id: u32) -> Result<Window, CoreError> {
        let mut display = self.display(screen).await?;
        self.in_time(display.window(id)).await
    }

    pub(crate) async fn geometry(&self, screen: ScreenId, id: u32) -> Result<Rect, CoreError> {
        let mut display = self.display(screen).await?;
        self.in_time(display.geometry(id)).await
    }

    /// A picture, as PNG.
    pub(crate) async fn screenshot(
        &self,
        screen: ScreenId,
        view: View,
    ) -> Result<Bytes, CoreError> {
        let granted = self.memory(|memory| super::lock(&memory.pictures).take());
        if !granted {
            let message = format!("more than {PICTURES} screenshots in a second; wait a little");
            return Err(CoreError::Busy { message, retry_seconds: 1 });
        }
        let mut display = self.display(screen).await?;
        let making = MAKING.acquire().await;
        let seen = self.in_time(async {
            let whole = display.screen().await?;
            let base = match view.window {
                None => whole,
                Some(window) => {
                    let place = display.geometry(window).await?;
                    if display.is_minimized(window).await? {
                        return Err(XError::Unfit("the window is minimized; restore it".into()));
                    }
                    place
                }
            };
            let Some(part) = part(base, &view).and_then(|part| part.within(whole)) else {
                return Ok(None);
            };
            display.picture(part).await.map(Some)
        });
        let Some(picture) = seen.await? else {
            return Err(CoreError::field("x", "this part is not on the screen"));
        };
        let encoded = tokio::task::spawn_blocking(move || picture.to_png()).await;
        drop(making);
        let failed = |error: String| CoreError::Internal(format!("no picture was made: {error}"));
        let png = encoded.map_err(|error| failed(error.to_string()))?;
        Ok(png.map_err(|error| failed(error.to_string()))?.into())
    }
}

/// The part of what is looked at; its place is counted from there.
fn part(base: Rect, view: &View) -> Option<Rect> {
    let (x, y) = (view.x.unwrap_or(0), view.y.unwrap_or(0));
    let rest = |length: u32, from: i32| u32::try_from(i64::from(length) - i64::from(from)).ok();
    let part = Rect {
        x: base.x.checked_add(x)?,
        y: base.y.checked_add(y)?,
        width: view.width.or_else(|| rest(base.width, x))?,
        height: view.height.or_else(|| rest(base.height, y))?,
    };
    part.within(base)
}

/// Whether places are on the screen, each with the field it came in.
pub(super) async fn check_places(
    desktop: &Desktop,
    display: &mut crate::x11::Display,
    places: &[(&str, (i32, i32))],
) -> Result<(), CoreError> {
    let screen = desktop.in_time(display.screen()).await?;
    for (field, place) in places {
        if !screen.has(*place) {
            let (width, height) = (screen.width, screen.height);
            return Err(CoreError::field(
                *field,
                format!("({}, {}) is not on the screen of {width} by {height}", place.0, place.1),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_counted_from_what_is_looked_at() {
        let base = Rect { x: 10, y: 20, width: 100, height: 50 };
        let view = |x, y, width, height| View { window: None, x, y, width, height };
        let rect = |x, y, width, height| Some(Rect { x, y, width, height });
        assert_eq!(part(base, &View::default()), Some(base));
        assert_eq!(part(base, &view(Some(5), None, Some(10), None)), rect(15, 20, 10, 50));
        assert_eq!(part(base, &view(Some(90), Some(40), None, None)), rect(100, 60, 10, 10));
        assert_eq!(part(base, &view(Some(90), None, Some(50), None)), rect(100, 20, 10, 50));
        assert_eq!(part(base, &view(Some(100), None, None, None)), None);
        assert_eq!(part(base, &view(Some(i32::MAX), None, Some(1), None)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn pictures_have_a_pace() {
        let mut pace = Pace::default();
        let taken = |pace: &mut Pace| (0..20).filter(|_| pace.take()).count();
        assert_eq!(taken(&mut pace), 10);
        tokio::time::advance(std::time::Duration::from_millis(350)).await;
        assert_eq!(taken(&mut pace), 3);
    }
}
