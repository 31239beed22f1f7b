use super::*;
use crate::auth::simple::SimpleTokens;

fn passwords() -> Passwords {
    let ttl = std::time::Duration::from_secs(1);
    Passwords::new(4, Arc::new(SimpleTokens::new(ttl)))
}

fn hash(passwords: &Passwords, password: &str) -> Bytes {
    let encoded = passwords.hash(password).unwrap();
    STANDARD.decode(encoded).unwrap().into()
}

fn check(password: &str, hash: &Bytes) -> Check {
    Check {
        user: "alice".into(),
        password: password.into(),
        hash: hash.clone(),
    }
}

#[test]
fn a_hash_is_as_go_writes_it_and_gos_is_understood() {
    let passwords = passwords();
    let ours = hash(&passwords, "");
    assert!(ours.starts_with(b"$2a$04$") && ours.len() == 60);
    assert_eq!(compare(&check("", &ours)), Ok(()));
    assert_eq!(compare(&check("x", &ours)), Err(Error::AuthFailed));
    // By golang.org/x/crypto/bcrypt, of "secret".
    let gos = Bytes::from_static(b"$2a$04$4/TA7wDCRXaPMNN45/62aeRsvfcO1h7oYFq9.aRjGPxDn9xvAWmFe");
    assert_eq!(compare(&check("secret", &gos)), Ok(()));
    let none = Bytes::from_static(b"\xffno hash");
    assert_eq!(compare(&check("", &none)), Err(Error::AuthFailed));
    assert_eq!(compare(&check("", &Bytes::new())), Err(Error::AuthFailed));
}

#[test]
fn bcrypt_looks_at_72_bytes() {
    let passwords = passwords();
    let longest = "x".repeat(PASSWORD_MAX);
    let stored = hash(&passwords, &longest);
    assert_eq!(compare(&check(&longest, &stored)), Ok(()));
    // Go's does not refuse to compare more, and neither does it see it.
    assert_eq!(compare(&check(&format!("{longest}y"), &stored)), Ok(()));
    let error = passwords.hash(&format!("{longest}y")).unwrap_err();
    assert_eq!(error.message, "bcrypt: password length exceeds 72 bytes");
}

#[test]
fn a_right_password_is_remembered_until_it_changes() {
    let passwords = passwords();
    let stored = hash(&passwords, "right");
    assert!(!passwords.is_known(&check("right", &stored)));
    assert!(passwords.work(Job::Check(check("wrong", &stored))).is_err());
    assert!(!passwords.is_known(&check("wrong", &stored)));
    assert!(passwords.work(Job::Check(check("right", &stored))).is_ok());
    assert!(passwords.is_known(&check("right", &stored)));
    assert!(!passwords.is_known(&check("wrong", &stored)));
    // Another hash, even of the same password, is another password.
    let other = hash(&passwords, "right");
    assert!(!passwords.is_known(&check("right", &other)));
    passwords.forget(Some("bob"));
    assert!(passwords.is_known(&check("right", &stored)));
    passwords.forget(Some("alice"));
    assert!(!passwords.is_known(&check("right", &stored)));
}

#[test]
fn jobs_that_wait_are_bounded() {
    let passwords = passwords();
    let job = || Job::Hash {
        password: String::new(),
    };
    for _ in 0..JOBS_MAX {
        passwords.ask(Token(0), job()).unwrap();
    }
    assert_eq!(passwords.ask(Token(0), job()), Err(Error::TooManyRequests));
    passwords.stop();
    assert!(passwords.next().is_none());
}
