//! The flags that every command takes, their environment, and the client that they describe.

use std::path::PathBuf;
use std::time::Duration;

use client::{Client, Config, Credentials, TlsConfig, srv};
use tokio::time::Instant;

use super::Call;
use super::flags::{Flag, Flags, Kind};
use crate::exit::{self, Failure};
use crate::print::Printer;
use crate::{log, prompt};

/// The global flags. Environment variables are `ETCDCTL_` and the name in capitals.
pub(crate) const FLAGS: &[Flag] = &[
    Flag {
        kind: Kind::List,
        ..Flag::text(
            "endpoints",
            "127.0.0.1:2379",
            "addresses of the servers to talk to",
        )
    },
    Flag::switch("debug", "print the settings in use to standard error"),
    Flag {
        short: Some('w'),
        ..Flag::text(
            "write-out",
            "simple",
            "output format: fields, json, protobuf, simple or table",
        )
    },
    Flag::switch("hex", "print keys, values and IDs as hexadecimal numbers"),
    duration(
        "dial-timeout",
        "2s",
        "how long one connection attempt may take",
    ),
    duration(
        "command-timeout",
        "5s",
        "how long a command may take, connecting included",
    ),
    duration(
        "keepalive-time",
        "2s",
        "how long a connection may be silent before it is probed",
    ),
    duration(
        "keepalive-timeout",
        "6s",
        "how long a probe may stay unanswered",
    ),
    Flag::int(
        "max-request-bytes",
        "largest request to send, in bytes (0 means 2 MiB)",
    ),
    Flag::int(
        "max-recv-bytes",
        "largest answer to accept, in bytes (0 means 2^31-1)",
    ),
    enabled(
        "insecure-transport",
        "talk in clear text unless endpoints or certificates say TLS",
    ),
    enabled(
        "insecure-discovery",
        "use SRV records that name servers without TLS",
    ),
    Flag::switch(
        "insecure-skip-tls-verify",
        "accept any server certificate (never outside of tests)",
    ),
    Flag::text(
        "cert",
        "",
        "certificate file with which this client identifies itself",
    ),
    Flag::text("key", "", "key file of the client certificate"),
    Flag::text(
        "cacert",
        "",
        "file with the certificates that vouch for servers",
    ),
    Flag::text(
        "auth-jwt-token",
        "",
        "JWT to authenticate with, instead of a user and password",
    ),
    Flag::text(
        "user",
        "",
        "name[:password] to authenticate with; asks for a missing password",
    ),
    Flag::text(
        "password",
        "",
        "password to authenticate with, when --user has only the name",
    ),
    Flag {
        short: Some('d'),
        ..Flag::text(
            "discovery-srv",
            "",
            "domain whose SRV records name the endpoints",
        )
    },
    Flag::text(
        "discovery-srv-name",
        "",
        "suffix of the service name in those SRV records",
    ),
];

const fn duration(name: &'static str, default: &'static str, help: &'static str) -> Flag {
    Flag {
        kind: Kind::Duration,
        ..Flag::text(name, default, help)
    }
}

const fn enabled(name: &'static str, help: &'static str) -> Flag {
    Flag {
        kind: Kind::Bool,
        ..Flag::text(name, "true", help)
    }
}

/// Variables that only some commands know and that are no flags.
const WATCH_VARIABLES: [&str; 2] = ["ETCDCTL_WATCH_KEY", "ETCDCTL_WATCH_RANGE_END"];

const SHADOWED: &str = "conflicting environment variable is shadowed by corresponding \
                        command-line flag (either unset environment variable or disable flag))";

fn variable(flag: &str) -> String {
    format!("ETCDCTL_{}", flag.to_uppercase().replace('-', "_"))
}

/// What a command needs to talk to servers.
pub(crate) struct Session {
    pub(crate) config: Config,
    pub(crate) printer: Printer,
    command_timeout: Duration,
    has_command_timeout: bool,
}

impl Session {
    /// Reads the environment into the call's flags and the flags into a configuration.
    ///
    /// # Errors
    /// Settings that contradict each other or make no sense.
    pub(crate) fn new(call: &mut Call) -> Result<Self, Failure> {
        read_environment(call)?;
        let flags = &call.flags;
        if flags.bool("debug") {
            for flag in FLAGS {
                eprintln!("{}={}", variable(flag.name), flags.text(flag.name));
            }
        }
        let endpoints = endpoints(flags)?;
        let config = Config {
            tls: tls(flags)?,
            credentials: credentials(flags)?,
            token: Some(flags.text("auth-jwt-token").to_owned()).filter(|t| !t.is_empty()),
            ..connection(flags, endpoints)?
        };
        Ok(Session {
            config,
            printer: Printer::new(flags.text("write-out"), flags.bool("hex"))?,
            command_timeout: flags.duration("command-timeout"),
            has_command_timeout: flags.is_given("command-timeout"),
        })
    }

