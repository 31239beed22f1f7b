use super::*;
use serde_json::json;

fn graph(name: &str, dependencies: Value) -> Value {
    json!({ "packages": [{ "name": name, "dependencies": dependencies }] })
}

fn rules(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().map(|one| one.rule).collect()
}

#[test]
fn an_arrow_against_the_design_is_found() {
    let planted = graph(
        "storage",
        json!([{ "name": "state", "path": "crates/state" }]),
    );
    assert_eq!(rules(&check_graph(&planted)), ["crate-edge"]);
    let allowed = graph(
        "state",
        json!([{ "name": "storage", "path": "crates/storage" }]),
    );
    assert!(check_graph(&allowed).is_empty());
}

#[test]
fn a_crate_that_the_design_does_not_know_is_found() {
    assert_eq!(
        rules(&check_graph(&graph("stuff", json!([])))),
        ["unknown-room"]
    );
}

#[test]
fn a_runtime_in_a_pure_room_is_found() {
    let tokio = json!([{ "name": "tokio", "path": null }]);
    assert_eq!(
        rules(&check_graph(&graph("state", tokio.clone()))),
        ["async-runtime"]
    );
    assert!(check_graph(&graph("client", tokio)).is_empty());
}

#[test]
fn a_dependency_without_a_reason_is_found() {
    let manifest = "[dependencies]\napi.workspace = true\nbytes = \"1\"\nlibc = \"0.2\" # locks of open files\n";
    let findings = check_manifest("crates/a/Cargo.toml", manifest);
    assert_eq!(findings.len(), 1);
    assert_eq!((findings[0].item.as_str(), findings[0].line), ("bytes", 3));
}

#[test]
fn other_ways_to_write_a_dependency_are_read() {
    let manifest = "[workspace.dependencies]\napi = { path = \"crates/api\" }\n\n\
        [dev-dependencies]\nx = { version = \"1\", features = [\n  \"a\",\n] } # needed by the tests\n\n\
        [target.'cfg(unix)'.dependencies]\ny = \"1\"\n\n\
        [dependencies.z] # a table with reason\nversion = \"1\"\n\n\
        [dependencies.w]\nversion = \"1\"\n\n[features]\nsim = []\n";
    let findings = check_manifest("Cargo.toml", manifest);
    let items: Vec<&str> = findings.iter().map(|one| one.item.as_str()).collect();
    assert_eq!(items, ["y", "w"]);
}

#[test]
fn a_locked_source_outside_the_registry_is_found() {
    let lock = "source = \"registry+https://github.com/rust-lang/crates.io-index\"\n\
        source = \"git+https://example.org/a\"\n";
    let findings = check_lock("Cargo.lock", lock);
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].line, 2);
}
