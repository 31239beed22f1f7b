//! Keys of JSON Web Tokens, made by the `openssl` command.

use std::path::Path;
use std::process::Command;

fn openssl(directory: &Path, words: &str) {
    let mut command = Command::new("openssl");
    let output = command
        .current_dir(directory)
        .args(words.split_whitespace())
        .output();
    let output = output.expect("openssl runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {words}: {text}");
}

/// Files `private` and `public`; of a shared secret `private` alone.
pub(crate) fn make_keys(directory: &Path, method: &str) {
    match method {
        "ES256" => openssl(
            directory,
            "ecparam -name prime256v1 -genkey -noout -out private",
        ),
        "ES384" => openssl(
            directory,
            "ecparam -name secp384r1 -genkey -noout -out private",
        ),
        "ES512" => openssl(
            directory,
            "ecparam -name secp521r1 -genkey -noout -out private",
        ),
        "EdDSA" => openssl(directory, "genpkey -algorithm ed25519 -out private"),
        // Both forms of RSA's keys.
        "RS256" | "PS384" => openssl(directory, "genrsa -traditional -out private 2048"),
        _ if method.starts_with('H') => openssl(directory, "rand -out private 40"),
        _ => openssl(directory, "genrsa -out private 3072"),
    }
    if !method.starts_with('H') {
        openssl(directory, "pkey -in private -pubout -out public");
    }
}

pub(crate) fn flag(directory: &Path, method: &str, private: bool, public: bool) -> String {
    let mut flag = format!("--auth-token=jwt,sign-method={method},ttl=10m");
    for (name, file, wanted) in [
        ("priv-key", "private", private),
        ("pub-key", "public", public),
    ] {
        if wanted {
            let path = directory.join(file);
            flag.push_str(&format!(",{name}={}", path.display()));
        }
    }
    flag
}
