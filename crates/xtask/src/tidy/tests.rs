use super::*;

fn finding(item: &str, size: usize) -> Finding {
    Finding {
        rule: "long-function",
        path: "a.rs".into(),
        item: item.into(),
        line: 3,
        size,
        why: "too long".into(),
    }
}

#[test]
fn an_exception_excuses_up_to_its_size() {
    let ratchet = "long-function a.rs run 90 # one table of the format\n";
    assert!(
        apply_ratchet(vec![finding("run", 90)], ratchet)
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        apply_ratchet(vec![finding("run", 91)], ratchet)
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        apply_ratchet(vec![finding("run", 90), finding("go", 71)], ratchet)
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn an_exception_that_is_too_large_is_a_finding() {
    let ratchet = "long-function a.rs run 90 # one table of the format\n";
    let left = apply_ratchet(vec![finding("run", 80)], ratchet).unwrap();
    assert_eq!(left[0].rule, "slack-ratchet");
    let left = apply_ratchet(Vec::new(), ratchet).unwrap();
    assert_eq!(left[0].rule, "slack-ratchet");
}

#[test]
fn an_exception_needs_a_reason() {
    assert!(parse_ratchet("long-function a.rs run 90\n").is_err());
    assert!(parse_ratchet("long-function a.rs run 90 # why\n").is_err());
    assert!(parse_ratchet("long-function a.rs 90 # one table of the format\n").is_err());
}

#[test]
fn generated_files_are_left_alone() {
    let body = format!("// This file is @generated\n{}", "\n".repeat(2000));
    assert!(check_file("crates/api/src/pb/x.rs", &body).is_empty());
    assert!(!check_file("crates/api/src/x.rs", &"\n".repeat(2000)).is_empty());
}
