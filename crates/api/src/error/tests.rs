//! The table against the list of what etcd 3.7 sends: name, code and text, tab-separated.

use super::*;

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Canceled => "CANCELED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[test]
fn every_error_is_as_etcd_sends_it() {
    let ours: Vec<String> = Error::ALL
        .iter()
        .map(|error| format!("{error:?}\t{}\t{error}", code_name(error.code())))
        .collect();
    let list: Vec<&str> = include_str!("list.txt").lines().collect();
    assert_eq!(ours, list);
    assert_eq!(list.len(), 65);
}

#[test]
fn a_status_has_the_code_and_the_text() {
    for &error in Error::ALL {
        let status = Status::from(error);
        assert_eq!(
            (status.code, &*status.message),
            (error.code(), error.message())
        );
        assert_eq!(error.name(), format!("{error:?}"));
    }
}
