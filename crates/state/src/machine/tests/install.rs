//! A received database takes the state's place while a reader reads and a watcher watches.

use api::ids::MemberId;

use super::*;
use crate::machine::OpenError;

const KEYS: i64 = 400;
const VALUE: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\
                     0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\
                     0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Two members with the same log; the second one goes further.
fn pair() -> (Rig, Rig) {
    let (mut one, mut two) = (Rig::new(), Rig::new());
    for rig in [&mut one, &mut two] {
        for n in 0..KEYS {
            rig.put(&format!("k{n:04}"), VALUE);
        }
    }
    two.put("k0000", "newer");
    two.delete("k0001");
    two.put("later", "x");
    (one, two)
}

/// Opens what `from` has as another file, as it arrives from a peer.
fn received(from: &mut Rig) -> (tempfile::TempDir, Backend) {
    let pinned = from.committer.pin().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let mut bytes = Vec::new();
    for chunk in pinned.tx.image() {
        bytes.extend_from_slice(&chunk.unwrap());
    }
    std::fs::write(&path, bytes).unwrap();
    let backend = Backend::open(Arc::new(RealFs), &path, Options::default()).unwrap();
    (dir, backend)
}

fn everything() -> pb::RangeRequest {
    pb::RangeRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        ..Default::default()
    }
}

fn drain(mut answer: crate::RangeAnswer, mut out: Vec<u8>) -> pb::RangeResponse {
    while answer.write_chunk(&mut out, 4096).unwrap() {}
    pb::RangeResponse::decode(&out[..]).unwrap()
}

#[test]
fn readers_finish_in_the_old_state_and_watchers_go_on_in_the_new_one() {
    let (mut one, mut two) = pair();
    one.view.set_watching(0, true);
    let shown = one.view.revision();
    let mut slow = one.view.range(&unasked(everything())).unwrap();
    let mut begun = Vec::new();
    assert!(slow.write_chunk(&mut begun, 4096).unwrap(), "in pieces");

    let (_dir, backend) = received(&mut two);
    let (writer, reader, maintenance) = (backend.writer, backend.reader, backend.maintenance);
    let view = one.view.clone();
    let prepared = view.prepare(writer, reader, maintenance).unwrap();
    assert_eq!(view.revision(), shown, "nothing is shown yet");
    let (machine, sweep) = view.replace(prepared, MemberId(7));
    drop((one.machine, one.sweep, one.committer));

    // The reader that had begun sees the old state to its end, also what was changed since.
    let old = drain(slow, begun);
    assert_eq!(old.kvs.len() as i64, KEYS);
    assert!(old.kvs.iter().all(|kv| kv.value == VALUE.as_bytes()));
    // Whoever begins now, by whichever clone of the view, sees the new one.
    assert_eq!(one.view.revision(), two.view.revision());
    assert_eq!(one.view.applied(), two.view.applied());
    let new = drain(one.view.range(&unasked(everything())).unwrap(), Vec::new());
    assert_eq!(
        new,
        drain(two.view.range(&unasked(everything())).unwrap(), Vec::new())
    );
    assert_eq!(
        one.view.hash_kv(0).unwrap().0,
        two.view.hash_kv(0).unwrap().0
    );
    // A watcher that had everything gets what it missed, once, from the new database.
    let chunk = one.view.events(shown + 1, 100, 1 << 20).unwrap();
    let events: Vec<_> = chunk
        .events
        .iter()
        .map(|event| (event.revision() - shown, event.key().to_vec()))
        .collect();
    let key = |key: &str| key.as_bytes().to_vec();
    let wanted = [(1, key("k0000")), (2, key("k0001")), (3, key("later"))];
    assert_eq!(events, wanted);
    assert_eq!(chunk.through, one.view.revision());
    assert_eq!(one.view.watching(), 1);

    // The new machine goes on, and its events reach the same log.
    one.machine = machine;
    one.sweep = sweep;
    one.committer = backend.committer;
    one.index = two.index;
    let next = one.put("k0002", "after");
    let chunk = one.view.events(next, 100, 1 << 20).unwrap();
    assert_eq!(chunk.events.len(), 1);
    assert_eq!(one.machine.member, MemberId(7));
}

#[test]
fn a_database_below_what_is_shown_is_refused() {
    let (mut one, mut two) = pair();
    let (_dir, backend) = received(&mut one);
    let refused = two
        .view
        .prepare(backend.writer, backend.reader, backend.maintenance);
    assert!(matches!(refused, Err(OpenError::Broken(_))));
    assert_eq!(two.put("still", "here"), two.view.revision());
}

#[test]
fn the_members_of_a_pinned_database_are_those_of_its_moment() {
    let mut rig = Rig::new();
    rig.put("a", "1");
    let pinned = rig.committer.pin().unwrap();
    let members = crate::Members::pinned(&pinned).unwrap();
    assert_eq!(members.conf_state(), rig.view.members().conf_state());
    assert_eq!(pinned.applied, rig.view.applied());
}
