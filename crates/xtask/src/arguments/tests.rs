use super::*;

fn arguments(line: &str) -> Arguments {
    Arguments::new(
        &line
            .split_whitespace()
            .map(String::from)
            .collect::<Vec<_>>(),
    )
}

#[test]
fn options_are_taken_in_any_order() {
    let mut given = arguments("--quick --rounds=3 --json out.json");
    assert_eq!(given.value("--json").unwrap().as_deref(), Some("out.json"));
    assert_eq!(given.number("--rounds", 5).unwrap(), 3);
    assert!(given.switch("--quick"));
    assert!(!given.switch("--quick"));
    assert_eq!(given.number("--absent", 7).unwrap(), 7);
    given.finish().unwrap();
}

#[test]
fn what_is_not_understood_is_refused() {
    assert!(arguments("--json").value("--json").is_err());
    assert!(arguments("").required("--ours").is_err());
    assert!(arguments("--rounds many").number("--rounds", 1).is_err());
    assert!(arguments("--unknown").finish().is_err());
}
