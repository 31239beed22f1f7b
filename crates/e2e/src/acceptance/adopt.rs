//! A directory that Go etcd wrote, opened by the member under test.

use std::path::Path;

use api::pb::etcdserverpb::{
    LeaseGrantRequest, LeaseLeasesRequest, LeaseRevokeRequest, PutRequest,
};
use client::stub::{KvClient, LeaseClient};

use super::{Directory, State, expect_keys, write_on};
use crate::kv::{Keys, Kv, said};
use crate::{Error, Member, Options};

/// Keys that Go etcd writes; more than the 10,000 entries between raft snapshots.
const KEYS: usize = 25_000;
/// Leases that are granted, and those that are revoked again.
const LEASES: i64 = 20;
const REVOKED: i64 = 5;

/// Go etcd writes, ours opens; once after a clean stop and once after a kill.
///
/// # Errors
/// The first thing that is wrong.
pub async fn run(binary: &Path, reference: &Path) -> Result<(), Error> {
    for killed in [false, true] {
        let options = Options {
            binary: Some(reference.into()),
            ..Options::default()
        };
        let mut go = Member::start(options)?;
        let kv = Kv::to(go.address());
        let (kept_at, kept) = write(&kv).await?;
        let state = State::read(&kv, &[0, kept_at]).await?;
        if killed {
            go.kill()?;
        } else {
            tokio::task::block_in_place(|| go.stop())?;
        }
        let copy = Directory::copy_of(&go.data_dir())?;
        let mut ours = Member::start(copy.options(binary))?;
        let kv = Kv::to(ours.address());
        let mut came = State::read(&kv, &[0]).await?;
        came.hashes.push(state.hashes[1]);
        state.expect(&came, "ours on the directory of Go etcd")?;
        expect_keys(
            &kept,
            &kv.all(kept_at).await?.1,
            "at the compacted revision",
        )?;
        check_leases(&kv).await?;
        write_on(&kv).await?;
        let written = State::read(&kv, &[0]).await?;
        tokio::task::block_in_place(|| ours.stop())?;
        drop(ours);
        let back = Member::start(copy.options(reference))?;
        let came = State::read(&Kv::to(back.address()), &[0]).await?;
        written.expect(&came, "Go etcd after ours")?;
        println!(
            "a directory of Go etcd ({}) at revision {}: equal, written on, and taken back",
            if killed { "killed" } else { "stopped" },
            state.revision,
        );
    }
    Ok(())
}

/// Puts, overwrites, leases, deletes and a compaction; the keys at the compacted revision.
async fn write(kv: &Kv) -> Result<(i64, Keys), Error> {
    let mut tasks = tokio::task::JoinSet::new();
    for lane in 0..50 {
        let kv = kv.clone();
        tasks.spawn(async move {
            for number in (lane..KEYS).step_by(50) {
                // Every key is written one to three times.
                for round in 0..=number % 3 {
                    let value = format!("{round} {}", "v".repeat(number % 400));
                    kv.put(format!("/go/{number:06}").into(), value.into())
                        .await?;
                }
            }
            Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.map_err(|error| Error(error.to_string()))?
            .map_err(said)?;
    }
    lease(kv).await?;
    kv.delete("/go/001".into(), "/go/003".into())
        .await
        .map_err(said)?;
    let (at, keys) = kv.all(0).await?;
    for number in 10_000..11_000 {
        kv.put(format!("/go/{number:06}").into(), "late".into())
            .await
            .map_err(said)?;
    }
    kv.delete("/go/02".into(), "/go/021".into())
        .await
        .map_err(said)?;
    kv.compact(at).await.map_err(said)?;
    for number in 11_000..11_500 {
        kv.put(format!("/go/{number:06}").into(), "later".into())
            .await
            .map_err(said)?;
    }
    Ok((at, keys))
}

async fn lease(kv: &Kv) -> Result<(), Error> {
    let mut leases = LeaseClient::new(kv.channel());
    for id in 1..=LEASES {
        let request = LeaseGrantRequest { ttl: 100_000, id };
        leases.lease_grant(request).await.map_err(said)?;
        let key = format!("/leased/{id}").into();
        let request = PutRequest {
            key,
            value: "x".into(),
            lease: id,
            ..PutRequest::default()
        };
        KvClient::new(kv.channel())
            .put(request)
            .await
            .map_err(said)?;
    }
    for id in 1..=REVOKED {
        leases
            .lease_revoke(LeaseRevokeRequest { id })
            .await
            .map_err(said)?;
    }
    Ok(())
}

/// The leases are there; a member without the service yet keeps them in its store.
async fn check_leases(kv: &Kv) -> Result<(), Error> {
    let answer = LeaseClient::new(kv.channel())
        .lease_leases(LeaseLeasesRequest {})
        .await;
    let leases = match answer {
        Err(status) if status.code() == tonic::Code::Unimplemented => {
            println!("the lease service is not there: leases are only compared as stored");
            return Ok(());
        }
        answer => answer.map_err(said)?.into_inner().leases,
    };
    let mut ids: Vec<i64> = leases.iter().map(|lease| lease.id).collect();
    ids.sort_unstable();
    if ids == (REVOKED + 1..=LEASES).collect::<Vec<_>>() {
        return Ok(());
    }
    Err(Error(format!("leases {ids:?}")))
}
