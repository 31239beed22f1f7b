use super::*;

const LEASE: i64 = 7;

fn read(key: &'static str) -> RangeRequest {
    RangeRequest {
        key: key.into(),
        ..RangeRequest::default()
    }
}

fn kv(value: &'static str, revision: i64) -> KeyValue {
    KeyValue {
        key: "k".into(),
        value: value.into(),
        create_revision: revision,
        mod_revision: revision,
        version: 1,
        lease: 0,
    }
}

fn put(value: &'static str) -> PutRequest {
    PutRequest {
        key: "k".into(),
        value: value.into(),
        ..PutRequest::default()
    }
}

fn seen(cache: &mut Cache, revision: i64) {
    let header = ResponseHeader {
        revision,
        ..ResponseHeader::default()
    };
    cache.see(Some(&header));
}

/// A cache that owns `k` since revision 10.
fn owning(now: Instant) -> Cache {
    let mut cache = Cache::default();
    assert_eq!(cache.look(&read("k"), now), Look::Below);
    cache.hold(LEASE, now + Duration::from_secs(60));
    assert_eq!(cache.look(&read("k"), now), Look::Acquire(LEASE));
    seen(&mut cache, 10);
    cache.acquired(&"k".into(), LEASE, Some((10, Some(kv("a", 3)))));
    cache
}

fn local(cache: &mut Cache, now: Instant) -> Option<(i64, Option<KeyValue>)> {
    match cache.look(&read("k"), now) {
        Look::Local(answer) => Some((answer.header?.revision, answer.kvs.into_iter().next())),
        _ => None,
    }
}

fn target() -> [Target; 1] {
    [Target::Key("k".into())]
}

#[test]
fn own_writes_are_entered_when_they_are_done() {
    let now = Instant::now();
    let mut cache = owning(now);
    assert_eq!(local(&mut cache, now), Some((10, Some(kv("a", 3)))));
    let owned = cache.begin(&target());
    assert_eq!(
        owned,
        [Owned {
            key: "k".into(),
            at: 10
        }]
    );
    // Nobody knows what it is until the cluster has answered.
    assert_eq!(local(&mut cache, now), None);
    assert!(!cache.put(&put("b"), 12));
    cache.end(&owned);
    seen(&mut cache, 12);
    let want = KeyValue {
        mod_revision: 12,
        version: 2,
        ..kv("b", 3)
    };
    assert_eq!(local(&mut cache, now), Some((12, Some(want))));
    let owned = cache.begin(&[Target::Range("a".into(), "\0".into())]);
    cache.delete(&Target::Range("a".into(), "\0".into()), 13);
    cache.end(&owned);
    assert_eq!(local(&mut cache, now), Some((12, None)));
    let owned = cache.begin(&target());
    cache.put(&put("c"), 14);
    cache.end(&owned);
    assert_eq!(local(&mut cache, now), Some((12, Some(kv("c", 14)))));
}

#[test]
fn writes_that_overlap_leave_a_value_to_be_read() {
    let now = Instant::now();
    let mut cache = owning(now);
    let (first, second) = (cache.begin(&target()), cache.begin(&target()));
    cache.put(&put("second"), 13);
    cache.end(&second);
    cache.put(&put("first"), 12);
    cache.end(&first);
    let Look::Refresh(stamp) = cache.look(&read("k"), now) else {
        panic!("its order is not known")
    };
    // A write that began since makes what was read old.
    let third = cache.begin(&target());
    cache.refresh(&"k".into(), stamp, Some(kv("second", 13)));
    cache.put(&put("third"), 14);
    cache.end(&third);
    let Look::Refresh(stamp) = cache.look(&read("k"), now) else {
        panic!("nobody has read it")
    };
    cache.refresh(&"k".into(), stamp, Some(kv("third", 14)));
    assert_eq!(local(&mut cache, now), Some((10, Some(kv("third", 14)))));
}

#[test]
fn what_somebody_else_wants_is_given_up_and_rests() {
    let now = Instant::now();
    let mut cache = owning(now);
    // Meant for somebody who owned it before.
    cache.lose(&"k".into(), 9, now);
    assert!(local(&mut cache, now).is_some());
    cache.lose(&"k".into(), 11, now);
    assert_eq!(cache.look(&read("k"), now), Look::Below);
    let later = now + REST;
    assert_eq!(cache.look(&read("k"), later), Look::Acquire(LEASE));
    // It was wanted again before the answer of the acquisition came.
    cache.lose(&"k".into(), 21, later);
    cache.acquired(&"k".into(), LEASE, Some((20, None)));
    assert_eq!(cache.look(&read("k"), later), Look::Acquire(LEASE));
    cache.acquired(&"k".into(), LEASE, Some((22, None)));
    assert_eq!(local(&mut cache, later), Some((10, None)));
}

