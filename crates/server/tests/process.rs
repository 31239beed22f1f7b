//! The binary as a shell or systemd sees it: output, streams, readiness, exit codes.

use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

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
            "--listen-peer-urls=http://127.0.0.1:0",
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

/// Starts a member on the socket file `client` and waits until it says that it is ready.
fn member(dir: &Path, more: &[&str]) -> Child {
    let path = dir.join("notify");
    // The file of an earlier start.
    let _ = std::fs::remove_file(&path);
    let notify = UnixDatagram::bind(&path).expect("a new socket file can be bound");
    notify
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("60 s is a legal timeout");
    let child = Command::new(env!("CARGO_BIN_EXE_etcd"))
        .args(["--name", "m", "--listen-client-urls", "unix://client"])
        .args(["--advertise-client-urls", "unix://client"])
        .args(["--listen-peer-urls", "http://127.0.0.1:0"])
        .args(more)
        .current_dir(dir)
        .env_clear()
        .env("NOTIFY_SOCKET", &path)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was built with this test");
    let mut message = [0; 64];
    let count = notify.recv(&mut message).expect("the member gets ready");
    assert_eq!(text(&message[..count]).trim_end(), "READY=1");
    child
}

fn get(dir: &Path, path: &str) -> String {
    let mut stream = UnixStream::connect(dir.join("client")).expect("the member listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .expect("the member reads");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("the member answers in text");
    answer
}

#[test]
fn a_member_lives_and_dies_by_the_signal() {
    let dir = tempfile::tempdir().unwrap();
    // At a restart the flags of the first start are not looked at any more.
    let restart: &[&str] = &[
        "--initial-cluster-state=existing",
        "--initial-cluster=x=http://x:1",
    ];
    for (signal, name, more) in [
        (Signal::TERM, "terminated", &[][..]),
        (Signal::INT, "interrupt", restart),
    ] {
        let child = member(dir.path(), more);
        let health = get(dir.path(), "/health");
        assert!(
            health.ends_with("{\"health\":\"true\",\"reason\":\"\"}"),
            "{health}"
        );
        let pid = Pid::from_child(&child);
        kill_process(pid, signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.signal(), Some(signal.as_raw()));
        let lines = lines(&output);
        let received = lines
            .iter()
            .find(|line| line["msg"] == "received signal; shutting down");
        assert_eq!(received.unwrap()["signal"], name);
        assert_eq!(lines.last().unwrap()["msg"], "closed etcd server");
        assert!(
            !lines.iter().any(|line| line["level"] == "error"),
            "{lines:?}"
        );
    }
    assert!(dir.path().join("m.etcd/member/snap/db").exists());
}

#[test]
fn what_cannot_be_founded() {
    let cases = [
        (
            "--initial-cluster=y=http://localhost:2380",
            "couldn't find local name \"default\" in the initial cluster configuration",
        ),
        (
            "--initial-cluster-state=existing",
            "cannot fetch cluster info from peer urls: could not retrieve cluster information \
             from the given URLs",
        ),
    ];
    for (flag, want) in cases {
        let urls = [
            "--listen-client-urls=unix://c",
            "--advertise-client-urls=unix://c",
        ];
        let peers = "--listen-peer-urls=http://127.0.0.1:0";
        let output = etcd(&[urls[0], urls[1], peers, flag], &[]);
        assert_eq!(output.status.code(), Some(1));
        let last = lines(&output).pop().unwrap();
        assert_eq!(
            (&last["level"], &last["error"]),
            (&"fatal".into(), &want.into())
        );
    }
}
