//! The whole way from words, variables and files to a `Config`.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::table::{FLAGS, FileKey, Flag, Section, Support};
use super::*;

/// A legal value, other than the default, for every flag that can be set.
pub(crate) fn samples() -> Vec<(&'static Flag, String)> {
    let text = |flag: &Flag| match (flag.name, flag.kind) {
        (_, Kind::Bool) => (flag.default != "true").to_string(),
        (_, Kind::Text) => "word".into(),
        (_, Kind::Uint | Kind::Uint32 | Kind::Int) => "77".into(),
        (_, Kind::Duration) => "77ms".into(),
        (_, Kind::Urls | Kind::Origins) => "http://127.0.0.1:77".into(),
        (_, Kind::List | Kind::Set | Kind::Hosts) => "a,b".into(),
        (_, Kind::OneOf(words)) => words[1].into(),
        (_, Kind::ManyOf(words)) => words[1].into(),
        (_, Kind::Gates) => "CompactHashCheck=true".into(),
        (_, Kind::Ignored) => "anything".into(),
    };
    FLAGS.iter().map(|flag| (flag, text(flag))).collect()
}

struct World<'a> {
    args: &'a str,
    env: &'a [(&'a str, &'a str)],
    file: &'a str,
}

impl World<'_> {
    fn read(&self) -> Outcome {
        let args: Vec<String> = self.args.split_whitespace().map(str::to_owned).collect();
        let env: Vec<_> = self
            .env
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        read(&Inputs {
            args: &args,
            env: &env,
            read_file: &|path: &Path| match path.to_str() {
                Some("f") => Ok(self.file.to_owned()),
                _ => Err(io::ErrorKind::NotFound.into()),
            },
            default_host: &|| Some("10.1.2.3".into()),
        })
    }
}

fn run(args: &str) -> Outcome {
    World {
        args,
        env: &[],
        file: "",
    }
    .read()
}

fn config(outcome: Outcome) -> Config {
    match outcome.result {
        Ok(Action::Serve(config)) => *config,
        other => panic!("no configuration: {other:?}"),
    }
}

fn failure(outcome: Outcome) -> Failure {
    outcome
        .result
        .map(|_| ())
        .expect_err("the start should have been refused")
}

#[test]
fn the_table_is_complete_and_sound() {
    let listed = FLAGS.iter().filter(|flag| flag.section != Section::Hidden);
    assert_eq!(listed.clone().count(), 113);
    assert_eq!(FLAGS.len(), 128);
    for (at, flag) in FLAGS.iter().enumerate() {
        assert_eq!(
            table::position(flag.name),
            Some(at),
            "--{} stands twice",
            flag.name
        );
        let _ = flag.default_value();
        assert!(
            flag.help.ends_with('.') && flag.help.len() <= 110,
            "--{}",
            flag.name
        );
    }
    for flag in listed {
        assert!(
            help_flags().contains(&format!("\n  --{} '", flag.name)),
            "--{}",
            flag.name
        );
    }
    let outside: Vec<&str> = FLAGS
        .iter()
        .filter(|f| f.file == FileKey::None)
        .map(|f| f.name)
        .collect();
    assert_eq!(outside.len(), 7 + 15, "{outside:?}");
}

#[test]
fn defaults() {
    let config = config(run(""));
    assert_eq!(config.name, "default");
    assert_eq!(config.data_dir, Path::new("default.etcd"));
    assert_eq!(config.wal_dir, None);
    assert_eq!(url::join(&config.listen.client), "http://localhost:2379");
    assert_eq!(config.cluster.initial, "default=http://localhost:2380");
    assert!(config.cluster.new && config.cluster.pre_vote);
    assert_eq!(config.raft.election_ticks, 10);
    assert_eq!(config.raft.request_timeout(), Duration::from_secs(7));
    assert_eq!(config.raft.wals_max, Some(5));
    assert_eq!(config.limits.quota_bytes, Some(2 << 30));
    assert_eq!(config.limits.request_bytes_max, 1_572_864);
    assert_eq!(config.backend.batch_interval, Duration::from_millis(100));
    assert_eq!(config.backend.batch_ops_max, 10_000);
    assert_eq!(config.compaction.batch_limit, 1_000);
    assert_eq!(config.compaction.sleep, Duration::from_millis(10));
    assert_eq!(config.log, Log::default());
    assert_eq!(config.limits.learners_max, 1);
}

