use super::*;

#[test]
fn patterns_have_open_places() {
    assert!(fits("ok", "ok"));
    assert!(!fits("ok", "okay"));
    assert!(fits("a*c", "abbc"));
    assert!(!fits("a*c", "abbd"));
    assert!(fits("a*", "abbd"));
    assert!(!fits("a*c", "acd"));
}

#[test]
fn codes_are_named_as_in_the_documents() {
    assert_eq!(code_name(Code::InvalidArgument), "INVALID_ARGUMENT");
    assert_eq!(code_name(Code::Unknown), "UNKNOWN");
}
