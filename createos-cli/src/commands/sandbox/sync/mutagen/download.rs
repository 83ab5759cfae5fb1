//! Getting Mutagen from its makers.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::read::GzDecoder;
use futures::StreamExt;
use sha2::{Digest, Sha256};

use super::find::{NAME, place};
use crate::context::{Context, environment};
use crate::failure::{Class, Failure};
use crate::output::Spinner;
use crate::prompt;

const VERSION: &str = "v0.18.1";
const SOURCE: &str = "https://github.com/mutagen-io/mutagen/releases/download/v0.18.1";
/// Another place with the same files, for networks that cannot reach that one.
const SOURCE_VARIABLE: &str = "CREATEOS_MUTAGEN_MIRROR";
const AGENTS: &str = "mutagen-agents.tar.gz";
const MAX_BYTES: usize = 200 << 20;
const LIMIT: Duration = Duration::from_secs(120);

/// What the archives are, as their makers list it.
const DIGESTS: [(&str, &str); 4] = [
    ("linux_amd64", "7735286c778cc438418209f24d03a64f3a0151c8065ef0fe079cfaf093af6f8f"),
    ("linux_arm64", "bcba735aebf8cbc11da9b3742118a665599ac697fa06bc5751cac8dcd540db8a"),
    ("darwin_amd64", "7d06f7d8fcfe90bc7e55cc834a2f2f20c2e0af9ea9bc35911fc4341ad56a9bbf"),
    ("darwin_arm64", "6f810416d9e5fc4fd5e18431146f8b3c5a2056ba5a24f76c1e66da86eb3257e2"),
];

/// Downloads Mutagen when the user agrees; where it is then.
pub(crate) async fn obtain(ctx: &Context, yes: bool) -> Result<PathBuf, Failure> {
    let dir = place(&ctx.paths)
        .ok_or_else(|| Failure::local("there is no Mutagen, and no home to download it to"))?;
    let Some((platform, digest)) = platform() else {
        return Err(absent("there is no Mutagen to download for this system", &dir));
    };
    if !yes && !ctx.interactive() {
        let why = "Mutagen is not installed, and nobody can be asked to download it";
        return Err(absent(why, &dir));
    }
    let question = format!("download Mutagen {VERSION} to {}?", dir.display());
    if !yes && !prompt::confirm(question, true).await? {
        return Err(Failure::Left);
    }
    let source = environment(&[SOURCE_VARIABLE]).map(|(_, source)| source);
    let source = source.unwrap_or_else(|| SOURCE.to_owned());
    let source = source.trim_end_matches('/');
    let url = format!("{source}/mutagen_{platform}_{VERSION}.tar.gz");
    let archive = {
        let _spinner = Spinner::start(ctx.out.terminal(), format!("downloading {url}"));
        let fetched = tokio::time::timeout(LIMIT, fetch(&url)).await;
        let fetched = fetched.unwrap_or_else(|_| Err("it takes longer than 2 minutes".to_owned()));
        fetched.map_err(|why| absent(&format!("cannot download {url}: {why}"), &dir))?
    };
    let target = dir.clone();
    let work = move || install(&archive, digest, &target);
    let installed = tokio::task::spawn_blocking(work).await;
    installed
        .unwrap_or_else(|error| Err(error.to_string()))
        .map_err(|why| Failure::local(format!("{url} is refused: {why}")))?;
    ctx.out.note(&format!("Mutagen {VERSION} is in {}", dir.display()));
    Ok(dir.join(NAME))
}

fn absent(why: &str, dir: &Path) -> Failure {
    Failure::new(Class::Local, why).hint(format!(
        "put mutagen {VERSION} and {AGENTS} into {}\n\
         or do without: --engine builtin",
        dir.display()
    ))
}

fn platform() -> Option<(&'static str, &'static str)> {
    let system = match std::env::consts::OS {
        "linux" => "linux",
        "macos" => "darwin",
        _ => return None,
    };
    let machine = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        _ => return None,
    };
    let wanted = format!("{system}_{machine}");
    DIGESTS.iter().find(|(name, _)| *name == wanted).copied()
}

async fn fetch(url: &str) -> Result<Vec<u8>, String> {
    let why = |error: reqwest::Error| {
        let mut cause: &dyn std::error::Error = &error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        cause.to_string()
    };
    let answer = reqwest::get(url).await.map_err(why)?;
    let answer = answer.error_for_status().map_err(|error| {
        error.status().map_or_else(|| error.to_string(), |status| format!("status {status}"))
    })?;
    let mut bytes = Vec::new();
    let mut pieces = answer.bytes_stream();
    while let Some(piece) = pieces.next().await {
        bytes.extend_from_slice(&piece.map_err(why)?);
        if bytes.len() > MAX_BYTES {
            return Err(format!("it is larger than {} MiB", MAX_BYTES >> 20));
        }
    }
    Ok(bytes)
}

/// Unpacks the program and its agents side by side, if the archive is the one that is meant.
fn install(archive: &[u8], digest: &str, dir: &Path) -> Result<(), String> {
    let found: String = Sha256::digest(archive).iter().map(|byte| format!("{byte:02x}")).collect();
    if found != digest {
        return Err(format!("its SHA-256 is {found}, not {digest}"));
    }
    let failed = |error: std::io::Error| error.to_string();
    std::fs::create_dir_all(dir).map_err(failed)?;
    let mut missing = vec![NAME, AGENTS];
    let mut entries = tar::Archive::new(GzDecoder::new(archive).take(4 * MAX_BYTES as u64));
    for entry in entries.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        let name = entry.path().map_err(failed)?.into_owned();
        let Some(at) = missing.iter().position(|wanted| Path::new(wanted) == name) else {
            continue;
        };
        let name = missing.remove(at);
        let mut file = tempfile::NamedTempFile::new_in(dir).map_err(failed)?;
        std::io::copy(&mut entry, &mut file).map_err(failed)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = if name == NAME { 0o755 } else { 0o644 };
            let mode = std::fs::Permissions::from_mode(mode);
            file.as_file().set_permissions(mode).map_err(failed)?;
        }
        file.persist(dir.join(name)).map_err(|error| error.error.to_string())?;
    }
    match missing.first() {
        Some(name) => Err(format!("{name} is not in it")),
        None => Ok(()),
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn archive(names: &[&str]) -> (Vec<u8>, String) {
        let packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut packed = tar::Builder::new(packer);
        for name in names {
            let mut header = tar::Header::new_gnu();
            header.set_size(name.len() as u64);
            header.set_mode(0o600);
            packed.append_data(&mut header, name, name.as_bytes()).unwrap();
        }
        let bytes = packed.into_inner().unwrap().finish().unwrap();
        let digest = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        (bytes, digest)
    }

    #[test]
    fn only_what_is_meant_is_unpacked() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("new/bin");
        let (bytes, digest) = archive(&["other", NAME, AGENTS]);
        let wrong = install(&bytes, DIGESTS[0].1, &dir).unwrap_err();
        assert!(wrong.contains("SHA-256") && !dir.exists(), "{wrong}");
        install(&bytes, &digest, &dir).unwrap();
        assert_eq!(std::fs::read_to_string(dir.join(NAME)).unwrap(), NAME);
        assert_eq!(dir.join(NAME).metadata().unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 2);
        let (bytes, digest) = archive(&[NAME]);
        assert!(install(&bytes, &digest, &dir).unwrap_err().contains(AGENTS));
    }
}
