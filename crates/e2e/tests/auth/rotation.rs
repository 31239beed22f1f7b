//! Key files of JSON Web Tokens that change under running members.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use e2e::Cluster;
use tonic::{Code, Status};

use crate::keys::{flag, make_keys};
use crate::stories::{enabled, get, is_ours, put, refused};

const METHOD: &str = "ES256";
/// Members look at their files every two seconds.
const LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);
const NOT_USED: &str = "cannot use changed JWT key files";

/// Puts the files of one directory in the place of another's, each at once.
fn replace(files: &Path, by: &Path) {
    for name in ["public", "private"] {
        let new = files.join(format!("new {name}"));
        fs::copy(by.join(name), &new).unwrap();
        fs::rename(new, files.join(name)).unwrap();
    }
}

/// Waits until a condition holds for every member.
async fn each(cluster: &Cluster, what: &str, holds: impl AsyncFn(usize) -> bool) {
    let deadline = Instant::now() + LIMIT;
    for at in 0..cluster.members().len() {
        while !holds(at).await {
            assert!(Instant::now() < deadline, "{what}, member {at}");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn bad_token<T: std::fmt::Debug>(result: Result<T, Status>) {
    let text = "etcdserver: invalid auth token";
    refused(result, Code::Unauthenticated, text);
}

/// etcd reads its keys once: there the old ones stay in force.
#[tokio::test(flavor = "multi_thread")]
async fn members_take_up_new_keys_and_keep_old_ones_from_bad_files() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_keys(old.path(), METHOD);
    make_keys(new.path(), METHOD);
    let flags = [&*flag(old.path(), METHOD, true, true), "--bcrypt-cost=4"];
    let cluster = Cluster::start(vec![None; 3], &flags).unwrap();
    let root = enabled(&cluster.kv(0), &["ann"]).await;
    let first = root.authenticate("ann").await.unwrap();
    let all = 0..cluster.members().len();
    for at in all.clone() {
        put(&cluster.kv(at), Some(&first), "a/1").await.unwrap();
    }

    // What is no key, and a pair whose halves do not belong together.
    for (name, bytes) in [
        ("private", b"no key".to_vec()),
        ("private", fs::read(new.path().join("private")).unwrap()),
    ] {
        let before = |at: usize| cluster.members()[at].log().matches(NOT_USED).count();
        let counts: Vec<usize> = all.clone().map(before).collect();
        fs::write(old.path().join(name), bytes).unwrap();
        if is_ours() {
            each(&cluster, NOT_USED, async |at| before(at) > counts[at]).await;
        }
        for at in all.clone() {
            get(&cluster.kv(at), Some(&first), "a/1").await.unwrap();
            let again = root.authenticate("ann").await.unwrap();
            put(&cluster.kv(at), Some(&again), "a/1").await.unwrap();
        }
    }

    replace(old.path(), new.path());
    if !is_ours() {
        put(&cluster.kv(0), Some(&first), "a/1").await.unwrap();
        return;
    }
    each(&cluster, "the old token is still good", async |at| {
        get(&cluster.kv(at), Some(&first), "a/1").await.is_err()
    })
    .await;
    let second = root.authenticate("ann").await.unwrap();
    for at in all {
        bad_token(get(&cluster.kv(at), Some(&first), "a/1").await);
        bad_token(put(&cluster.kv(at), Some(&first), "a/1").await);
        put(&cluster.kv(at), Some(&second), "a/1").await.unwrap();
    }
}
