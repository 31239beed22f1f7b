//! Feature gates (`--feature-gates=A=true,B=false`).

use super::value::parse_bool;

/// How mature a gated feature is; decides which of `AllAlpha` and `AllBeta` sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Alpha,
    Beta,
}

impl Stage {
    /// The label value in `etcd_server_feature_enabled`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Stage::Alpha => "ALPHA",
            Stage::Beta => "BETA",
        }
    }
}

/// One row of the table of gates.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    pub name: &'static str,
    pub stage: Stage,
    pub default: bool,
}

const fn gate(name: &'static str, stage: Stage, default: bool) -> Gate {
    Gate {
        name,
        stage,
        default,
    }
}

/// Every gate of etcd 3.7, by name.
pub const TABLE: &[Gate] = &[
    gate("AllAlpha", Stage::Alpha, false),
    gate("AllBeta", Stage::Beta, false),
    gate("CompactHashCheck", Stage::Alpha, false),
    // The leader never waits before it renews a lease that it knows; there is nothing to switch.
    gate("FastLeaseKeepAlive", Stage::Beta, true),
    gate("InitialCorruptCheck", Stage::Alpha, false),
    gate("LeaseCheckpoint", Stage::Alpha, false),
    gate("LeaseCheckpointPersist", Stage::Alpha, false),
    gate("PriorityRequest", Stage::Alpha, false),
    gate("SetMemberLocalAddr", Stage::Alpha, false),
    // A defragmentation stops nobody; there is nothing to stop for it.
    gate("StopGRPCServiceOnDefrag", Stage::Alpha, false),
    // An internal optimisation of etcd's transactions; there is nothing here to switch.
    gate("TxnModeWriteWithSharedBuffer", Stage::Beta, true),
];

/// Which gates were set, by position in [`TABLE`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gates {
    set: [Option<bool>; TABLE.len()],
}

impl Gates {
    /// Reads `A=true,B=false`.
    ///
    /// # Errors
    /// The reason in etcd's words.
    pub fn parse(text: &str) -> Result<Gates, String> {
        let mut gates = Gates::default();
        for item in text.split(',').filter(|item| !item.is_empty()) {
            let (name, value) = match item.split_once('=') {
                Some((name, value)) => (name.trim(), value.trim()),
                None => return Err(format!("missing bool value for {}", item.trim())),
            };
            let Some(value) = parse_bool(value) else {
                return Err(format!(
                    "invalid value of {name}={value}, err: strconv.ParseBool: parsing {value:?}: \
                     invalid syntax"
                ));
            };
            let Some(at) = position(name) else {
                return Err(format!("unrecognized feature gate: {name}"));
            };
            gates.set[at] = Some(value);
        }
        gates.spread();
        Ok(gates)
    }

    /// Takes what a flag of an earlier release said about a gate, unless the gate was set itself.
    ///
    /// # Panics
    /// When the table has no such gate: names come from our own code.
    pub(super) fn inherit(&mut self, name: &str, on: bool) {
        let at = position(name).expect("only gates of the table are named");
        self.set[at].get_or_insert(on);
    }

    /// `AllAlpha` and `AllBeta` set the gates of their stage that were not set by name.
    fn spread(&mut self) {
        for (all, stage) in [("AllAlpha", Stage::Alpha), ("AllBeta", Stage::Beta)] {
            let Some(value) = position(all).and_then(|at| self.set[at]) else {
                continue;
            };
            for (gate, set) in TABLE.iter().zip(&mut self.set) {
                if gate.stage == stage && set.is_none() {
                    *set = Some(value);
                }
            }
        }
    }

    /// Whether the gate `name` is on.
    ///
    /// # Panics
    /// When the table has no such gate: names come from our own code.
    #[must_use]
    pub fn enabled(&self, name: &str) -> bool {
        let at = position(name).expect("only gates of the table are asked for");
        self.set[at].unwrap_or(TABLE[at].default)
    }

    /// All gates with their state.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Gate, bool)> {
        TABLE
            .iter()
            .zip(&self.set)
            .map(|(gate, set)| (gate, set.unwrap_or(gate.default)))
    }
}

fn position(name: &str) -> Option<usize> {
    TABLE.iter().position(|gate| gate.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsing() {
        let gates = Gates::parse("AllAlpha=true, LeaseCheckpoint=false,").unwrap();
        assert!(gates.enabled("CompactHashCheck"));
        assert!(!gates.enabled("LeaseCheckpoint"));
        assert!(gates.enabled("FastLeaseKeepAlive"));
        let errors = [
            ("X", "missing bool value for X"),
            ("X=true", "unrecognized feature gate: X"),
            (
                "LeaseCheckpoint=y",
                "invalid value of LeaseCheckpoint=y, err: strconv.ParseBool: parsing \"y\": \
                 invalid syntax",
            ),
        ];
        for (text, want) in errors {
            assert_eq!(Gates::parse(text), Err(want.into()));
        }
    }
}
