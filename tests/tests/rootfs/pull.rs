//! Images from registries: Docker's own, and ones that misbehave.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use createos_local::images::{ImageError, Images, PullProgress};
use createos_tests::{Fixture, sh};

use crate::pack::{busybox, config, gzip, left, sandbox_of};
use crate::registry::{ANN, Act, Image, Registry, Script, digest_of, index};

fn own_platform() -> &'static str {
    if cfg!(target_arch = "x86_64") { "linux/amd64" } else { "linux/arm64" }
}

#[tokio::test]
async fn an_image_is_pulled_unpacked_and_run() {
    let fixture = Fixture::start().await;
    let (client, images) = (&fixture.client, fixture.engine.images());
    let registry = Registry::start(false).await;
    let image = Image::new();
    registry.push("team/tool", "1", &image).await;
    let reference = format!("{}/team/tool:1", registry.host);

    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let pulled = images.pull(&reference).progress(move |step| log.lock().unwrap().push(step));
    let info = pulled.await.unwrap();
    assert_eq!((&*info.name, &*info.source), ("team/tool:1", &*reference));
    assert_eq!(info.digest, Some(digest_of(&image.manifest)));
    let total = image.layers.iter().map(|layer| layer.len() as u64).sum();
    let seen = seen.lock().unwrap().clone();
    assert!(seen.contains(&PullProgress::Fetching { bytes: total, total }), "{seen:?}");
    assert_eq!(seen.last(), Some(&PullProgress::Unpacking { layer: 2, of: 2 }));

    let sandbox = sandbox_of(client, "team/tool:1").await;
    let script = "id -u; pwd; echo $PATH $LANG $STAGE; cd /opt; echo *; cd old; echo *; cat new";
    assert_eq!(sh(&sandbox, script).await, "33\n/app\n/bin C test\nold\nnew\nnew");

    // By its digest, under another name; and again by its tag, which has moved on.
    let pinned = format!("{}/team/tool@{}", registry.host, digest_of(&image.manifest));
    let info = images.pull(&pinned).name("pinned:1").await.unwrap();
    assert_eq!((&*info.name, &*info.source), ("pinned:1", &*pinned));
    let plain = busybox().file("opt/version", "2").done();
    let newer = Image::of(config(std::slice::from_ref(&plain)), vec![gzip(&plain)]);
    registry.push("team/tool", "1", &newer).await;
    let info = images.pull(&reference).await.unwrap();
    assert_eq!(info.digest, Some(digest_of(&newer.manifest)));
    assert_eq!(images.list().await.unwrap().len(), 2);
    let other = sandbox_of(client, "team/tool:1").await;
    assert_eq!(sh(&other, "cat /opt/version").await, "2");
    assert_eq!(sh(&sandbox, "cat /opt/old/new").await, "new", "it keeps what it was made from");

    let error = images.pull(&format!("{}/team/tool:2", registry.host)).await.unwrap_err();
    assert!(matches!(error, ImageError::Missing(_)), "{error}");
    let error = images.pull(&format!("{}/team/none", registry.host)).await.unwrap_err();
    assert!(matches!(error, ImageError::Missing(_)), "{error}");
    fixture.end().await;
}

#[tokio::test]
async fn the_image_for_this_machine_is_taken_from_several() {
    let fixture = Fixture::start().await;
    let images = fixture.engine.images();
    let registry = Registry::start(false).await;
    let (own, foreign) = (Image::new(), {
        let plain = busybox().file("opt/foreign", "x").done();
        let text = String::from_utf8(config(std::slice::from_ref(&plain))).unwrap();
        let text = text.replace("\"amd64\"", "\"s390x\"").replace("\"arm64\"", "\"s390x\"");
        Image::of(text.into_bytes(), vec![gzip(&plain)])
    });
    registry.push("multi", "own", &own).await;
    registry.push("multi", "foreign", &foreign).await;
    let entries = [("linux/s390x", &*foreign.manifest), (own_platform(), &*own.manifest)];
    registry.put_manifest("multi", "1", &index(&entries)).await;
    registry.put_manifest("multi", "2", &index(&entries[..1])).await;
    let of = |tag: &str| format!("{}/multi:{tag}", registry.host);

    let info = images.pull(&of("1")).await.unwrap();
    assert_eq!(info.digest, Some(digest_of(&own.manifest)));
    let info = images.pull(&of("1")).platform("linux/s390x").name("foreign").await.unwrap();
    assert_eq!(info.digest, Some(digest_of(&foreign.manifest)));
    let error = images.pull(&of("2")).await.unwrap_err();
    assert!(error.to_string().contains("some for: linux/s390x"), "{error}");
    // One that stands alone says for itself what it is for.
    let error = images.pull(&of("foreign")).await.unwrap_err();
    assert!(error.to_string().contains("it is for linux/s390x"), "{error}");
    let error = images.pull(&of("1")).platform("amd64").await.unwrap_err();
    assert!(matches!(error, ImageError::Unsupported(_)), "{error}");
    fixture.end().await;
}

