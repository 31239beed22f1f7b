//! The process: words in, exit code out.

use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::net::UdpSocket;
use std::path::Path;
use std::process::ExitCode;

use crate::command;
use crate::config::{
    self, Action, Config, Failure, Inputs, Level, Notice, Outcome, UNSET_ADVERTISE_CLIENT_URLS,
};
use crate::log::{self, Guard, strings};
use crate::member::BootstrapError;
use crate::run::{self, Running, Start};
use crate::shutdown::{self, Stop, Wish};

/// Architectures on which etcd runs without being asked twice.
const ARCHITECTURES: &[&str] = &["x86_64", "aarch64", "powerpc64", "s390x"];

/// What `main` does; `start` builds the member.
#[must_use]
pub fn main(start: Start) -> ExitCode {
    let args: Vec<String> = env::args_os()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let env: Vec<(String, String)> = env::vars_os()
        .map(|(name, value)| {
            (
                name.to_string_lossy().into_owned(),
                value.to_string_lossy().into_owned(),
            )
        })
        .collect();
    if !architecture_allowed(&env) {
        let line = "running etcd on unsupported architecture since ETCD_UNSUPPORTED_ARCH is not \
                    set
";
        say(io::stderr(), line);
        return ExitCode::FAILURE;
    }
    if let Some(code) = command::run(args.get(1..).unwrap_or_default()) {
        return code;
    }
    let read = || {
        config::read(&Inputs {
            args: args.get(1..).unwrap_or_default(),
            env: &env,
            read_file: &|path: &Path| std::fs::read_to_string(path),
            default_host: &default_host,
        })
    };
    let outcome = read();
    match outcome.result {
        Ok(Action::Help) => {
            say(io::stderr(), config::USAGE);
            say(io::stdout(), &config::help_flags());
            ExitCode::SUCCESS
        }
        Ok(Action::Version) => {
            say(io::stdout(), &config::version_text());
            ExitCode::SUCCESS
        }
        Ok(Action::Serve(ref config)) => match open_log(&outcome, &args) {
            Ok(log) => serve(config, start, &log, &read),
            Err(code) => code,
        },
        Err(ref failure) => refuse(failure, &outcome, &args),
    }
}

/// Writes to a stream whose reader may be gone, which is no reason to fail.
fn say(mut stream: impl Write, text: &str) {
    let _ = stream
        .write_all(text.as_bytes())
        .and_then(|()| stream.flush());
}

fn architecture_allowed(env: &[(String, String)]) -> bool {
    let arch = env::consts::ARCH;
    ARCHITECTURES.contains(&arch)
        || env
            .iter()
            .any(|(name, value)| name == "ETCD_UNSUPPORTED_ARCH" && value == arch)
}

/// The address from which this machine would talk to the outside.
fn default_host() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: connecting a datagram socket only looks up the route. The address is
    // from a block that is reserved for documentation.
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified() && !address.is_loopback()).then(|| address.to_string())
}

/// Opens the log and writes what was noticed before it was open.
fn open_log(outcome: &Outcome, args: &[String]) -> Result<Guard, ExitCode> {
    let (lines, guard) = log::open(&outcome.log).map_err(|error| {
        say(io::stderr(), &format!("{}\n", chain(&error)));
        ExitCode::FAILURE
    })?;
    log::install(lines, &guard).expect("nothing else in this process installs a log");
    for notice in &outcome.notices {
        write(notice);
    }
    tracing::info!(args = %strings(args), "Running: ");
    Ok(guard)
}

/// Fields of notices are known only at run time, and field names of events are not: the known
/// ones are spelled out.
fn write(notice: &Notice) {
    let field = |key: &str| {
        let found = notice.fields.iter().find(|(name, _)| *name == key);
        found.map(|(_, value)| value.as_str())
    };
    macro_rules! event {
        ($level:ident, $($key:literal),*) => {
            tracing::$level!($($key = field($key),)* "{}", notice.message)
        };
    }
    macro_rules! event_with_all {
        ($level:ident) => {
            event!(
                $level,
                "variable-name",
                "variable-value",
                "environment-variable",
                "key",
                "value",
                "path",
                "name",
                "flag",
                "feature-gate",
                "host",
                "client-url",
                "peer-url",
                "data-dir",
                "max-request-bytes",
                "recommended-request-bytes",
                "quota-size-bytes",
                "quota-maximum-size-bytes"
            )
        };
    }
    match notice.level {
        Level::Info => event_with_all!(info),
        Level::Warn => event_with_all!(warn),
    }
}

