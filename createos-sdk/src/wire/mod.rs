//! The JSON, exactly: what client and engine say to each other (api.md).
//!
//! Reading is lenient: unknown fields are ignored, missing optional fields and null
//! arrays are accepted, enum values of a newer server are kept as text. Writing is exact:
//! an optional field without a value is left out, and an array is never `null`.
//!
//! All structs may grow. Outside this crate they are made with `new` (the fields that
//! must always be sent) and the rest is assigned:
//!
//! ```
//! use createos_sdk::wire::{SandboxStatus, SandboxView};
//!
//! let mut view = SandboxView::new("sb-1".parse()?, SandboxStatus::Running);
//! view.name = Some("demo".into());
//! assert_eq!(serde_json::to_string(&view).unwrap(), r#"{"id":"sb-1","status":"running","name":"demo"}"#);
//! # Ok::<(), createos_sdk::Error>(())
//! ```

use serde::{Deserialize, Deserializer};

mod bytes;
mod catalog;
mod computer;
mod create;
mod device;
mod disk;
mod egress;
mod envelope;
mod exec;
mod file;
mod host;
mod metrics;
mod network;
mod open_enum;
mod page;
mod process;
mod sandbox;
mod service;
mod settings;
mod shell;
mod template;
mod token;

pub use self::catalog::{RootfsCatalog, RootfsEntry, Shape};
pub use self::computer::{
    ClipboardText, Keys, LaunchApplication, MouseButton, MouseClick, MouseDrag, MousePress,
    MouseScroll, OpenTarget, Point, ScreenConnection, ScreenSize, ScreenView, ScrollDirection,
    Size, TypeText, WindowGeometry, WindowView,
};
pub use self::create::{CreateSandbox, CreatedSandbox, DiskMount, NetworkRef};
pub use self::device::{
    AttachDeviceNetwork, CreateDevice, DeviceNetwork, DeviceSession, DeviceView,
};
pub use self::disk::{
    AttachedDisk, CreateDisk, DeletedDisk, DetachedDisk, DiskAttachment, DiskConfig,
    DiskCredentials, DiskKind, DiskView, MountStatus, PatchDisk,
};
pub use self::egress::{Bandwidth, Egress, RechargeBandwidth, SetEgress};
pub use self::envelope::{Ack, Envelope, EnvelopeStatus, Failure, FailureData};
pub use self::exec::{ExecAnswer, ExecFrame, ExecRequest, ExecResult};
pub use self::file::UploadedFile;
pub use self::host::{Host, HostStatus};
pub use self::metrics::Metrics;
pub use self::network::{CreateNetwork, NetworkMember, NetworkView};
pub use self::page::{Page, Pagination};
pub use self::process::{
    CreateProcess, ForegroundJob, InputAccepted, OutputRange, OutputStream, ProcessFrame,
    ProcessInput, ProcessKind, ProcessList, ProcessState, ProcessView, PtySize, SendSignal, Signal,
};
pub use self::sandbox::{DestroyedSandbox, SandboxStatus, SandboxView};
pub use self::service::{Health, Readiness, SandboxStats, WhoAmI};
pub use self::settings::{
    AddSshPubkeys, ForkSandbox, PatchSandbox, ResizeSandbox, ResizedSandbox, SshPubkeyCount,
};
pub use self::shell::ShellFrame;
pub use self::template::{BuildFrame, CreateTemplate, TemplateStatus, TemplateView};
pub use self::token::{AccessToken, AccessTokenView};

use self::open_enum::open_enum;

/// Reads `null` like a missing field.
fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod golden {
    use serde::Serialize;
    use serde::de::DeserializeOwned;
    use serde_json::Value;

    /// What is read from `json` is written as exactly the same fields.
    #[track_caller]
    pub(super) fn both_ways<T: Serialize + DeserializeOwned>(json: &str) -> T {
        let value: T = serde_json::from_str(json).unwrap();
        let written = serde_json::to_value(&value).unwrap();
        assert_eq!(written, serde_json::from_str::<Value>(json).unwrap());
        value
    }

    /// `json` is accepted and written as `exact`.
    #[track_caller]
    pub(super) fn tidies<T: Serialize + DeserializeOwned>(json: &str, exact: &str) -> T {
        let value: T = serde_json::from_str(json).unwrap();
        let written = serde_json::to_value(&value).unwrap();
        assert_eq!(written, serde_json::from_str::<Value>(exact).unwrap());
        value
    }
}
