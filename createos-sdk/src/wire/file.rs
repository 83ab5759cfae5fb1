//! File transfer (api.md 4.13).

use serde::{Deserialize, Serialize};

/// Answer to an upload. Clients ignore it (api.md 9.29).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct UploadedFile {
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Where it is.
    pub path: String,
}

impl UploadedFile {
    /// Names a stored file.
    pub fn new(bytes: u64, path: impl Into<String>) -> Self {
        Self { bytes, path: path.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::both_ways;
    use super::*;

    #[test]
    fn upload_answer() {
        let answer: UploadedFile = both_ways(r#"{"bytes":8,"path":"/work/a.txt"}"#);
        assert_eq!(answer, UploadedFile::new(8, "/work/a.txt"));
    }
}
