//! Following a build to its end, across broken connections.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use tokio::time::sleep;

use super::{BuildEvent, LogStream, Template, TemplateLogs};
use crate::error::{Error, ErrorKind, Result};
use crate::options::RequestOptions;
use crate::wire::TemplateStatus;

/// Between a broken connection and the next.
const PAUSE: Duration = Duration::from_secs(1);
/// Questions in a row that fail before the build is given up.
const FAILURES: u32 = 8;

/// The events of a build to its end: a [`Stream`] that ends after [`BuildEvent::End`]. Made
/// with [`TemplateLogs::watch`].
///
/// A connection that breaks, or ends without the end of the build, is made again for as long as
/// the build goes on, and no line is given twice. Where the server ends the log of a build that
/// is over without saying so, the state of the template is the end. Dropping the stream does
/// nothing to the build.
#[must_use = "a stream does nothing until polled"]
pub struct BuildWatch(Pin<Box<dyn Stream<Item = Result<BuildEvent>> + Send>>);

impl TemplateLogs {
    /// The log while it is written, from its beginning to the end of the build, across broken
    /// connections. Nothing is sent until the stream is polled. See [`BuildWatch`].
    ///
    /// ```no_run
    /// # async fn run(template: createos_sdk::Template) -> createos_sdk::Result<()> {
    /// use createos_sdk::template::BuildEvent;
    /// use futures::TryStreamExt;
    ///
    /// let mut build = template.logs().watch();
    /// while let Some(event) = build.try_next().await? {
    ///     match event {
    ///         BuildEvent::Line(line) => println!("{}", line.text),
    ///         BuildEvent::End(status) => println!("it is {status}"),
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The stream ends with `NotFound` when the template was removed, and with the last failure
    /// when the server cannot be reached any more. [`with`](Self::with) sets options of each
    /// connection and question, so a deadline bounds one of them and not the whole.
    pub fn watch(self) -> BuildWatch {
        let watch = Watch { logs: self, source: None, given: 0, skip: 0, failures: 0, over: None };
        let events = stream::try_unfold(watch, |mut watch| async move {
            let event = watch.next().await?;
            Ok(event.map(|event| (event, watch)))
        });
        BuildWatch(Box::pin(events))
    }
}

impl Stream for BuildWatch {
    type Item = Result<BuildEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl fmt::Debug for BuildWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BuildWatch(..)")
    }
}

struct Watch {
    logs: TemplateLogs,
    source: Option<LogStream>,
    /// Lines that were given out.
    given: u64,
    /// Lines that this connection repeats.
    skip: u64,
    failures: u32,
    over: Option<Over>,
}

/// The build has ended.
enum Over {
    /// As the template says; what is left of the log is still read.
    Seen(TemplateStatus),
    /// And that was given out.
    Told,
}

impl Watch {
    async fn next(&mut self) -> Result<Option<BuildEvent>> {
        loop {
            if matches!(self.over, Some(Over::Told)) {
                return Ok(None);
            }
            let event = match &mut self.source {
                Some(source) => source.next().await,
                None => match self.logs.clone().follow().await {
                    Ok(source) => {
                        self.source = Some(source);
                        self.skip = self.given;
                        continue;
                    }
                    Err(error) => Some(Err(error)),
                },
            };
            match event {
                Some(Ok(BuildEvent::Line(_))) if self.skip > 0 => self.skip -= 1,
                Some(Ok(event)) => {
                    match event {
                        BuildEvent::End(_) => self.over = Some(Over::Told),
                        _ => self.given += 1,
                    }
                    return Ok(Some(event));
                }
                Some(Err(error)) => {
                    if let Some(end) = self.lost(error).await? {
                        return Ok(Some(end));
                    }
                }
                None => return Ok(None),
            }
        }
    }

    /// The connection is gone. Says how the build ended, when all of its log was read; else the
    /// log is to be asked for once more.
    async fn lost(&mut self, error: Error) -> Result<Option<BuildEvent>> {
        self.source = None;
        if !is_passing(&error) {
            return Err(error);
        }
        if let Some(Over::Seen(status)) = self.over.take() {
            self.over = Some(Over::Told);
            return Ok(Some(BuildEvent::End(status)));
        }
        match self.template().refresh().with(self.options()).await {
            Ok(view) => {
                self.failures = 0;
                if view.status.is_final() {
                    self.over = Some(Over::Seen(view.status.clone()));
                    return Ok(None);
                }
            }
            Err(error) if is_passing(&error) && self.failures < FAILURES => self.failures += 1,
            Err(error) => return Err(error),
        }
        sleep(PAUSE).await;
        Ok(None)
    }

    fn template(&self) -> &Template {
        &self.logs.template
    }

    fn options(&self) -> RequestOptions {
        self.logs.options.clone()
    }
}

fn is_passing(error: &Error) -> bool {
    use ErrorKind::{Connection, StreamLost, Timeout};
    matches!(error.kind(), Connection | StreamLost | Timeout) || error.is_retryable()
}