#[test]
fn nothing_is_answered_after_the_lease() {
    let now = Instant::now();
    let mut cache = owning(now);
    let end = now + Duration::from_secs(60);
    assert_eq!(cache.look(&read("k"), end), Look::Below);
    cache.hold(LEASE, end + Duration::from_secs(1));
    assert!(local(&mut cache, end).is_some());
    assert_eq!(cache.look(&read("l"), end), Look::Acquire(LEASE));
    cache.drop_all();
    cache.hold(8, end + Duration::from_secs(1));
    // It was acquired under the lease that is lost.
    cache.acquired(&"l".into(), LEASE, Some((30, None)));
    assert_eq!(cache.look(&read("l"), end), Look::Acquire(8));
}

#[test]
fn nobody_is_answered_while_users_have_names() {
    let now = Instant::now();
    let mut cache = owning(now);
    cache.suspend();
    assert!(!cache.serves(now));
    assert_eq!(cache.look(&read("k"), now), Look::Below);
    // What is owned is written as before.
    assert_eq!(cache.owned_at(b"k"), Some(10));
    cache.hold(LEASE, now + Duration::from_secs(60));
    assert!(local(&mut cache, now).is_some());
}

#[test]
fn keys_that_can_go_by_themselves_are_not_kept() {
    let now = Instant::now();
    let mut cache = owning(now);
    let owned = cache.begin(&target());
    let leased = PutRequest {
        lease: 3,
        ..put("b")
    };
    assert!(cache.put(&leased, 12));
    cache.evict(&owned[0], now);
    cache.end(&owned);
    assert_eq!(cache.look(&read("k"), now), Look::Below);
    assert_eq!(cache.bytes, 0);
}

#[test]
fn a_write_that_does_not_say_what_it_writes() {
    let now = Instant::now();
    let mut cache = owning(now);
    let owned = cache.begin(&target());
    cache.put(
        &PutRequest {
            ignore_value: true,
            ..put("")
        },
        12,
    );
    cache.end(&owned);
    assert!(matches!(cache.look(&read("k"), now), Look::Refresh(_)));
}

#[test]
fn answers_are_cut_as_a_server_cuts_them() {
    let header = ResponseHeader::default();
    let kv = kv("a", 5);
    let count = |request: RangeRequest| {
        let answer = answer(Some(&kv), header, &request);
        (answer.count, answer.kvs.len())
    };
    assert_eq!(count(read("k")), (1, 1));
    assert_eq!(
        count(RangeRequest {
            count_only: true,
            ..read("k")
        }),
        (1, 0)
    );
    assert_eq!(
        count(RangeRequest {
            min_mod_revision: 6,
            ..read("k")
        }),
        (1, 0)
    );
    assert_eq!(
        count(RangeRequest {
            max_create_revision: 4,
            ..read("k")
        }),
        (1, 0)
    );
    let keys = answer(
        Some(&kv),
        header,
        &RangeRequest {
            keys_only: true,
            ..read("k")
        },
    );
    assert_eq!(keys.kvs[0].value, Bytes::new());
    assert_eq!(answer(None, header, &read("k")).count, 0);
}

#[test]
fn whoever_waits_for_a_key_is_told() {
    let mut cache = Cache::default();
    let mut told = cache.wait(&"k".into());
    drop(cache.wait(&"k".into()));
    cache.forget(&"k".into());
    assert_eq!(cache.waiting[&Bytes::from("k")].len(), 1);
    cache.wake(&"other".into());
    assert!(told.try_recv().is_err());
    cache.wake(&"k".into());
    assert_eq!(told.try_recv(), Ok(()));
    assert!(cache.waiting.is_empty());
}

#[test]
fn values_beyond_the_limit_are_left_to_the_cluster() {
    let now = Instant::now();
    let mut cache = owning(now);
    let write = |cache: &mut Cache, bytes: usize, revision| {
        let owned = cache.begin(&target());
        let request = PutRequest {
            value: vec![0; bytes].into(),
            ..put("")
        };
        cache.put(&request, revision);
        cache.end(&owned);
    };
    write(&mut cache, BYTES_MAX, 11);
    assert!(matches!(cache.look(&read("k"), now), Look::Refresh(_)));
    assert!(cache.bytes < BYTES_MAX);
    write(&mut cache, 1, 12);
    let Look::Refresh(stamp) = cache.look(&read("k"), now) else {
        panic!("known although it was not read")
    };
    cache.refresh(&"k".into(), stamp, Some(kv("b", 12)));
    assert!(local(&mut cache, now).is_some());
}
