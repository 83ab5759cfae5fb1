//! What goes wrong with S3.

use fuser::Errno;
use reqwest::StatusCode;

use crate::web::BodyError;

/// Why S3 did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum S3Error {
    /// It refused.
    #[error("{}", refusal(*status, code, message))]
    Refused { status: StatusCode, code: String, message: String },
    /// It cannot be reached, or the connection broke.
    #[error("the S3 server cannot be reached: {0}")]
    Unreachable(String),
    /// Nothing came for too long.
    #[error("the S3 server did not answer within {0} s")]
    Stalled(u64),
    /// It answered something else than S3 does.
    #[error("the S3 server does not answer as S3 does: {0}")]
    Garbage(String),
    /// The engine itself failed: its disk, its limits.
    #[error("{0}")]
    Own(String),
}

/// A refusal in its own words. They are the server's, so they are cut and cleaned.
fn refusal(status: StatusCode, code: &str, message: &str) -> String {
    let said = [code, message].into_iter().filter(|part| !part.is_empty());
    let said = said.collect::<Vec<_>>().join(": ");
    let meaning = match status.as_u16() {
        _ if !said.is_empty() => "",
        301 | 307 => " (the bucket is elsewhere; give its own endpoint and region)",
        401 | 403 => " (these keys are wrong, or may not do this)",
        404 => " (there is no such bucket)",
        _ => "",
    };
    let blank = if said.is_empty() { "" } else { ": " };
    format!("S3 said {} {}{blank}{said}{meaning}", status.as_u16(), reason(status))
}

fn reason(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("(unknown)")
}

impl From<BodyError> for S3Error {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Stalled(seconds) => Self::Stalled(seconds),
            BodyError::TooLong(most) => Self::Garbage(format!("more than {most} bytes came")),
            BodyError::Lost(why) => Self::Unreachable(why),
        }
    }
}

impl S3Error {
    /// There is no such object; for a whole bucket, no such bucket.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { status: StatusCode::NOT_FOUND, code, .. } if code != "NoSuchBucket")
    }

    /// Another try may go better.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Refused { status, .. } => {
                status.is_server_error() && *status != StatusCode::NOT_IMPLEMENTED
                    || matches!(status.as_u16(), 408 | 429)
            }
            // A server that stalls has had its time.
            Self::Stalled(_) | Self::Garbage(_) | Self::Own(_) => false,
        }
    }

    /// What a program inside is told.
    pub(crate) fn errno(&self) -> Errno {
        match self {
            Self::Refused { status, code, .. } => match status.as_u16() {
                404 if code != "NoSuchBucket" => Errno::ENOENT,
                401 | 403 => Errno::EACCES,
                412 => Errno::ESTALE,
                400 if code == "EntityTooLarge" => Errno::EFBIG,
                _ => Errno::EIO,
            },
            _ => Errno::EIO,
        }
    }
}
