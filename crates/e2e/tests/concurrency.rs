//! Locks and elections held over gRPC.

use std::time::Duration;

use api::pb::etcdserverpb::{
    LeaseGrantRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, RangeRequest,
};
use api::pb::v3electionpb::{
    CampaignRequest, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest, ResignRequest,
};
use api::pb::v3lockpb::{LockRequest, LockResponse, UnlockRequest};
use bytes::Bytes;
use client::stub::{ElectionClient, LeaseClient, LockClient};
use e2e::kv::Kv;
use e2e::{Member, Options};
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

const LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);

struct Rig {
    _member: Member,
    kv: Kv,
}

impl Rig {
    fn new() -> Rig {
        let member = Member::start(Options::default()).expect("a member");
        let kv = Kv::to(member.address());
        Rig {
            _member: member,
            kv,
        }
    }

    fn locks(&self) -> LockClient<Channel> {
        LockClient::new(self.kv.channel())
    }

    fn elections(&self) -> ElectionClient<Channel> {
        ElectionClient::new(self.kv.channel())
    }

    async fn lease(&self, ttl: i64) -> i64 {
        let request = LeaseGrantRequest { ttl, id: 0 };
        let granted = LeaseClient::new(self.kv.channel())
            .lease_grant(request)
            .await;
        granted.expect("a lease").into_inner().id
    }

    async fn revoke(&self, id: i64) {
        let request = LeaseRevokeRequest { id };
        let revoked = LeaseClient::new(self.kv.channel())
            .lease_revoke(request)
            .await;
        revoked.expect("a revocation");
    }

    async fn lock(&self, name: &str, lease: i64) -> Result<LockResponse, Status> {
        let request = LockRequest {
            name: name.to_owned().into(),
            lease,
        };
        Ok(self.locks().lock(request).await?.into_inner())
    }

    /// A lock that is asked for on its own.
    fn locking(&self, name: &str, lease: i64) -> JoinHandle<Result<LockResponse, Status>> {
        let mut locks = self.locks();
        let request = LockRequest {
            name: name.to_owned().into(),
            lease,
        };
        tokio::spawn(async move { Ok(locks.lock(request).await?.into_inner()) })
    }

    async fn unlock(&self, key: &Bytes) {
        let request = UnlockRequest { key: key.clone() };
        let response = self.locks().unlock(request).await.expect("unlocked");
        assert!(response.into_inner().header.is_some());
    }

    async fn campaign(&self, name: &str, lease: i64, value: &str) -> Result<LeaderKey, Status> {
        let request = CampaignRequest {
            name: name.to_owned().into(),
            lease,
            value: value.to_owned().into(),
        };
        let response = self.elections().campaign(request).await?.into_inner();
        assert!(response.header.expect("a header").revision > 0);
        Ok(response.leader.expect("a leader"))
    }

    async fn leader(&self, name: &str) -> Result<LeaderResponse, Status> {
        let name = name.to_owned().into();
        let response = self.elections().leader(LeaderRequest { name }).await?;
        Ok(response.into_inner())
    }

    async fn proclaim(&self, leader: Option<LeaderKey>, value: &str) -> Result<(), Status> {
        let request = ProclaimRequest {
            leader,
            value: value.to_owned().into(),
        };
        self.elections().proclaim(request).await.map(|_| ())
    }

    async fn resign(&self, leader: Option<LeaderKey>) -> Result<(), Status> {
        let request = ResignRequest { leader };
        self.elections().resign(request).await.map(|_| ())
    }

    /// The keys under a prefix, in their order of creation.
    async fn keys(&self, prefix: &str) -> Vec<Bytes> {
        let mut end = prefix.as_bytes().to_vec();
        *end.last_mut().expect("a prefix") += 1;
        let request = RangeRequest {
            key: prefix.to_owned().into(),
            range_end: end.into(),
            ..RangeRequest::default()
        };
        let mut kvs = self.kv.range(request).await.expect("a range").kvs;
        kvs.sort_by_key(|kv| kv.create_revision);
        kvs.into_iter().map(|kv| kv.key).collect()
    }

