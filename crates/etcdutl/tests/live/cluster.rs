//! Three members, each restored by itself, by one tool or the other, become one cluster.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::directory::{restore, servers};
use crate::server::{Member, binary, initial_cluster, places};
use crate::{make, one_place, ours, reference, seen, source};

#[test]
fn members_restored_by_either_tool_are_one_cluster() {
    let temp = tempfile::tempdir().unwrap();
    let places = places(3);
    let server = binary("ETCD_REFERENCE");
    let snapshot = source(&server, temp.path(), &places[0]);
    let cluster = initial_cluster(&places);
    let tools = [reference(), ours(), ours()];
    let mut members = Vec::new();
    for (place, etcdutl) in places.iter().zip(&tools) {
        let dir = temp.path().join(&place.name);
        let args = [
            "snapshot",
            "restore",
            snapshot.to_str().unwrap(),
            "--data-dir",
            dir.to_str().unwrap(),
            "--name",
            &place.name,
            "--initial-cluster",
            &cluster,
            "--initial-advertise-peer-urls",
            &place.peer,
        ];
        make(etcdutl, &args, Path::new("/"));
        members.push(Member::spawn(&server, &dir, place, &cluster));
    }
    members.iter_mut().for_each(Member::wait_until_healthy);
    let answers: Vec<_> = members.iter().map(seen).collect();
    assert!(
        answers.windows(2).all(|pair| pair[0] == pair[1]),
        "{answers:#?}"
    );
    assert_eq!(answers[0][4].lines().count(), 3);
    members[1].tell(&["put", "afterwards", "all of them"]);
    let found = members[2].tell(&["get", "afterwards", "--print-value-only"]);
    assert_eq!(found, "all of them\n");
}

/// Saved from a follower or the leader of three while clients write, a snapshot is the state of
/// one moment: both tools make the same of it, and what was answered before is in it.
#[test]
fn a_snapshot_saved_under_writes() {
    for server in servers() {
        let temp = tempfile::tempdir().unwrap();
        let snapshot = temp.path().join("snapshot.db");
        let written = save_under_writes(&server, temp.path(), &snapshot);
        let place = one_place();
        let answers = [("go", reference()), ("ours", ours())].map(|(who, etcdutl)| {
            let dir = temp.path().join(who);
            restore(&etcdutl, &snapshot, &dir, &place);
            let member = Member::start(&server, &dir, &place);
            let count = member.tell(&["get", "count", "--print-value-only"]);
            let hash = member.tell(&["endpoint", "hashkv"]);
            (count.trim().parse::<u32>().unwrap(), hash)
        });
        assert_eq!(answers[0], answers[1]);
        assert!(answers[0].0 >= written, "{answers:?} after {written}");
    }
}

/// Runs three members, writes a growing count to one and saves a snapshot of another meanwhile;
/// returns the count that was answered before the snapshot was asked for.
fn save_under_writes(server: &Path, directory: &Path, snapshot: &Path) -> u32 {
    let places = places(3);
    let cluster = initial_cluster(&places);
    let mut members: Vec<Member> = places
        .iter()
        .map(|place| Member::spawn(server, &directory.join(&place.name), place, &cluster))
        .collect();
    members.iter_mut().for_each(Member::wait_until_healthy);
    let is_saved = AtomicBool::new(false);
    let members = &members;
    let put = |count: u32| members[0].tell(&["put", "count", &count.to_string()]);
    (0..20).for_each(|count| drop(put(count)));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut count = 20;
            while !is_saved.load(Ordering::Relaxed) {
                put(count);
                count += 1;
            }
        });
        let said = members[2].ask(&["snapshot", "save", snapshot.to_str().unwrap()]);
        is_saved.store(true, Ordering::Relaxed);
        assert_eq!(said.code, Some(0), "{}", said.stderr);
    });
    19
}
