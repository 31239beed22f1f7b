use super::{Request, Revisions, Step, Verdict, check};
use crate::faults::history::Version;
use crate::random::Random;

/// Value `n` has revision `10 * n` in these histories.
fn at(value: u64) -> Option<Version> {
    let mod_revision = 10 * value as i64;
    Some(Version {
        value,
        mod_revision,
    })
}

fn revisions() -> Revisions {
    (1..100).map(|value| (value, 10 * value as i64)).collect()
}

fn request(call: u64, end: u64, step: Step) -> Request {
    let end = Some(end);
    Request { call, end, step }
}

fn open(call: u64, step: Step) -> Request {
    let end = None;
    Request { call, end, step }
}

fn verdict(requests: &[Request]) -> Verdict {
    check(requests, &revisions(), 1_000_000)
}

fn right(requests: &[Request]) {
    assert_eq!(verdict(requests), Verdict::Right, "{requests:?}");
}

fn wrong(requests: &[Request]) {
    let verdict = verdict(requests);
    assert!(matches!(verdict, Verdict::Wrong(_)), "{requests:?}");
}

use Step::{Deleted, MayDelete, MaySwap, Put, Refused, Saw, Swapped};

#[test]
fn one_after_the_other() {
    right(&[]);
    right(&[request(0, 1, Saw(None))]);
    wrong(&[request(0, 1, Saw(at(1)))]);
    right(&[request(0, 1, Put(1)), request(2, 3, Saw(at(1)))]);
    wrong(&[request(0, 1, Put(1)), request(2, 3, Saw(None))]);
    // A value that is there under a revision that is not its own.
    let wrong_revision = Some(Version {
        value: 1,
        mod_revision: 11,
    });
    wrong(&[request(0, 1, Put(1)), request(2, 3, Saw(wrong_revision))]);
    // The older of two values.
    let puts = [request(0, 1, Put(1)), request(2, 3, Put(2))];
    right(&[puts[0], puts[1], request(4, 5, Saw(at(2)))]);
    wrong(&[puts[0], puts[1], request(4, 5, Saw(at(1)))]);
}

#[test]
fn what_overlaps_may_be_in_either_order() {
    let puts = [request(0, 10, Put(1)), request(0, 10, Put(2))];
    right(&[puts[0], puts[1], request(11, 12, Saw(at(1)))]);
    right(&[puts[0], puts[1], request(11, 12, Saw(at(2)))]);
    // But not in both.
    let first = request(11, 12, Saw(at(1)));
    wrong(&[puts[0], puts[1], first, request(13, 14, Saw(at(2)))]);
    // A read beside a put sees it or not; once it was seen, it stays.
    let put = request(0, 10, Put(1));
    right(&[put, request(1, 2, Saw(None)), request(3, 4, Saw(at(1)))]);
    wrong(&[put, request(1, 2, Saw(at(1))), request(3, 4, Saw(None))]);
}

#[test]
fn without_an_answer_it_happened_at_any_time_or_never() {
    let put = open(0, Put(1));
    right(&[put, request(1, 2, Saw(None)), request(100, 101, Saw(at(1)))]);
    right(&[put, request(1, 2, Saw(None)), request(100, 101, Saw(None))]);
    wrong(&[put, request(1, 2, Saw(at(1))), request(3, 4, Saw(None))]);
    // Not before it was asked.
    wrong(&[open(5, Put(1)), request(1, 2, Saw(at(1)))]);
    // Not twice.
    let later = [
        request(1, 2, Saw(at(1))),
        request(3, 4, Put(2)),
        request(5, 6, Saw(at(1))),
    ];
    wrong(&[put, later[0], later[1], later[2]]);
    // A deletion explains why a value is gone, once.
    let put = request(0, 1, Put(1));
    let gone = request(3, 4, Saw(None));
    right(&[put, open(2, MayDelete), gone]);
    wrong(&[put, open(2, MayDelete), gone, request(5, 6, Saw(at(1)))]);
}

#[test]
fn comparisons() {
    let put = request(0, 1, Put(1));
    let done = |expected| {
        let value = 2;
        request(2, 3, Swapped { expected, value })
    };
    let refused = |expected, seen| request(2, 3, Refused { expected, seen });
    right(&[put, done(10), request(4, 5, Saw(at(2)))]);
    wrong(&[put, done(10), request(4, 5, Saw(at(1)))]);
    wrong(&[put, done(0)]);
    right(&[done(0)]);
    right(&[put, refused(0, at(1))]);
    wrong(&[put, refused(10, at(1))]);
    wrong(&[put, refused(0, None)]);
    // Two that expect the same cannot both be done.
    let expected = 10;
    let swap = |value| request(2, 9, Swapped { expected, value });
    wrong(&[put, swap(2), swap(3)]);
    let unknown = open(2, MaySwap { expected, value: 2 });
    right(&[put, unknown, request(4, 5, Saw(at(2)))]);
    let overwritten = request(2, 3, Put(3));
    wrong(&[put, overwritten, unknown, request(4, 5, Saw(at(2))), {
        request(6, 7, Saw(at(3)))
    }]);
    right(&[put, request(2, 3, Deleted(at(1))), {
        request(4, 5, Saw(None))
    }]);
    wrong(&[put, request(2, 3, Deleted(None))]);
}

/// A history that a real register could have made: requests take effect one after the other, each
/// somewhere between its call and its return.
fn made(random: &mut Random, count: u64) -> Vec<Request> {
    let mut state = None;
    let mut requests = Vec::new();
    for number in 1..=count {
        let effect = 100 * number;
        let call = effect - 1 - random.below(350).min(effect - 1);
        let step = match random.below(5) {
            0 | 1 => {
                state = Some(number);
                Put(number)
            }
            2 => {
                let seen = state.take();
                Deleted(seen.and_then(at))
            }
            3 => {
                let expected = state.map_or(0, |value| 10 * value as i64);
                let value = number;
                state = Some(value);
                Swapped { expected, value }
            }
            _ => Saw(state.and_then(at)),
        };
        let end = effect + 1 + random.below(350);
        // Some of the puts got no answer.
        let is_open = matches!(step, Put(_)) && random.below(8) == 0;
        let end = (!is_open).then_some(end);
        requests.push(Request { call, end, step });
    }
    requests
}

#[test]
fn histories_of_a_register_are_right_and_a_stale_read_makes_them_wrong() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let mut requests = made(&mut random, 80);
        right(&requests);
        // A read, after everything, of a value that was overwritten before.
        let end = requests.iter().filter_map(|request| request.end).max();
        let end = end.expect("most requests return");
        requests.push(request(end + 1, end + 2, Put(90)));
        requests.push(request(end + 3, end + 4, Put(91)));
        right(&requests);
        requests.push(request(end + 5, end + 6, Saw(at(90))));
        wrong(&requests);
    }
}

#[test]
fn it_gives_up() {
    let mut requests: Vec<Request> = (1..30).map(|value| request(0, 1_000, Put(value))).collect();
    requests.push(request(2_000, 2_001, Saw(None)));
    assert_eq!(check(&requests, &revisions(), 10_000), Verdict::Undecided);
}