#[test]
fn what_values_mean() {
    let c = config(run(
        "--name m --data-dir d --wal-dir w --quota-backend-bytes=-1 --max-wals 0",
    ));
    assert_eq!((c.name.as_str(), c.data_dir.to_str()), ("m", Some("d")));
    assert_eq!(c.wal_dir.as_deref(), Some(Path::new("w")));
    assert_eq!((c.limits.quota_bytes, c.raft.wals_max), (None, None));
    assert_eq!(c.cluster.initial, "m=http://localhost:2380");
    let c = config(run(
        "--log-outputs b,stdout,b --log-level=warn --log-format console",
    ));
    assert_eq!(
        c.log.outputs,
        [LogOutput::File("b".into()), LogOutput::Stdout]
    );
    assert_eq!(
        (c.log.level, c.log.format),
        (LogLevel::Warn, LogFormat::Console)
    );
    let outcome = run("--name m --listen-client-urls http://0.0.0.0:5 \
                       --listen-peer-urls http://0.0.0.0:6 \
                       --advertise-client-urls http://localhost:2379");
    let c = config(outcome);
    assert_eq!(url::join(&c.cluster.advertise_client), "http://10.1.2.3:5");
    assert_eq!(c.cluster.initial, "m=http://10.1.2.3:6");
    let c = config(run(
        "--listen-client-urls= --advertise-client-urls=http://localhost:1",
    ));
    assert_eq!(url::join(&c.listen.client), "http://localhost:2379");
}

#[test]
fn a_file_excludes_flags_and_variables() {
    let world = World {
        args: "--name flag --config-file f",
        env: &[("ETCD_NAME", "env")],
        file: "listen-client-urls: http://127.0.0.1:1\n",
    };
    let outcome = world.read();
    assert!(
        outcome
            .notices
            .iter()
            .any(|n| n.message.starts_with("loaded server configuration"))
    );
    let c = config(outcome);
    assert_eq!(c.name, "default");
    // With a file, an absent advertise-client-urls keeps its default.
    assert_eq!(
        url::join(&c.cluster.advertise_client),
        "http://localhost:2379"
    );
    let world = World {
        args: "",
        env: &[("ETCD_CONFIG_FILE", "f")],
        file: "name: x",
    };
    assert_eq!(config(world.read()).name, "x");
    let world = World {
        args: "--config-file none",
        env: &[],
        file: "",
    };
    let why = "open none: no such file or directory".into();
    assert_eq!(failure(world.read()), Failure::Verify(why));
    let world = World {
        args: "--config-file f",
        env: &[],
        file: "listen-peer-urls: x",
    };
    let why = "unexpected error setting up listen-peer-urls: URL scheme must be http, https, \
               unix, or unixs: x";
    assert_eq!(failure(world.read()), Failure::Plain(why.into()));
}

#[test]
fn what_only_a_start_finds_out() {
    let cases = [
        (
            "--auto-compaction-retention x",
            "error parsing CompactionRetention: time: invalid duration \"x\"",
        ),
        (
            "--listen-client-urls http://127.0.0.1:1 --advertise-client-urls http://127.0.0.1:1 \
             --listen-client-http-urls http://127.0.0.1:1",
            "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url \
             http://127.0.0.1:1",
        ),
    ];
    for (words, want) in cases {
        let failure = failure(run(words));
        assert_eq!(failure, Failure::Start(want.to_owned()));
        assert_eq!(failure.exit_code(), 1);
    }
}

#[test]
fn flags_of_earlier_releases() {
    let words = "--experimental-initial-corrupt-check --experimental-corrupt-check-time 3m \
                 --experimental-watch-progress-notify-interval=5s --corrupt-check-time=4m \
                 --experimental-enable-lease-checkpoint=true --feature-gates=LeaseCheckpoint=false \
                 --enable-v2=false";
    let outcome = run(words);
    let notices = outcome.notices.clone();
    let config = config(outcome);
    assert!(config.gates.enabled("InitialCorruptCheck"));
    assert!(!config.gates.enabled("LeaseCheckpoint"), "set by itself");
    assert_eq!(config.checks.periodic, Some(Duration::from_secs(240)));
    let interval = config.raw.duration_ns("watch-progress-notify-interval");
    assert_eq!(interval, 5_000_000_000);
    let warnings = notices
        .iter()
        .filter(|notice| notice.message.contains("earlier release"));
    assert_eq!(warnings.count(), 5);
    let why = failure(run("--enable-v2"));
    let want = "--enable-v2 belongs to an earlier release";
    assert_eq!(why, Failure::Verify(want.into()));
}

