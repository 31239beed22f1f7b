//! A whole member on a disk, real and simulated: first start, restart, refusal.

use std::path::Path;
use std::sync::Arc;

use storage::fs::{Open, RealFs};
use storage::log::Entry;
use storage::simfs::SimFs;

use super::*;
use crate::machine::{Input, Output};
use crate::raft::ConfChange;

fn config(root: &Path) -> Config {
    let member = InitialMember {
        name: "default".into(),
        peer_urls: vec!["http://localhost:2380".into()],
    };
    Config {
        dir: DataDir::new(root, None),
        name: member.name.clone(),
        initial_cluster: vec![member],
        initial_token: "etcd-cluster".into(),
        initial_state: InitialState::New,
        joined: None,
        force_new_cluster: false,
        client_urls: vec!["http://localhost:2379".into()],
        tick_ms: 100,
        election_ticks: 10,
        pre_vote: true,
        seed: 1,
        unix_ms: 1_700_000_000_000,
        snapshot_count: 10_000,
        catch_up_entries: 5000,
        wal: wal::Options::inline(),
        backend: backend::Options::default(),
        state: state::Config::default(),
    }
}

/// Carries out everything until nothing moves; returns the last snapshot that was taken.
fn run(member: &mut Member, fs: &dyn Fs, first: Input) -> Option<LogIndex> {
    let mut inputs = std::collections::VecDeque::from([first]);
    let mut taken = None;
    while let Some(input) = inputs.pop_front() {
        let mut outputs = Vec::new();
        member.node.handle(input, &mut outputs);
        for output in outputs {
            match output {
                Output::Persist(batch) => {
                    member.wal.append(batch.hard_state, &batch.entries).unwrap();
                    if batch.must_sync {
                        member.wal.sync().unwrap();
                    }
                    inputs.push_back(Input::Persisted {
                        number: batch.number,
                    });
                }
                Output::Apply(entries) => apply(member, &entries, &mut inputs),
                Output::TakeSnapshot(meta) => {
                    let index = meta.index;
                    let snapshot = Snapshot::prepare(meta, &member.view);
                    snapshot.commit(&mut member.committer).unwrap();
                    snapshot.save(fs, &member.dir).unwrap();
                    snapshot.record(&mut member.wal).unwrap();
                    purge(fs, &member.dir, 5, 5).unwrap();
                    taken = Some(index);
                    inputs.push_back(Input::SnapshotTaken { index });
                }
                _ => {}
            }
        }
    }
    taken
}

fn apply(member: &mut Member, entries: &[Entry], inputs: &mut std::collections::VecDeque<Input>) {
    for entry in entries {
        let applied = member.machine.apply(entry).unwrap();
        for effect in &applied.effects {
            match effect {
                state::Effect::ConfChanged { change } => {
                    let change = change.map(|change| ConfChange::AddVoter(change.node));
                    inputs.push_back(Input::ConfChange {
                        index: entry.index,
                        change,
                    });
                }
                state::Effect::ClusterVersionChanged { now, .. } => {
                    inputs.push_back(Input::ClusterVersion(now.clone()));
                }
                _ => {}
            }
        }
        applied.request.and_then(|id| member.node.complete(id));
    }
    let index = entries.last().unwrap().index;
    inputs.push_back(Input::Applied { index });
}

/// Damages the meta page of the database that does not count, and gives it.
fn rot_older_meta_page(fs: &dyn Fs, path: &Path) -> PageId {
    let file = fs.open(path, Open::ReadWrite).unwrap();
    let number = |offset| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, offset).unwrap();
        u64::from_le_bytes(bytes)
    };
    let page_bytes = number(24) & u64::from(u32::MAX);
    let transaction = |page: u64| number(page * page_bytes + 64);
    let older = u64::from(transaction(1) < transaction(0));
    file.write_all_at(b"rot", older * page_bytes + 40).unwrap();
    PageId(older)
}

fn starts_restarts_and_locks(fs: &Arc<dyn Fs>, root: &Path) {
    let mut member = Member::boot(fs, &config(root)).unwrap();
    assert_eq!(member.report.case, 'A');
    assert_eq!(member.id.to_string(), "8e9e05c52164694d");
    assert_eq!(member.cluster.to_string(), "cdf818194e3a8c32");
    run(&mut member, &**fs, Input::Start);
    // The member, the leader's entry, attributes, cluster version.
    assert_eq!(member.view.applied().index, LogIndex(4));
    assert_eq!(member.view.members().cluster_version(), Some("3.7.0"));
    assert!(
        Member::boot(fs, &config(root)).is_err(),
        "the directory is in use"
    );
    drop(member);

    // Nothing of the database was committed: everything comes from the log.
    let mut member = Member::boot(fs, &config(root)).unwrap();
    assert_eq!(
        (member.report.case, member.report.database),
        ('I', LogIndex(0))
    );
    run(&mut member, &**fs, Input::Start);
    assert_eq!(member.view.applied().index, LogIndex(6));
    let taken = run(&mut member, &**fs, Input::ForceSnapshot);
    assert_eq!(taken, Some(LogIndex(6)));
    member.wal.close().unwrap();
    drop((member.machine, member.view, member.sweep, member.committer));
    drop(member.installer);

    let member = Member::boot(fs, &config(root)).unwrap();
    let report = &member.report;
    assert_eq!(
        (report.database, report.snapshot.index),
        (LogIndex(6), LogIndex(6))
    );
    assert_eq!(report.lost_meta, None);
    drop(member);

    let older = rot_older_meta_page(&**fs, &config(root).dir.database());
    let member = Member::boot(fs, &config(root)).unwrap();
    assert_eq!(member.report.lost_meta, Some(older));
    assert_eq!(member.report.database, LogIndex(6));
    drop(member);

    fs.remove_dir_all(config(root).dir.wal()).unwrap();
    let refused = Member::boot(fs, &config(root)).err().unwrap();
    assert!(
        refused.to_string().contains("there is no write-ahead log"),
        "{refused}"
    );
}

#[test]
fn a_member_on_the_simulated_disk() {
    let fs: Arc<dyn Fs> = Arc::new(SimFs::new());
    starts_restarts_and_locks(&fs, Path::new("/data"));
}

#[test]
fn a_member_on_the_real_disk() {
    let root = tempfile::tempdir().unwrap();
    let fs: Arc<dyn Fs> = Arc::new(RealFs);
    starts_restarts_and_locks(&fs, &root.path().join("default.etcd"));
}