/// Leaves because of the configuration.
fn refuse(failure: &Failure, outcome: &Outcome, args: &[String]) -> ExitCode {
    let code = ExitCode::from(failure.exit_code());
    match failure {
        Failure::Usage(line) => say(io::stderr(), &format!("{line}\n{}", config::USAGE)),
        Failure::Plain(line) | Failure::Panic(line) => say(io::stderr(), &format!("{line}\n")),
        Failure::Verify(error) => {
            let Ok(log) = open_log(outcome, args) else {
                return code;
            };
            tracing::warn!(error = error.as_str(), "failed to verify flags");
            if error == UNSET_ADVERTISE_CLIENT_URLS {
                tracing::warn!(error = error.as_str(), "advertise client URLs are not set");
            }
            log.flush();
        }
        Failure::Start(error) => {
            let Ok(log) = open_log(outcome, args) else {
                return code;
            };
            tracing::error!(fatal = true, error = error.as_str(), "discovery failed");
            log.flush();
        }
        Failure::Shadowed { variable } => {
            let Ok(log) = open_log(outcome, args) else {
                return code;
            };
            tracing::error!(
                fatal = true,
                "environment-variable" = variable.as_str(),
                "conflicting environment variable is shadowed by corresponding command-line flag \
                 (either unset environment variable or disable flag))"
            );
            log.flush();
        }
    }
    code
}

/// Takes up anew, at SIGHUP, what the config file says about log level and quota, and the files
/// that the log goes to. Certificates are looked after all the time.
fn reload(read: &dyn Fn() -> Outcome, running: &dyn Running, log: &Guard) {
    log.reopen();
    let outcome = read();
    match outcome.result {
        Ok(Action::Serve(config)) => {
            log.set_level(config.log.level);
            running.reconfigure(&config);
            tracing::info!("received a hangup; took the configuration up anew");
        }
        Ok(Action::Help | Action::Version) => {}
        Err(failure) => {
            let error = format!("{failure:?}");
            tracing::warn!(error, "received a hangup; the configuration is not usable");
        }
    }
}

/// Runs the member until something ends it.
fn serve(config: &Config, start: Start, log: &Guard, read: &dyn Fn() -> Outcome) -> ExitCode {
    let stop = match Stop::on_signals() {
        Ok(stop) => stop,
        Err(error) => return fatal("cannot handle signals", &error, log),
    };
    let running = match run::run(config, start, stop.stopper()) {
        Ok(running) => running,
        Err(error) if warn_of_discovery(error.as_ref()) => {
            log.flush();
            return ExitCode::FAILURE;
        }
        // etcd's line for any failed start, whether discovery was asked for or not.
        Err(error) => return fatal("discovery failed", error.as_ref(), log),
    };
    shutdown::notify_ready();
    let cause = loop {
        match stop.next() {
            Wish::Reload => reload(read, &*running, log),
            Wish::End(cause) => break cause,
        }
    };
    tracing::info!(
        name = config.name.as_str(),
        "data-dir" = %config.data_dir.display(),
        "closing etcd server"
    );
    running.stop();
    tracing::info!(
        name = config.name.as_str(),
        "data-dir" = %config.data_dir.display(),
        "closed etcd server"
    );
    log.flush();
    shutdown::leave(cause)
}

/// Tells of a failed discovery, after which etcd leaves without a fatal line; false when it was
/// something else.
fn warn_of_discovery(error: &(dyn Error + Send + Sync + 'static)) -> bool {
    let Some(BootstrapError::Discovery {
        token, endpoints, ..
    }) = error.downcast_ref()
    else {
        return false;
    };
    tracing::warn!(
        "discovery-token" = token.as_str(),
        "discovery-endpoints" = %strings(endpoints),
        %error,
        "failed to bootstrap; discovery token was already used"
    );
    tracing::warn!("do not reuse discovery token; generate a new one to bootstrap a cluster");
    true
}

fn fatal(message: &str, error: &dyn Error, log: &Guard) -> ExitCode {
    tracing::error!(fatal = true, error = chain(error), "{message}");
    log.flush();
    ExitCode::FAILURE
}

/// An error with its causes.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}
