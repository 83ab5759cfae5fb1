//! The size of a screen (RandR).

use std::borrow::Cow;

use x11rb_protocol::protocol::randr::{
    AddOutputModeRequest, CreateModeRequest, GetCrtcInfoRequest, GetScreenResourcesCurrentReply,
    GetScreenResourcesCurrentRequest, Mode, ModeFlag, ModeInfo, Rotation, SetConfig,
    SetCrtcConfigRequest, SetScreenSizeRequest,
};

use super::{Display, XError};

/// Screens pretend to have this many pixels per inch.
const DPI: u32 = 96;

impl Display {
    /// Gives the screen another size; windows stay.
    pub(crate) async fn resize(&mut self, width: u16, height: u16) -> Result<(), XError> {
        let now = self.screen().await?;
        if (now.width, now.height) == (width.into(), height.into()) {
            return Ok(());
        }
        let resources = self.ask(GetScreenResourcesCurrentRequest { window: self.root }).await?;
        let mode = self.mode(&resources, width, height).await?;
        // What is shown must fit on the screen at every moment.
        let larger = (now.width.max(width.into()), now.height.max(height.into()));
        self.set_size(larger.0 as u16, larger.1 as u16).await?;
        self.show(&resources, mode).await?;
        self.set_size(width, height).await
    }

    async fn mode(
        &mut self,
        resources: &GetScreenResourcesCurrentReply,
        width: u16,
        height: u16,
    ) -> Result<Mode, XError> {
        let known =
            resources.modes.iter().find(|mode| (mode.width, mode.height) == (width, height));
        if let Some(known) = known {
            return Ok(known.id);
        }
        let name = format!("{width}x{height}");
        let mode_info = ModeInfo {
            id: 0,
            width,
            height,
            // 60 pictures in a second, and nothing between them.
            dot_clock: u32::from(width) * u32::from(height) * 60,
            hsync_start: width,
            hsync_end: width,
            htotal: width,
            hskew: 0,
            vsync_start: height,
            vsync_end: height,
            vtotal: height,
            name_len: name.len() as u16,
            mode_flags: ModeFlag::from(0u32),
        };
        let name = Cow::Borrowed(name.as_bytes());
        Ok(self.ask(CreateModeRequest { window: self.root, mode_info, name }).await?.mode)
    }

    async fn show(
        &mut self,
        resources: &GetScreenResourcesCurrentReply,
        mode: Mode,
    ) -> Result<(), XError> {
        let no_output = || XError::Unfit("the X server has no output".to_owned());
        let crtc = *resources.crtcs.first().ok_or_else(no_output)?;
        let output = *resources.outputs.first().ok_or_else(no_output)?;
        self.send(AddOutputModeRequest { output, mode }).await?;
        let config_timestamp = resources.config_timestamp;
        self.ask(GetCrtcInfoRequest { crtc, config_timestamp }).await?;
        let set = self.ask(SetCrtcConfigRequest {
            crtc,
            timestamp: 0,
            config_timestamp,
            x: 0,
            y: 0,
            mode,
            rotation: Rotation::ROTATE0,
            outputs: Cow::Owned(vec![output]),
        });
        match set.await?.status {
            SetConfig::SUCCESS => Ok(()),
            _ => Err(XError::Unfit("the X server does not take this size".to_owned())),
        }
    }

    async fn set_size(&mut self, width: u16, height: u16) -> Result<(), XError> {
        let millimetres = |pixels: u16| (u32::from(pixels) * 254 / DPI / 10).max(1);
        self.send(SetScreenSizeRequest {
            window: self.root,
            width,
            height,
            mm_width: millimetres(width),
            mm_height: millimetres(height),
        })
        .await?;
        self.sync().await
    }
}
