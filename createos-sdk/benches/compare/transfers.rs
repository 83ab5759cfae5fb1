//! Files, both ways, beside curl. Each transfer runs in a process of its own, so that its
//! memory is its own.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use createos_sdk::{SandboxId, Upload};
use futures::StreamExt;

use crate::{Best, Clock, Outcome, Plan, Server, Time, busy, heading, our_client, row};

/// Bytes of a transfer in one direction.
pub(crate) const SIZE: usize = 1 << 30;
/// A file may have 500 MiB at most, so an upload is several files.
const FILES: usize = 4;

struct Kind {
    word: &'static str,
    what: &'static str,
}

const KINDS: [Kind; 3] = [
    Kind { word: "download", what: "1 GiB as a stream, thrown away" },
    Kind { word: "download_to", what: "1 GiB into a file" },
    Kind { word: "upload", what: "1 GiB out of a file, 4 times 256 MiB" },
];

pub(crate) fn run(server: &Server, plan: &Plan<'_>) -> Outcome<()> {
    let kinds = KINDS.iter().filter(|kind| plan.wants(kind.word)).collect::<Vec<_>>();
    if kinds.is_empty() {
        return Ok(());
    }
    heading(&["transfer", "ours", "curl", "ratio", "of work", "bare reqwest", "of work", "memory"]);
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("file");
    for kind in kinds {
        if kind.word == "upload" {
            let part: Vec<u8> = (0..SIZE / FILES).map(|at| (at % 251) as u8).collect();
            std::fs::write(&path, part)?;
        }
        let (mut ours, mut theirs, mut bare) = (Best::new(), Best::new(), Best::new());
        let mut our_peak = 0;
        for _ in 0..plan.rounds {
            if plan.side("ours") {
                let (took, peak) = in_child(kind.word, &server.url, &path)?;
                ours.saw(took);
                our_peak = our_peak.max(peak);
            }
            if plan.side("curl") {
                theirs.saw(curl(kind.word, &server.url, &path)?);
            }
            if plan.side("bare") && kind.word == "download" {
                bare.saw(in_child("bare", &server.url, &path)?.0);
            }
        }
        row(&[
            kind.what,
            &ours.rate(SIZE),
            &theirs.rate(SIZE),
            &ours.ahead_of(theirs),
            &ours.less_work_than(theirs),
            &bare.rate(SIZE),
            &bare.less_work_than(theirs),
            &format!("{:.1} MiB", our_peak as f64 / 1024.0),
        ]);
    }
    Ok(())
}

fn in_child(word: &str, url: &str, path: &Path) -> Outcome<(Time, u64)> {
    let mut child = Command::new(std::env::current_exe()?);
    let output = child.args(["transfer", word, url]).arg(path).output()?;
    let text = String::from_utf8(output.stdout)?;
    let numbers: Vec<u64> = text.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let [passed, busy, peak] = numbers[..] else {
        return Err(String::from_utf8(output.stderr)?.into());
    };
    let time = Time { passed: Duration::from_micros(passed), busy: Duration::from_micros(busy) };
    Ok((time, peak))
}

/// What the child does. It prints how long the transfer took and how long the processor worked
/// for the process, in microseconds, and the KiB of memory at its peak.
pub(crate) async fn run_alone(word: &str, url: &str, path: &str) -> Outcome<()> {
    let took = match word {
        "bare" => bare(url).await?,
        _ => ours(word, url, path).await?,
    };
    let mut work = Duration::ZERO;
    for thread in std::fs::read_dir("/proc/self/task")? {
        work += busy(&thread?.path());
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.ok_or("no VmHWM")?.trim().trim_end_matches(" kB");
    println!("{} {} {peak}", took.passed.as_micros(), work.as_micros());
    Ok(())
}

async fn ours(word: &str, url: &str, path: &str) -> Outcome<Time> {
    let files = our_client(url)?.sandbox("sb-file".parse::<SandboxId>()?).files();
    let clock = Clock::start();
    match word {
        "download" => {
            let mut download = files.download("/f").await?;
            let mut bytes = 0;
            while let Some(piece) = download.next().await {
                bytes += piece?.len();
            }
            assert_eq!(bytes, SIZE);
        }
        "download_to" => {
            assert_eq!(files.download_to("/f", path).await?, SIZE as u64);
        }
        _ => {
            for number in 0..FILES {
                files.write(format!("/{number}"), Upload::file(path)).await?;
            }
        }
    }
    Ok(clock.stop())
}

async fn bare(url: &str) -> Outcome<Time> {
    let http = reqwest::Client::builder().no_proxy().build()?;
    let clock = Clock::start();
    let request = http.get(format!("{url}/v1/sandboxes/sb-file/files?path=/f"));
    let mut body = request.send().await?.bytes_stream();
    let mut bytes = 0;
    while let Some(chunk) = body.next().await {
        bytes += chunk?.len();
    }
    assert_eq!(bytes, SIZE);
    Ok(clock.stop())
}

/// The time as curl measures it, without the start of its process; the work is all its own.
fn curl(word: &str, url: &str, path: &Path) -> Outcome<Time> {
    let at = |name: &str| format!("{url}/v1/sandboxes/sb-file/files?path=/{name}");
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--http1.1", "-w", "%{time_total}\n"]);
    match word {
        "download" => drop(curl.args(["-o", "/dev/null", &at("f")])),
        "download_to" => drop(curl.arg("-o").arg(path).arg(at("f"))),
        _ => {
            // Waiting for leave to send would be counted.
            curl.args(["-H", "Expect:"]);
            for number in 0..FILES {
                curl.arg("-T").arg(path).arg(at(&number.to_string()));
            }
        }
    }
    let mut curl = curl.stdout(Stdio::piped()).spawn()?;
    let mut told = String::new();
    curl.stdout.take().ok_or("no output")?.read_to_string(&mut told)?;
    // It has closed its output, so it is at its end; it is known until it is waited for.
    let busy = busy(Path::new(&format!("/proc/{}", curl.id())));
    if !curl.wait()?.success() {
        return Err("curl failed".into());
    }
    let seconds: Result<Vec<f64>, _> = told.lines().map(str::parse).collect();
    Ok(Time { passed: Duration::from_secs_f64(seconds?.iter().sum()), busy })
}