    /// Connects, and authenticates if a user is given.
    ///
    /// # Errors
    /// Files that cannot be used, or an authentication that failed.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        connect(self.config.clone()).await
    }

    /// Connects a client whose requests end with the command's timeout.
    ///
    /// # Errors
    /// As [`Session::connect`].
    pub(crate) async fn connect_limited(&self) -> Result<Client, Failure> {
        let deadline = self.deadline();
        Ok(self.connect().await?.with_deadline(deadline))
    }

    /// Connects to one endpoint only.
    ///
    /// # Errors
    /// As [`Session::connect`].
    pub(crate) async fn connect_to(&self, endpoint: &str) -> Result<Client, Failure> {
        let endpoints = vec![endpoint.to_owned()];
        let client = connect(Config {
            endpoints,
            ..self.config.clone()
        })
        .await?;
        Ok(client.with_deadline(self.deadline()))
    }

    /// When the command's time is over, counted from now.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.command_timeout
    }

    /// The deadline of commands that have none unless it is asked for.
    pub(crate) fn explicit_deadline(&self) -> Option<Instant> {
        self.has_command_timeout.then(|| self.deadline())
    }
}

/// Connects with a configuration.
///
/// # Errors
/// Files that cannot be used count as wrong arguments, a failed authentication as a bad
/// connection.
pub(crate) async fn connect(config: Config) -> Result<Client, Failure> {
    Client::connect(config).await.map_err(|error| {
        log::cause(&error);
        let code = match error {
            client::Error::Config(_) => exit::BAD_ARGS,
            _ => exit::BAD_CONNECTION,
        };
        Failure::new(code, error.to_string())
    })
}

/// The flags about connections, without security and user.
pub(crate) fn connection(flags: &Flags, endpoints: Vec<String>) -> Result<Config, Failure> {
    let mut config = Config::new(endpoints);
    config.dial_timeout = flags.duration("dial-timeout");
    config.keepalive_interval = Some(flags.duration("keepalive-time")).filter(|d| !d.is_zero());
    config.keepalive_timeout = flags.duration("keepalive-timeout");
    let send_max = usize::try_from(flags.int("max-request-bytes")).unwrap_or_default();
    let receive_max = usize::try_from(flags.int("max-recv-bytes")).unwrap_or_default();
    if receive_max > 0 && send_max > receive_max {
        let text = format!(
            "gRPC message recv limit ({receive_max} bytes) must be greater than send limit \
             ({send_max} bytes)"
        );
        return Err(Failure::new(exit::BAD_CONNECTION, text));
    }
    if send_max > 0 {
        config.request_bytes_max = send_max;
    }
    if receive_max > 0 {
        config.response_bytes_max = receive_max;
    }
    Ok(config)
}

/// The environment gives values to flags that the command line does not give.
///
/// # Errors
/// A flag is given by both.
pub(crate) fn read_environment(call: &mut Call) -> Result<(), Failure> {
    let inherited = call.path[..call.path.len() - 1]
        .iter()
        .filter(|command| command.inherit_flags)
        .flat_map(|command| command.flags);
    let names: Vec<_> = FLAGS
        .iter()
        .chain(inherited)
        .map(|flag| flag.name)
        .collect();
    let is_watch = call
        .path
        .last()
        .is_some_and(|command| command.name == "watch");
    for (key, value) in std::env::vars_os() {
        let (key, value) = (key.to_string_lossy(), value.to_string_lossy());
        if !key.starts_with("ETCDCTL_") || is_watch && WATCH_VARIABLES.contains(&key.as_ref()) {
            continue;
        }
        let flag = names.iter().find(|name| variable(name) == key);
        match flag {
            Some(name) if call.flags.is_given(name) => {
                log::line("fatal", SHADOWED, &[("environment-variable", &key)]);
                return Err(Failure::silent(exit::ERROR));
            }
            Some(name) if !value.is_empty() => {
                if let Err(why) = call.flags.set(name, &value) {
                    let fields = [("environment-variable", &*key), ("error", &*why)];
                    log::line("warn", "ignored environment variable", &fields);
                }
            }
            _ => {
                let whole = format!("{key}={value}");
                let fields = [("environment-variable", whole.as_str())];
                log::line("warn", "unrecognized environment variable", &fields);
            }
        }
    }
    Ok(())
}

