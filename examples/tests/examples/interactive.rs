//! The terminal example on a terminal: keys go through as they are, the size is followed, and the
//! terminal is as it was afterwards, however the example ends.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};
use tokio::process::Child;

use crate::planes::{Plane, terminal};
use crate::run;

const PATIENCE: Duration = Duration::from_secs(60);

/// The example, on a terminal of its own.
struct Session {
    keys: File,
    screen: Receiver<u8>,
    seen: Vec<u8>,
    line: File,
    before: Termios,
    child: Child,
}

impl Session {
    async fn start(plane: &Plane, rows: u16, cols: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        resize(&master, rows, cols);
        let path = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let line = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let before = tcgetattr(&line).unwrap();

        let example = run::command_on("terminal", plane);
        // Who has no controlling terminal is not told of its size.
        let mut command = tokio::process::Command::new("setsid");
        command.arg("--ctty").arg(example.as_std().get_program());
        command.envs(example.as_std().get_envs().filter_map(|(name, value)| Some((name, value?))));
        let end = || line.try_clone().unwrap();
        command.stdin(end()).stdout(end()).stderr(end()).kill_on_drop(true);
        let child = command.spawn().unwrap();

        let keys = File::from(master);
        let (show, screen) = channel();
        let output = BufReader::new(keys.try_clone().unwrap());
        std::thread::spawn(move || {
            output.bytes().map_while(Result::ok).try_for_each(|it| show.send(it))
        });
        Self { keys, screen, seen: Vec::new(), line, before, child }
    }

    fn type_in(&mut self, text: &str) {
        self.keys.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until the screen shows this behind what was waited for before; gives all of it.
    fn see(&mut self, words: &str) -> String {
        while !self.seen.ends_with(words.as_bytes()) {
            let Ok(byte) = self.screen.recv_timeout(PATIENCE) else {
                panic!("not {words:?} but {:?}", String::from_utf8_lossy(&self.seen));
            };
            self.seen.push(byte);
        }
        String::from_utf8(std::mem::take(&mut self.seen)).unwrap()
    }

    /// Waits for the end, and looks at what the terminal is like then.
    async fn end(mut self) -> ExitStatus {
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap();
        let after = tcgetattr(&self.line).unwrap();
        assert_eq!(modes(&after), modes(&self.before), "the terminal is not as it was");
        status
    }
}

fn resize(terminal: &OwnedFd, rows: u16, cols: u16) {
    let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).unwrap();
}

fn modes(terminal: &Termios) -> impl PartialEq + std::fmt::Debug {
    let Termios { input_modes, output_modes, control_modes, local_modes, .. } = *terminal;
    (input_modes, output_modes, control_modes, local_modes)
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_sizes_go_through_and_the_terminal_is_as_it_was() {
    let plane = terminal::start().await;
    let mut session = Session::start(&plane, 30, 90).await;
    session.see("# ");
    assert_ne!(modes(&tcgetattr(&session.line).unwrap()), modes(&session.before), "not raw");

    session.type_in("echo size $(stty size)\r");
    session.see("size 30 90\r\n# ");
    let keys = session.keys.try_clone().unwrap();
    resize(&keys.into(), 44, 132);
    // The new size travels beside the keys, so the shell is asked until it has it.
    let asked = Instant::now();
    loop {
        session.type_in("echo size $(stty size)\r");
        session.see("\r\nsize ");
        if session.see("\r\n# ") == "44 132\r\n# " {
            break;
        }
        assert!(asked.elapsed() < PATIENCE, "the size is not followed");
    }
    session.type_in("exit\r");
    session.see("the shell has ended");
    assert!(session.end().await.success());
    plane.is_empty_and_heard_nothing_odd();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_it_in_order() {
    let plane = terminal::start().await;
    let mut session = Session::start(&plane, 24, 80).await;
    session.see("# ");
    let pid = i32::try_from(session.child.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
    session.see("error: interrupted");
    assert_eq!(session.end().await.code(), Some(1));
    plane.is_empty_and_heard_nothing_odd();
}
