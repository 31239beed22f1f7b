use super::*;

fn rules(content: &str) -> Vec<(&'static str, String)> {
    check("a.rs", content)
        .into_iter()
        .map(|one| (one.rule, one.item))
        .collect()
}

fn long_function(lines: usize) -> String {
    format!("fn run() {{\n{}}}\n", "    step();\n".repeat(lines - 2))
}

#[test]
fn a_long_function_is_found() {
    assert_eq!(rules(&long_function(71)), [("long-function", "run".into())]);
    assert!(rules(&long_function(70)).is_empty());
}

#[test]
fn a_test_may_hold_a_longer_table() {
    assert!(check("src/a/tests.rs", &long_function(150)).is_empty());
    assert_eq!(check("src/a/tests.rs", &long_function(151)).len(), 1);
}

#[test]
fn a_long_method_in_a_module_is_found() {
    let body = long_function(80);
    let nested = format!("mod inner {{ impl Thing {{ {body} }} trait Other {{ {body} }} }}");
    assert_eq!(rules(&nested).len(), 2);
}

#[test]
fn an_allow_without_reason_is_found() {
    let planted = "#[allow(dead_code)]\nfn run() {}\n";
    assert_eq!(rules(planted), [("allow-reason", "dead_code".into())]);
    assert_eq!(
        rules("#![allow(dead_code)]\n"),
        [("allow-reason", "dead_code".into())]
    );
    assert!(rules("#[allow(dead_code, reason = \"the C ABI\")]\nfn run() {}\n").is_empty());
}

#[test]
fn left_overs_are_found() {
    assert_eq!(
        rules("fn run() { dbg!(1); }"),
        [("left-over", "dbg".into())]
    );
    assert_eq!(
        rules("fn run() { todo!() }"),
        [("left-over", "todo".into())]
    );
}

#[test]
fn an_ignored_test_is_found() {
    assert_eq!(
        rules("#[test]\n#[ignore]\nfn run() {}"),
        [("ignored-test", "run".into())]
    );
}

#[test]
fn a_comment_that_repeats_the_name_is_found() {
    let planted = "/// Returns the current revision.\nfn current_revision() {}";
    assert_eq!(rules(planted), [("empty-doc", "current_revision".into())]);
    let telling = "/// The revision of the last applied write; 1 when empty.\nfn revision() {}";
    assert!(rules(telling).is_empty());
    assert_eq!(
        rules("struct A { /// The key.\n key: u8 }"),
        [("empty-doc", "key".into())]
    );
}

#[test]
fn code_that_does_not_parse_is_found() {
    assert_eq!(rules("fn run( {"), [("syntax", "-".into())]);
}
