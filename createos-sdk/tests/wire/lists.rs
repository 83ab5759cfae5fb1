//! Walking through pages.

use std::time::Duration;

use createos_sdk::wire::{MountStatus, SandboxStatus};
use createos_sdk::{ErrorKind, Result};
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

use super::{answering, client, sandbox, success};

fn row(number: u64) -> Value {
    json!({"id": format!("sb-{number}"), "status": "running"})
}

fn asked(request: &Request) -> (u64, u64) {
    let number = |name: &str| {
        let pair = request.url.query_pairs().find(|pair| pair.0 == name).unwrap();
        pair.1.parse::<u64>().unwrap()
    };
    (number("limit"), number("offset"))
}

/// A server with so many sandboxes that gives at most `clamp` at a time.
async fn with_rows(total: u64, clamp: u64) -> MockServer {
    let server = MockServer::start().await;
    let pages = move |request: &Request| {
        let (limit, offset) = asked(request);
        let limit = limit.min(clamp);
        let rows: Vec<_> = (offset..total.min(offset + limit)).map(row).collect();
        let count = rows.len();
        success(json!({"data": rows, "pagination":
            {"total": total, "limit": limit, "offset": offset, "count": count}}))
    };
    Mock::given(any()).respond_with(pages).mount(&server).await;
    server
}

async fn offsets(server: &MockServer) -> Vec<u64> {
    server.received_requests().await.unwrap().iter().map(|request| asked(request).1).collect()
}

#[tokio::test]
async fn every_row_once_and_in_order() -> Result<()> {
    for (total, page, clamp) in [(0, 500, 500), (1, 500, 500), (7, 3, 500), (9, 3, 2), (6, 3, 500)]
    {
        let server = with_rows(total, clamp).await;
        let all = client(&server.uri()).sandboxes().page_size(page).await?;
        let ids: Vec<_> = all.iter().map(|sandbox| sandbox.id().to_string()).collect();
        let expected: Vec<_> = (0..total).map(|number| format!("sb-{number}")).collect();
        assert_eq!(ids, expected);
        assert!(all.iter().all(|each| each.view().unwrap().status == SandboxStatus::Running));
    }
    Ok(())
}

#[tokio::test]
async fn the_next_page_comes_while_this_one_is_used_and_no_sooner() -> Result<()> {
    let server = with_rows(9, 500).await;
    let mut stream = client(&server.uri()).sandboxes().page_size(3).stream();
    assert!(offsets(&server).await.is_empty(), "nothing before the first poll");
    stream.try_next().await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(offsets(&server).await, [0, 3], "one page ahead, not two");
    for _ in 0..3 {
        stream.try_next().await?;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(offsets(&server).await, [0, 3, 6]);
    assert_eq!(stream.count().await, 5);
    Ok(())
}

#[tokio::test]
async fn a_single_page_says_where_it_lies() -> Result<()> {
    let server = with_rows(9, 500).await;
    let page = client(&server.uri()).sandboxes().page(4, 7).await?;
    let pagination = page.pagination.unwrap();
    assert_eq!((page.data.len(), pagination.total, pagination.offset), (2, 9, 7));
    Ok(())
}

#[tokio::test]
async fn older_shapes_of_lists() -> Result<()> {
    let shape = json!({"id": "s", "vcpu": 1, "mem_mib": 256, "default_disk_mib": 10240});
    for data in [json!([shape]), json!({"shapes": [shape]}), json!({"data": [shape]})] {
        let server = answering(success(data)).await;
        assert_eq!(client(&server.uri()).shapes().await?[0].mem_mib, 256);
    }
    let disk = json!({"disk_id": "disk_1", "name": "d", "kind": "s3", "mount_path": "/m",
        "config": {"bucket": "b", "endpoint": "https://s3"}, "mount_status": "mounted"});
    let server = answering(success(json!({"disks": [disk]}))).await;
    assert_eq!(sandbox(&server.uri()).disks().await?[0].mount_status, MountStatus::Mounted);
    Ok(())
}

#[tokio::test]
async fn a_server_that_lies_about_its_total_is_an_error() {
    type Lie = fn(u64, u64) -> Value;
    let lies: [(&str, Lie); 4] = [
        ("no rows at 2", |_, offset| {
            let rows = if offset == 0 { vec![row(0), row(1)] } else { vec![] };
            json!({"data": rows, "pagination": {"total": 5, "limit": 2, "offset": offset}})
        }),
        (
            "only 1",
            |_, offset| json!({"data": [row(0), row(1)], "pagination": {"total": 1, "offset": offset}}),
        ),
        ("from 0", |_, _| json!({"data": [row(0), row(1)], "pagination": {"total": 5}})),
        ("whole list", |_, offset| match offset {
            0 => json!({"data": [row(0), row(1)], "pagination": {"total": 5}}),
            _ => json!([row(2)]),
        }),
    ];
    for (part, lie) in lies {
        let server = MockServer::start().await;
        let respond = move |request: &Request| {
            let (limit, offset) = asked(request);
            success(lie(limit, offset))
        };
        Mock::given(any()).respond_with(respond).mount(&server).await;
        let error = client(&server.uri()).sandboxes().page_size(2).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{part}");
        assert!(error.message().contains(part), "{part}: {error}");
        assert_eq!(error.operation(), Some("sandbox.list"));
    }
}

#[tokio::test]
async fn a_page_without_a_list_is_an_error() {
    for data in [json!({}), json!({"rows": []}), json!(null), json!("x")] {
        let server = answering(success(data.clone())).await;
        let error = client(&server.uri()).sandboxes().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{data}");
    }
}

#[tokio::test]
async fn a_failed_page_ends_the_stream_after_its_error() {
    let server = MockServer::start().await;
    let respond = |request: &Request| match asked(request).1 {
        0 => success(json!({"data": [row(0)], "pagination": {"total": 2, "limit": 1}})),
        _ => ResponseTemplate::new(403),
    };
    Mock::given(any()).respond_with(respond).mount(&server).await;
    let mut stream = client(&server.uri()).sandboxes().page_size(1).stream();
    assert!(stream.next().await.unwrap().is_ok());
    let error = stream.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(stream.next().await.is_none());
}
