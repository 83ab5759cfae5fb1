//! A new engine on the directory of an old one; and engines that cannot start.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use createos_sdk::SandboxId;
use serde_json::json;

use super::rig::{KEY, Rig};
use crate::core::Tuning;
use crate::core::fake::Fake;
use crate::engine::{Engine, EngineBuilder, Machine};
use crate::error::EngineError;
use crate::runtime::Saved;

async fn start(builder: EngineBuilder) -> Result<Engine, EngineError> {
    let machine = async |_| {
        let runtime = Arc::new(Fake::new());
        Ok(Machine { runtime, rootfs: Vec::new(), desktop: Err("none".to_owned()) })
    };
    builder.start_with(Tuning::default(), machine).await
}

#[tokio::test]
async fn every_state_is_finished_or_undone() {
    let rig = Rig::new().await;
    let states = [
        "creating",
        "running",
        "pausing",
        "paused",
        "resuming",
        "forking",
        "error",
        "destroying",
        "destroyed",
        "failed",
    ];
    let mut ids = Vec::new();
    for state in states {
        let id = rig.sandbox_with(json!({"envs": {"A": "1"}})).await;
        rig.send("PUT", &format!("/v1/sandboxes/{id}/files?path=/f"), &[("x-api-key", KEY)], "x")
            .await;
        ids.push((state, id));
    }
    let orphan: SandboxId = "sb-orphan".parse().unwrap();
    let rig = rig
        .restart(|database, fake| {
            for (state, id) in &ids {
                let sql = "UPDATE sandboxes SET status = ?1 WHERE id = ?2";
                assert_eq!(database.execute(sql, [state, id.as_str()]).unwrap(), 1);
            }
            fake.disk.lock().unwrap().insert(orphan.clone(), Default::default());
        })
        .await;
    let expected = [
        ("creating", "failed", false),
        ("running", "error", true),
        ("pausing", "error", true),
        ("paused", "paused", true),
        ("resuming", "error", true),
        ("forking", "error", true),
        ("error", "error", true),
        ("destroying", "destroyed", false),
        ("destroyed", "destroyed", false),
        ("failed", "failed", false),
    ];
    for ((state, id), (before, after, kept)) in ids.iter().zip(expected) {
        assert_eq!(*state, before);
        assert_eq!(rig.status(id).await, after, "{before}");
        assert_eq!(rig.fake.file(id, "/f").is_some(), kept, "{before}");
    }
    assert!(!rig.fake.disk.lock().unwrap().contains_key(&orphan));

    let ran = &ids[1].1;
    let view = rig.get(&format!("/v1/sandboxes/{ran}")).await.data();
    assert!(view["status_reason"].as_str().unwrap().contains("the engine ended"), "{view}");
    assert_eq!(rig.call("POST", &format!("/v1/sandboxes/{ran}/resume"), None).await.status, 202);
    rig.until(ran, "running").await;
    let env = rig.exec(ran, json!({"cmd": "env"})).await.data();
    assert_eq!(env["result"]["stdout"], "A=1\n");
    // Addresses go on where the old engine stopped.
    let fresh = rig.sandbox().await;
    let fresh = rig.get(&format!("/v1/sandboxes/{fresh}")).await.data();
    assert_eq!(fresh["ip"], "10.0.0.12");
}

