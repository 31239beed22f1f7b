//! Keys, ranges, transactions.

use etcd_client::{
    Client, CompactionOptions, Compare, CompareOp, DeleteOptions, GetOptions, GetResponse,
    PutOptions, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse,
};

use crate::{Outcome, refused, same};

const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

fn keys(answer: &GetResponse) -> String {
    let names: Vec<_> = answer
        .kvs()
        .iter()
        .map(|kv| String::from_utf8_lossy(kv.key()).into_owned())
        .collect();
    names.join(" ")
}

pub(crate) async fn basics(mut client: Client) -> Outcome {
    let first = client.put("kv/a", "one", None).await?;
    let revision = first.header().map_or(0, |header| header.revision());
    let got = client.get("kv/a", None).await?;
    let kv = &got.kvs()[0];
    same("value", kv.value(), b"one")?;
    same(
        "revisions",
        (kv.create_revision(), kv.mod_revision()),
        (revision, revision),
    )?;
    let previous = PutOptions::new().with_prev_key();
    let again = client.put("kv/a", "two", Some(previous)).await?;
    same(
        "previous",
        again.prev_key().map(|kv| kv.value()),
        Some(b"one"),
    )?;
    let kept = PutOptions::new().with_ignore_value();
    client.put("kv/a", "", Some(kept)).await?;
    let got = client.get("kv/a", None).await?;
    same("version", got.kvs()[0].version(), 3)?;
    same("value", got.kvs()[0].value(), b"two")?;
    let old = GetOptions::new().with_revision(revision);
    let got = client.get("kv/a", Some(old)).await?;
    same("old value", got.kvs()[0].value(), b"one")?;
    let large = vec![b'x'; 1 << 20];
    client.put("kv/large", large.clone(), None).await?;
    let got = client.get("kv/large", None).await?;
    same("large value is equal", got.kvs()[0].value() == large, true)?;
    let all = DeleteOptions::new().with_prefix().with_prev_key();
    let gone = client.delete("kv/", Some(all)).await?;
    same("deleted", gone.deleted(), 2)?;
    same("previous", gone.prev_kvs()[0].value(), b"two")?;
    same("left", client.get("kv/a", None).await?.count(), 0)
}

pub(crate) async fn refusals(mut client: Client) -> Outcome {
    refused(
        client.put("", "x", None).await,
        "etcdserver: key is not provided",
    )?;
    let lease = PutOptions::new().with_lease(404);
    let answer = client.put("x", "x", Some(lease)).await;
    refused(answer, "etcdserver: requested lease not found")?;
    let large = client.put("x", vec![0; 1_600_000], None).await;
    refused(large, "etcdserver: request is too large")?;
    let future = GetOptions::new().with_revision(1 << 40);
    let answer = client.get("x", Some(future)).await;
    refused(
        answer,
        "etcdserver: mvcc: required revision is a future revision",
    )?;
    let twice = Txn::new().and_then([TxnOp::put("x", "", None), TxnOp::put("x", "", None)]);
    let answer = client.txn(twice).await;
    refused(answer, "etcdserver: duplicate key given in txn request")?;
    let many: Vec<_> = (0..129)
        .map(|number| TxnOp::put(format!("{number}"), "", None))
        .collect();
    let answer = client.txn(Txn::new().and_then(many)).await;
    refused(answer, "etcdserver: too many operations in txn request")
}

pub(crate) async fn ranges(mut client: Client) -> Outcome {
    let mut revision = 0;
    for number in 0..10 {
        let key = format!("range/{number}");
        let put = client.put(key, format!("{}", 9 - number), None).await?;
        revision = put.header().map_or(0, |header| header.revision());
    }
    chosen(&mut client, revision).await?;
    let prefix = || GetOptions::new().with_prefix();
    let limited = client.get("range/", Some(prefix().with_limit(3))).await?;
    same(
        "more and count",
        (limited.more(), limited.count()),
        (true, 10),
    )?;
    let count = client
        .get("range/", Some(prefix().with_count_only()))
        .await?;
    same("counted", (count.count(), count.kvs().len()), (10, 0))?;
    let bare = client
        .get("range/1", Some(GetOptions::new().with_keys_only()))
        .await?;
    same("value", bare.kvs()[0].value(), b"")
}

