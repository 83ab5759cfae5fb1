//! Examples that are told to end in the middle: everything goes, in an order that works.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

use crate::planes::network;
use crate::run;

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_signal_leaves_neither_sandboxes_nor_their_network_behind() {
    // While the sandboxes are made, and when all is there and a port is waited for.
    for (last_words, lines) in [("network example-", 1), ("has the address", 2)] {
        let plane = network::start_deaf().await;
        let mut example = run::command_on("network", &plane);
        example.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = example.spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let listening = async {
            let mut heard = 0;
            while heard < lines {
                let line = said.next_line().await.unwrap().expect("it ends by itself");
                heard += usize::from(line.contains(last_words));
            }
        };
        timeout(PATIENCE, listening).await.unwrap();
        let pid = i32::try_from(child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
        let status = timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
        assert_eq!(status.code(), Some(1));
        plane.is_empty_and_heard_nothing_odd();
    }
}
