//! What the command line says.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use cli::flags::{Flag, Flags, Kind};
use client::TlsConfig;

/// Longest time that an attempt to connect to a member may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for a client's answer to a probe when the command line gives none.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a call waits while no member takes a connection; then it fails as unavailable.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// The name of a flag with a duration.
const fn duration(name: &'static str, default: &'static str, help: &'static str) -> Flag {
    Flag {
        kind: Kind::Duration,
        ..Flag::text(name, default, help)
    }
}

/// The name of a flag with a number.
const fn number(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Flag {
    Flag {
        kind,
        ..Flag::text(name, default, help)
    }
}

/// The flags of `etcd grpc-proxy start`, with etcd's defaults.
pub const FLAGS: &[Flag] = &[
    Flag::text(
        "listen-addr",
        "127.0.0.1:23790",
        "address to listen on for clients",
    ),
    Flag::text(
        "discovery-srv",
        "",
        "domain whose SRV records name the endpoints",
    ),
    Flag::text(
        "discovery-srv-name",
        "",
        "suffix of the service name in those records",
    ),
    Flag::text(
        "metrics-addr",
        "",
        "URL to serve metrics and health on as well",
    ),
    Flag::switch(
        "insecure-discovery",
        "use discovered endpoints without TLS too",
    ),
    Flag {
        kind: Kind::List,
        ..Flag::text("endpoints", "127.0.0.1:2379", "addresses of the members")
    },
    duration(
        "endpoints-auto-sync-interval",
        "0",
        "pause between two looks at the member list for new endpoints (0: never)",
    ),
    duration(
        "dial-keepalive-time",
        "0",
        "silence after which a connection to a member is probed (0: never)",
    ),
    duration(
        "dial-keepalive-timeout",
        "20s",
        "time for the answer to such a probe",
    ),
    Flag::switch(
        "permit-without-stream",
        "probe connections to members without open requests too",
    ),
    Flag::text(
        "advertise-client-url",
        "127.0.0.1:23790",
        "address of this proxy in the member list that clients see",
    ),
    Flag::text(
        "resolver-prefix",
        "",
        "where this proxy and its like register in the key space",
    ),
    number(
        "resolver-ttl",
        Kind::Int,
        "0",
        "seconds for which a registration outlives the proxy",
    ),
    Flag::text(
        "namespace",
        "",
        "what every key of the clients begins with in the cluster",
    ),
    Flag::switch("enable-pprof", "serve profiles under /debug/pprof/"),
    Flag::text(
        "data-dir",
        "default.proxy",
        "directory for generated certificates",
    ),
    number(
        "max-send-bytes",
        Kind::Int,
        "1572864",
        "largest request to a member, in bytes",
    ),
    number(
        "max-recv-bytes",
        Kind::Int,
        "2147483647",
        "largest answer of a member, in bytes",
    ),
    duration(
        "grpc-keepalive-min-time",
        "5s",
        "shortest pause between two probes of a client",
    ),
    duration(
        "grpc-keepalive-interval",
        "2h0m0s",
        "silence after which a client is probed (0: never)",
    ),
    duration(
        "grpc-keepalive-timeout",
        "20s",
        "time for the client's answer to a probe",
    ),
    Flag::text("cert", "", "certificate to show to members"),
    Flag::text("key", "", "key of the certificate for members"),
    Flag::text("cacert", "", "authorities of the members' certificates"),
    Flag::switch(
        "insecure-skip-tls-verify",
        "accept any certificate of a member; for tests",
    ),
    Flag::text("cert-file", "", "certificate to show to clients"),
    Flag::text("key-file", "", "key of the certificate for clients"),
    Flag::text(
        "trusted-ca-file",
        "",
        "authorities of the clients' certificates, which are then required",
    ),
    Flag {
        kind: Kind::List,
        ..Flag::text(
            "listen-cipher-suites",
            "",
            "cipher suites for clients (empty: a good choice)",
        )
    },
    Flag::switch("auto-tls", "show clients a generated certificate"),
    Flag::text(
        "client-crl-file",
        "",
        "revocation list of the clients' certificates",
    ),
    number(
        "self-signed-cert-validity",
        Kind::Uint,
        "1",
        "validity of the generated certificate, in years",
    ),
    Flag::text(
        "tls-min-version",
        "TLS1.2",
        "oldest TLS version for clients: TLS1.2 or TLS1.3",
    ),
    Flag::text(
        "tls-max-version",
        "",
        "newest TLS version for clients: TLS1.2 or TLS1.3 (empty: the newest)",
    ),
    Flag::switch(
        "experimental-serializable-ordering",
        "keep serializable reads from going back in time when the member changes",
    ),
    Flag::text(
        "experimental-leasing-prefix",
        "",
        "where this proxy keeps the leases under which it answers reads itself",
    ),
    Flag::switch(
        "experimental-enable-grpc-logging",
        "log every call and its answer",
    ),
    Flag::switch("debug", "log at debug level"),
    number(
        "max-concurrent-streams",
        Kind::Uint32,
        "4294967295",
        "open calls that a client's connection may have",
    ),
];

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

/// TLS for clients, as far as the command line says it.
#[derive(Clone, Debug)]
pub struct ListenTls {
    /// PEM files; without one of the three there is no TLS but by `auto`.
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub trusted_ca: Option<PathBuf>,
    pub crl: Option<PathBuf>,
    /// Make a certificate when none is named.
    pub auto: bool,
    /// How long such a certificate is valid.
    pub self_signed_years: u64,
    /// Go's names.
    pub cipher_suites: Vec<String>,
    /// `None`: the library's choice.
    pub min_version: Option<TlsVersion>,
    pub max_version: Option<TlsVersion>,
}

/// Endpoints from SRV records.
#[derive(Clone, Debug)]
pub struct Discovery {
    pub domain: String,
    pub name: String,
    /// Also those without TLS.
    pub insecure: bool,
}

/// A registration for other proxies and for clients that resolve names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolver {
    pub prefix: String,
    pub ttl_seconds: i64,
}

