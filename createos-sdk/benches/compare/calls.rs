//! Calls that are answered at once, and lists of many pages.

use futures::StreamExt;

use crate::{Best, Clock, Outcome, Plan, Server, heading, row};

pub(crate) const SANDBOXES: usize = 10_000;
const CALLS: usize = 5_000;

pub(crate) async fn run(server: &Server, plan: &Plan<'_>) -> Outcome<()> {
    if plan.wants("list") {
        lists(server, plan).await?;
    }
    if plan.wants("calls") {
        heading(&["small calls", "ours", "official", "ratio", "of work", "bare reqwest"]);
        calls(server, plan, "one by one", 1).await?;
        calls(server, plan, "64 at once", 64).await?;
    }
    Ok(())
}

async fn lists(server: &Server, plan: &Plan<'_>) -> Outcome<()> {
    heading(&["list", "ours", "official", "ratio", "of work"]);
    let (ours, official) = (server.ours()?, server.official()?);
    let (mut our_time, mut their_time) = (Best::new(), Best::new());
    for _ in 0..plan.rounds {
        if plan.side("ours") {
            let clock = Clock::start();
            assert_eq!(ours.sandboxes().await?.len(), SANDBOXES);
            our_time.saw(clock.stop());
        }
        if plan.side("official") {
            let clock = Clock::start();
            let all = official.sandboxes(createos::ListSandboxesOptions::default()).await?;
            assert_eq!(all.len(), SANDBOXES);
            their_time.saw(clock.stop());
        }
    }
    let (ratio, work) = (our_time.ahead_of(their_time), our_time.less_work_than(their_time));
    row(&["10,000 sandboxes", &our_time.millis(), &their_time.millis(), &ratio, &work]);
    Ok(())
}

async fn calls(server: &Server, plan: &Plan<'_>, what: &str, at_once: usize) -> Outcome<()> {
    let (ours, official) = (server.ours()?, server.official()?);
    let http = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("{}/v1/whoami", server.url);
    let (mut our_time, mut their_time, mut bare_time) = (Best::new(), Best::new(), Best::new());
    for _ in 0..plan.rounds {
        if plan.side("ours") {
            let clock = Clock::start();
            many(at_once, || async { ours.whoami().await.is_ok() }).await;
            our_time.saw(clock.stop());
        }
        if plan.side("official") {
            let clock = Clock::start();
            many(at_once, || async { official.who_am_i().await.is_ok() }).await;
            their_time.saw(clock.stop());
        }
        if plan.side("bare") {
            let clock = Clock::start();
            let body = async || http.get(&url).send().await?.bytes().await;
            many(at_once, || async { body().await.is_ok() }).await;
            bare_time.saw(clock.stop());
        }
    }
    row(&[
        what,
        &our_time.micros_each(CALLS),
        &their_time.micros_each(CALLS),
        &our_time.ahead_of(their_time),
        &our_time.less_work_than(their_time),
        &bare_time.micros_each(CALLS),
    ]);
    Ok(())
}

async fn many<F: Future<Output = bool>>(at_once: usize, call: impl Fn() -> F) {
    let calls = futures::stream::iter(0..CALLS).map(|_| call());
    calls.buffer_unordered(at_once).for_each(|good| async move { assert!(good) }).await;
}
