//! What is taken up, and when.

use std::fs;

use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};

use super::*;
use crate::config::Tls;
use crate::tls::tests::{Pki, open, shake};

/// Long after every change of a test.
const LATER_S: i64 = i64::MAX;

#[test]
fn changes_are_taken_up() {
    let (old, new) = (Pki::new(), Pki::new());
    for pki in [&old, &new] {
        pki.leaf("server", 1, &[ServerAuth]);
        pki.leaf("user", 2, &[ClientAuth]);
    }
    let copy = |of: &Pki, name: &str, to: &str| {
        fs::write(old.path(to), fs::read(of.path(name)).unwrap()).unwrap();
    };
    copy(&old, "chain.pem", "trusted.pem");
    old.revoke(&[]);
    let crl_file = Some(old.path("crl"));
    let server = open(&Tls {
        crl_file,
        ..old.tls("server", "trusted.pem")
    })
    .unwrap();
    let mut watched = Watched::new(server.clone());
    watched.look(LATER_S);
    assert!(!watched.look(LATER_S), "nothing changed");
    let of_old = open(&old.tls("user", "chain.pem")).unwrap();
    let of_new = open(&new.tls("user", "chain.pem")).unwrap();
    shake(&server, &of_old).unwrap();
    shake(&server, &of_new).unwrap_err();

    // One file of a pair alone does not fit: everything stays as it was.
    copy(&new, "server.pem", "server.pem");
    copy(&new, "chain.pem", "trusted.pem");
    assert!(!watched.look(LATER_S));
    assert!(
        watched
            .error
            .as_ref()
            .unwrap()
            .contains("private key does not match")
    );
    shake(&server, &of_old).unwrap();
    copy(&new, "server-key.pem", "server-key.pem");
    assert!(watched.look(LATER_S));
    shake(&server, &of_new).unwrap();
    shake(&server, &of_old).unwrap_err();

    old.revoke(&[2]);
    assert!(watched.look(LATER_S));
    let error = shake(&server, &of_new).unwrap_err();
    assert!(error.contains("Revoked"), "{error}");
    fs::remove_file(old.path("crl")).unwrap();
    assert!(!watched.look(LATER_S));
    shake(&server, &of_new).unwrap_err();
}

#[test]
fn a_fresh_file_is_read_again() {
    let pki = Pki::new();
    pki.leaf("server", 1, &[ServerAuth]);
    let mut watched = Watched::new(open(&pki.tls("server", "chain.pem")).unwrap());
    // As long as its times are of this moment, a second change might not show.
    assert!(watched.look(now_s()));
    assert!(watched.look(now_s()));
    assert!(watched.look(LATER_S));
    assert!(!watched.look(LATER_S));
}

#[test]
fn the_thread_looks_and_ends() {
    let (old, new) = (Pki::new(), Pki::new());
    old.leaf("server", 1, &[ServerAuth]);
    new.leaf("user", 2, &[ClientAuth]);
    let server = open(&old.tls("server", "chain.pem")).unwrap();
    // The server's certificate is not this client's business.
    let user = open(&Tls {
        trusted_ca_file: Some(old.path("root.pem")),
        ..new.tls("user", "")
    });
    let watch = Watch::start(vec![server.clone()]).unwrap();
    let both = fs::read_to_string(new.path("chain.pem")).unwrap();
    old.write("chain.pem", &both);
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    let user = user.unwrap();
    let refused = |error: &str| error.contains("server: ");
    while shake(&server, &user).is_err_and(|error| refused(&error)) {
        assert!(
            std::time::Instant::now() < deadline,
            "the new authority is not trusted"
        );
        thread::sleep(Duration::from_millis(10));
    }
    drop(watch);
}
