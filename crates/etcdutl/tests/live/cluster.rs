//! Three members, each restored by itself, by one tool or the other, become one cluster.

use std::path::Path;

use crate::server::{Member, binary, initial_cluster, places};
use crate::{make, ours, reference, seen, source};

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
