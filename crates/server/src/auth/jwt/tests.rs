//! What tokens say, and whom they convince.

use std::fs;
use std::path::Path;

use aws_lc_rs::hmac;
use proptest::prelude::*;
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519,
    PKCS_RSA_SHA256,
};
use tempfile::TempDir;
use x509_parser::asn1_rs::{Any, FromDer};

use super::method::{Family, Method};
use super::*;

const NOW_S: i64 = 1_700_000_000;

fn pair(method: &Method) -> KeyPair {
    let kind = match &method.family {
        Family::Rsa { .. } => &PKCS_RSA_SHA256,
        Family::Ed => &PKCS_ED25519,
        Family::Ec { .. } if method.name == "ES256" => &PKCS_ECDSA_P256_SHA256,
        Family::Ec { .. } if method.name == "ES384" => &PKCS_ECDSA_P384_SHA384,
        Family::Ec { .. } => &PKCS_ECDSA_P521_SHA512,
        Family::Hmac(_) => panic!("no pair"),
    };
    KeyPair::generate_for(kind).unwrap()
}

/// Files `private` and `public`, or `private` alone for a shared secret.
fn keys(method: &Method) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    if let Family::Hmac(_) = method.family {
        fs::write(
            directory.path().join("private"),
            format!("of {}\n", method.name),
        )
        .unwrap();
        return directory;
    }
    let pair = pair(method);
    fs::write(directory.path().join("private"), pair.serialize_pem()).unwrap();
    fs::write(directory.path().join("public"), pair.public_key_pem()).unwrap();
    directory
}

fn flag(method: &str, directory: &Path, files: &[&str]) -> String {
    let mut flag = format!("sign-method={method}");
    for file in files {
        let (name, path) = match *file {
            "public" => ("pub-key", directory.join(file)),
            _ => ("priv-key", directory.join(file)),
        };
        flag.push_str(&format!(",{name}={}", path.display()));
    }
    flag
}

fn open(flag: &str) -> Result<JwtTokens, Error> {
    JwtTokens::open(Options::parse(&given(flag.split(','))?)?)
}

fn known(user: &str, revision: u64) -> Resolved {
    Resolved::Known(Identity {
        user: user.into(),
        revision: Some(revision),
    })
}

/// A token with any content, signed rightly.
fn signed(tokens: &JwtTokens, head: &str, claims: &str) -> String {
    let data = format!("{}.{}", BASE64.encode(head), BASE64.encode(claims));
    let signature = tokens.ring.current().keys.sign(data.as_bytes()).unwrap();
    format!("{data}.{}", BASE64.encode(signature))
}

