//! What both tools say about the same files, right and wrong ones.

use std::path::Path;

use crate::server::{Said, binary, run};
use crate::{one_place, ours, reference, source};

/// Command lines that both tools hear. `good` is a snapshot; each run has its own copy of all.
const LINES: &[&str] = &[
    "snapshot status good",
    "snapshot status good -w fields",
    "snapshot status good -w json",
    "snapshot status good --write-out=protobuf",
    "snapshot status good -w nosuch",
    "snap stat bare",
    "snapshot status",
    "snapshot status good bare",
    "snapshot status nofile",
    "snapshot status garbage",
    "hashkv good",
    "hashkv good -w fields",
    "hashkv good -w json",
    "hashkv good -w protobuf",
    "hashkv good -w nosuch",
    "hashkv bare --rev 25",
    "hashkv bare --rev 30",
    "hashkv bare --rev 20",
    "hashkv bare --rev 19",
    "hashkv bare --rev 1000",
    "hashkv bare --rev x",
    "hashkv",
    "hashkv good bare",
    "hashkv nofile",
    "snapshot restore",
    "snapshot restore nofile",
    "snapshot restore nofile --data-dir full",
    "snapshot restore good --data-dir out --bump-revision 5",
    "snapshot restore good --data-dir out --mark-compacted",
    "snapshot restore good --data-dir out --wal-dir full",
    "snapshot restore good --data-dir out --name x",
    "snapshot restore good --data-dir out --initial-cluster default=http://localhost:1",
    "snapshot restore good --data-dir out --initial-cluster default=localhost",
    "snapshot restore good --data-dir out --initial-advertise-peer-urls http://localhost",
    "snapshot restore bare --data-dir out",
    "snapshot restore tiny --data-dir out",
    "snapshot restore garbage --data-dir out",
    "snapshot restore flipped --data-dir out",
    "snapshot restore good --data-dir out",
    "snapshot nosuch",
    "defrag",
    "defrag --data-dir nosuch",
    "migrate",
    "migrate --data-dir nosuch",
    "migrate --target-version 3.6",
    "migrate --data-dir nosuch --target-version x",
    "migrate --data-dir nosuch --target-version 3.6.0",
    "migrate --data-dir nosuch --target-version 3.4",
    "migrate --data-dir nosuch --target-version 3.x",
    "migrate --data-dir nosuch --target-version 3.6",
    "version",
    "completion",
    "completion nosuch",
    "nosuch",
    "--nosuch",
    "help nosuch",
    "hashkv good --timeout x",
];

/// Lays out the files of a run.
fn lay_out(directory: &Path, good: &[u8]) {
    std::fs::create_dir(directory).unwrap();
    let file = |name: &str, bytes: &[u8]| std::fs::write(directory.join(name), bytes).unwrap();
    file("good", good);
    file("bare", &good[..good.len() - 32]);
    let mut flipped = good.to_vec();
    flipped[good.len() / 2] ^= 1;
    file("flipped", &flipped);
    file("tiny", b"tiny");
    file("garbage", &[0x5a; 40_960]);
    std::fs::create_dir(directory.join("full")).unwrap();
    file("full/file", b"");
}

/// What scripts may depend on: the code, the output, and the lines that name an error. Help and
/// usage are in words of our own, and log lines have times.
fn normal(said: &Said) -> String {
    let shown = |line: &&str| !line.contains("version: ") && !line.is_empty();
    let is_usage = said.stdout.starts_with("Usage:") || said.stdout.contains("\nUsage:");
    let stdout = if is_usage { "usage" } else { &said.stdout };
    let stdout: Vec<_> = stdout.lines().filter(shown).collect();
    let errors = said.stderr.lines().filter(|line| {
        line.starts_with("Error:") || line.starts_with("Unknown") || line.starts_with("Run ")
    });
    format!(
        "code {:?}\n{}\n{}",
        said.code,
        stdout.join("\n"),
        errors.collect::<Vec<_>>().join("\n")
    )
}

#[test]
fn both_tools_say_the_same() {
    let temp = tempfile::tempdir().unwrap();
    let snapshot = source(&binary("ETCD_REFERENCE"), temp.path(), &one_place());
    let good = std::fs::read(snapshot).unwrap();
    let mut differences = Vec::new();
    for (number, line) in LINES.iter().enumerate() {
        let args: Vec<&str> = line.split(' ').collect();
        let said = [("go", reference()), ("ours", ours())].map(|(who, tool)| {
            let directory = temp.path().join(format!("{who}{number}"));
            lay_out(&directory, &good);
            normal(&run(&tool, &args, &directory))
        });
        if said[0] != said[1] {
            let [left, right] = said;
            differences.push(format!(
                "$ {line}\n--- reference\n{left}\n+++ ours\n{right}"
            ));
        }
    }
    println!("{} command lines compared", LINES.len());
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

#[test]
fn tables_are_those_of_the_releases_before() {
    let temp = tempfile::tempdir().unwrap();
    let snapshot = source(&binary("ETCD_REFERENCE"), temp.path(), &one_place());
    let good = std::fs::read(snapshot).unwrap();
    let args = ["snapshot", "status", "good", "-w", "table"];
    let tools = [("go", binary("ETCDUTL_TABLE_REFERENCE")), ("ours", ours())];
    let [theirs, ours] = tools.map(|(who, tool)| {
        let directory = temp.path().join(who);
        lay_out(&directory, &good);
        run(&tool, &args, &directory).stdout
    });
    assert!(theirs.starts_with("+--"), "{theirs}");
    assert_eq!(theirs, ours);
}

/// Names, letters, types and defaults of the flags that a command's help lists.
fn flags(etcdutl: &Path, command: &str) -> Vec<String> {
    let mut args: Vec<&str> = command.split_whitespace().collect();
    args.push("--help");
    let said = run(etcdutl, &args, Path::new("/"));
    let lines = said
        .stdout
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with('-'));
    let mut flags: Vec<String> = lines
        .map(|line| {
            let head = line.split("   ").next().unwrap();
            let default = line
                .rsplit_once("(default ")
                .filter(|(_, value)| value.ends_with(')'));
            let default = default.map_or("", |(_, value)| value.trim_end_matches(')'));
            format!("{head} {default}")
        })
        .collect();
    flags.sort();
    flags
}

#[test]
fn commands_have_the_same_flags() {
    let commands = [
        "",
        "defrag",
        "snapshot",
        "snapshot status",
        "snapshot restore",
        "hashkv",
        "migrate",
        "version",
        "completion",
    ];
    for command in commands {
        let [theirs, ours] = [reference(), ours()].map(|tool| flags(&tool, command));
        assert!(theirs.len() > 2, "{command}: {theirs:?}");
        assert_eq!(theirs, ours, "{command}");
    }
}