#[test]
fn variables_and_keys_of_earlier_releases() {
    let by_variable = World {
        args: "",
        env: &[("ETCD_EXPERIMENTAL_INITIAL_CORRUPT_CHECK", "true")],
        file: "",
    };
    assert!(config(by_variable.read()).checks.initial);
    let by_key = World {
        args: "--config-file f",
        env: &[],
        file: "experimental-initial-corrupt-check: true",
    };
    assert!(config(by_key.read()).checks.initial);
    let by_both = World {
        args: "--experimental-initial-corrupt-check",
        env: &[("ETCD_EXPERIMENTAL_INITIAL_CORRUPT_CHECK", "true")],
        file: "",
    };
    assert!(matches!(failure(by_both.read()), Failure::Shadowed { .. }));
}

#[test]
fn ways_to_leave() {
    assert!(matches!(run("--help").result, Ok(Action::Help)));
    assert!(matches!(run("--version").result, Ok(Action::Version)));
    assert!(matches!(
        run("--version=false --name x").result,
        Ok(Action::Serve(_))
    ));
    assert_eq!(failure(run("--nope")).exit_code(), 2);
    assert_eq!(
        failure(run("word")),
        Failure::Verify("\"word\" is not a valid flag".into())
    );
    assert_eq!(failure(run("--log-level x")).exit_code(), 2);
    let world = World {
        args: "--name x",
        env: &[("ETCD_NAME", "y")],
        file: "",
    };
    assert_eq!(
        failure(world.read()),
        Failure::Shadowed {
            variable: "ETCD_NAME".into()
        }
    );
    assert!(version_text().starts_with("etcd Version: 3.7.1\nGit SHA: "));
    assert_eq!(version_text().lines().count(), 5);
}

#[test]
fn refusals_in_etcds_words() {
    let cases: &[(&str, &str)] = &[
        ("--logger capnslog", "--logger=capnslog is removed in v3.5"),
        ("--logger x", "unknown logger option \"x\""),
        (
            "--log-format x",
            "unknown log format: x, supported values json, console",
        ),
        (
            "--log-outputs default,stdout",
            "multi logoutput for \"default\" is not supported yet",
        ),
        (
            "--log-outputs systemd/journal,stdout",
            "running with systemd/journal but other '--log-outputs' values ([\"stdout\" \
             \"systemd/journal\"]) are configured with 'default'; override 'default' value with \
             something else",
        ),
        (
            "--enable-log-rotation",
            "--log-outputs requires a single file path when --log-rotate-config-json is defined",
        ),
        (
            "--listen-peer-urls http://x:1",
            "expected IP in URL for binding (http://x:1)",
        ),
        (
            "--listen-client-urls http://x:1",
            "expected IP in URL for binding (http://x:1)",
        ),
        (
            "--listen-metrics-urls http://x:1",
            "expected IP in URL for binding (http://x:1)",
        ),
        (
            "--initial-advertise-peer-urls http://:1",
            "--initial-advertise-peer-urls \"http://:1\" must be \"host:port\" (unexpected empty \
             host (http://:1))",
        ),
        (
            "--advertise-client-urls http://:1",
            "--advertise-client-urls \"http://:1\" must be in the format \"host:port\", \
             \"unix:/path/to/socket\" or \"unixs:/path/to/socket\" (unexpected empty host \
             (http://:1))",
        ),
        (
            "--initial-cluster a=http://a:1 --discovery-srv x",
            "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
             \"discovery-endpoints\" or \"discovery-srv\"",
        ),
        (
            "--discovery-token t",
            "both --discovery-token and --discovery-endpoints must be set",
        ),
        (
            "--discovery-token t --discovery-endpoints a,",
            "--discovery-endpoints must not contain empty endpoints",
        ),
        (
            "--heartbeat-interval 0",
            "--heartbeat-interval must be >0 (set to 0ms)",
        ),
        (
            "--election-timeout 0",
            "--election-timeout must be >0 (set to 0ms)",
        ),
        (
            "--election-timeout 400",
            "--election-timeout[400ms] should be at least as 5 times as \
             --heartbeat-interval[100ms]",
        ),
        (
            "--election-timeout 50001",
            "--election-timeout[50001ms] is too long, and should be set less than 50000ms",
        ),
        (
            "--listen-client-urls http://127.0.0.1:1",
            UNSET_ADVERTISE_CLIENT_URLS,
        ),
        ("--auto-compaction-mode=", "undefined auto-compaction-mode"),
        (
            "--auto-compaction-mode x",
            "unknown auto-compaction-mode \"x\"",
        ),
        (
            "--enable-distributed-tracing --distributed-tracing-sampling-rate=-1",
            "distributed tracing configurition is not valid: (tracing sampling rate must be \
             positive)",
        ),
        (
            "--feature-gates LeaseCheckpointPersist=true",
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate \
             LeaseCheckpoint",
        ),
        (
            "--compact-hash-check-time 0",
            "--compact-hash-check-time must be >0 (set to 0s)",
        ),
        (
            "--tls-min-version x",
            "unexpected TLS version \"x\" (must be one of: TLS1.2, TLS1.3)",
        ),
        (
            "--tls-min-version TLS1.3 --tls-max-version TLS1.2",
            "min version (TLS1.3) is greater than max version (TLS1.2)",
        ),
        (
            "--tls-min-version TLS1.3 --cipher-suites x",
            "cipher suites cannot be configured when only TLS1.3 is enabled",
        ),
        (
            "--discovery-fallback proxy",
            "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"",
        ),
        (
            "--listen-peer-urls unixs://s",
            "--listen-peer-urls: unixs://s is not supported yet",
        ),
    ];
    for (args, want) in cases {
        assert_eq!(
            failure(run(args)),
            Failure::Verify((*want).to_owned()),
            "{args}"
        );
    }
    let world = World {
        args: "--config-file f",
        env: &[],
        file: "initial-cluster-state: x",
    };
    let why = "unexpected clusterState \"x\"";
    assert_eq!(failure(world.read()), Failure::Verify(why.into()));
}

