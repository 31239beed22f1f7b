//! What a seed's cluster looks like.

use std::path::Path;

use api::ids::MemberId;
use node::boot::{InitialMember, InitialState};
use node::ids;
use node::member::Config;
use storage::datadir::DataDir;
use storage::simfs::Rng;
use storage::{backend, bolt, wal};

use super::site::Site;
use crate::workload::Shape;

/// What all members of a run have in common.
#[derive(Clone, Debug)]
pub struct Plan {
    pub config: Config,
    pub shape: Shape,
    pub members: usize,
    /// How long faults happen, in microseconds.
    pub faults_us: u64,
    /// Time between two faults, at most.
    pub fault_every_us: u64,
    /// Time between two requests of a client, at most.
    pub think_us: u64,
    pub clients: usize,
    /// Usual longest time of a sync.
    pub sync_us: u64,
    /// Longest time that what arrives waits for company; 0 when each input is a turn of its own.
    pub turn_us: u64,
    /// Longest time between two steps of a core.
    pub core_us: u64,
    pub reconfigures: bool,
    pub keep_snaps: usize,
    pub keep_wals: usize,
}

/// Clock of a run's beginning, milliseconds.
pub const BEGIN_MS: u64 = 1_700_000_000_000;
pub const TICK_MS: u64 = 100;

impl Plan {
    pub fn draw(seed: u64, rng: &mut Rng) -> Plan {
        let pick = |rng: &mut Rng, from: &[u64]| from[rng.below(from.len() as u64) as usize];
        let members = pick(rng, &[1, 2, 3, 3, 3, 3, 5]) as usize;
        let bolt = bolt::Options {
            page_size: Some(1024),
            grow_bytes: pick(rng, &[1024, 16 << 10]),
            cache_bytes: pick(rng, &[0, 64 << 10]) as usize,
            ..bolt::Options::default()
        };
        let wal = wal::Options {
            segment_bytes: pick(rng, &[2 << 10, 16 << 10]),
            ..wal::Options::inline()
        };
        let state = state::Config {
            value_budget: pick(rng, &[0, 1 << 20]) as usize,
            compaction_batch: pick(rng, &[1, 20]) as usize,
            ..state::Config::default()
        };
        let config = Config {
            dir: DataDir::new(Path::new("/data"), None),
            name: String::new(),
            initial_cluster: (0..members).map(founder).collect(),
            initial_token: "sim".into(),
            initial_state: InitialState::New,
            joined: None,
            force_new_cluster: false,
            client_urls: Vec::new(),
            tick_ms: TICK_MS,
            election_ticks: 10,
            pre_vote: !rng.one_in(4),
            seed,
            unix_ms: BEGIN_MS,
            snapshot_count: pick(rng, &[5, 30, 200, 10_000]),
            catch_up_entries: pick(rng, &[0, 3, 20, 5000]),
            wal,
            backend: backend::Options {
                bolt,
                overlay_bytes_max: pick(rng, &[3000, 1 << 20]) as usize,
            },
            state,
        };
        Plan {
            config,
            shape: Shape::draw(rng),
            members,
            faults_us: pick(rng, &[4, 8, 15]) * 1_000_000,
            fault_every_us: pick(rng, &[400, 1000, 3000]) * 1000,
            think_us: pick(rng, &[5, 30, 100]) * 1000,
            clients: pick(rng, &[2, 4, 8]) as usize,
            sync_us: pick(rng, &[300, 3000, 30_000]),
            turn_us: pick(rng, &[0, 500, 5000]),
            core_us: pick(rng, &[50, 500]),
            reconfigures: members > 1 && rng.one_in(2),
            keep_snaps: pick(rng, &[1, 5]) as usize,
            keep_wals: pick(rng, &[1, 5]) as usize,
        }
    }

    /// The place of a founder.
    pub fn site(&self, at: usize) -> Site {
        let member = founder(at);
        let id = ids::member_id(&member.peer_urls, &self.config.initial_token, None);
        let config = Config {
            name: member.name,
            client_urls: vec![format!("http://m{at}:2379")],
            seed: self.config.seed.wrapping_add(at as u64),
            ..self.config.clone()
        };
        Site::new(config, id)
    }

    /// The place of a member that is added at `now_us`.
    pub fn joining(&self, at: usize, now_us: u64) -> Site {
        let mut site = self.site(at);
        site.id = added_id(at, now_us);
        site.config.initial_state = InitialState::Existing;
        site.joined = false;
        site
    }
}

pub fn founder(at: usize) -> InitialMember {
    InitialMember {
        name: format!("m{at}"),
        peer_urls: vec![format!("http://m{at}:2380")],
    }
}

fn added_id(at: usize, now_us: u64) -> MemberId {
    let seconds = BEGIN_MS / 1000 + now_us / 1_000_000;
    ids::member_id(&founder(at).peer_urls, "", Some(seconds))
}
