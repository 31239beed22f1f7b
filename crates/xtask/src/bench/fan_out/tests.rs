use super::*;

fn puts() -> Puts {
    Puts {
        under_way: VecDeque::new(),
        first: 7,
        answered: 0,
        watchers: 2,
        latencies: Histogram::new(),
        completed: 0,
    }
}

fn heard(watcher: usize, number: u64) -> Heard {
    Heard {
        watcher,
        number,
        revision: 1,
    }
}

#[test]
fn a_put_is_over_when_it_is_answered_and_all_have_its_event() {
    let mut puts = puts();
    puts.start(2, 100);
    puts.hear(heard(0, 8), 110).unwrap();
    puts.hear(heard(1, 8), 110).unwrap();
    puts.answered = 2;
    assert_eq!(puts.finish(), 0);
    puts.hear(heard(0, 7), 120).unwrap();
    assert_eq!(puts.finish(), 0);
    puts.hear(heard(1, 7), 120).unwrap();
    assert_eq!(puts.finish(), 2);
    assert_eq!((puts.completed, puts.answered, puts.first), (2, 0, 9));
}

#[test]
fn an_event_of_no_put_or_one_too_many_is_an_error() {
    let mut puts = puts();
    puts.start(1, 100);
    assert!(puts.hear(heard(0, 6), 110).is_err());
    assert!(puts.hear(heard(0, 8), 110).is_err());
    puts.hear(heard(0, 7), 110).unwrap();
    puts.hear(heard(1, 7), 110).unwrap();
    assert!(puts.hear(heard(1, 7), 110).is_err());
}
