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