/// What the command line says, checked as far as that goes without a look at files.
#[derive(Clone)]
pub struct Settings {
    pub listen_address: String,
    pub metrics_url: String,
    pub advertise_url: String,
    pub data_dir: PathBuf,
    pub listen_tls: ListenTls,
    /// How to reach the cluster.
    pub cluster: client::Config,
    pub discovery: Option<Discovery>,
    /// Zero for never.
    pub sync_interval: Duration,
    pub resolver: Option<Resolver>,
    /// Empty without a namespace.
    pub namespace: Bytes,
    /// Empty without leasing.
    pub leasing_prefix: Bytes,
    /// Whether serializable reads must not go back in time.
    pub ordering: bool,
    pub keepalive_min: Duration,
    /// Zero for never.
    pub keepalive_interval: Duration,
    pub keepalive_timeout: Duration,
    pub concurrent_streams_max: u32,
    pub profiles: bool,
    pub log_calls: bool,
    pub debug: bool,
}

impl Settings {
    /// Reads the flags.
    ///
    /// # Errors
    /// Values that do not go together, in etcd's words.
    pub fn read(flags: &Flags) -> Result<Self, String> {
        let resolver = resolver(flags)?;
        let listen_tls = listen_tls(flags)?;
        let discovery = Some(flags.text("discovery-srv")).filter(|domain| !domain.is_empty());
        Ok(Settings {
            listen_address: flags.text("listen-addr").to_owned(),
            metrics_url: flags.text("metrics-addr").to_owned(),
            advertise_url: flags.text("advertise-client-url").to_owned(),
            data_dir: flags.text("data-dir").into(),
            listen_tls,
            cluster: cluster(flags),
            discovery: discovery.map(|domain| Discovery {
                domain: domain.to_owned(),
                name: flags.text("discovery-srv-name").to_owned(),
                insecure: flags.bool("insecure-discovery"),
            }),
            sync_interval: flags.duration("endpoints-auto-sync-interval"),
            resolver,
            namespace: Bytes::from(flags.text("namespace").to_owned()),
            leasing_prefix: Bytes::from(flags.text("experimental-leasing-prefix").to_owned()),
            ordering: flags.bool("experimental-serializable-ordering"),
            keepalive_min: flags.duration("grpc-keepalive-min-time"),
            keepalive_interval: flags.duration("grpc-keepalive-interval"),
            keepalive_timeout: match flags.duration("grpc-keepalive-timeout") {
                // As in etcd, where no time is gRPC's own.
                Duration::ZERO => KEEPALIVE_TIMEOUT,
                timeout => timeout,
            },
            concurrent_streams_max: u32::try_from(flags.uint("max-concurrent-streams"))
                .expect("the flag takes no other"),
            profiles: flags.bool("enable-pprof"),
            log_calls: flags.bool("experimental-enable-grpc-logging"),
            debug: flags.bool("debug"),
        })
    }
}

