//! Overwrites, deletes, transactions and a compaction, against a model of the store.

use api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::pb::etcdserverpb::{Compare, PutRequest, RequestOp, TxnRequest, request_op};
use api::pb::mvccpb::KeyValue;
use bytes::Bytes;
use tokio::task::JoinSet;

use super::{Plan, State, expect_keys};
use crate::kv::{Keys, Kv, revision, said};
use crate::{Error, Member};

/// Every so many-th key is overwritten.
const OVERWRITTEN: usize = 7;
/// Every so many-th package loses its file list.
const DELETED: usize = 5;
const TRANSACTIONS: usize = 200;

/// Changes the store and returns its state after a kill.
pub(super) async fn run(plan: &Plan, member: &mut Member, loaded: Keys) -> Result<State, Error> {
    let kv = Kv::to(member.address());
    let loaded_at = kv.revision(false).await.map_err(said)?;
    let mut model = loaded.clone();
    overwrite(plan, &kv, &mut model).await?;
    transact(&kv, &mut model).await?;
    let (kept_at, kept) = (kv.revision(false).await.map_err(said)?, model.clone());
    let deleted = delete(&kv, &mut model).await?;
    let (now, keys) = kv.all(0).await?;
    expect_keys(&model, &keys, "after the changes")?;
    expect_keys(
        &loaded,
        &kv.all(loaded_at).await?.1,
        "as it was after the load",
    )?;
    println!(
        "overwritten {}, {TRANSACTIONS} transactions, deleted {deleted}: {} keys as the model says at {now}",
        loaded.len().div_ceil(OVERWRITTEN),
        keys.len(),
    );
    compact(&kv, kept_at, &kept).await?;
    let before = State::read(&kv, &[0, kept_at]).await?;
    expect_keys(&model, &before.keys, "after the compaction")?;
    tokio::task::block_in_place(|| {
        member.kill()?;
        member.restart()
    })?;
    let kv = Kv::to(member.address());
    let mut after = State::read(&kv, &[0]).await?;
    // The answer for the compacted revision comes from a cache that a restart empties.
    after.hashes.push(before.hashes[1]);
    before.expect(&after, "after kill and restart")?;
    after.hashes.pop();
    println!("compacted at {kept_at}; after a kill revision, keys and HashKV are the same");
    Ok(after)
}

async fn overwrite(plan: &Plan, kv: &Kv, model: &mut Keys) -> Result<(), Error> {
    let chosen: Vec<Bytes> = model.keys().step_by(OVERWRITTEN).cloned().collect();
    let mut running = JoinSet::new();
    let mut left = chosen.into_iter();
    loop {
        while running.len() < plan.clients
            && let Some(key) = left.next()
        {
            let value: Bytes = [b"again ", model[&key].value.as_ref()].concat().into();
            let kv = kv.clone();
            running.spawn(async move {
                let revision = kv.put(key.clone(), value.clone()).await;
                (key, value, revision)
            });
        }
        let Some(done) = running.join_next().await else {
            return Ok(());
        };
        let (key, value, revision) = done.map_err(|error| Error(error.to_string()))?;
        put_in_model(model, &key, value, revision.map_err(said)?);
    }
}

fn put_in_model(model: &mut Keys, key: &Bytes, value: Bytes, revision: i64) {
    let new = KeyValue {
        key: key.clone(),
        create_revision: revision,
        ..KeyValue::default()
    };
    let kv = model.entry(key.clone()).or_insert(new);
    kv.mod_revision = revision;
    kv.version += 1;
    kv.value = value;
}

/// Each puts two keys if the first one is at the version that the model knows.
async fn transact(kv: &Kv, model: &mut Keys) -> Result<(), Error> {
    let put = |key: &Bytes, value: &Bytes| RequestOp {
        request: Some(request_op::Request::RequestPut(PutRequest {
            key: key.clone(),
            value: value.clone(),
            ..PutRequest::default()
        })),
    };
    let keys: Vec<Bytes> = model.keys().take(TRANSACTIONS).cloned().collect();
    for (number, key) in keys.iter().enumerate() {
        let other: Bytes = format!("/txn/{number}").into();
        let value: Bytes = format!("transaction {number}").into();
        let compare = Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Version.into(),
            key: key.clone(),
            target_union: Some(TargetUnion::Version(model[key].version)),
            ..Compare::default()
        };
        let success = vec![put(key, &value), put(&other, &value)];
        let request = TxnRequest {
            compare: vec![compare],
            success,
            failure: Vec::new(),
        };
        let answer = kv.txn(request).await.map_err(said)?;
        if !answer.succeeded {
            return Err(Error(format!("the compare of {key:?} failed")));
        }
        let at = revision(answer.header);
        put_in_model(model, key, value.clone(), at);
        put_in_model(model, &other, value, at);
    }
    Ok(())
}

/// Deletes whole file lists by range, and single stanzas.
async fn delete(kv: &Kv, model: &mut Keys) -> Result<usize, Error> {
    let mut packages: Vec<Bytes> = model.keys().filter_map(list_of).collect();
    packages.dedup();
    let mut total = 0;
    for prefix in packages.into_iter().step_by(DELETED) {
        let mut end = prefix.to_vec();
        // The prefix ends in `/`; the next byte ends the range.
        end.pop();
        end.push(b'0');
        let end = Bytes::from(end);
        let gone: Vec<Bytes> = model
            .range(prefix.clone()..end.clone())
            .map(|(key, _)| key.clone())
            .collect();
        let answer = kv.delete(prefix.clone(), end).await.map_err(said)?;
        if answer.deleted != gone.len() as i64 {
            return Err(Error(format!(
                "{prefix:?}: {} of {}",
                answer.deleted,
                gone.len()
            )));
        }
        total += gone.len();
        gone.iter().for_each(|key| drop(model.remove(key)));
    }
    let stanzas: Vec<Bytes> = model
        .keys()
        .filter(|key| key.starts_with(b"/dpkg/"))
        .step_by(3)
        .cloned()
        .collect();
    for key in stanzas {
        let answer = kv.delete(key.clone(), Bytes::new()).await.map_err(said)?;
        if answer.deleted != 1 || model.remove(&key).is_none() {
            return Err(Error(format!("{key:?} was not deleted")));
        }
        total += 1;
    }
    Ok(total)
}

/// `/files/<package>/` of a key of a file list.
fn list_of(key: &Bytes) -> Option<Bytes> {
    let rest = key.strip_prefix(b"/files/")?;
    let length = rest.iter().position(|byte| *byte == b'/')?;
    Some(key.slice(..b"/files/".len() + length + 1))
}

/// Below the compacted revision nothing can be read, at it everything as it was.
async fn compact(kv: &Kv, at: i64, kept: &Keys) -> Result<(), Error> {
    kv.compact(at).await.map_err(said)?;
    expect_keys(kept, &kv.all(at).await?.1, "at the compacted revision")?;
    match kv.all(at - 1).await {
        Err(error) if error.0.contains("required revision has been compacted") => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(Error(format!("revision {} can still be read", at - 1))),
    }
}
