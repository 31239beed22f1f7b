//! Random histories with crashes: what comes back is what some prefix of the unsynced writes
//! leaves on top of all that was synced, and opening never refuses what a crash left.

use super::*;

/// The log as it should be.
struct Model {
    /// At the last sync that returned.
    synced: Vec<Entry>,
    synced_state: HardState,
    /// What each record since then makes of it, oldest first.
    since: Vec<Vec<Entry>>,
    /// As the next batch may give it.
    told: HardState,
    /// As it was last given.
    given: HardState,
    /// Applied to the database and durable there.
    applied: usize,
}

impl Model {
    fn latest(&self) -> &Vec<Entry> {
        self.since.last().unwrap_or(&self.synced)
    }

    fn note(&mut self, entries: &[Entry]) {
        for entry in entries {
            let mut log = self.latest().clone();
            log.truncate(entry.index.0 as usize - 1);
            log.push(entry.clone());
            self.since.push(log);
        }
    }

    fn note_sync(&mut self) {
        self.synced = self.latest().clone();
        self.since.clear();
        self.synced_state = HardState {
            commit: LogIndex(0),
            ..self.given
        };
    }

    fn check(&mut self, recovered: &Recovered, seed: u64) {
        let possible = recovered.entries == self.synced || self.since.contains(&recovered.entries);
        assert!(
            possible,
            "seed {seed}: {} entries came back",
            recovered.entries.len()
        );
        let state = recovered.hard_state;
        assert!(state.term >= self.synced_state.term, "seed {seed}");
        assert!(
            state.commit <= LogIndex(recovered.entries.len() as u64),
            "seed {seed}"
        );
        if state.term == self.synced_state.term {
            assert_eq!(state.vote, self.synced_state.vote, "seed {seed}");
        }
        self.synced = recovered.entries.clone();
        self.since.clear();
        self.synced_state = state;
        self.given = state;
        let last_term = recovered.entries.last().map_or(Term(1), |e| e.term);
        self.told = HardState {
            term: state.term.max(last_term),
            ..state
        };
        self.applied = self.applied.min(recovered.entries.len());
    }
}

/// One batch as a follower may get it: sometimes of a new term that replaces entries, sometimes
/// with a commit index that covers the batch itself.
fn batch(model: &mut Model, rng: &mut Rng) -> (Option<HardState>, Vec<Entry>) {
    let committed = model.told.commit.0.max(model.applied as u64);
    let mut next = model.latest().len() as u64 + 1;
    if rng.one_in(6) {
        model.told.term.0 += 1 + rng.below(2);
        model.told.vote = rng.below(3);
        next -= rng.below(next - committed);
    }
    let mut entries = Vec::new();
    for index in next..next + rng.below(5) {
        let mut data = vec![0; [0, 3, 30, 300, 1500][rng.below(5) as usize]];
        if !rng.one_in(4) {
            data.fill_with(|| rng.next_u64() as u8);
        }
        let data = Bytes::from(data);
        let kind = EntryKind::Normal;
        entries.push(Entry {
            kind,
            term: model.told.term,
            index: LogIndex(index),
            data,
        });
    }
    let last = entries.last().map_or(next - 1, |e| e.index.0);
    if rng.one_in(2) && last > committed {
        model.told.commit = LogIndex(committed + 1 + rng.below(last - committed));
    }
    let changed = model.told != model.given;
    ((changed || rng.one_in(3)).then_some(model.told), entries)
}

fn live(wal: &mut Wal, model: &mut Model, fs: &SimFs, rng: &mut Rng) -> Result<(), Error> {
    loop {
        let (state, entries) = batch(model, rng);
        model.note(&entries);
        model.given = state.unwrap_or(model.given);
        wal.append(state, &entries)?;
        if !rng.one_in(3) {
            wal.sync()?;
            model.note_sync();
            let durable = model.told.commit.0.min(model.synced.len() as u64) as usize;
            if rng.one_in(3) {
                model.applied = model.applied.max(durable);
            }
        }
        let index = model.applied as u64;
        let in_order = index > 0 && index <= model.given.commit.0 && model.since.is_empty();
        if in_order && rng.one_in(12) {
            let term = model.synced[model.applied - 1].term;
            let conf = ConfState {
                voters: vec![1, 2, 3],
                ..ConfState::default()
            };
            let meta = SnapshotMeta {
                index: LogIndex(index),
                term,
                conf,
            };
            wal.save_snapshot(&meta)?;
            let valid = valid_snapshots(fs, Path::new(DIR))?;
            assert_eq!(valid.last(), Some(&meta));
        }
    }
}

fn history(seed: u64) {
    let rng = &mut Rng::new(seed);
    let options = small(2000 + rng.below(8000));
    let mut fs = disk();
    drop(create(&fs, options));
    let mut model = Model {
        synced: Vec::new(),
        synced_state: HardState::default(),
        since: Vec::new(),
        told: HardState {
            term: Term(1),
            ..HardState::default()
        },
        given: HardState::default(),
        applied: 0,
    };
    for _ in 0..8 {
        if rng.one_in(3) {
            // As if zeros had been written ahead.
            let names = fs.list(Path::new(DIR)).unwrap();
            let last = names.iter().rfind(|n| n.ends_with(".wal")).unwrap();
            let path = Path::new(DIR).join(last);
            let mut bytes = fs.contents(&path).unwrap();
            bytes.resize(bytes.len().max(16_384), 0);
            fs.plant(&path, &bytes).unwrap();
        }
        let term = model
            .applied
            .checked_sub(1)
            .map_or(Term(0), |i| model.synced[i].term);
        let index = LogIndex(model.applied as u64);
        let applied = Applied {
            index,
            term,
            may_lead: false,
        };
        let (dir, from) = (Path::new(DIR), WalSnapshot::default());
        let (mut wal, recovered) = Wal::open(Arc::new(fs.clone()), dir, from, applied, options)
            .unwrap_or_else(|e| panic!("seed {seed}: {e}: {e:?}"));
        model.check(&recovered, seed);
        let halt_at = Some(fs.operations() + rng.below(60));
        fs.set_faults(Faults {
            halt_at,
            ..Faults::default()
        });
        live(&mut wal, &mut model, &fs, rng).expect_err("the process halts");
        drop(wal);
        fs = if rng.one_in(3) {
            fs.restart()
        } else {
            fs.crash(rng)
        };
    }
}

#[test]
fn synced_entries_survive_random_crashes() {
    for seed in 0..400 {
        history(seed);
    }
}
