use super::*;

#[test]
fn binaries_are_named_after_the_minor() {
    assert_eq!(minor_of("v3.7.3").unwrap(), "3.7");
    assert!(minor_of("3.7.3").is_err());
    assert!(minor_of("v3").is_err());
}

#[test]
fn the_module_requires_each_command_once() {
    let text = go_mod("v3.7.3");
    assert_eq!(text.matches("require go.etcd.io/etcd/").count(), 3);
    assert!(text.contains("require go.etcd.io/etcd/server/v3 v3.7.3\n"));
}
