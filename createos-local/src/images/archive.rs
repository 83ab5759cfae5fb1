//! A file with a root filesystem in it: a tarball of its files, or an archive of a container
//! image (`docker save`, or an OCI layout in a tarball).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tar::EntryType;

use super::ImageError;
use super::oci::{
    Config, DEEPEST_INDEX, LARGEST_JSON, Manifest, Platform, check_digest, parse, unpack_layer,
    verify,
};
use super::shelf::Incoming;
use super::stream::{Bound, Hashed, decompressed};
use super::tarball::Tarball;
use super::unpack::{Unpacker, broken};
use crate::runtime::ImageConfig;

/// More files than that are in no archive of an image.
const MOST_FILES: usize = 10_000;
/// Names that a system has at its top, and an archive of an image has not.
const OF_A_SYSTEM: [&str; 4] = ["bin", "etc", "lib", "usr"];

/// Unpacks a file, at most so many bytes of it; returns how many there were, and what the
/// image says of itself.
pub(super) fn unpack(
    path: &Path,
    incoming: &Incoming,
    bound: &Bound,
) -> Result<(u64, ImageConfig), ImageError> {
    let mut file = File::open(path).and_then(|file| {
        let is_file = file.metadata()?.is_file();
        is_file.then_some(file).ok_or_else(|| io::Error::other("it is no regular file"))
    });
    let file = file.as_mut().map_err(|error| ImageError::File {
        path: path.to_owned(),
        source: io::Error::new(error.kind(), error.to_string()),
    })?;
    let is_image = is_image(file, bound)?;
    file.rewind().map_err(ImageError::io("cannot read the archive"))?;
    let mut unpacker = Unpacker::new(&incoming.files(), bound.most)
        .map_err(ImageError::io("cannot prepare a place for the files"))?;
    let config = match is_image {
        true => Saved::read(file, &incoming.scratch(), bound)?.unpack(&mut unpacker, bound)?,
        false => {
            let mut source = Hashed::new(decompressed(BufReader::new(file))?, bound);
            unpacker.layer(&mut source, false)?;
            // What is broken at the end was broken on the way.
            source.finish().map_err(broken)?;
            ImageConfig::default()
        }
    };
    finish(unpacker, config)
}

/// Completes an unpacked root filesystem.
pub(super) fn finish(
    mut unpacker: Unpacker,
    mut config: ImageConfig,
) -> Result<(u64, ImageConfig), ImageError> {
    if let Some(directory) = &config.directory {
        unpacker.make_directory(directory)?;
    }
    if !unpacker.has("bin/bash") {
        // What would be said of the shell otherwise is not true here.
        config.env.entry("SHELL".to_owned()).or_insert_with(|| "/bin/sh".to_owned());
    }
    Ok((unpacker.finish()?, config))
}

/// Whether an archive holds an image of a container.
fn is_image(file: &File, bound: &Bound) -> Result<bool, ImageError> {
    let mut source = Hashed::new(decompressed(BufReader::new(file))?, bound);
    let mut archive = Tarball::new(&mut source);
    let mut count = 0;
    while let Some(meta) = archive.next()? {
        count += 1;
        let path = meta.path.strip_prefix(b"./").unwrap_or(&meta.path);
        let top = path.split(|byte| *byte == b'/').next().unwrap_or_default();
        if OF_A_SYSTEM.iter().any(|name| name.as_bytes() == top) {
            return Ok(false);
        }
        if matches!(path, b"manifest.json" | b"index.json" | b"oci-layout") {
            return Ok(true);
        }
    }
    match count {
        0 => Err(ImageError::Damaged("it is no tar archive, or an empty one".to_owned())),
        _ => Ok(false),
    }
}

/// The files of an image's archive, beside each other.
struct Saved {
    files: BTreeMap<String, Kept>,
}

enum Kept {
    File(PathBuf),
    /// As older archives have it for a layer that several images share.
    Link(String),
}

/// The list in an archive of `docker save`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    config: String,
    layers: Vec<String>,
}

