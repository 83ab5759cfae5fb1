//! A person's browser looks at a desktop, and uses it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use createos_sdk::computer::Computer;
use createos_tests::{Fixture, until};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// Far more than anything takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(90);

/// A browser with one page.
struct Browser {
    _process: Child,
    page: WebSocketStream<TcpStream>,
    last: u64,
}

impl Browser {
    async fn open(profile: &Path, url: &str) -> Self {
        let process = Command::new("chromium")
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"])
            .args(["--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage"])
            .args(["--disable-component-update", "--disable-sync", "--no-proxy-server"])
            .args(["--remote-debugging-port=0", "--window-size=1000,700"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(url)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("chromium starts (apt install chromium)");
        let page = timeout(PATIENCE, page(profile, url)).await.expect("the browser's page");
        Self { _process: process, page, last: 0 }
    }

    /// Asks the page something over the protocol of its developer tools.
    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let request = json!({"id": self.last, "method": method, "params": params}).to_string();
        self.page.send(Message::text(request)).await.expect("ask the page");
        loop {
            let answer = timeout(PATIENCE, self.page.next()).await.expect("an answer");
            let text = answer.expect("the page is there").expect("a message").into_text();
            let answer: Value = serde_json::from_str(&text.expect("text")).expect("JSON");
            if answer["id"] == self.last {
                return answer["result"].clone();
            }
        }
    }

    async fn evaluate(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true});
        self.call("Runtime.evaluate", params).await["result"]["value"].clone()
    }

    /// Waits until an expression has this value on the page.
    async fn until(&mut self, expression: &str, wanted: Value) {
        let mut seen = Value::Null;
        let look = async {
            loop {
                seen = self.evaluate(expression).await;
                if seen == wanted {
                    return;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        if timeout(PATIENCE, look).await.is_err() {
            let state = self.evaluate("document.documentElement.outerHTML.slice(0, 2000)").await;
            panic!("{expression} is {seen}, not {wanted}: {state}");
        }
    }
}

/// Connects to the page's developer tools, once the browser has it.
async fn page(profile: &Path, url: &str) -> WebSocketStream<TcpStream> {
    loop {
        if let Some(found) = find_page(profile, url).await {
            return found;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn find_page(profile: &Path, url: &str) -> Option<WebSocketStream<TcpStream>> {
    let port = std::fs::read_to_string(profile.join("DevToolsActivePort")).ok()?;
    let address = format!("127.0.0.1:{}", port.lines().next()?);
    let mut stream = TcpStream::connect(&address).await.ok()?;
    let request = format!("GET /json/list HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    // It keeps the connection open: the list is complete when it can be read.
    let mut answer = Vec::new();
    let pages: Vec<Value> = loop {
        if stream.read_buf(&mut answer).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&answer);
        let body = text.split_once("\r\n\r\n").map(|(_, body)| serde_json::from_str(body));
        if let Some(Ok(pages)) = body {
            break pages;
        }
    };
    let page = pages.into_iter().find(|page| page["url"] == url)?;
    let tools = page["webSocketDebuggerUrl"].as_str()?;
    let stream = TcpStream::connect(&address).await.ok()?;
    tokio_tungstenite::client_async(tools, stream).await.ok().map(|(socket, _)| socket)
}

async fn link(computer: &Computer) -> String {
    let screen = computer.screens().await.expect("screens").remove(0);
    let screen = computer.screen(screen.screen_id);
    let connecting = async {
        loop {
            match screen.connect().await {
                Ok(connection) => return connection.url.expect("a link").expose().to_owned(),
                Err(error) if error.message().contains("desktop_unavailable") => {
                    sleep(Duration::from_millis(50)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    timeout(PATIENCE, connecting).await.expect("the page comes up")
}

#[tokio::test]
async fn a_person_looks_and_types_and_is_not_let_in_twice() {
    let fixture = Fixture::start().await;
    let creating = fixture.client.create_sandbox("s-1vcpu-1gb").rootfs("desktop:1").ingress(true);
    let sandbox = creating.await.expect("a sandbox with a desktop");
    let computer = sandbox.computer();
    computer.wait_until_ready().await.expect("the desktop comes up");
    computer.launch("xterm").await.expect("launch");
    let windows = async {
        loop {
            if let Some(window) = computer.windows().await.expect("windows").pop() {
                return computer.window(window.id);
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    let window = timeout(PATIENCE, windows).await.expect("a window");
    window.focus().await.expect("focus");

    let profile = tempfile::tempdir().expect("a directory");
    let url = link(&computer).await;
    let mut browser = Browser::open(profile.path(), &url).await;
    let connected = "document.documentElement.classList.contains('noVNC_connected')";
    browser.until(connected, true.into()).await;
    let size = "(c => c && [c.width, c.height])(document.querySelector('#noVNC_container canvas'))";
    browser.until(size, json!([1280, 800])).await;

    // What is typed there arrives inside.
    browser.evaluate("document.querySelector('#noVNC_container canvas').focus()").await;
    for key in "touch /tmp/seen".chars() {
        let (key, code) = (key.to_string(), u32::from(key.to_ascii_uppercase()));
        for kind in ["keyDown", "keyUp"] {
            let event =
                json!({"type": kind, "key": key, "text": key, "windowsVirtualKeyCode": code});
            browser.call("Input.dispatchKeyEvent", event).await;
        }
    }
    for kind in ["keyDown", "keyUp"] {
        let event =
            json!({"type": kind, "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13});
        browser.call("Input.dispatchKeyEvent", event).await;
    }
    until(&sandbox, "test -e /tmp/seen && echo seen", "seen\n").await;

    // Another link: who is there stays, and the old one lets nobody in.
    let fresh = link(&computer).await;
    assert_ne!(fresh, url);
    browser.until(connected, true.into()).await;
    let profile = tempfile::tempdir().expect("a directory");
    let mut late = Browser::open(profile.path(), &url).await;
    let refused = "document.querySelector('#noVNC_status').textContent";
    let said = "document.querySelector('#noVNC_status').classList.contains('noVNC_open')";
    late.until(said, true.into()).await;
    assert_eq!(late.evaluate(connected).await, false, "{}", late.evaluate(refused).await);
    assert_eq!(browser.evaluate(connected).await, true);
    fixture.end().await;
}
