use std::time::{Duration, Instant};

use storage::log::LogIndex;

use super::SimpleTokens;
use crate::auth::token::{Resolved, Tokens};

const TTL: Duration = Duration::from_secs(300);

fn user(resolved: &Resolved) -> Option<&str> {
    match resolved {
        Resolved::Known(identity) => Some(&identity.user),
        _ => None,
    }
}

#[test]
fn a_token_is_good_until_nobody_has_used_it_for_the_ttl() {
    let tokens = SimpleTokens::new(TTL);
    let begin = Instant::now();
    tokens.assign_at("alice", "seed.7", begin);
    tokens.on_applied(LogIndex(8));
    assert_eq!(
        user(&tokens.resolve_at(b"seed.7", begin + TTL)),
        Some("alice")
    );
    assert_eq!(
        user(&tokens.resolve_at(b"seed.7", begin + 2 * TTL)),
        Some("alice")
    );
    let late = begin + 3 * TTL + Duration::from_millis(1);
    assert_eq!(tokens.resolve_at(b"seed.7", late), Resolved::Unknown);
    // The next one that is made takes expired ones out of memory.
    tokens.assign_at("bob", "other.9", late);
    assert_eq!(tokens.known().tokens.len(), 1);
}

#[test]
fn only_a_token_of_an_entry_to_come_is_worth_waiting_for() {
    let tokens = SimpleTokens::new(TTL);
    tokens.on_applied(LogIndex(10));
    assert_eq!(tokens.resolve(b"seed.10"), Resolved::NotYet);
    assert_eq!(tokens.resolve(b"seed.9"), Resolved::Unknown);
    let malformed: [&[u8]; 9] = [
        b"",
        b"seed",
        b".9",
        b"seed.",
        b"seed.+11",
        b"seed.11.12",
        b"seed.99999999999999999999",
        b"\xff.11",
        b"seed.1x",
    ];
    for token in malformed {
        assert_eq!(tokens.resolve(token), Resolved::Unknown, "{token:?}");
    }
}

#[test]
fn who_changes_the_password_loses_every_token() {
    let tokens = SimpleTokens::new(TTL);
    for (name, token) in [("alice", "a.1"), ("alice", "b.2"), ("bob", "c.3")] {
        tokens.on_assigned(name, token);
    }
    tokens.on_applied(LogIndex(4));
    tokens.on_revoked(Some("alice"));
    assert_eq!(tokens.resolve(b"a.1"), Resolved::Unknown);
    assert_eq!(tokens.resolve(b"b.2"), Resolved::Unknown);
    assert_eq!(user(&tokens.resolve(b"c.3")), Some("bob"));
    tokens.on_revoked(None);
    assert_eq!(tokens.resolve(b"c.3"), Resolved::Unknown);
}

#[test]
fn seeds_are_sixteen_letters_and_apply_makes_the_tokens() {
    let tokens = SimpleTokens::new(TTL);
    let (one, other) = (tokens.seed().unwrap(), tokens.seed().unwrap());
    assert_eq!(one.len(), 16);
    assert!(one.bytes().all(|byte| byte.is_ascii_alphabetic()));
    assert_ne!(one, other);
    assert!(tokens.assign("alice", 1).is_err());
}
