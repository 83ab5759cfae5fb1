use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::*;
use crate::core::State;

fn new(id: &str, name: &str) -> NewSandbox {
    NewSandbox {
        id: id.parse().unwrap(),
        name: name.to_owned(),
        shape: "s-1vcpu-1gb".to_owned(),
        rootfs: "devbox:1".to_owned(),
        vcpu: 1,
        mem_mib: 1024,
        disk_mib: 10_240,
        cpu_percent: 100,
        max_processes: 4096,
        region: "local".to_owned(),
        envs: BTreeMap::from([("A".to_owned(), "hunter2".into())]),
        egress: Vec::new(),
        ssh_pubkeys: vec!["ssh-ed25519 x".to_owned()],
        ingress_enabled: false,
        nesting: true,
        created_at: SystemTime::now(),
        auto_pause_seconds: Some(600),
        forked_from: None,
        image: Default::default(),
    }
}

async fn open() -> (Store, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (Store::open(&dir.path().join("state.db")).await.unwrap(), dir)
}

async fn end(store: &Store, id: &str, state: State) {
    let id = id.parse().unwrap();
    store.change(&id, &State::ALL, state, Change::Plain).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_written_is_read_back_after_a_restart() {
    let (store, dir) = open().await;
    let written = store.insert(new("sb-1", "one")).await.unwrap();
    let booted = Change::Booted(Duration::from_micros(1234));
    store.change(written.id(), &[State::Creating], State::Running, booted).await.unwrap().unwrap();
    store.close().await;
    assert!(matches!(store.counts().await, Err(StoreError::Closed)));

    let path = dir.path().join("state.db");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let store = Store::open(&path).await.unwrap();
    let read = store.get(written.id()).await.unwrap().unwrap();
    assert_eq!(read.state, State::Running);
    assert_eq!(read.spawn, Some(Duration::from_micros(1234)));
    assert_eq!(read.spec.envs["A"].expose(), "hunter2");
    assert_eq!(read.spec.ssh_pubkeys, written.spec.ssh_pubkeys);
    assert_eq!((read.ip, read.spec.created_at), (written.ip, written.spec.created_at));
    assert!(read.running_at.is_some() && read.ended_at.is_none() && read.spec.nesting);
    assert!(!format!("{read:?}").contains("hunter2"));
}

#[tokio::test]
async fn writes_are_durable_and_the_log_is_ahead() {
    let (store, _dir) = open().await;
    let pragma = async |name: &'static str| {
        let read = move |connection: &mut Connection| {
            connection
                .query_row(&format!("PRAGMA {name}"), [], |row| {
                    row.get::<_, rusqlite::types::Value>(0)
                })
                .map_err(StoreError::from)
        };
        store.call(read).await.unwrap()
    };
    assert_eq!(pragma("journal_mode").await, "wal".to_owned().into());
    assert_eq!(pragma("synchronous").await, 2.into(), "FULL");
    let newest = i64::try_from(migrations::MIGRATIONS.len()).unwrap();
    assert_eq!(pragma("user_version").await, newest.into());
}

#[tokio::test]
async fn a_change_happens_only_from_the_states_it_names() {
    let (store, _dir) = open().await;
    let id = store.insert(new("sb-1", "one")).await.unwrap().id().clone();
    let from = [State::Paused, State::Error];
    assert!(store.change(&id, &from, State::Resuming, Change::Plain).await.unwrap().is_none());
    assert_eq!(store.get(&id).await.unwrap().unwrap().state, State::Creating);
    let unknown = "sb-2".parse().unwrap();
    let changed = store.change(&unknown, &State::ALL, State::Error, Change::Plain).await;
    assert!(changed.unwrap().is_none());

    let because = Change::Because("why".to_owned());
    let row = store.change(&id, &[State::Creating], State::Failed, because).await.unwrap().unwrap();
    assert_eq!((row.state, row.reason.as_deref()), (State::Failed, Some("why")));
    assert!(row.ended_at.is_some() && row.running_at.is_none());
}

