//! Which answer confirms which reads.

use super::*;

const RETRY: u64 = 5;

fn ask(reads: &mut Reads, context: &'static str, tick: u64) {
    assert!(reads.wants_round(tick, RETRY));
    reads.begin_round(Bytes::from_static(context.as_bytes()), tick);
    assert!(!reads.wants_round(tick + RETRY - 1, RETRY));
}

fn arrive(reads: &mut Reads, tokens: &[u64], tick: u64) {
    reads.arrive(tokens.iter().map(|token| Token(*token)).collect(), tick);
}

fn ready(reads: &mut Reads) -> Vec<(u64, Vec<u64>)> {
    let applied = LogIndex(u64::MAX);
    let taken = std::iter::from_fn(|| reads.take_ready(applied));
    let plain = |tokens: Vec<Token>| tokens.into_iter().map(|token| token.0).collect();
    taken
        .map(|(index, tokens)| (index.0, plain(tokens)))
        .collect()
}

#[test]
fn an_answer_that_comes_after_the_next_question_counts_for_those_that_were_there() {
    let mut reads = Reads::default();
    arrive(&mut reads, &[1, 2], 0);
    ask(&mut reads, "a", 0);
    arrive(&mut reads, &[3], 1);
    // Each answer takes two times as long as a question waits for it.
    ask(&mut reads, "b", RETRY);
    reads.on_confirmed(b"a", LogIndex(7));
    assert_eq!(ready(&mut reads), [(7, vec![1, 2])]);
    arrive(&mut reads, &[4], 6);
    ask(&mut reads, "c", 2 * RETRY);
    reads.on_confirmed(b"b", LogIndex(8));
    assert_eq!(ready(&mut reads), [(8, vec![3])]);
    reads.on_confirmed(b"c", LogIndex(9));
    assert_eq!(ready(&mut reads), [(9, vec![4])]);
    assert!(!reads.is_unconfirmed());
}

#[test]
fn an_answer_counts_for_the_questions_before_it_and_for_no_later_one() {
    let mut reads = Reads::default();
    arrive(&mut reads, &[1], 0);
    ask(&mut reads, "a", 0);
    ask(&mut reads, "b", RETRY);
    arrive(&mut reads, &[2], 6);
    ask(&mut reads, "c", 2 * RETRY);
    reads.on_confirmed(b"b", LogIndex(7));
    assert_eq!(ready(&mut reads), [(7, vec![1])]);
    // An answer to what was confirmed already, and one to what nobody asked.
    reads.on_confirmed(b"a", LogIndex(6));
    reads.on_confirmed(b"x", LogIndex(8));
    assert_eq!(ready(&mut reads), []);
    reads.on_confirmed(b"c", LogIndex(9));
    assert_eq!(ready(&mut reads), [(9, vec![2])]);
}

#[test]
fn rounds_go_with_the_last_who_waits() {
    let mut reads = Reads::default();
    arrive(&mut reads, &[1], 0);
    ask(&mut reads, "a", 0);
    ask(&mut reads, "b", RETRY);
    assert_eq!(reads.expire(0), [Token(1)]);
    assert!(!reads.is_unconfirmed());
    arrive(&mut reads, &[2], 6);
    ask(&mut reads, "c", 6);
    ask(&mut reads, "d", 6 + RETRY);
    reads.on_confirmed(b"c", LogIndex(7));
    // Nobody waits for the other question.
    assert!(!reads.is_unconfirmed());
    assert_eq!(ready(&mut reads), [(7, vec![2])]);
}

#[test]
fn rounds_of_those_who_gave_up_do_not_pile_up_behind_others() {
    let mut reads = Reads::default();
    for number in 0..20 {
        let tick = number * RETRY;
        arrive(&mut reads, &[number], tick);
        ask(&mut reads, "a", tick);
        reads.expire(tick.saturating_sub(2 * RETRY));
        assert!(reads.rounds.len() <= 3, "{}", reads.rounds.len());
    }
}

#[test]
fn another_leader_has_heard_none_of_the_questions() {
    let mut reads = Reads::default();
    arrive(&mut reads, &[1], 0);
    ask(&mut reads, "a", 0);
    arrive(&mut reads, &[2], 1);
    ask(&mut reads, "b", RETRY);
    arrive(&mut reads, &[3], 6);
    assert_eq!(reads.abandon_rounds(), [Token(1), Token(2)]);
    reads.on_confirmed(b"b", LogIndex(7));
    assert_eq!(ready(&mut reads), []);
    ask(&mut reads, "c", 7);
    reads.on_confirmed(b"c", LogIndex(8));
    assert_eq!(ready(&mut reads), [(8, vec![3])]);
}
