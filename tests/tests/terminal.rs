//! Interactive shells on the real engine, over both kinds of connection.

use std::time::Duration;

use createos_sdk::{Sandbox, Terminal};
use createos_tests::{Fixture, sh, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// Longest that something quick may take on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// A terminal, and what it has shown and nobody looked at yet.
struct Screen {
    terminal: Terminal,
    shown: Vec<u8>,
}

impl Screen {
    async fn open(sandbox: &Sandbox, over_web_socket: bool) -> Self {
        let opening = sandbox.terminal().size(40, 120);
        let terminal = match over_web_socket {
            false => opening.open().await,
            true => opening.open_web_socket().await,
        };
        let mut screen = Self { terminal: terminal.expect("a terminal"), shown: Vec::new() };
        // A prompt that cannot be taken for anything else.
        screen.run("PS1='@'; PS2=; echo rea''dy", "ready\r\n").await;
        screen
    }

    async fn keys(&mut self, keys: &str) {
        self.terminal.write_all(keys.as_bytes()).await.expect("typed");
    }

    /// Types a line and waits for what it is to show.
    async fn run(&mut self, line: &str, wanted: &str) -> String {
        self.keys(&format!("{line}\r")).await;
        self.expect(wanted).await
    }

    /// Reads until this has been shown; everything up to it.
    async fn expect(&mut self, wanted: &str) -> String {
        let reading = async {
            loop {
                let found = self.shown.windows(wanted.len()).position(|at| at == wanted.as_bytes());
                if let Some(at) = found {
                    let rest = self.shown.split_off(at + wanted.len());
                    return std::mem::replace(&mut self.shown, rest);
                }
                let count = self.terminal.read_buf(&mut self.shown).await.expect("output");
                assert_ne!(count, 0, "it ended");
            }
        };
        let read = timeout(SOON, reading).await;
        match read {
            Ok(read) => String::from_utf8_lossy(&read).into_owned(),
            Err(_) => panic!("{wanted:?} is not in {:?}", String::from_utf8_lossy(&self.shown)),
        }
    }

    /// Everything up to the end.
    async fn rest(mut self) -> String {
        let reading = self.terminal.read_to_end(&mut self.shown);
        timeout(SOON, reading).await.expect("in time").expect("an end");
        String::from_utf8_lossy(&self.shown).into_owned()
    }
}

#[tokio::test]
async fn a_login_shell_of_root_in_its_home() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    for over_web_socket in [false, true] {
        let mut screen = Screen::open(&sandbox, over_web_socket).await;
        screen.run("shopt -q login_shell && echo log''in $(id -u) $PWD", "login 0 /root\r\n").await;
        screen.run("echo $TERM-$STAGE $(tty)", "xterm-256color-test /dev/pts/0\r\n").await;
        screen.run("stty size", "40 120\r\n").await;
        screen.run("ps -o tty= -p $$; echo over", "pts/0\r\nover\r\n").await;
        screen.keys("exit\r").await;
        let last = screen.rest().await;
        assert!(last.contains("logout") || last.contains("exit"), "{last:?}");
        until(&sandbox, "ls /dev/pts; ps -eo stat | grep -c Z", "ptmx\n0\n").await;
    }
    fixture.end().await;
}

#[tokio::test]
async fn the_first_size_is_there_before_the_first_output() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    sh(&sandbox, "echo 'stty size >>/tmp/sizes' >/root/.bash_profile").await;
    for _ in 0..10 {
        let screen = Screen::open(&sandbox, false).await;
        drop(screen);
    }
    assert_eq!(sh(&sandbox, "sort -u /tmp/sizes").await, "40 120\n");
    fixture.end().await;
}

#[tokio::test]
async fn the_size_follows() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let mut screen = Screen::open(&sandbox, false).await;
    let program =
        "trap 'echo changed $(stty size)' WINCH; echo waiting; while :; do sleep 0.05; done";
    sandbox.files().write("/tmp/program", program).await.expect("write");
    screen.run("bash /tmp/program", "waiting\r\n").await;
    screen.terminal.resize(10, 33).expect("resize");
    screen.expect("changed 10 33\r\n").await;
    screen.keys("\u{3}").await;
    screen.run("stty size", "10 33\r\n").await;
    fixture.end().await;
}

#[tokio::test]
async fn jobs_stop_go_on_and_end_by_keys() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    for over_web_socket in [false, true] {
        let mut screen = Screen::open(&sandbox, over_web_socket).await;
        screen.keys("sleep 7001\r").await;
        until(&sandbox, "pgrep -c -x sleep", "1\n").await;
        screen.keys("\u{1a}").await;
        screen.expect("Stopped").await;
        until(&sandbox, "ps -C sleep -o stat= | cut -c1", "T\n").await;
        screen.run("jobs", "Stopped                 sleep 7001\r\n").await;
        screen.run("bg", "sleep 7001 &\r\n").await;
        until(&sandbox, "ps -C sleep -o stat= | cut -c1", "S\n").await;
        screen.run("fg", "sleep 7001\r\n").await;
        until(&sandbox, "ps -C sleep -o stat= | grep -c +", "1\n").await;
        screen.keys("\u{3}").await;
        until(&sandbox, "pgrep -c -x sleep", "0\n").await;
        screen.run("echo $?", "130\r\n").await;
        screen.keys("cat\r").await;
        until(&sandbox, "pgrep -c -x cat", "1\n").await;
        screen.run("echoed", "echoed\r\nechoed\r\n").await;
        screen.keys("\u{4}").await;
        screen.run("echo ba''ck", "back\r\n").await;
    }
    fixture.end().await;
}

