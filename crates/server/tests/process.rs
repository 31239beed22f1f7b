//! The binary as a shell sees it: output, streams and exit codes without a member.

use std::process::{Command, Output};

use serde_json::Value;

fn etcd(args: &[&str], env: &[(&str, &str)]) -> Output {
    let dir = tempfile::tempdir().expect("the binary can be run and read");
    let mut command = Command::new(env!("CARGO_BIN_EXE_etcd"));
    command
        .args(args)
        .current_dir(dir.path())
        .env_clear()
        .envs(env.iter().copied());
    command.output().expect("the binary can be run and read")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the binary can be run and read")
}

/// The log lines on stderr.
fn lines(output: &Output) -> Vec<Value> {
    let lines = text(&output.stderr).lines();
    lines
        .map(|line| serde_json::from_str(line).expect("the binary can be run and read"))
        .collect()
}

#[test]
fn version_and_help() {
    let output = etcd(&["--version"], &[]);
    let version = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        version.starts_with("etcd Version: 3.7.1\nGit SHA: "),
        "{version}"
    );
    assert!(version.contains("\nGo Version: ") && version.contains("\nGo OS/Arch: linux/"));
    assert!(version.contains("\nQuorate Version: "));
    assert!(output.stderr.is_empty());

    let output = etcd(&["-h"], &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("--listen-client-urls 'http://localhost:2379'"));
    assert!(text(&output.stderr).starts_with("Usage:\n"));
}

#[test]
fn usage_errors() {
    let output = etcd(&["--nope"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    assert!(text(&output.stderr).starts_with("flag provided but not defined: -nope\nUsage:\n"));
}

#[test]
fn refused_configurations() {
    let output = etcd(&["--listen-client-urls", "http://127.0.0.1:1"], &[]);
    assert_eq!(output.status.code(), Some(1));
    let lines = lines(&output);
    let messages: Vec<&str> = lines
        .iter()
        .filter_map(|line| line["msg"].as_str())
        .collect();
    let last = [
        "Running: ",
        "failed to verify flags",
        "advertise client URLs are not set",
    ];
    assert!(messages.ends_with(&last), "{messages:?}");
    let failed = &lines[lines.len() - 2];
    assert_eq!(failed["level"], "warn");
    assert_eq!(
        failed["error"],
        "--advertise-client-urls is required when --listen-client-urls is set explicitly"
    );
}

#[test]
fn a_shadowed_variable() {
    let output = etcd(&["--name", "x"], &[("ETCD_NAME", "y"), ("ETCD_NOPE", "")]);
    assert_eq!(output.status.code(), Some(1));
    let last = lines(&output).pop().unwrap();
    assert_eq!(
        (&last["level"], &last["environment-variable"]),
        (&"fatal".into(), &"ETCD_NAME".into())
    );
}

#[test]
fn an_address_in_use() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", taken.local_addr().unwrap());
    let output = etcd(
        &[
            "--listen-client-urls",
            &url,
            "--advertise-client-urls",
            &url,
        ],
        &[],
    );
    assert_eq!(output.status.code(), Some(1));
    let last = lines(&output).pop().unwrap();
    assert_eq!(
        (&last["level"], &last["msg"]),
        (&"fatal".into(), &"discovery failed".into())
    );
    let error = last["error"].as_str().unwrap();
    assert!(error.ends_with("bind: address already in use"), "{error}");
}