#[tokio::test]
async fn a_private_image_needs_its_account() {
    let fixture = Fixture::start().await;
    let images = fixture.engine.images();
    let registry = Registry::start(true).await;
    registry.push("private", "1", &Image::new()).await;
    let reference = format!("{}/private:1", registry.host);
    for pull in [images.pull(&reference), images.pull(&reference).credentials("ann", "wrong")] {
        let error = pull.await.unwrap_err();
        assert!(matches!(error, ImageError::Denied { .. }), "{error}");
        assert!(!format!("{error:?}").contains("wrong"), "{error:?}");
    }
    let pull = images.pull(&reference).credentials("ann", "hunter2");
    assert!(!format!("{pull:?}").contains("hunter2"), "{pull:?}");
    pull.await.unwrap();
    fixture.end().await;
}

/// Serves an image to whoever has a token, which it gives to whoever has the account.
async fn token_registry(image: &Image) -> Script {
    let manifest = image.manifest.clone();
    let blobs: Vec<_> = image.layers.iter().chain([&image.config]).cloned().collect();
    let spent = AtomicUsize::new(0);
    Script::start(move |host, head| {
        let path = head.split(' ').nth(1).unwrap();
        let ask = format!(
            "WWW-Authenticate: Bearer realm=\"http://{host}/token\",service=\"r, \\\"s\\\"\",\
             scope=\"repository:t:pull\"\r\n"
        );
        let said = |text: &str| {
            format!("{{\"errors\":[{{\"code\":\"X\",\"message\":\"{text}\"}}]}}").into_bytes()
        };
        if path.starts_with("/token") {
            return match head.contains(&format!("Basic {ANN}")) {
                _ if !path.contains("service=r%2C+%22s%22") => Act::Say(400, String::new(), vec![]),
                true => Act::Say(200, String::new(), b"{\"access_token\":\"t0ken\"}".to_vec()),
                false => Act::Say(401, String::new(), said("who\\u001b[31m are you")),
            };
        }
        if !head.to_lowercase().contains("authorization: bearer t0ken\r\n") {
            return Act::Say(401, ask, said("a token is needed"));
        }
        // Every token is good for three requests.
        if spent.fetch_add(1, Ordering::Relaxed) % 4 == 3 {
            return Act::Say(401, ask, said("expired"));
        }
        let found = blobs.iter().find(|blob| path.ends_with(&digest_of(blob)));
        match found {
            Some(blob) => Act::Say(200, String::new(), blob.clone()),
            None if path.contains("/manifests/") => Act::Say(200, String::new(), manifest.clone()),
            None => Act::Say(404, String::new(), vec![]),
        }
    })
    .await
}

#[tokio::test]
async fn tokens_are_fetched_and_renewed() {
    let data = tempfile::tempdir().unwrap();
    let images = Images::of(data.path());
    let registry = token_registry(&Image::new()).await;
    let reference = format!("{}/t:1", registry.host);
    images.pull(&reference).credentials("ann", "hunter2").await.unwrap();
    assert!(registry.count("/token") >= 2, "one ran out");
    let error = images.pull(&reference).await.unwrap_err().to_string();
    assert!(error.contains("refuses") && error.contains("who[31m are you"), "{error:?}");
    assert!(!error.contains('\u{1b}'), "{error:?}");
}

/// Serves an image with one request of it changed; `act` gets the layer and how often it
/// was asked for.
async fn changed(act: impl Fn(&[u8], usize) -> Option<Act> + Send + Sync + 'static) -> Script {
    let Image { config, layers, manifest } = Image::new();
    let times = AtomicUsize::new(0);
    Script::start(move |_, head| {
        let path = head.split(' ').nth(1).unwrap();
        let say = |body: &[u8]| Act::Say(200, String::new(), body.to_vec());
        if path.ends_with(&digest_of(&layers[0])) {
            let acted = act(&layers[0], times.fetch_add(1, Ordering::Relaxed));
            return acted.unwrap_or_else(|| say(&layers[0]));
        }
        let other = [&config, &layers[1]].into_iter().find(|it| path.ends_with(&digest_of(it)));
        say(other.unwrap_or(&manifest))
    })
    .await
}

async fn pull_fails(data: &Path, registry: &Script) -> ImageError {
    let images = Images::of(data);
    let reference = format!("{}/x:1", registry.host);
    let pull = images.pull(&reference).name("kept:1").stall_timeout(Duration::from_millis(500));
    pull.await.expect_err("it is broken")
}

