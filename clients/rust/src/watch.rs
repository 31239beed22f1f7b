//! Watches.

use etcd_client::{
    Client, DeleteOptions, EventType, Txn, TxnOp, WatchFilterType, WatchOptions, WatchStream,
};

use crate::{Outcome, same};

/// So many events as words, of a stream that bears nothing else in between.
pub(crate) async fn events(
    stream: &mut WatchStream,
    count: usize,
) -> Result<String, Box<dyn std::error::Error>> {
    let mut words = Vec::new();
    while words.len() < count {
        let answer = stream.message().await?.ok_or("the stream ended")?;
        if answer.canceled() {
            return Err(format!("cancelled: {}", answer.cancel_reason()).into());
        }
        for event in answer.events() {
            let kv = event.kv().ok_or("an event without a key")?;
            let mut word = match event.event_type() {
                EventType::Put => format!("PUT {} {}", kv.key_str()?, kv.value_str()?),
                EventType::Delete => format!("DELETE {}", kv.key_str()?),
            };
            if let Some(previous) = event.prev_kv() {
                word += &format!(" after {}", previous.value_str()?);
            }
            words.push(word);
        }
    }
    Ok(words.join(", "))
}

pub(crate) async fn prefix(mut client: Client) -> Outcome {
    let options = WatchOptions::new().with_prefix();
    let mut stream = client.watch("watch/", Some(options)).await?;
    let begin = client.put("watch/a", "1", None).await?;
    let begin = begin.header().map_or(0, |header| header.revision());
    client.put("other", "1", None).await?;
    client.put("watch/b", "1", None).await?;
    client
        .delete("watch/", Some(DeleteOptions::new().with_prefix()))
        .await?;
    let wanted = "PUT watch/a 1, PUT watch/b 1, DELETE watch/a, DELETE watch/b";
    same("events", events(&mut stream, 4).await?.as_str(), wanted)?;
    let options = WatchOptions::new()
        .with_start_revision(begin)
        .with_prev_key();
    let mut old = client.watch("watch/a", Some(options)).await?;
    let wanted = "PUT watch/a 1, DELETE watch/a after 1";
    same("old events", events(&mut old, 2).await?.as_str(), wanted)?;
    client.put("watch/a", "2", None).await?;
    same(
        "and on",
        events(&mut old, 1).await?.as_str(),
        "PUT watch/a 2",
    )
}

pub(crate) async fn filters(mut client: Client) -> Outcome {
    let put = client.put("filter", "1", None).await?;
    let begin = put.header().map_or(0, |header| header.revision());
    client.delete("filter", None).await?;
    client.put("filter", "2", None).await?;
    let cases = [
        (WatchFilterType::NoDelete, 2, "PUT filter 1, PUT filter 2"),
        (WatchFilterType::NoPut, 1, "DELETE filter"),
    ];
    for (filter, count, wanted) in cases {
        let options = WatchOptions::new()
            .with_start_revision(begin)
            .with_filters([filter]);
        let mut stream = client.watch("filter", Some(options)).await?;
        same("events", events(&mut stream, count).await?.as_str(), wanted)?;
    }
    Ok(())
}

pub(crate) async fn several(mut client: Client) -> Outcome {
    let mut stream = client
        .watch("one", Some(WatchOptions::new().with_watch_id(11)))
        .await?;
    let first = stream.message().await?.ok_or("the stream ended")?;
    same("created", (first.created(), first.watch_id()), (true, 11))?;
    stream
        .watch("two", Some(WatchOptions::new().with_watch_id(12)))
        .await?;
    let second = stream.message().await?.ok_or("the stream ended")?;
    same("created", (second.created(), second.watch_id()), (true, 12))?;
    let both = [TxnOp::put("one", "1", None), TxnOp::put("two", "1", None)];
    client.txn(Txn::new().and_then(both)).await?;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let answer = stream.message().await?.ok_or("the stream ended")?;
        seen.push((answer.watch_id(), answer.events().len()));
    }
    seen.sort_unstable();
    same("events", seen, vec![(11, 1), (12, 1)])?;
    stream.cancel(11).await?;
    let cancelled = stream.message().await?.ok_or("the stream ended")?;
    same(
        "cancelled",
        (cancelled.canceled(), cancelled.watch_id()),
        (true, 11),
    )?;
    client.put("one", "2", None).await?;
    client.put("two", "2", None).await?;
    same(
        "events",
        events(&mut stream, 1).await?.as_str(),
        "PUT two 2",
    )
}

pub(crate) async fn progress(mut client: Client) -> Outcome {
    let options = WatchOptions::new().with_progress_notify();
    let mut stream = client.watch("quiet", Some(options)).await?;
    stream.message().await?.ok_or("the stream ended")?;
    let put = client.put("elsewhere", "1", None).await?;
    let written = put.header().map_or(0, |header| header.revision());
    stream.request_progress().await?;
    // By request at once, and then by interval, until it has come so far.
    loop {
        let answer = stream.message().await?.ok_or("the stream ended")?;
        same("events", answer.events().len(), 0)?;
        if answer.header().map_or(0, |header| header.revision()) >= written {
            return Ok(());
        }
    }
}

pub(crate) async fn compacted(mut client: Client) -> Outcome {
    let put = client.put("compact", "3", None).await?;
    let now = put.header().map_or(0, |header| header.revision());
    client.compact(now, None).await?;
    let options = WatchOptions::new().with_start_revision(1);
    let mut stream = client.watch("compact", Some(options)).await?;
    let mut answer = stream.message().await?.ok_or("the stream ended")?;
    if !answer.canceled() {
        answer = stream.message().await?.ok_or("the stream ended")?;
    }
    same(
        "cancelled",
        (answer.canceled(), answer.compact_revision()),
        (true, now),
    )
}
