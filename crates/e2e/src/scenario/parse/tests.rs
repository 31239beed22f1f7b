use super::*;

const FILE: &str = "# Puts.
server --max-txn-ops=4

with token: x
call KV/Put
  key: \"a\"
  value: \"1\"
expect
  header { revision: 2 }
call KV/Put
error INVALID_ARGUMENT etcdserver: key is not provided
poll
call Maintenance/Hash
expect some
  header { revision: 2 }
stop
start
kill
get /livez?verbose
status 200
  ok
";

#[test]
fn a_file_is_read_and_written_back() {
    let scenario = Scenario::parse(FILE).unwrap();
    assert_eq!(scenario.text(), FILE);
    assert_eq!(scenario.steps.len(), 10);
    let Step::Call {
        metadata, answer, ..
    } = &scenario.steps[3]
    else {
        panic!("no call")
    };
    assert_eq!(metadata[0], ("token".into(), "x".into()));
    let text = "header { revision: 2 }\n".into();
    assert_eq!(
        *answer,
        Answer::Message {
            which: Match::All,
            text
        }
    );
}

#[test]
fn what_is_no_step_is_refused_with_its_line() {
    let error = Scenario::parse("server\nwalk on\n").unwrap_err();
    assert!(error.0.starts_with("line 2"));
    assert!(Scenario::parse("get /livez\nstatus ok\n").is_err());
}

const WEB: &str = "with Accept: */*
post /v3/kv/range
  {\"key\":\"YQ==\"}
status 200
header Content-Type: application/json
header Trailer:
  {}
request PUT /v3/kv/range
status 501
with Cookie: token=x
socket one /v3/watch
  {}
open two /v3/watch
send one
  {}
read one 2
  {}
  {}
silent one
finish one
ended one
leave two
";

#[test]
fn steps_over_http_are_read_and_written_back() {
    let scenario = Scenario::parse(WEB).unwrap();
    assert_eq!(scenario.text(), WEB);
    assert_eq!(scenario.steps.len(), 10);
    assert!(Scenario::parse("read one\n").is_err());
    assert!(Scenario::parse("request PUT\n").is_err());
}