fn resolver(flags: &Flags) -> Result<Option<Resolver>, String> {
    let prefix = flags.text("resolver-prefix");
    let ttl_seconds = flags.int("resolver-ttl");
    if prefix.is_empty() {
        return match ttl_seconds > 0 {
            true => Err("invalid resolver-prefix \"\"".to_owned()),
            false => Ok(None),
        };
    }
    if ttl_seconds < 1 {
        return Err(format!("invalid resolver-ttl {ttl_seconds}"));
    }
    if flags.text("advertise-client-url").is_empty() {
        return Err("invalid advertise-client-url \"\"".to_owned());
    }
    Ok(Some(Resolver {
        prefix: prefix.to_owned(),
        ttl_seconds,
    }))
}

fn listen_tls(flags: &Flags) -> Result<ListenTls, String> {
    let auto = flags.bool("auto-tls");
    let self_signed_years = flags.uint("self-signed-cert-validity");
    if auto && self_signed_years == 0 {
        return Err("selfSignedCertValidity is invalid,it should be greater than 0".to_owned());
    }
    let version_of = |flag: &str| {
        let found = tls_version(flags.text(flag));
        found.map_err(|why| format!("{flag} is invalid: {why}"))
    };
    let min_version = version_of("tls-min-version")?;
    let max_version = version_of("tls-max-version")?;
    if max_version.is_some() && min_version > max_version {
        return Err(format!(
            "min version ({}) is greater than max version ({})",
            flags.text("tls-min-version"),
            flags.text("tls-max-version")
        ));
    }
    let cipher_suites = flags.list("listen-cipher-suites");
    if min_version == Some(TlsVersion::Tls13) && !cipher_suites.is_empty() {
        let text = "cipher suites cannot be configured when only TLS1.3 is enabled";
        return Err(text.to_owned());
    }
    Ok(ListenTls {
        cert: path(flags, "cert-file"),
        key: path(flags, "key-file"),
        trusted_ca: path(flags, "trusted-ca-file"),
        crl: path(flags, "client-crl-file"),
        auto,
        self_signed_years,
        cipher_suites,
        min_version,
        max_version,
    })
}

fn tls_version(text: &str) -> Result<Option<TlsVersion>, String> {
    match text {
        "" => Ok(None),
        "TLS1.2" => Ok(Some(TlsVersion::Tls12)),
        "TLS1.3" => Ok(Some(TlsVersion::Tls13)),
        _ => Err(format!(
            "unexpected TLS version {} (must be one of: TLS1.2, TLS1.3)",
            cli::text::quote(text.as_bytes())
        )),
    }
}

fn path(flags: &Flags, name: &str) -> Option<PathBuf> {
    let text = flags.text(name);
    (!text.is_empty()).then(|| text.into())
}