/// What each option chooses from the ten keys, the last of which was written at `revision`.
async fn chosen(client: &mut Client, revision: i64) -> Outcome {
    let prefix = || GetOptions::new().with_prefix();
    let sorted = |target, order| prefix().with_limit(2).with_sort(target, order);
    let cases = [
        (
            GetOptions::new().with_range("range/2"),
            "range/",
            "range/0 range/1",
        ),
        (
            GetOptions::new().with_from_key(),
            "range/8",
            "range/8 range/9",
        ),
        (prefix().with_limit(1), "range/", "range/0"),
        (
            sorted(SortTarget::Key, SortOrder::Descend),
            "range/",
            "range/9 range/8",
        ),
        (
            sorted(SortTarget::Value, SortOrder::Ascend),
            "range/",
            "range/9 range/8",
        ),
        (
            sorted(SortTarget::Mod, SortOrder::Descend),
            "range/",
            "range/9 range/8",
        ),
        (
            sorted(SortTarget::Create, SortOrder::Ascend),
            "range/",
            "range/0 range/1",
        ),
        (
            prefix().with_min_mod_revision(revision),
            "range/",
            "range/9",
        ),
        (
            prefix().with_max_create_revision(revision - 9),
            "range/",
            "range/0",
        ),
        (
            prefix().with_revision(revision - 8),
            "range/",
            "range/0 range/1",
        ),
        (GetOptions::new().with_serializable(), "range/4", "range/4"),
    ];
    for (options, key, wanted) in cases {
        let answer = client.get(key, Some(options)).await?;
        same("keys", keys(&answer).as_str(), wanted)?;
    }
    Ok(())
}

pub(crate) async fn range_stream(client: Client) -> Outcome {
    let options = GetOptions::new().with_prefix();
    let mut stream = client
        .kv_client()
        .get_stream("range/", Some(options))
        .await?;
    let (mut names, mut count) = (Vec::new(), 0);
    while let Some(part) = stream.message().await? {
        names.push(keys(&part));
        count = part.count();
    }
    names.retain(|part| !part.is_empty());
    same("count", count, 10)?;
    let all = names.join(" ");
    same(
        "keys",
        (all.len(), all.starts_with("range/0 range/1 ")),
        (79, true),
    )
}

pub(crate) async fn transactions(mut client: Client) -> Outcome {
    for succeeds in [true, false] {
        let txn = Txn::new()
            .when([Compare::create_revision("txn/a", CompareOp::Equal, 0)])
            .and_then([
                TxnOp::put("txn/a", "1", None),
                TxnOp::put("txn/b", "2", None),
            ])
            .or_else([TxnOp::get("txn/a", None), TxnOp::delete("txn/b", None)]);
        let answer = client.txn(txn).await?;
        same("succeeded", answer.succeeded(), succeeds)?;
        match (succeeds, &answer.op_responses()[..]) {
            (true, [TxnOpResponse::Put(_), TxnOpResponse::Put(_)]) => {}
            (false, [TxnOpResponse::Get(got), TxnOpResponse::Delete(gone)]) => {
                same("value", got.kvs()[0].value(), b"1")?;
                same("deleted", gone.deleted(), 1)?;
            }
            other => return Err(format!("answers {other:?}").into()),
        }
    }
    let compares = [
        Compare::value("txn/a", CompareOp::Equal, "1"),
        Compare::value("txn/a", CompareOp::NotEqual, "2"),
        Compare::version("txn/a", CompareOp::Greater, 0),
        Compare::lease("txn/a", CompareOp::Equal, 0),
        Compare::mod_revision("txn/a", CompareOp::Less, 1 << 40),
        Compare::version("txn/", CompareOp::Greater, 0).with_prefix(),
    ];
    let nested = Txn::new().and_then([TxnOp::put("txn/in", "x", None)]);
    let nested = nested.or_else([TxnOp::put("txn/wrong", "", None)]);
    let txn = Txn::new().when(compares).and_then([TxnOp::txn(nested)]);
    same("succeeded", client.txn(txn).await?.succeeded(), true)?;
    same("nested", client.get("txn/in", None).await?.count(), 1)?;
    same(
        "the other branch",
        client.get("txn/wrong", None).await?.count(),
        0,
    )
}

pub(crate) async fn compaction(mut client: Client) -> Outcome {
    client.put("compact", "1", None).await?;
    let put = client.put("compact", "2", None).await?;
    let now = put.header().map_or(0, |header| header.revision());
    let physical = CompactionOptions::new().with_physical();
    client.compact(now, Some(physical)).await?;
    refused(client.compact(now - 1, None).await, COMPACTED)?;
    let old = GetOptions::new().with_revision(now - 1);
    refused(client.get("compact", Some(old)).await, COMPACTED)?;
    let kept = GetOptions::new().with_revision(now);
    let got = client.get("compact", Some(kept)).await?;
    same("value", got.kvs()[0].value(), b"2")
}
