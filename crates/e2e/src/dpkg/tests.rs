use super::*;

#[test]
fn stanzas_are_named_after_their_package() {
    let status = "Package: a\nArchitecture: amd64\n\nPackage: a\nArchitecture: i386\n\n\n";
    let keys: Vec<Bytes> = stanzas(status).into_iter().map(|one| one.key).collect();
    assert_eq!(keys, [&b"/dpkg/a"[..], b"/dpkg/a:i386"]);
}

#[test]
fn lines_are_numbered() {
    let records = lines("libc6:amd64", "/.\n/lib\n");
    assert_eq!(records[1].key, "/files/libc6:amd64/1");
    assert_eq!(records[1].value, "/lib");
}
