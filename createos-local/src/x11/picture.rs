//! Pictures of a screen, as PNG.

use x11rb_protocol::protocol::xproto::{
    GetGeometryRequest, GetImageRequest, ImageFormat, ImageOrder,
};

use super::{Display, MAX_PIXELS, MAX_SIDE, XError};

/// A part of a screen, or of the plane it lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rect {
    pub(crate) x: i32,
    pub(crate) y: i32,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

impl Rect {
    /// What of it is within `other`.
    pub(crate) fn within(self, other: Self) -> Option<Self> {
        let overlap = |a: i32, a_len: u32, b: i32, b_len: u32| {
            let start = i64::from(a).max(b.into());
            let end = (i64::from(a) + i64::from(a_len)).min(i64::from(b) + i64::from(b_len));
            let length = u32::try_from(end - start).ok().filter(|length| *length > 0)?;
            Some((i32::try_from(start).ok()?, length))
        };
        let (x, width) = overlap(self.x, self.width, other.x, other.width)?;
        let (y, height) = overlap(self.y, self.height, other.y, other.height)?;
        Some(Self { x, y, width, height })
    }

    /// Whether a place is in it.
    pub(crate) fn has(self, (x, y): (i32, i32)) -> bool {
        self.within(Self { x, y, width: 1, height: 1 }).is_some()
    }
}

/// Pixels, four bytes each: blue, green, red, and one that means nothing.
pub(crate) struct Picture {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

impl Display {
    /// The whole screen.
    pub(crate) async fn screen(&mut self) -> Result<Rect, XError> {
        let root = self.ask(GetGeometryRequest { drawable: self.root }).await?;
        let (width, height) = (u32::from(root.width), u32::from(root.height));
        if width == 0 || height == 0 {
            return Err(XError::nonsense("its screen has no size"));
        }
        Ok(Rect { x: 0, y: 0, width, height })
    }

    /// What is to be seen on a part of the screen.
    pub(crate) async fn picture(&mut self, part: Rect) -> Result<Picture, XError> {
        let Rect { x, y, width, height } = part;
        if width > MAX_SIDE || height > MAX_SIDE || width * height > MAX_PIXELS {
            return Err(XError::Unfit(format!(
                "a picture of {width} by {height} is too large; ask for a part of it"
            )));
        }
        self.check_pixels()?;
        let short = |side: i32| i16::try_from(side).map_err(|_| XError::nonsense("its screen"));
        let image = self.ask(GetImageRequest {
            format: ImageFormat::Z_PIXMAP,
            drawable: self.root,
            x: short(x)?,
            y: short(y)?,
            width: width as u16,
            height: height as u16,
            plane_mask: u32::MAX,
        });
        let pixels = image.await?.data;
        if pixels.len() as u64 != u64::from(width) * u64::from(height) * 4 {
            return Err(XError::nonsense("a picture of another size"));
        }
        Ok(Picture { width, height, pixels })
    }

    /// Whether pixels come as [`Picture`] has them. They do unless somebody inside runs a
    /// server of their own.
    fn check_pixels(&self) -> Result<(), XError> {
        let setup = self.setup();
        let visual = setup.roots.first().and_then(|screen| {
            let visuals = screen.allowed_depths.iter().flat_map(|depth| &depth.visuals);
            visuals.into_iter().find(|visual| visual.visual_id == screen.root_visual)
        });
        let depth = setup.roots.first().map_or(0, |screen| screen.root_depth);
        let format = setup.pixmap_formats.iter().find(|format| format.depth == depth);
        let usual = format.is_some_and(|format| format.bits_per_pixel == 32)
            && setup.image_byte_order == ImageOrder::LSB_FIRST
            && visual.is_some_and(|visual| {
                (visual.red_mask, visual.green_mask, visual.blue_mask) == (0xff_0000, 0xff00, 0xff)
            });
        let unusual = || XError::Unfit("the screen's pixels are not of 24 bits".to_owned());
        usual.then_some(()).ok_or_else(unusual)
    }
}

impl Picture {
    /// Takes some time for large ones.
    pub(crate) fn to_png(&self) -> Result<Vec<u8>, png::EncodingError> {
        let mut rgb = Vec::with_capacity(self.pixels.len() / 4 * 3);
        for pixel in self.pixels.chunks_exact(4) {
            rgb.extend_from_slice(&[pixel[2], pixel[1], pixel[0]]);
        }
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Fast);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&rgb)?;
        writer.finish()?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_cut_to_the_screen() {
        let screen = Rect { x: 0, y: 0, width: 100, height: 50 };
        let rect = |x, y, width, height| Rect { x, y, width, height };
        assert_eq!(rect(-5, 40, 20, 20).within(screen), Some(rect(0, 40, 15, 10)));
        assert_eq!(rect(100, 0, 1, 1).within(screen), None);
        assert_eq!(rect(i32::MIN, 0, u32::MAX, u32::MAX).within(screen), Some(screen));
        assert!(screen.has((99, 49)) && !screen.has((99, 50)) && !screen.has((-1, 0)));
    }

    #[test]
    fn a_picture_is_a_png_of_its_size_and_colours() {
        let pixels = vec![1, 2, 3, 0, 4, 5, 6, 0];
        let png = Picture { width: 2, height: 1, pixels }.to_png().unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        let mut colours = [0; 6];
        let info = reader.next_frame(&mut colours).unwrap();
        assert_eq!((info.width, info.height, colours), (2, 1, [3, 2, 1, 6, 5, 4]));
    }
}
