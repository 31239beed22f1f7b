//! Many watches, much to tell, and clients that don't listen.

use e2e::kv::Kv;

use super::stream::{Stream, on, put, revision, start};

#[tokio::test]
async fn a_client_that_stops_reading_loses_nothing() {
    let (_member, kv) = start();
    let mut stream = Stream::open(&kv);
    stream.created(on("k", "l")).await;
    // More than windows, queues and the log of events hold.
    let other = Kv::to(_member.address());
    let value = "x".repeat(200_000);
    let mut expected = Vec::new();
    for _ in 0..300 {
        expected.push(put(&other, "k", &value).await);
    }
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        let answer = stream.next().await;
        let events = answer.events.iter().filter_map(|event| event.kv.as_ref());
        seen.extend(events.map(|kv| kv.mod_revision));
    }
    assert_eq!(seen, expected);
    assert_eq!(stream.progress().await, *expected.last().expect("puts"));
}

#[tokio::test]
async fn a_compaction_passes_a_client_that_stops_reading() {
    let (member, kv) = start();
    let mut stream = Stream::open(&kv);
    stream.created(on("k", "l")).await;
    let other = Kv::to(member.address());
    let value = "x".repeat(100_000);
    let mut expected = Vec::new();
    for _ in 0..300 {
        expected.push(put(&other, "k", &value).await);
    }
    let compacted = expected[290];
    other.compact(compacted).await.expect("a compaction");
    let mut seen = Vec::new();
    let last = loop {
        let answer = stream.next().await;
        if answer.canceled {
            break answer;
        }
        let events = answer.events.iter().filter_map(|event| event.kv.as_ref());
        seen.extend(events.map(|kv| kv.mod_revision));
    };
    // What it got begins where the watch did, and then it learns why there is no more.
    assert_eq!(seen, expected[..seen.len()]);
    assert!(!seen.is_empty() && seen.len() < 290, "{}", seen.len());
    assert_eq!(
        (last.compact_revision, last.cancel_reason.as_str()),
        (compacted, "")
    );
    assert_eq!((last.watch_id, revision(&last)), (0, 0));
}

/// Clients on the `h2` crate count small DATA frames that nobody has taken from them yet, and end
/// the connection ("too_many_data_frames") at some thousands; no server can do anything about a
/// client that takes nothing. So this one never leaves more than [`AHEAD`] answers untaken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_watches_on_one_stream() {
    const WATCHES: i64 = 100_000;
    const AHEAD: i64 = 5_000;
    let (member, kv) = start();
    let mut stream = Stream::open(&kv);
    stream.created(on("k", "")).await;
    let process = member.process().expect("it runs");
    let before = resident(process);
    let key = |number: i64| format!("k{number}");
    for number in 1..WATCHES + AHEAD {
        if number < WATCHES {
            stream.create(on(&key(number), ""));
        }
        if let id @ 1.. = number - AHEAD {
            let answer = stream.next().await;
            assert!(answer.created && answer.watch_id == id, "{answer:?}");
        }
    }
    let bytes = resident(process) - before;
    eprintln!("{} bytes a watch", bytes / WATCHES as u64);
    assert!(bytes / (WATCHES as u64) < 2048);
    for number in [1, 99_999, 50_000] {
        let at = put(&kv, &format!("k{number}"), "v").await;
        let answer = stream.next().await;
        assert_eq!((answer.watch_id, answer.events.len()), (number, 1));
        assert_eq!(stream.progress().await, at);
    }
    for number in 0..WATCHES + AHEAD {
        if number < WATCHES {
            stream.cancel(number);
        }
        if let id @ 0.. = number - AHEAD {
            let answer = stream.next().await;
            assert!(answer.canceled && answer.watch_id == id, "{answer:?}");
        }
    }
    put(&kv, "k1", "unseen").await;
    stream.created(on("k1", "")).await;
    assert_eq!(stream.progress().await, 5);
}

/// Bytes of memory that a process has.
fn resident(process: u32) -> u64 {
    let path = format!("/proc/{process}/status");
    let status = std::fs::read_to_string(path).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.expect("VmRSS").parse::<u64>().expect("a number") * 1024
}