fn cluster(flags: &Flags) -> client::Config {
    let mut config = client::Config::new(flags.list("endpoints"));
    config.dial_timeout = DIAL_TIMEOUT;
    config.connect_limit = Some(CONNECT_LIMIT);
    let skip_verify = flags.bool("insecure-skip-tls-verify");
    let (cert, key) = (path(flags, "cert"), path(flags, "key"));
    let ca_file = path(flags, "cacert");
    if skip_verify || ca_file.is_some() || cert.is_some() || key.is_some() {
        config.tls = Some(TlsConfig {
            ca_file,
            identity: match (cert, key) {
                (None, None) => None,
                (cert, key) => Some((cert.unwrap_or_default(), key.unwrap_or_default())),
            },
            server_name: None,
            skip_verify,
        });
    }
    config.keepalive_interval =
        Some(flags.duration("dial-keepalive-time")).filter(|interval| !interval.is_zero());
    let timeout = flags.duration("dial-keepalive-timeout");
    if !timeout.is_zero() {
        config.keepalive_timeout = timeout;
    }
    config.keepalive_while_idle = flags.bool("permit-without-stream");
    // As in etcd, what is no limit leaves the client's own.
    let bytes = |name| usize::try_from(flags.int(name)).ok().filter(|it| *it > 0);
    if let Some(limit) = bytes("max-send-bytes") {
        config.request_bytes_max = limit;
    }
    if let Some(limit) = bytes("max-recv-bytes") {
        config.response_bytes_max = limit;
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Settings, String> {
        let known: Vec<&'static Flag> = FLAGS.iter().collect();
        let words = words.iter().map(|it| Bytes::from(it.to_string()));
        let parsed = cli::flags::parse(&known, words.collect())?;
        Settings::read(&parsed.flags)
    }

    #[test]
    fn defaults_are_the_originals() {
        let settings = read(&[]).unwrap();
        assert_eq!(settings.listen_address, "127.0.0.1:23790");
        assert_eq!(settings.cluster.endpoints, ["127.0.0.1:2379"]);
        assert_eq!(settings.cluster.request_bytes_max, 1_572_864);
        assert_eq!(settings.cluster.response_bytes_max, 2_147_483_647);
        assert_eq!(settings.cluster.keepalive_interval, None);
        assert!(settings.cluster.tls.is_none() && settings.resolver.is_none());
        assert_eq!(settings.keepalive_interval, Duration::from_secs(7200));
        assert_eq!(settings.concurrent_streams_max, u32::MAX);
    }

    #[test]
    fn what_does_not_go_together_is_refused_in_the_originals_words() {
        let refusal = |words: &[&str]| read(words).err();
        for (words, want) in [
            (&["--resolver-prefix=x"][..], "invalid resolver-ttl 0"),
            (&["--resolver-ttl=5"], "invalid resolver-prefix \"\""),
            (
                &[
                    "--resolver-prefix=x",
                    "--resolver-ttl=5",
                    "--advertise-client-url=",
                ],
                "invalid advertise-client-url \"\"",
            ),
            (
                &["--auto-tls", "--self-signed-cert-validity=0"],
                "selfSignedCertValidity is invalid,it should be greater than 0",
            ),
            (
                &["--tls-min-version=foo"],
                "tls-min-version is invalid: unexpected TLS version \"foo\" (must be one of: \
                 TLS1.2, TLS1.3)",
            ),
            (
                &["--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"],
                "min version (TLS1.3) is greater than max version (TLS1.2)",
            ),
            (
                &["--tls-min-version=TLS1.3", "--listen-cipher-suites=a"],
                "cipher suites cannot be configured when only TLS1.3 is enabled",
            ),
            (
                &["--max-concurrent-streams=4294967296"],
                "invalid argument \"4294967296\" for \"--max-concurrent-streams\" flag: \
                 strconv.ParseUint: parsing \"4294967296\": value out of range",
            ),
        ] {
            assert_eq!(refusal(words).as_deref(), Some(want), "{words:?}");
        }
        assert_eq!(refusal(&["--tls-min-version="]), None);
    }
}
