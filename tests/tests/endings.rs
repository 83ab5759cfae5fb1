//! Guards and waits of the SDK on what runs in real sandboxes.

use std::time::Duration;

use createos_sdk::ErrorKind;
use createos_tests::Fixture;
use tokio::time::{sleep, timeout};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_server_inside_is_waited_for_and_ends_with_its_guard() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let port = sandbox.tunnel(8000);
    let nobody = port.wait_until_open().budget(Duration::from_millis(200)).await.unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::Timeout);
    assert!(nobody.message().contains("nothing listens"), "{nobody}");

    let serve = ["-m", "http.server", "--bind", "127.0.0.1", "8000"];
    let server = sandbox.spawn("python3").args(serve).guarded().await.unwrap();
    port.wait_until_open().budget(SOON).await.unwrap();
    assert_eq!(sandbox.http(8000).get("/").await.unwrap().status(), 200);
    drop(server);
    let ended = async {
        while !sandbox
            .processes()
            .await
            .unwrap()
            .iter()
            .all(|process| process.view().is_some_and(|view| view.tree_exited))
        {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, ended).await.unwrap();
    let closed = port.wait_until_open().budget(Duration::from_millis(200)).await.unwrap_err();
    assert_eq!(closed.kind(), ErrorKind::Timeout);
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ends_of_a_long_file_come_out_exactly() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let make = "{ printf 'first\\377'; head -c 100000000 /dev/zero; printf 'last'; } >/tmp/long";
    sandbox.command("sh").args(["-c", make]).await.unwrap().ensure_success().unwrap();
    let excerpt = sandbox.files().read_excerpt("/tmp/long", 6, 4).await.unwrap();
    assert_eq!(excerpt.bytes, &b"first\xfflast"[..]);
    let gap = excerpt.gap.unwrap();
    assert_eq!((gap.at, gap.bytes), (6, 100_000_000));
    let text = "first\u{fffd}\n[… 100000000 bytes left out …]\nlast\n[… 1 byte not in UTF-8 …]\n";
    assert_eq!(excerpt.marked(), text);
    fixture.end().await;
}