#[tokio::test]
async fn what_was_paused_stays_so_unless_it_was_in_memory() {
    let rig = Rig::new().await;
    let cases = [
        ("paused", "files", "paused", ""),
        ("paused", "memory", "paused", ""),
        ("paused", "frozen", "error", "paused in memory"),
        ("resuming", "files", "error", "being resumed"),
        ("resuming", "memory", "error", "being resumed"),
        ("resuming", "frozen", "error", "the engine ended"),
        ("destroying", "frozen", "destroyed", ""),
    ];
    let mut ids = Vec::new();
    for _ in cases {
        let id = rig.sandbox_with(json!({"auto_pause_after_seconds": 600})).await;
        rig.send("PUT", &format!("/v1/sandboxes/{id}/files?path=/f"), &[("x-api-key", KEY)], "x")
            .await;
        ids.push(id);
    }
    let rig = rig
        .restart(|database, _| {
            for (id, (state, saved, ..)) in ids.iter().zip(cases) {
                let sql = "UPDATE sandboxes SET status = ?1, saved = ?2 WHERE id = ?3";
                assert_eq!(database.execute(sql, [state, saved, id.as_str()]).unwrap(), 1);
            }
        })
        .await;
    for (id, (state, saved, after, reason)) in ids.iter().zip(cases) {
        let view = rig.view(id).await;
        assert_eq!(view["status"], after, "{state} {saved}");
        let told = view["status_reason"].as_str().unwrap_or_default();
        assert!(told.contains(reason) && told.is_empty() == reason.is_empty(), "{view}");
        if after == "destroyed" {
            continue;
        }
        // What was on disk is resumed from there, and what was in memory boots.
        let (way, other) = match saved {
            "frozen" => (&rig.fake.resume_error, &rig.fake.boot_error),
            _ => (&rig.fake.boot_error, &rig.fake.resume_error),
        };
        *way.lock().unwrap() = Some("must not go this way".to_owned());
        *other.lock().unwrap() = None;
        assert_eq!(rig.post(id, "resume").await.status, 202);
        rig.until(id, "running").await;
        assert_eq!(rig.fake.file(id, "/f").unwrap(), "x");
        assert_eq!(rig.view(id).await["auto_pause_after_seconds"], 600);
    }
}

#[tokio::test]
async fn a_fork_whose_copy_was_cut_off_is_made_by_resume() {
    let rig = Rig::new().await;
    let source = rig.sandbox().await;
    rig.send("PUT", &format!("/v1/sandboxes/{source}/files?path=/f"), &[("x-api-key", KEY)], "x")
        .await;
    rig.pause_as(&source, Saved::Files).await;
    *rig.fake.fork_error.lock().unwrap() = Some("cut off".to_owned());
    let fork = rig.post(&source, "fork").await.data();
    let child: SandboxId = fork["id"].as_str().unwrap().parse().unwrap();
    rig.until(&child, "error").await;
    let rig = rig
        .restart(|database, fake| {
            let sql = "UPDATE sandboxes SET status = 'forking', reason = NULL WHERE id = ?1";
            assert_eq!(database.execute(sql, [child.as_str()]).unwrap(), 1);
            *fake.fork_error.lock().unwrap() = None;
        })
        .await;
    let view = rig.view(&child).await;
    assert_eq!((&view["status"], &view["forked_from"]), (&json!("error"), &json!(source)));
    assert!(view["status_reason"].as_str().unwrap().contains("being copied"), "{view}");
    assert_eq!(rig.status(&source).await, "paused");
    rig.post(&child, "resume").await;
    rig.until(&child, "running").await;
    assert_eq!(rig.fake.file(&child, "/f").unwrap(), "x");
}

#[tokio::test]
async fn a_start_survives_files_that_cannot_be_removed() {
    let rig = Rig::new().await;
    let (creating, destroying) = (rig.sandbox().await, rig.sandbox().await);
    let rig = rig
        .restart(|database, fake| {
            let sql = "UPDATE sandboxes SET status = ?1 WHERE id = ?2";
            database.execute(sql, ["creating", creating.as_str()]).unwrap();
            database.execute(sql, ["destroying", destroying.as_str()]).unwrap();
            *fake.remove_error.lock().unwrap() = true;
        })
        .await;
    assert_eq!(rig.status(&creating).await, "failed");
    assert_eq!(rig.status(&destroying).await, "destroying");
    let rig = rig.restart(|_, fake| *fake.remove_error.lock().unwrap() = false).await;
    assert_eq!(rig.status(&destroying).await, "destroyed");
    assert!(rig.fake.disk.lock().unwrap().is_empty(), "also what the failed one left");
}

#[tokio::test]
async fn shutdown_ends_what_runs_and_keeps_what_is_known() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let addr = rig.engine.local_addr();
    let path = format!("/v1/sandboxes/{id}/exec?stream=true");
    let body = json!({"cmd": "hang"}).to_string();
    let _stream = rig.open("POST", &path, &[("x-api-key", KEY)], body).await;
    let rig = rig
        .restart(|_, fake| {
            assert!(fake.alive.lock().unwrap().is_empty());
            assert_eq!(Fake::count(&fake.killed), 1);
        })
        .await;
    assert_ne!(rig.engine.local_addr(), addr);
    assert_eq!(rig.status(&id).await, "error");
}

