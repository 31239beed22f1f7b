use super::*;

fn rules(path: &str, content: &str) -> Vec<&'static str> {
    check(path, content).iter().map(|one| one.rule).collect()
}

#[test]
fn a_long_file_is_found() {
    assert_eq!(rules("a.rs", &"x\n".repeat(1001)), ["long-file"]);
    assert!(rules("a.rs", &"x\n".repeat(1000)).is_empty());
    assert!(rules("a.txt", &"x\n".repeat(1001)).is_empty());
}

#[test]
fn names_of_files_are_checked() {
    assert_eq!(rules("crates/a/src/b/mod.rs", ""), ["mod-rs"]);
    assert_eq!(rules("crates/a/src/utils.rs", ""), ["vague-name"]);
    assert!(rules("crates/a/src/b.rs", "").is_empty());
}

#[test]
fn unfinished_work_is_found() {
    assert_eq!(rules("a.rs", "// TODO: later"), ["unfinished"]);
    assert_eq!(rules("a.md", "a FIXME here"), ["unfinished"]);
    assert!(rules("a.rs", "let TODOS = 1;").is_empty());
}

#[test]
fn paths_of_one_machine_are_found() {
    assert_eq!(rules("a.sh", "cd /home/me/etcd"), ["machine-path"]);
    assert_eq!(rules("a.sh", "cd /home/me/main"), ["machine-path"]);
    assert!(rules("a.sh", "cd target/home/ && ls https://example.org/home/").is_empty());
}

#[test]
fn each_banned_word_is_found() {
    for entry in BANNED_WORDS.lines() {
        let line = format!("because {} said so", entry.trim_start_matches('='));
        assert_eq!(rules("a.md", &line), ["banned-word"], "{entry}");
    }
    assert!(rules("a.md", "a lease session of the client, maintained").is_empty());
}
