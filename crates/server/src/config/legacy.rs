//! Flags that earlier releases had. They are taken with a warning wherever their meaning lives on
//! under another name, so that a command line that served an earlier release starts this one.

use super::gates::Gates;
use super::notice::{Level, Notice};
use super::raw::{Raw, Source};
use super::table;
use super::value::{Kind, Value};

/// What became of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heir {
    /// Another flag, which takes the same values.
    Flag(&'static str),
    /// A feature gate.
    Gate(&'static str),
    /// Nothing: what it adjusted is gone.
    Nobody(Kind),
    /// Nothing, and a member without it would not be what was asked for, unless it has this
    /// value.
    Gone(Kind, &'static str),
}

/// One flag of an earlier release.
#[derive(Debug)]
pub(super) struct Legacy {
    pub(super) name: &'static str,
    heir: Heir,
}

const fn flag(name: &'static str, heir: &'static str) -> Legacy {
    let heir = Heir::Flag(heir);
    Legacy { name, heir }
}

const fn gate(name: &'static str, heir: &'static str) -> Legacy {
    let heir = Heir::Gate(heir);
    Legacy { name, heir }
}

const fn inert(name: &'static str, kind: Kind) -> Legacy {
    let heir = Heir::Nobody(kind);
    Legacy { name, heir }
}

const fn gone(name: &'static str, kind: Kind, harmless: &'static str) -> Legacy {
    let heir = Heir::Gone(kind, harmless);
    Legacy { name, heir }
}

/// By the release that had them last: 3.6, 3.5, 3.4.
#[rustfmt::skip]
pub(super) const LEGACY: &[Legacy] = &[
    flag("experimental-bootstrap-defrag-threshold-megabytes",
        "bootstrap-defrag-threshold-megabytes"),
    gate("experimental-compact-hash-check-enabled", "CompactHashCheck"),
    flag("experimental-compact-hash-check-time", "compact-hash-check-time"),
    flag("experimental-compaction-batch-limit", "compaction-batch-limit"),
    flag("experimental-compaction-sleep-interval", "compaction-sleep-interval"),
    flag("experimental-corrupt-check-time", "corrupt-check-time"),
    flag("experimental-distributed-tracing-address", "distributed-tracing-address"),
    flag("experimental-distributed-tracing-instance-id", "distributed-tracing-instance-id"),
    flag("experimental-distributed-tracing-sampling-rate", "distributed-tracing-sampling-rate"),
    flag("experimental-distributed-tracing-service-name", "distributed-tracing-service-name"),
    flag("experimental-downgrade-check-time", "downgrade-check-time"),
    flag("experimental-enable-distributed-tracing", "enable-distributed-tracing"),
    gate("experimental-enable-lease-checkpoint", "LeaseCheckpoint"),
    gate("experimental-enable-lease-checkpoint-persist", "LeaseCheckpointPersist"),
    gate("experimental-initial-corrupt-check", "InitialCorruptCheck"),
    flag("experimental-max-learners", "max-learners"),
    flag("experimental-memory-mlock", "memory-mlock"),
    flag("experimental-peer-skip-client-san-verification", "peer-skip-client-san-verification"),
    gate("experimental-set-member-localaddr", "SetMemberLocalAddr"),
    flag("experimental-snapshot-catchup-entries", "snapshot-catchup-entries"),
    gate("experimental-stop-grpc-service-on-defrag", "StopGRPCServiceOnDefrag"),
    gate("experimental-txn-mode-write-with-shared-buffer", "TxnModeWriteWithSharedBuffer"),
    flag("experimental-warning-apply-duration", "warning-apply-duration"),
    flag("experimental-warning-unary-request-duration", "warning-unary-request-duration"),
    flag("experimental-watch-progress-notify-interval", "watch-progress-notify-interval"),
    gone("discovery", Kind::Text, ""),
    gone("discovery-proxy", Kind::Text, ""),
    gone("enable-v2", Kind::Bool, "false"),
    gone("experimental-enable-v2v3", Kind::Text, ""),
    inert("experimental-wait-cluster-ready-timeout", Kind::Duration),
    gone("proxy", Kind::Text, "off"),
    inert("proxy-dial-timeout", Kind::Uint),
    inert("proxy-failure-wait", Kind::Uint),
    inert("proxy-read-timeout", Kind::Uint),
    inert("proxy-refresh-interval", Kind::Uint),
    inert("proxy-write-timeout", Kind::Uint),
    inert("debug", Kind::Bool),
    inert("log-package-levels", Kind::Text),
];

/// The flag with this name.
pub(super) fn find(name: &str) -> Option<&'static Legacy> {
    LEGACY.iter().find(|legacy| legacy.name == name)
}

impl Legacy {
    /// What its values are.
    pub(super) fn kind(&self) -> Kind {
        match self.heir {
            Heir::Flag(name) => table::named(name).kind,
            Heir::Gate(_) => Kind::Bool,
            Heir::Nobody(kind) | Heir::Gone(kind, _) => kind,
        }
    }

    /// The variable that set it.
    pub(super) fn env(&self) -> String {
        table::variable(self.name)
    }
}

/// A flag of an earlier release that was set.
#[derive(Clone, Debug)]
pub(super) struct Set {
    pub(super) legacy: &'static Legacy,
    pub(super) value: Value,
    pub(super) source: Source,
}

/// Hands the values on to whatever took the flags' places, unless that was set itself.
///
/// # Errors
/// A flag asks for what is gone.
pub(super) fn bequeath(raw: &mut Raw, notices: &mut Vec<Notice>) -> Result<(), String> {
    let mut gates = Vec::new();
    for Set {
        legacy,
        value,
        source,
    } in std::mem::take(&mut raw.legacy)
    {
        let name = legacy.name;
        let note = |line: &str| Notice::new(Level::Warn, line).text("flag", name);
        match legacy.heir {
            Heir::Flag(heir) => {
                let line = "flag of an earlier release; use the one that took its place";
                notices.push(note(line).text("name", heir));
                if raw.source(heir).is_none() {
                    let position = table::position(heir).expect("a test looks every heir up");
                    raw.set(position, value, source);
                }
            }
            Heir::Gate(heir) => {
                let line = "flag of an earlier release; use the feature gate";
                notices.push(note(line).text("feature-gate", heir));
                gates.push((heir, value == Value::Bool(true), source));
            }
            Heir::Nobody(_) => {
                notices.push(note("flag of an earlier release; it has no effect"));
            }
            Heir::Gone(kind, harmless) => {
                if value != kind.default_value(harmless) {
                    return Err(format!("--{name} belongs to an earlier release"));
                }
                notices.push(note("flag of an earlier release; it has no effect"));
            }
        }
    }
    if let Some((.., source)) = gates.last().copied() {
        let mut all: Gates = raw.gates().clone();
        gates
            .iter()
            .for_each(|(name, on, _)| all.inherit(name, *on));
        let position = table::position("feature-gates").expect("a flag of the table");
        raw.set(position, Value::Gates(all), source);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heirs_exist_and_no_name_is_in_use() {
        for legacy in LEGACY {
            assert!(table::position(legacy.name).is_none(), "{}", legacy.name);
            match legacy.heir {
                Heir::Flag(heir) => assert!(table::position(heir).is_some(), "{heir}"),
                Heir::Gate(heir) => {
                    Gates::parse(&format!("{heir}=true")).expect("a gate of the table");
                }
                Heir::Nobody(_) | Heir::Gone(..) => {}
            }
        }
    }
}