    async fn until_keys(&self, prefix: &str, count: usize) -> Vec<Bytes> {
        let wait = async {
            loop {
                let keys = self.keys(prefix).await;
                if keys.len() == count {
                    return keys;
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::time::timeout(LIMIT, wait).await.expect("in time")
    }
}

async fn done<T>(task: JoinHandle<T>) -> T {
    let joined = tokio::time::timeout(LIMIT, task).await;
    joined.expect("in time").expect("no panic")
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, String) {
    let status = result.expect_err("a refusal");
    (status.code(), status.message().to_owned())
}

fn unknown(text: &str) -> (Code, String) {
    (Code::Unknown, text.to_owned())
}

#[tokio::test]
async fn a_lock_is_a_key_under_its_lease() {
    let rig = Rig::new();
    let lease = rig.lease(60).await;
    let first = rig.lock("name", lease).await.expect("a lock");
    assert_eq!(first.key, format!("name/{lease:x}"));
    let revision = first.header.expect("a header").revision;
    assert_eq!(revision, 2);
    // The same session holds it already.
    let again = rig.lock("name", lease).await.expect("a lock");
    assert_eq!((again.key, again.header), (first.key.clone(), first.header));
    rig.unlock(&first.key).await;
    assert!(rig.keys("name/").await.is_empty());
    // Unlocking what is not locked is no error.
    rig.unlock(&first.key).await;
    assert_eq!(
        refusal(rig.locks().unlock(UnlockRequest::default()).await),
        unknown("etcdserver: key is not provided")
    );
    assert_eq!(
        refusal(rig.lock("name", 12345).await),
        unknown("etcdserver: requested lease not found")
    );
    let nameless = rig.lock("", lease).await.expect("a lock");
    assert_eq!(nameless.key, format!("/{lease:x}"));
}

#[tokio::test]
async fn a_lock_without_a_lease_gets_one_of_a_minute() {
    let rig = Rig::new();
    let lock = rig.lock("name", 0).await.expect("a lock");
    let key = String::from_utf8(lock.key.to_vec()).expect("text");
    let lease = key.strip_prefix("name/").expect("a key under the name");
    let request = LeaseTimeToLiveRequest {
        id: i64::from_str_radix(lease, 16).expect("an id"),
        keys: true,
    };
    let lease = LeaseClient::new(rig.kv.channel())
        .lease_time_to_live(request)
        .await;
    let lease = lease.expect("a lease").into_inner();
    assert_eq!((lease.granted_ttl, lease.keys), (60, vec![lock.key]));
}

#[tokio::test]
async fn locks_are_given_in_the_order_of_asking() {
    let rig = Rig::new();
    let mut holder = rig.lock("l", rig.lease(60).await).await.expect("a lock");
    let mut waiting = Vec::new();
    for count in 2..6 {
        waiting.push(rig.locking("l", rig.lease(60).await));
        rig.until_keys("l/", count).await;
    }
    for (passed, task) in waiting.into_iter().enumerate() {
        assert!(!task.is_finished());
        let before = rig.kv.revision(false).await.expect("a revision");
        rig.unlock(&holder.key).await;
        holder = done(task).await.expect("a lock");
        let keys = rig.keys("l/").await;
        assert_eq!((keys.len(), &keys[0]), (4 - passed, &holder.key));
        assert_eq!(holder.header.expect("a header").revision, before + 1);
    }
}

#[tokio::test]
async fn a_contender_that_goes_leaves_no_key() {
    let rig = Rig::new();
    let holder = rig.lock("l", rig.lease(60).await).await.expect("a lock");
    let second = rig.locking("l", rig.lease(60).await);
    rig.until_keys("l/", 2).await;
    let third = rig.locking("l", rig.lease(60).await);
    let keys = rig.until_keys("l/", 3).await;
    second.abort();
    let left = rig.until_keys("l/", 2).await;
    assert_eq!(left, [holder.key.clone(), keys[2].clone()]);
    assert!(!third.is_finished());
    rig.unlock(&holder.key).await;
    assert_eq!(done(third).await.expect("a lock").key, keys[2]);
}

#[tokio::test]
async fn a_lock_passes_on_when_its_lease_ends() {
    let rig = Rig::new();
    let (first, second, third) = (rig.lease(2).await, rig.lease(60).await, rig.lease(60).await);
    rig.lock("l", first).await.expect("a lock");
    let task = rig.locking("l", second);
    let lock = done(task).await.expect("a lock");
    assert_eq!(lock.key, format!("l/{second:x}"));
    let task = rig.locking("l", third);
    rig.until_keys("l/", 2).await;
    rig.revoke(second).await;
    assert_eq!(
        done(task).await.expect("a lock").key,
        format!("l/{third:x}")
    );
}

#[tokio::test]
async fn a_contender_whose_lease_ends_gets_no_lock() {
    let rig = Rig::new();
    let holder = rig.lock("l", rig.lease(60).await).await.expect("a lock");
    let lease = rig.lease(60).await;
    let task = rig.locking("l", lease);
    rig.until_keys("l/", 2).await;
    rig.revoke(lease).await;
    rig.unlock(&holder.key).await;
    assert_eq!(
        refusal(done(task).await),
        unknown("mutex: session is expired")
    );
}

#[tokio::test]
async fn an_election_has_one_leader() {
    let rig = Rig::new();
    assert_eq!(
        refusal(rig.leader("e").await),
        unknown("election: no leader")
    );
    let lease = rig.lease(60).await;
    let one = rig.campaign("e", lease, "one").await.expect("elected");
    assert_eq!(one.name, "e");
    assert_eq!(one.key, format!("e/{lease:x}"));
    assert_eq!((one.rev, one.lease), (2, lease));
    let leader = rig.leader("e").await.expect("a leader");
    let kv = leader.kv.expect("a key");
    assert_eq!(
        (kv.key, kv.value, kv.lease),
        (one.key.clone(), "one".into(), lease)
    );
    rig.proclaim(Some(one.clone()), "uno").await.expect("heard");
    let kv = rig.leader("e").await.expect("a leader").kv.expect("a key");
    assert_eq!((kv.value, kv.version), (Bytes::from("uno"), 2));
    // Another campaign of the same session proclaims.
    let same = rig.campaign("e", lease, "eins").await.expect("elected");
    assert_eq!(same, one);
    let kv = rig.leader("e").await.expect("a leader").kv.expect("a key");
    assert_eq!((kv.value, kv.version), (Bytes::from("eins"), 3));
    rig.resign(Some(one.clone())).await.expect("resigned");
    assert_eq!(
        refusal(rig.leader("e").await),
        unknown("election: no leader")
    );
    rig.resign(Some(one.clone()))
        .await
        .expect("resigned before");
    assert_eq!(
        refusal(rig.proclaim(Some(one), "late").await),
        unknown("election: not leader")
    );
    let missing = unknown("\"leader\" field must be provided");
    assert_eq!(refusal(rig.proclaim(None, "x").await), missing);
    assert_eq!(refusal(rig.resign(None).await), missing);
    assert_eq!(
        refusal(rig.campaign("e", 999, "x").await),
        unknown("etcdserver: requested lease not found")
    );
    let odd = LeaderKey::default();
    assert_eq!(
        refusal(rig.resign(Some(odd)).await),
        unknown("etcdserver: key is not provided")
    );
}

#[tokio::test]
async fn a_campaign_that_goes_leaves_no_key() {
    let rig = Rig::new();
    let one = rig.campaign("e", rig.lease(60).await, "one").await;
    let one = one.expect("elected");
    let mut tasks = Vec::new();
    for count in 2..4 {
        let (mut elections, lease) = (rig.elections(), rig.lease(60).await);
        let request = CampaignRequest {
            name: "e".into(),
            lease,
            value: format!("{count}").into(),
        };
        tasks.push(tokio::spawn(async move {
            elections
                .campaign(request)
                .await
                .map(|answer| answer.into_inner().leader)
        }));
        rig.until_keys("e/", count).await;
    }
    tasks.remove(0).abort();
    let keys = rig.until_keys("e/", 2).await;
    rig.resign(Some(one)).await.expect("resigned");
    let elected = done(tasks.remove(0)).await.expect("elected");
    assert_eq!(elected.expect("a leader").key, keys[1]);
    let kv = rig.leader("e").await.expect("a leader").kv.expect("a key");
    assert_eq!(kv.value, "3");
}

async fn heard(stream: &mut Streaming<LeaderResponse>) -> (Bytes, Bytes) {
    let message = tokio::time::timeout(LIMIT, stream.message()).await;
    let message = message
        .expect("in time")
        .expect("no error")
        .expect("no end");
    assert!(message.header.is_some());
    let kv = message.kv.expect("a key");
    (kv.key, kv.value)
}

#[tokio::test]
async fn observers_hear_of_every_leader() {
    let rig = Rig::new();
    let request = LeaderRequest { name: "e".into() };
    // Nothing is sent, not even the head, before there is a leader.
    let early = tokio::spawn({
        let (mut elections, request) = (rig.elections(), request.clone());
        async move {
            elections
                .observe(request)
                .await
                .expect("a stream")
                .into_inner()
        }
    });
    // Someone else's key.
    rig.kv.put("f/1".into(), "x".into()).await.expect("a put");
    let one = rig.campaign("e", rig.lease(60).await, "one").await;
    let one = one.expect("elected");
    let mut early = done(early).await;
    let first = heard(&mut early).await;
    let late = rig.elections().observe(request).await;
    let mut late = late.expect("a stream").into_inner();
    assert_eq!(first, (one.key.clone(), "one".into()));
    assert_eq!(heard(&mut late).await, (one.key.clone(), "one".into()));
    for value in ["a", "b", "c"] {
        rig.proclaim(Some(one.clone()), value).await.expect("heard");
        for stream in [&mut early, &mut late] {
            assert_eq!(heard(stream).await, (one.key.clone(), value.into()));
        }
    }
    let next = tokio::spawn({
        let (mut elections, lease) = (rig.elections(), rig.lease(60).await);
        let request = CampaignRequest {
            name: "e".into(),
            lease,
            value: "next".into(),
        };
        async move { elections.campaign(request).await }
    });
    rig.until_keys("e/", 2).await;
    rig.resign(Some(one)).await.expect("resigned");
    let next = done(next).await.expect("elected").into_inner();
    let next = next.leader.expect("a leader");
    for stream in [&mut early, &mut late] {
        assert_eq!(heard(stream).await, (next.key.clone(), "next".into()));
    }
    // When nobody leads the observers wait.
    rig.resign(Some(next)).await.expect("resigned");
    rig.kv.put("e/x".into(), "y".into()).await.expect("a put");
    for stream in [&mut early, &mut late] {
        assert_eq!(heard(stream).await, ("e/x".into(), "y".into()));
    }
}
