use super::*;

fn of(line: &str) -> Arguments {
    Arguments::new(line.split_whitespace().map(str::to_owned), "usage: it")
}

#[test]
fn each_word_is_asked_for_once() {
    let mut words = of("tell --only a --bin b --quick --only=c --count 7");
    assert_eq!(words.first().expect("a word"), "tell");
    assert_eq!(words.need("--bin").expect("a path"), PathBuf::from("b"));
    assert!(words.switch("--quick"));
    assert!(!words.switch("--quick"));
    assert_eq!(words.number("--count", 1).expect("a number"), 7);
    assert_eq!(words.number("--count", 1).expect("a number"), 1);
    assert_eq!(words.values("--only").expect("two"), ["a", "c"]);
    words.finish().expect("nothing is left");
}

#[test]
fn wrong_words_are_refused() {
    let only = of("--only").value("--only").expect_err("no value");
    assert_eq!(only, "--only needs a value\nusage: it");
    let only = of("--only --bin b").values("--only");
    let only = only.expect_err("a name");
    assert_eq!(only, "--only needs a value\nusage: it");
    let bin = of("").need("--bin").expect_err("no path");
    assert_eq!(bin, "--bin is required\nusage: it");
    let count = of("--count x").number("--count", 1).expect_err("a word");
    assert_eq!(count, "--count x is no number\nusage: it");
    let mut words = of("--only a --only b");
    assert_eq!(words.value("--only").expect("a value"), Some("a".into()));
    let twice = words.finish().expect_err("one is left");
    assert_eq!(twice, "not known: --only b\nusage: it");
}