#[tokio::test]
async fn names_and_addresses_are_unique_among_the_living() {
    let (store, _dir) = open().await;
    let first = store.insert(new("sb-1", "one")).await.unwrap();
    let error = store.insert(new("sb-2", "one")).await.unwrap_err();
    assert!(matches!(error, InsertError::NameTaken), "{error}");
    let second = store.insert(new("sb-2", "two")).await.unwrap();
    assert_ne!(first.ip, second.ip);
    assert_eq!(store.by_ip(first.ip).await.unwrap().unwrap().id(), first.id());

    end(&store, "sb-1", State::Destroyed).await;
    assert!(store.by_ip(first.ip).await.unwrap().is_none());
    let again = store.insert(new("sb-3", "one")).await.unwrap();
    assert!(![first.ip, second.ip].contains(&again.ip), "a freed address rests");
}

#[tokio::test]
async fn every_address_is_used_before_there_is_none() {
    let (store, dir) = open().await;
    store.insert(new("sb-first", "first")).await.unwrap();
    // Everything but 10.0.255.254 is taken.
    let database = rusqlite::Connection::open(dir.path().join("state.db")).unwrap();
    let copies: Vec<&str> = record::COLUMNS
        .split(", ")
        .map(|column| match column {
            "id" => "'sb-' || i",
            "name" => "'n-' || i",
            "ip" => "'10.0.' || (i / 256) || '.' || (i % 256)",
            other => other,
        })
        .collect();
    database
        .execute_batch(&format!(
            "WITH RECURSIVE n (i) AS (SELECT 3 UNION ALL SELECT i + 1 FROM n WHERE i < 65533)
             INSERT INTO sandboxes ({}) SELECT {} FROM sandboxes, n",
            record::COLUMNS,
            copies.join(", "),
        ))
        .unwrap();
    let last = store.insert(new("sb-last", "last")).await.unwrap();
    assert_eq!(last.ip.to_string(), "10.0.255.254");
    let error = store.insert(new("sb-none", "none")).await.unwrap_err();
    assert!(matches!(error, InsertError::NoAddress), "{error}");

    end(&store, "sb-7", State::Destroyed).await;
    let reused = store.insert(new("sb-next", "next")).await.unwrap();
    assert_eq!(reused.ip.to_string(), "10.0.0.7");
    let all = store.list(None, u32::MAX, 0).await.unwrap();
    let living = all.rows.iter().filter(|row| !row.state.is_terminal());
    let ips: Vec<_> = living.map(|row| row.ip).collect();
    assert_eq!(ips.iter().collect::<HashSet<_>>().len(), ips.len());
}

#[tokio::test]
async fn only_what_ended_long_ago_is_forgotten() {
    let (store, _dir) = open().await;
    for (id, state) in
        [("sb-1", State::Running), ("sb-2", State::Destroyed), ("sb-3", State::Failed)]
    {
        store.insert(new(id, id)).await.unwrap();
        end(&store, id, state).await;
    }
    let before = SystemTime::now() - Duration::from_secs(60);
    assert_eq!(store.forget_ended(before).await.unwrap(), 0);
    let after = SystemTime::now() + Duration::from_secs(60);
    assert_eq!(store.forget_ended(after).await.unwrap(), 2);
    assert_eq!(store.list(None, 50, 0).await.unwrap().total, 1);
}

#[tokio::test]
async fn a_dropped_call_still_happens() {
    let (store, _dir) = open().await;
    drop(store.insert(new("sb-never", "never")));
    let mut sent = Box::pin(store.insert(new("sb-1", "one")));
    assert!(futures::poll!(&mut sent).is_pending());
    drop(sent);
    assert_eq!(store.list(None, 50, 0).await.unwrap().total, 1);
}

#[tokio::test]
async fn a_token_goes_with_its_sandbox() {
    let (store, _dir) = open().await;
    let id = store.insert(new("sb-1", "one")).await.unwrap().id().clone();
    let digest = || Digest([7; 32]);
    let made = store.insert_token(&id, digest(), "hint".to_owned()).await.unwrap();
    assert_eq!(made.unwrap().hint, "hint");
    assert_eq!(store.token_owner(digest()).await.unwrap(), Some(id.clone()));
    end(&store, "sb-1", State::Destroyed).await;
    assert_eq!(store.forget_ended(SystemTime::now()).await.unwrap(), 1);
    assert_eq!(store.token_owner(digest()).await.unwrap(), None);
    assert!(store.token(&id).await.unwrap().is_none());
}
