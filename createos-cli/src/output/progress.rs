//! Movement on standard error while something takes time.

use std::time::Duration;

use createos_sdk::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Terminal, unicode};

/// Below this size a transfer is over before a bar could be read.
const BAR_FROM_BYTES: u64 = 1024 * 1024;

/// A line that turns until it is dropped.
#[derive(Debug)]
pub(crate) struct Spinner(ProgressBar);

impl Spinner {
    /// Starts at once; draws nothing where standard error is no terminal.
    pub(crate) fn start(terminal: &Terminal, text: String) -> Self {
        let target = match terminal.animated() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(None, target);
        if !unicode() {
            bar.set_style(ProgressStyle::default_spinner().tick_chars("|/-\\ "));
        }
        bar.set_message(text);
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(bar)
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A transfer's bar with rate and remaining time; gone when dropped.
#[derive(Debug)]
pub(crate) struct Bar {
    bar: ProgressBar,
    animated: bool,
}

impl Bar {
    pub(crate) fn new(terminal: &Terminal) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        Self { bar, animated: terminal.animated() }
    }

    /// Follows a transfer. The bar appears when the transfer turns out to be large.
    pub(crate) fn follow(&self) -> impl Fn(Progress) + Send + Sync + 'static {
        let (bar, animated) = (self.bar.clone(), self.animated);
        move |progress| {
            if let Some(total) = progress.total {
                bar.set_length(total);
            }
            bar.set_position(progress.bytes);
            let large = progress.total.unwrap_or(progress.bytes) > BAR_FROM_BYTES;
            if animated && large && bar.is_hidden() {
                bar.set_style(style(progress.total.is_some()));
                bar.set_draw_target(ProgressDrawTarget::stderr());
            }
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(total_known: bool) -> ProgressStyle {
    let form = match total_known {
        true => "{bytes} of {total_bytes} [{wide_bar}] {bytes_per_sec}, {eta} left",
        false => "{bytes}, {bytes_per_sec}",
    };
    let style = ProgressStyle::with_template(form);
    style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}