#[test]
fn no_flag_without_effect_passes_in_silence() {
    for (flag, text) in samples() {
        if flag.section == Section::Hidden || flag.support == Support::Acts {
            continue;
        }
        let outcome = run(&format!("--{}={text}", flag.name));
        let named = outcome
            .notices
            .iter()
            .any(|n| n.fields.iter().any(|(_, v)| v == flag.name));
        let refused = match &outcome.result {
            Err(Failure::Verify(why)) => {
                // Some samples break another rule first, which names the flag or its value too.
                why.contains(flag.name) || why.contains(&text) || why.contains("--log-outputs")
            }
            _ => false,
        };
        assert!(named || refused, "--{}: {:?}", flag.name, outcome.result);
    }
}

#[test]
fn what_is_compacted_by_itself() {
    let age = |seconds| Some(AutoCompaction::Age(Duration::from_secs(seconds)));
    let count = |count| Some(AutoCompaction::Count(count));
    let cases = [
        ("", None),
        ("--auto-compaction-retention=0", None),
        ("--auto-compaction-retention=-5m", None),
        ("--auto-compaction-retention=5", age(5 * 3600)),
        ("--auto-compaction-retention=5m", age(300)),
        ("--auto-compaction-mode=revision", None),
        (
            "--auto-compaction-mode=revision --auto-compaction-retention=1000",
            count(1000),
        ),
        (
            "--auto-compaction-mode=revision --auto-compaction-retention=1s",
            count(1_000_000_000),
        ),
    ];
    for (words, wanted) in cases {
        let config = config(run(words));
        assert_eq!(config.compaction.auto, wanted, "{words}");
    }
}

#[test]
fn certificates_by_words_variables_and_file() {
    let expected = Tls {
        cert_file: Some("c".into()),
        key_file: Some("k".into()),
        trusted_ca_file: Some("a".into()),
        client_cert_auth: true,
        allowed_hostnames: vec!["x".into(), "z".into()],
        ..Tls::default()
    };
    let words = run(
        "--cert-file c --key-file k --trusted-ca-file a --client-cert-auth \
         --client-cert-allowed-hostname x,z",
    );
    assert_eq!(config(words).security.client, expected);
    let world = World {
        args: "",
        env: &[
            ("ETCD_PEER_CERT_FILE", "c"),
            ("ETCD_PEER_KEY_FILE", "k"),
            ("ETCD_PEER_TRUSTED_CA_FILE", "a"),
            ("ETCD_PEER_CLIENT_CERT_AUTH", "true"),
            ("ETCD_PEER_CERT_ALLOWED_HOSTNAME", "x,z"),
        ],
        file: "",
    };
    assert_eq!(config(world.read()).security.peer, expected);
    let world = World {
        args: "--config-file f",
        env: &[],
        file: "client-transport-security:\n  cert-file: c\n  key-file: k\n  trusted-ca-file: a\n  \
               client-cert-auth: true\n  allowed-hostname: [x, z]\n\
               peer-transport-security: {auto-tls: true, skip-client-san-verification: true}\n\
               self-signed-cert-validity: 0\n",
    };
    let security = config(world.read()).security;
    assert_eq!(security.client, expected);
    assert!(security.peer.auto && security.peer.skip_san_check);
    assert_eq!(security.self_signed_years, 1);
}