impl Saved {
    fn read(file: &File, scratch: &Path, bound: &Bound) -> Result<Self, ImageError> {
        let mut source = Hashed::new(decompressed(BufReader::new(file))?, bound);
        let mut archive = Tarball::new(&mut source);
        let mut files = BTreeMap::new();
        while let Some(meta) = archive.next()? {
            let path = String::from_utf8_lossy(&meta.path);
            let path = path.strip_prefix("./").unwrap_or(&path).to_owned();
            let kept = match meta.kind {
                EntryType::Regular | EntryType::Continuous if meta.pieces.is_none() => {
                    // Their own names never become names here.
                    let place = scratch.join(files.len().to_string());
                    File::create(&place)
                        .and_then(|mut copy| io::copy(&mut archive, &mut copy))
                        .map_err(broken)?;
                    Kept::File(place)
                }
                EntryType::Symlink => {
                    Kept::Link(beside(&path, &String::from_utf8_lossy(&meta.link)))
                }
                _ => continue,
            };
            files.insert(path, kept);
            if files.len() > MOST_FILES {
                return Err(ImageError::Damaged(format!("it has more than {MOST_FILES} files")));
            }
        }
        Ok(Self { files })
    }

    fn path(&self, name: &str) -> Result<&Path, ImageError> {
        let missing = || {
            let shown: String = name.chars().take(120).collect();
            ImageError::Damaged(format!("{shown:?} is not in the archive"))
        };
        match self.files.get(name).ok_or_else(missing)? {
            Kept::File(path) => Ok(path),
            Kept::Link(to) => match self.files.get(to) {
                Some(Kept::File(path)) => Ok(path),
                _ => Err(missing()),
            },
        }
    }

    fn json(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        let file = File::open(self.path(name)?).map_err(broken)?;
        let mut text = Vec::new();
        file.take(LARGEST_JSON + 1).read_to_end(&mut text).map_err(broken)?;
        if text.len() as u64 > LARGEST_JSON {
            let shown: String = name.chars().take(120).collect();
            return Err(ImageError::Damaged(format!("{shown:?} is too large")));
        }
        Ok(text)
    }

    fn blob(&self, digest: &str) -> Result<Vec<u8>, ImageError> {
        let text = self.json(&blob_name(digest)?)?;
        verify(digest, &text).map(|()| text)
    }

    fn unpack(&self, unpacker: &mut Unpacker, bound: &Bound) -> Result<ImageConfig, ImageError> {
        let (config, layers) = match self.files.contains_key("manifest.json") {
            true => self.listed()?,
            false => self.indexed()?,
        };
        let config: Config = parse("configuration", &config)?;
        let digests = config.layers(layers.len(), &Platform::own())?;
        for (name, digest) in layers.iter().zip(digests) {
            let path = self.path(name)?;
            let file = File::open(path).map_err(broken)?;
            unpack_layer(unpacker, file, digest, bound)?;
        }
        for kept in self.files.values() {
            if let Kept::File(path) = kept {
                let _ = fs::remove_file(path);
            }
        }
        config.defaults()
    }

    /// As `docker save` lists it.
    fn listed(&self) -> Result<(Vec<u8>, Vec<String>), ImageError> {
        let text = self.json("manifest.json")?;
        let mut list: Vec<Listed> = parse("manifest", &text)?;
        match (list.pop(), list.len()) {
            (Some(one), 0) => Ok((self.json(&one.config)?, one.layers)),
            (None, _) => Err(ImageError::Damaged("it holds no image".to_owned())),
            (Some(_), more) => Err(ImageError::Unsupported(format!(
                "it holds {} images; save one of them alone",
                more + 1
            ))),
        }
    }

    /// As an OCI layout has it.
    fn indexed(&self) -> Result<(Vec<u8>, Vec<String>), ImageError> {
        let mut text = self.json("index.json")?;
        for _ in 0..=DEEPEST_INDEX {
            let manifest: Manifest = parse("index", &text)?;
            match manifest.config()? {
                None => text = self.blob(&manifest.choose(&Platform::own())?.digest)?,
                Some(config) => {
                    let names = manifest.layers.iter().map(|layer| blob_name(&layer.digest));
                    return Ok((self.blob(&config.digest)?, names.collect::<Result<_, _>>()?));
                }
            }
        }
        Err(ImageError::Damaged("its indexes lead to each other".to_owned()))
    }
}

fn blob_name(digest: &str) -> Result<String, ImageError> {
    Ok(format!("blobs/sha256/{}", check_digest(digest)?))
}

/// Where a link in the directory of `path` leads.
fn beside(path: &str, link: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    #[test]
    fn links_lead_from_where_they_are() {
        assert_eq!(super::beside("a/layer.tar", "../b/layer.tar"), "b/layer.tar");
        assert_eq!(super::beside("a/layer.tar", "../../../b"), "b");
        assert_eq!(super::beside("x", "./y"), "y");
    }
}