#[tokio::test]
async fn a_dropped_engine_ends_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(Engine::builder().data_dir(dir.path())).await.unwrap();
    let addr = engine.local_addr();
    drop(engine);
    for _ in 0..500 {
        if let Ok(next) = start(Engine::builder().data_dir(dir.path())).await {
            assert!(tokio::net::TcpStream::connect(addr).await.is_err());
            next.shutdown().await;
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the directory was never given back");
}

#[tokio::test]
async fn one_engine_per_directory_but_many_engines() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = start(Engine::builder().data_dir(one.path())).await.unwrap();
    let second = start(Engine::builder().data_dir(two.path())).await.unwrap();
    assert_ne!(first.url(), second.url());
    assert_ne!(first.api_key(), second.api_key());
    let error = start(Engine::builder().data_dir(one.path())).await.unwrap_err();
    let EngineError::AlreadyRunning { pid, .. } = &error else { panic!("{error}") };
    assert_eq!(*pid, Some(std::process::id()));
    let key = first.api_key().clone();
    first.shutdown().await;
    let again = start(Engine::builder().data_dir(one.path())).await.unwrap();
    assert_eq!(again.api_key(), &key, "the key is made once");
}

#[tokio::test]
async fn an_ephemeral_engine_leaves_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let engine = start(Engine::builder().data_dir(parent.path()).ephemeral()).await.unwrap();
    let dir = engine.data_dir().to_owned();
    assert!(dir.starts_with(parent.path()) && dir.join("state.db").exists());
    engine.shutdown().await;
    assert!(!dir.exists());
}

#[tokio::test]
async fn an_address_in_use_is_named_and_nothing_stays_behind() {
    let dir = tempfile::tempdir().unwrap();
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = taken.local_addr().unwrap();
    let error = start(Engine::builder().data_dir(dir.path()).listen(addr)).await.unwrap_err();
    assert!(matches!(error, EngineError::Listen { .. }), "{error}");
    assert!(error.to_string().contains(&addr.to_string()), "{error}");
    start(Engine::builder().data_dir(dir.path())).await.unwrap().shutdown().await;
}

#[tokio::test]
async fn broken_state_is_named() {
    let database = |content: &dyn Fn(&std::path::Path)| {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        content(&dir.path().join("state.db"));
        dir
    };
    let sql = |path: &std::path::Path, sql: &str| {
        rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap();
    };
    let refused = async |dir: &tempfile::TempDir| {
        start(Engine::builder().data_dir(dir.path())).await.unwrap_err()
    };
    let garbage =
        database(&|path| fs::write(path, "not a database, but long enough".repeat(99)).unwrap());
    let error = refused(&garbage).await;
    assert!(matches!(error, EngineError::StateCorrupt { .. }), "{error}");

    let newer = database(&|path| sql(path, "PRAGMA user_version = 99"));
    let error = refused(&newer).await;
    assert!(matches!(error, EngineError::StateTooNew { found: 99, .. }), "{error}");

    let dir = database(&|path| sql(path, "CREATE TABLE x (y)"));
    let holder = rusqlite::Connection::open(dir.path().join("state.db")).unwrap();
    holder.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").unwrap();
    let error = refused(&dir).await;
    assert!(matches!(error, EngineError::StateLocked { .. }), "{error}");
}

#[tokio::test]
async fn a_row_that_cannot_be_read_does_not_pass_as_something_else() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    rig.force(&id, "asleep");
    let reply = rig.get(&format!("/v1/sandboxes/{id}")).await;
    assert_eq!(reply.status, 500);
    assert!(reply.message().contains("damaged"), "{}", reply.message());
}

#[tokio::test]
async fn several_addresses_serve_one_engine() {
    let dir = tempfile::tempdir().unwrap();
    let any = |ip: &str| format!("{ip}:0").parse().unwrap();
    let builder = Engine::builder().data_dir(dir.path()).listen(any("127.0.0.1"));
    let engine = start(builder.listen(any("127.0.0.2"))).await.unwrap();
    assert!(engine.url().starts_with("http://127.0.0.1:"));
    let debug = format!("{engine:?}");
    assert!(!debug.contains(engine.api_key().expose()), "{debug}");
    let builder = Engine::builder().data_dir(dir.path().join("x")).listen(any("0.0.0.0"));
    let everywhere = start(builder.api_key("k")).await.unwrap();
    assert!(everywhere.url().starts_with("http://127.0.0.1:"), "{}", everywhere.url());
}
