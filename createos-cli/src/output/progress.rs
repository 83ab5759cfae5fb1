//! Movement on standard error while something takes time.

use std::time::Duration;

use createos_sdk::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Terminal, unicode};

/// Below this size a transfer is over before a bar could be read.
const BAR_FROM_BYTES: u64 = 1024 * 1024;

const TICK: Duration = Duration::from_millis(100);

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
        bar.enable_steady_tick(TICK);
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
pub(crate) struct Bar(Pen);

/// What moves a bar, from where the work is done.
#[derive(Debug, Clone)]
pub(crate) struct Pen {
    bar: ProgressBar,
    animated: bool,
}

impl Bar {
    pub(crate) fn new(terminal: &Terminal) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        Self(Pen { bar, animated: terminal.animated() })
    }

    pub(crate) fn pen(&self) -> Pen {
        self.0.clone()
    }

    /// Follows a transfer. The bar appears when the transfer turns out to be large.
    pub(crate) fn follow(&self) -> impl Fn(Progress) + Send + Sync + 'static {
        let pen = self.pen();
        move |progress| pen.show(progress.bytes, progress.total)
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.bar.finish_and_clear();
    }
}

impl Pen {
    /// Shows how far a transfer is.
    pub(crate) fn show(&self, bytes: u64, total: Option<u64>) {
        if let Some(total) = total {
            self.bar.set_length(total);
        }
        self.bar.set_position(bytes);
        if total.unwrap_or(bytes) > BAR_FROM_BYTES && self.appears() {
            self.bar.set_style(style(total.is_some()));
        }
    }

    /// Says what happens now, in place of the bar.
    pub(crate) fn say(&self, text: String) {
        if self.animated {
            self.appears();
            self.bar.set_style(ProgressStyle::default_spinner());
            // Drawn at once, so the text comes first.
            self.bar.set_message(text);
            self.bar.enable_steady_tick(TICK);
        }
    }

    /// Whether it appears now.
    fn appears(&self) -> bool {
        let appears = self.animated && self.bar.is_hidden();
        if appears {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        appears
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