#[tokio::test]
async fn what_goes_wrong_on_the_way_leaves_the_old_image() {
    let fixture = Fixture::start().await;
    let (client, images) = (&fixture.client, fixture.engine.images());
    let data = fixture.engine.data_dir();
    let dir = tempfile::tempdir().unwrap();
    let old = crate::pack::write(&dir, "old", &busybox().file("opt/old", "old").done());
    let old = images.import("kept:1", old).await.unwrap();

    let cut = changed(|layer, _| Some(Act::Cut(layer.to_vec(), 100))).await;
    let error = pull_fails(data, &cut).await;
    // It is gone on with from where it was, until nothing new comes.
    assert!(cut.count("range: bytes=100-") + cut.count("Range: bytes=100-") >= 1);
    assert!(matches!(error, ImageError::Registry { .. }), "{error}");

    let silent = changed(|layer, _| Some(Act::Stall(layer.to_vec(), 0))).await;
    let began = Instant::now();
    let error = pull_fails(data, &silent).await;
    assert!(matches!(error, ImageError::Registry { .. }), "{error}");
    assert!(error.to_string().contains("nothing came"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());

    let lies = changed(|layer, _| {
        let mut other = layer.to_vec();
        other[40] ^= 1;
        Some(Act::Say(200, String::new(), other))
    });
    let lies = lies.await;
    let error = pull_fails(data, &lies).await;
    assert!(matches!(error, ImageError::Damaged(_)), "{error}");
    assert!(error.to_string().contains("was asked for"), "{error}");

    let endless =
        changed(|layer, _| Some(Act::Say(200, String::new(), [layer, &[0; 100]].concat())));
    let endless = endless.await;
    let error = pull_fails(data, &endless).await;
    assert!(error.to_string().contains("longer than its manifest says"), "{error}");

    let gone = changed(|_, _| Some(Act::Say(404, String::new(), vec![]))).await;
    assert!(matches!(pull_fails(data, &gone).await, ImageError::Missing(_)));

    let away = "Location: http://192.0.2.1/layer\r\n".to_owned();
    let away = changed(move |_, _| Some(Act::Say(307, away.clone(), vec![]))).await;
    let error = pull_fails(data, &away).await;
    assert!(error.to_string().contains("unencrypted"), "{error}");

    for (manifest, why) in [
        (&b"{}"[..], "no container image"),
        (b"<html>", "cannot be read"),
        (br#"{"config":{"digest":"../../etc/passwd"},"layers":[]}"#, "no sha256 digest"),
        (br#"{"manifests":[{"digest":"sha256:0"}]}"#, "no sha256 digest"),
        (&[b' '; 5 << 20], "more than"),
    ] {
        let manifest = manifest.to_vec();
        let odd = Script::start(move |_, _| Act::Say(200, String::new(), manifest.clone())).await;
        let error = pull_fails(data, &odd).await;
        assert!(error.to_string().contains(why), "{why}: {error}");
    }
    let down = { Script::start(|_, _| Act::Cut(vec![], 0)).await.host.clone() };
    let error = images.pull(&format!("{down}/x")).await.unwrap_err();
    assert!(error.to_string().contains("cannot be reached"), "{error}");

    assert_eq!(images.list().await.unwrap(), [old]);
    let sandbox = sandbox_of(client, "kept:1").await;
    assert_eq!(sh(&sandbox, "cat /opt/old").await, "old");
    sandbox.destroy().await.unwrap();
    assert_eq!(left(data), (vec!["kept:1".to_owned()], 1));

    // What breaks off now and then, and begins anew or goes on, arrives.
    let shaky = changed(|layer, times| match times {
        0 => Some(Act::Cut(layer.to_vec(), layer.len() / 2)),
        1 => Some(Act::Say(503, String::new(), vec![])),
        2 => Some(Act::Stall(layer.to_vec(), layer.len() / 4)),
        _ => None,
    });
    let shaky = shaky.await;
    let reference = format!("{}/x:1", shaky.host);
    let pull = images.pull(&reference).name("kept:1").stall_timeout(Duration::from_millis(500));
    pull.await.unwrap();
    let sandbox = sandbox_of(client, "kept:1").await;
    assert_eq!(sh(&sandbox, "cat /opt/old/new").await, "new");
    fixture.end().await;
}

#[tokio::test]
async fn a_pull_that_is_dropped_leaves_nothing() {
    let data = tempfile::tempdir().unwrap();
    let images = Images::of(data.path());
    let slow = changed(|layer, _| Some(Act::Stall(layer.to_vec(), 100))).await;
    let pull = images.pull(&format!("{}/x:1", slow.host)).into_future();
    let waited = tokio::time::timeout(Duration::from_millis(700), pull).await;
    assert!(waited.is_err(), "it is under way");
    assert_eq!(left(data.path()), (vec![], 0));

    // One whose program is killed: the next one clears up.
    let stray = data.path().join("layers/.new-killed/root/upper");
    fs::create_dir_all(&stray).unwrap();
    images
        .pull(&format!("{}/x:1", slow.host))
        .stall_timeout(Duration::from_millis(100))
        .await
        .unwrap_err();
    assert_eq!(left(data.path()), (vec![], 0));
}