#[tokio::test]
async fn full_screen_programs_draw_and_redraw() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let mut screen = Screen::open(&sandbox, false).await;
    screen.keys("vim -u NONE /tmp/letter\r").await;
    // The other screen, the empty lines, and the line of the file.
    screen.expect("\u{1b}[?1049h").await;
    screen.expect("\"/tmp/letter\"").await;
    screen.expect("~").await;
    screen.keys("ihello from vim").await;
    screen.expect("from vim").await;
    screen.terminal.resize(30, 100).expect("resize");
    // Drawn again, as a whole, in the new size.
    screen.expect("hello from vim").await;
    screen.keys("\u{1b}:wq\r").await;
    screen.expect("\u{1b}[?1049l").await;
    assert_eq!(sh(&sandbox, "cat /tmp/letter").await, "hello from vim\n");

    screen.keys("seq 500 | LESS= less\r").await;
    screen.expect("\r\n29").await;
    screen.keys(" ").await;
    screen.expect("\r\n58").await;
    screen.keys("G").await;
    screen.expect("(END)").await;
    screen.keys("q").await;
    screen.expect("@").await;

    screen.keys("htop -d 2\r").await;
    screen.expect("PID").await;
    screen.expect("htop -d 2").await;
    screen.keys("q").await;
    screen.run("echo qu''it", "quit\r\n").await;
    screen.keys("exit\r").await;
    screen.rest().await;
    fixture.end().await;
}

#[tokio::test]
async fn everything_of_a_session_dies_with_its_connection() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    for over_web_socket in [false, true] {
        let mut screen = Screen::open(&sandbox, over_web_socket).await;
        let left = "trap '' HUP; nohup sleep 7001 >/dev/null 2>&1 & setsid sleep 7002 & \
                    (setsid sh -c 'sleep 7003 & exit' &); sleep 7004";
        screen.keys(&format!("{left}\r")).await;
        until(&sandbox, "pgrep -c -x sleep", "4\n").await;
        drop(screen);
        until(&sandbox, "pgrep -c -x 'sleep|bash'; ls /dev/pts", "0\nptmx\n").await;
    }
    // And with the shell.
    let mut screen = Screen::open(&sandbox, false).await;
    screen.keys("setsid sleep 7005 & disown; sleep 0.2; exit\r").await;
    screen.rest().await;
    until(&sandbox, "pgrep -c -x 'sleep|bash'; ps -eo stat | grep -c Z", "0\n0\n").await;
    fixture.end().await;
}

#[tokio::test]
async fn who_types_no_more_still_reads_to_the_end() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let mut screen = Screen::open(&sandbox, false).await;
    screen.keys("seq 20000; sleep 1; echo do''ne\r").await;
    screen.terminal.shutdown().await.expect("shutdown");
    let shown = screen.rest().await;
    assert!(shown.contains("\r\n20000\r\n") && shown.contains("done\r\n"), "{}", shown.len());
    assert!(!shown.contains('\0'), "nothing else came in between");
    fixture.end().await;
}

#[tokio::test]
async fn a_flood_to_a_screen_that_is_not_read_can_be_interrupted() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let mut screen = Screen::open(&sandbox, false).await;
    screen.keys("yes\r").await;
    screen.expect("y\r\ny\r\n").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(sh(&sandbox, "echo others go on").await, "others go on\n");
    screen.keys("\u{3}").await;
    screen.run("echo sto''pped", "stopped\r\n").await;
    fixture.end().await;
}

#[tokio::test]
async fn many_shells_leave_nothing() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let descriptors = || std::fs::read_dir("/proc/self/fd").expect("descriptors").count();
    drop(Screen::open(&sandbox, false).await);
    until(&sandbox, "pgrep -c bash; ls /dev/pts", "0\nptmx\n").await;
    let before = descriptors();
    for round in 0..40 {
        let mut screen = Screen::open(&sandbox, round % 2 == 1).await;
        if round % 3 == 0 {
            screen.keys("exit\r").await;
            screen.rest().await;
        }
    }
    until(&sandbox, "pgrep -c bash; ls /dev/pts; ls /proc | grep -c '^[0-9]'", "0\nptmx\n5\n")
        .await;
    let settled = async {
        while descriptors() > before + 4 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let settled = timeout(SOON, settled).await;
    assert!(settled.is_ok(), "{before} descriptors before, {} after", descriptors());
    fixture.end().await;
}