#[test]
fn every_method_signs_and_verifies() {
    for method in Method::all() {
        let directory = keys(method);
        let both = open(&flag(method.name, directory.path(), &["private"])).unwrap();
        let token = both.assign_at("ann", 7, NOW_S).unwrap();
        assert_eq!(both.resolve_at(token.as_bytes(), NOW_S), known("ann", 7));
        let head = BASE64.decode(token.split('.').next().unwrap()).unwrap();
        let want = format!(r#"{{"alg":"{}","typ":"JWT"}}"#, method.name);
        assert_eq!(String::from_utf8(head).unwrap(), want);

        // One changed character anywhere, and it is nobody's.
        for at in (0..token.len()).step_by(7) {
            let mut other = token.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            // The last character of a part may have bits that say nothing.
            let last = at + 1 == token.len() || other.get(at + 1) == Some(&b'.');
            if !last {
                let name = method.name;
                assert_eq!(
                    both.resolve_at(&other, NOW_S),
                    Resolved::Unknown,
                    "{name} {at}"
                );
            }
        }
        let stranger = keys(method);
        fs::write(stranger.path().join("private"), "another secret").unwrap();
        if !matches!(method.family, Family::Hmac(_)) {
            let other = pair(method).serialize_pem();
            fs::write(stranger.path().join("private"), other).unwrap();
        }
        let stranger = open(&flag(method.name, stranger.path(), &["private"])).unwrap();
        assert_eq!(
            stranger.resolve_at(token.as_bytes(), NOW_S),
            Resolved::Unknown
        );
        if matches!(method.family, Family::Hmac(_)) {
            continue;
        }
        let verifies = open(&flag(method.name, directory.path(), &["public"])).unwrap();
        assert_eq!(
            verifies.resolve_at(token.as_bytes(), NOW_S),
            known("ann", 7)
        );
        assert_eq!(verifies.assign_at("ann", 7, NOW_S), Err(verify_only()));
        // A public key is nothing that one could sign with.
        let secret = fs::read(directory.path().join("public")).unwrap();
        let secret = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        for alg in ["HS256", method.name, "none", ""] {
            let head = BASE64.encode(json!({ "alg": alg }).to_string());
            let claims = json!({ "username": "root", "revision": 9 }).to_string();
            let data = format!("{head}.{}", BASE64.encode(claims));
            let forged = BASE64.encode(hmac::sign(&secret, data.as_bytes()));
            for token in [format!("{data}.{forged}"), format!("{data}.")] {
                assert_eq!(both.resolve_at(token.as_bytes(), NOW_S), Resolved::Unknown);
                assert_eq!(
                    verifies.resolve_at(token.as_bytes(), NOW_S),
                    Resolved::Unknown
                );
            }
        }
    }
}

fn with_secret() -> (TempDir, JwtTokens) {
    let method = Method::named("HS256").unwrap();
    let directory = keys(method);
    let tokens = open(&flag("HS256", directory.path(), &["private"])).unwrap();
    (directory, tokens)
}

#[test]
fn tokens_have_their_time() {
    let (directory, tokens) = with_secret();
    let token = tokens.assign_at("ann", 1, NOW_S).unwrap();
    // Asked twice, the second answer comes from memory.
    for _ in 0..2 {
        assert_eq!(
            tokens.resolve_at(token.as_bytes(), NOW_S + 299),
            known("ann", 1)
        );
        assert_eq!(
            tokens.resolve_at(token.as_bytes(), NOW_S + 300),
            Resolved::Unknown
        );
    }
    let brief = open(&format!(
        "{},ttl=1500ms",
        flag("HS256", directory.path(), &["private"])
    ));
    let token = brief.unwrap().assign_at("ann", 1, NOW_S).unwrap();
    assert_eq!(tokens.resolve_at(token.as_bytes(), NOW_S), known("ann", 1));
    assert_eq!(
        tokens.resolve_at(token.as_bytes(), NOW_S + 1),
        Resolved::Unknown
    );
}

#[test]
fn claims_are_read_as_etcd_reads_them() {
    let (_directory, tokens) = with_secret();
    let good = r#""username":"ann","revision":3"#;
    let cases = [
        (format!("{{{good}}}"), true),
        (format!(r#"{{{good},"exp":0}}"#), true),
        (format!(r#"{{{good},"exp":1700000000.9}}"#), false),
        (format!(r#"{{{good},"exp":1700000001.9}}"#), true),
        (format!(r#"{{{good},"exp":-1}}"#), false),
        (format!(r#"{{{good},"exp":1e300}}"#), true),
        (format!(r#"{{{good},"exp":"1700000001"}}"#), false),
        (format!(r#"{{{good},"exp":null}}"#), false),
        (format!(r#"{{{good},"nbf":1700000000}}"#), true),
        (format!(r#"{{{good},"nbf":1700000001}}"#), false),
        (
            format!(r#"{{{good},"iat":1800000000,"aud":7,"iss":[]}}"#),
            true,
        ),
        (r#"{"username":"ann","revision":3.0}"#.to_owned(), true),
        (
            r#"{"username":"bob","username":"ann","revision":3}"#.to_owned(),
            true,
        ),
        (r#"{"username":"ann","revision":"3"}"#.to_owned(), false),
        (r#"{"username":"ann"}"#.to_owned(), false),
        (r#"{"revision":3}"#.to_owned(), false),
        (r#"{"username":1,"revision":3}"#.to_owned(), false),
        (r#"["username","revision"]"#.to_owned(), false),
        ("7".to_owned(), false),
        (String::new(), false),
    ];
    for (claims, good) in cases {
        let token = signed(&tokens, r#"{"alg":"HS256"}"#, &claims);
        let want = match good {
            true => known("ann", 3),
            false => Resolved::Unknown,
        };
        assert_eq!(tokens.resolve_at(token.as_bytes(), NOW_S), want, "{claims}");
    }
    for head in [r#"{"alg":"HS384"}"#, r#"{"alg":7}"#, "{}", "[]", "", "{"] {
        let token = signed(&tokens, head, &format!("{{{good}}}"));
        assert_eq!(
            tokens.resolve_at(token.as_bytes(), NOW_S),
            Resolved::Unknown,
            "{head}"
        );
    }
}

#[test]
fn what_is_kept_in_memory_is_bounded() {
    let (_directory, tokens) = with_secret();
    for revision in 0..=VERIFIED_MAX as u64 + 10 {
        let token = tokens.assign_at("ann", revision, NOW_S).unwrap();
        assert_eq!(
            tokens.resolve_at(token.as_bytes(), NOW_S),
            known("ann", revision)
        );
        assert!(tokens.ring.current().verified().len() <= VERIFIED_MAX);
    }
    tokens.resolve_at(b"a.b.c", NOW_S);
    let kept = tokens.ring.current().verified().len();
    assert_eq!(kept, 11, "what is wrong is not kept");
}

#[test]
fn changed_files_are_taken_up() {
    let method = Method::named("ES256").unwrap();
    let (old, new) = (keys(method), keys(method));
    let tokens = open(&flag("ES256", old.path(), &["private", "public"])).unwrap();
    let before = tokens.assign_at("ann", 1, NOW_S).unwrap();
    assert_eq!(tokens.resolve_at(before.as_bytes(), NOW_S), known("ann", 1));
    let copy = |file: &str| {
        fs::write(
            old.path().join(file),
            fs::read(new.path().join(file)).unwrap(),
        )
        .unwrap();
    };
    // One of a pair alone does not fit: everything stays as it was.
    copy("private");
    let error = tokens.ring.reload().unwrap_err();
    assert_eq!(error, "auth: public and private keys don't match");
    assert_eq!(tokens.resolve_at(before.as_bytes(), NOW_S), known("ann", 1));
    copy("public");
    tokens.ring.reload().unwrap();
    assert_eq!(
        tokens.resolve_at(before.as_bytes(), NOW_S),
        Resolved::Unknown
    );
    let after = tokens.assign_at("ann", 2, NOW_S).unwrap();
    assert_eq!(tokens.resolve_at(after.as_bytes(), NOW_S), known("ann", 2));
    // The same keys once more: what was found right stays known.
    tokens.ring.reload().unwrap();
    assert_eq!(tokens.ring.current().verified().len(), 1);
    fs::remove_file(old.path().join("public")).unwrap();
    let error = tokens.ring.reload().unwrap_err();
    assert!(
        error.ends_with("/public: no such file or directory"),
        "{error}"
    );
    assert_eq!(tokens.resolve_at(after.as_bytes(), NOW_S), known("ann", 2));
}

/// The key inside PKCS#8, in the form of its own kind.
fn inner(pkcs8: &[u8], label: &str) -> String {
    let (_, whole) = Any::from_der(pkcs8).unwrap();
    let (rest, _) = Any::from_der(whole.data).unwrap();
    let (rest, _) = Any::from_der(rest).unwrap();
    let (_, key) = Any::from_der(rest).unwrap();
    let text = base64::engine::general_purpose::STANDARD.encode(key.data);
    let lines: Vec<&str> = (0..text.len())
        .step_by(64)
        .map(|at| &text[at..text.len().min(at + 64)])
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

#[test]
fn keys_come_in_several_forms() {
    let cases = [("RS256", "RSA PRIVATE KEY"), ("ES384", "EC PRIVATE KEY")];
    for (name, label) in cases {
        let pair = pair(Method::named(name).unwrap());
        let directory = tempfile::tempdir().unwrap();
        let private = inner(&pair.serialize_der(), label);
        fs::write(directory.path().join("private"), private).unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["localhost".into()])
            .unwrap()
            .self_signed(&pair)
            .unwrap();
        fs::write(directory.path().join("public"), certificate.pem()).unwrap();
        let tokens = open(&flag(name, directory.path(), &["private", "public"])).unwrap();
        let token = tokens.assign_at("ann", 1, NOW_S).unwrap();
        let verifies = open(&flag(name, directory.path(), &["public"])).unwrap();
        assert_eq!(
            verifies.resolve_at(token.as_bytes(), NOW_S),
            known("ann", 1)
        );
    }
}

#[test]
fn bad_options_are_told_as_etcd_tells_them() {
    let (rsa, ec) = (
        Method::named("RS256").unwrap(),
        Method::named("ES256").unwrap(),
    );
    let (rsa, other, ec) = (keys(rsa), keys(rsa), keys(ec));
    fs::write(rsa.path().join("garbage"), "garbage\n").unwrap();
    fs::write(rsa.path().join("empty"), "").unwrap();
    let file = |directory: &TempDir, name| directory.path().join(name).display().to_string();
    let rsa_private = file(&rsa, "private");
    let invalid = "auth: invalid auth options";
    let method = "auth: invalid auth signature method";
    let pem = "invalid key: Key must be a PEM encoded PKCS1 or PKCS8 key";
    let missing = "auth: missing key data";
    let cases = [
        (String::new(), invalid, "invalid token option \"\""),
        ("ttl=5m".into(), invalid, method),
        ("sign-method=RS257".into(), invalid, method),
        ("sign-method=rs256".into(), invalid, method),
        (
            "sign-method=RS256,priv-key".into(),
            invalid,
            "invalid token option \"priv-key\"",
        ),
        (
            "sign-method=RS256,a=b=c".into(),
            invalid,
            "invalid token option \"a=b=c\"",
        ),
        (
            "sign-method=RS256,sign-method=RS256".into(),
            invalid,
            "duplicate token option \"sign-method\"",
        ),
        (
            "sign-method=RS256,ttl=x".into(),
            invalid,
            "time: invalid duration \"x\"",
        ),
        (
            "sign-method=RS256,priv-key=/nowhere".into(),
            invalid,
            "open /nowhere: no such file or directory",
        ),
        ("sign-method=RS256".into(), missing, missing),
        (
            format!("sign-method=HS256,pub-key={rsa_private}"),
            missing,
            missing,
        ),
        (
            format!("sign-method=HS256,priv-key={}", file(&rsa, "empty")),
            missing,
            missing,
        ),
        (
            "sign-method=none".into(),
            "unsupported signing method: *jwt.signingMethodNone",
            "unsupported signing method: *jwt.signingMethodNone",
        ),
        (
            format!("sign-method=RS256,priv-key={}", file(&rsa, "garbage")),
            pem,
            pem,
        ),
        (
            format!("sign-method=EdDSA,pub-key={}", file(&rsa, "garbage")),
            pem,
            pem,
        ),
        (
            format!(
                "sign-method=PS256,priv-key={rsa_private},pub-key={}",
                file(&other, "public")
            ),
            "auth: public and private keys don't match",
            "auth: public and private keys don't match",
        ),
        (
            format!("sign-method=RS256,pub-key={}", file(&ec, "public")),
            "key is not a valid RSA public key",
            "key is not a valid RSA public key",
        ),
        (
            format!("sign-method=ES256,pub-key={}", file(&rsa, "public")),
            "key is not a valid ECDSA public key",
            "key is not a valid ECDSA public key",
        ),
        (
            format!("sign-method=EdDSA,priv-key={}", file(&ec, "private")),
            "key is not a valid Ed25519 private key",
            "key is not a valid Ed25519 private key",
        ),
        (
            format!("sign-method=ES384,priv-key={}", file(&ec, "private")),
            "key is invalid",
            "key is invalid",
        ),
    ];
    for (flag, want, detail) in cases {
        let error = open(&flag)
            .err()
            .unwrap_or_else(|| panic!("{flag} is taken"));
        assert_eq!(
            (error.to_string().as_str(), error.detail().as_str()),
            (want, detail),
            "{flag}"
        );
    }
    let options = format!("sign-method=RS256,priv-key={rsa_private},x=y,a=,ttl=");
    let options = Options::parse(&given(options.split(',')).unwrap()).unwrap();
    assert_eq!(options.unknown(), ["a", "x"]);
    assert_eq!(options.ttl_ns, 300_000_000_000);
}

proptest! {
    #[test]
    fn no_bytes_are_too_bad(token in "[a-zA-Z0-9._-]{0,200}", bytes: Vec<u8>) {
        let (_directory, tokens) = with_secret();
        prop_assert_eq!(tokens.resolve_at(token.as_bytes(), NOW_S), Resolved::Unknown);
        prop_assert_eq!(tokens.resolve_at(&bytes, NOW_S), Resolved::Unknown);
    }

    #[test]
    fn no_key_file_is_too_bad(bytes: Vec<u8>, at in 0_usize..2000, with: u8) {
        let method = Method::named("ES256").unwrap();
        let directory = keys(method);
        let path = directory.path().join("private");
        let mut text = fs::read(&path).unwrap();
        let at = at % text.len();
        text[at] = with;
        fs::write(&path, text).unwrap();
        // Taken or not, but never a panic.
        let _ = open(&flag("ES256", directory.path(), &["private"]));
        fs::write(&path, bytes).unwrap();
        prop_assert!(open(&flag("ES256", directory.path(), &["private"])).is_err());
    }
}