/// The endpoints of the SRV records, if a domain is given, or of the flag.
pub(crate) fn endpoints(flags: &Flags) -> Result<Vec<String>, Failure> {
    let domain = flags.text("discovery-srv");
    if domain.is_empty() {
        return Ok(flags.list("endpoints"));
    }
    let found = srv::endpoints(domain, flags.text("discovery-srv-name"))
        .map_err(|text| Failure::new(exit::ERROR, text))?;
    if flags.bool("insecure-discovery") {
        return Ok(found);
    }
    let (insecure, secure): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|endpoint| endpoint.starts_with("http://"));
    for endpoint in insecure {
        eprintln!("ignoring discovered insecure endpoint {endpoint:?}");
    }
    Ok(secure)
}

fn tls(flags: &Flags) -> Result<Option<TlsConfig>, Failure> {
    for name in ["cert", "key", "cacert"] {
        if flags.is_given(name) && flags.text(name).is_empty() {
            let text = format!("empty string is passed to --{name} option");
            return Err(Failure::bad_args(text));
        }
    }
    let server_name = match flags.bool("insecure-discovery") {
        true => "",
        false => flags.text("discovery-srv"),
    };
    tls_config(&TlsFlags {
        cert: flags.text("cert"),
        key: flags.text("key"),
        cacert: flags.text("cacert"),
        server_name,
        insecure: flags.bool("insecure-transport"),
        skip_verify: flags.bool("insecure-skip-tls-verify"),
    })
}

/// The flags about TLS of one side.
pub(crate) struct TlsFlags<'a> {
    pub(crate) cert: &'a str,
    pub(crate) key: &'a str,
    pub(crate) cacert: &'a str,
    pub(crate) server_name: &'a str,
    pub(crate) insecure: bool,
    pub(crate) skip_verify: bool,
}

/// TLS as the flags want it; `None` is clear text where the endpoints leave the choice.
///
/// # Errors
/// A certificate without a key or a key without a certificate.
pub(crate) fn tls_config(flags: &TlsFlags<'_>) -> Result<Option<TlsConfig>, Failure> {
    let identity = match (flags.cert, flags.key) {
        ("", "") => None,
        ("", _) | (_, "") => {
            let text = format!(
                "KeyFile and CertFile must both be present[key: {}, cert: {}]",
                flags.key, flags.cert
            );
            return Err(Failure::bad_args(text));
        }
        (cert, key) => Some((PathBuf::from(cert), PathBuf::from(key))),
    };
    let text = |value: &str| Some(value.to_owned()).filter(|value| !value.is_empty());
    let ca_file = text(flags.cacert).map(PathBuf::from);
    let server_name = text(flags.server_name);
    let is_wanted = identity.is_some()
        || ca_file.is_some()
        || server_name.is_some()
        || !flags.insecure
        || flags.skip_verify;
    let skip_verify = flags.skip_verify;
    Ok(is_wanted.then_some(TlsConfig {
        ca_file,
        identity,
        server_name,
        skip_verify,
    }))
}

fn credentials(flags: &Flags) -> Result<Option<Credentials>, Failure> {
    if !flags.text("auth-jwt-token").is_empty() {
        return Ok(None);
    }
    user(flags.text("user"), flags.text("password"), "Password: ")
}

/// A user with the password from the flag, from behind the name, or from the terminal.
///
/// # Errors
/// The password could not be read.
pub(crate) fn user(
    user: &str,
    password: &str,
    prompt: &str,
) -> Result<Option<Credentials>, Failure> {
    if user.is_empty() {
        return Ok(None);
    }
    let (name, password) = match user.split_once(':') {
        _ if !password.is_empty() => (user, password.to_owned()),
        Some((name, password)) => (name, password.to_owned()),
        None => (
            user,
            prompt::password(prompt).map_err(|text| Failure::new(exit::ERROR, text))?,
        ),
    };
    if password.is_empty() {
        // Without a password there is nothing to authenticate with.
        return Ok(None);
    }
    Ok(Some(Credentials {
        name: name.to_owned(),
        password,
    }))
}
