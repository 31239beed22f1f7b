//! A snapshot that our etcdctl saves is a good one for etcd's own tools.

use std::path::Path;
use std::process::Command;

use crate::cluster::{Member, free_ports};
use crate::scenario::Directory;
use crate::{ours, variable};

fn run(program: &Path, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// The number behind a JSON field's name.
fn number<'a>(json: &'a str, name: &str) -> &'a str {
    let (_, rest) = json.split_once(&format!("\"{name}\":")).unwrap();
    rest.split([',', '}']).next().unwrap()
}

/// `ETCDUTL_REFERENCE` names Go's etcdutl.
#[test]
fn etcdutl_restores_what_etcdctl_saved() {
    let etcdutl = variable("ETCDUTL_REFERENCE");
    let tools = ours();
    let directory = Directory::new();
    let ports = free_ports();
    let member = Member::start(&tools.server, directory.path(), ports);
    let endpoint = format!("--endpoints=http://127.0.0.1:{}", ports.client);
    let etcdctl = |words: &[&str]| run(&tools.etcdctl, &[&[endpoint.as_str()], words].concat());
    let long = "x".repeat(5000);
    for round in ["1", "2"] {
        for key in 0..60 {
            etcdctl(&[
                "put",
                &format!("key{key:02}"),
                &format!("{round}{key}{long}"),
            ]);
        }
    }
    etcdctl(&["del", "key10", "key50"]);
    etcdctl(&["compaction", "100", "--physical"]);
    etcdctl(&["defrag"]);
    etcdctl(&["put", "last", "one"]);
    let hash = etcdctl(&["endpoint", "hashkv", "-w", "json"]);
    let wanted = etcdctl(&["get", "", "--prefix"]);

    let file = directory.path().join("saved.db");
    let file = file.to_str().unwrap();
    etcdctl(&["snapshot", "save", file]);
    drop(member);
    let status = run(&etcdutl, &["snapshot", "status", file, "-w", "json"]);
    // 122 puts, one deletion of 40 keys.
    assert_eq!(number(&status, "revision"), "123");
    assert_eq!(number(&status, "version"), "\"3.7.0\"");
    let restored = directory.path().join("data");
    std::fs::remove_dir_all(&restored).unwrap();
    let peer = format!("http://127.0.0.1:{}", ports.peer);
    let words = [
        "snapshot",
        "restore",
        file,
        "--name=s1",
        &format!("--data-dir={}", restored.display()),
        &format!("--initial-cluster=s1={peer}"),
        &format!("--initial-advertise-peer-urls={peer}"),
    ];
    run(&etcdutl, &words);
    for server in [variable("ETCD_REFERENCE"), tools.server.clone()] {
        let _member = Member::start(&server, directory.path(), ports);
        assert_eq!(etcdctl(&["get", "", "--prefix"]), wanted);
        let again = etcdctl(&["endpoint", "hashkv", "-w", "json"]);
        assert_eq!(number(&again, "hash"), number(&hash, "hash"));
    }
}
