//! Byte-exact segments: one made by hand that etcd 3.4, 3.5, 3.6 and 3.7 all accepted, and the
//! first 280 bytes of segments that etcd 3.5.1 and 3.7.1 wrote.

use std::path::Path;

use bytes::Bytes;

use super::super::*;
use super::unhex;
use crate::log::{ConfState, EntryKind};
use crate::simfs::SimFs;

const COMPLETE: &str = "\
     040000000000008408041000000000001f00000000000081080110c9ddd9b7031a1508f0eba995ad\
     cb949ebb0110cec8cc8c97f5da9c76000e00000000000082080510acc8dfb90a1a04080010000000\
     1900000000000087080310c7df84c8051a0f080110f0eba995adcb949ebb01180500000000000000\
     1d0000000000008308051097a9e2ac0e1a13080510011a0d08f0eba995adcb949ebb012800000000\
     3000000000000000080210a6ef8ff20d1a26080010011806221e22160a0a7265706c617965642f31\
     120866726f6d2d77616ca206030891223200000000000086080210dfcfd3bc061a28080010011807\
     222022180a0a7265706c617965642f32120a66726f6d2d77616c2d32a20603089222000000000000\
     1900000000000087080310cce3dbf6011a0f080110f0eba995adcb949ebb01180700000000000000";
const ETCD_3_5: &str = "\
     040000000000008408041000000000001e00000000000082080110acefaa9f021a1408e686dbfcea\
     99d1f307109d87d7abccf497f84000000e00000000000082080510b6a4deae011a04080010000000\
     6d00000000000083080210d4a3eb84081a63080110011801225b0800100018e686dbfcea99d1f307\
     224b7b226964223a3536393439393533323338353530323035342c227065657255524c73223a5b22\
     687474703a2f2f3132372e302e302e313a3431383031225d2c226e616d65223a226e31227d000000\
     1000000000000000080310e1bdd888041a06080110001801100000000000000008021080dd8bf903\
     1a060800100218021700000000000081080310c88599031a0e080210e686dbfcea99d1f307180200";
const ETCD_3_7: &str = "\
     040000000000008408041000000000001e00000000000082080110acefaa9f021a1408e686dbfcea\
     99d1f307109d87d7abccf497f84000000e00000000000082080510b6a4deae011a04080010000000\
     6a0000000000008608021099adc9011a610801100118012259100018e686dbfcea99d1f307224b7b\
     226964223a3536393439393533323338353530323035342c227065657255524c73223a5b22687474\
     703a2f2f3132372e302e302e313a3431383031225d2c226e616d65223a226e31227d000000000000\
     1000000000000000080310f2a68ce7041a060801100018011800000000000000080310e1ddc8f204\
     1a0e080210e686dbfcea99d1f30718010e00000000000082080210e4a9c1e6051a04100218020000";

const MEMBER: u64 = 0xbb3c_525a_d2aa_75f0;
const CLUSTER: u64 = 0x7639_6ba9_7193_244e;

fn entry(index: u64, key: &str, value: &str, id: u64) -> Entry {
    let mut put = Vec::new();
    crate::wire::put_bytes(&mut put, 1, key.as_bytes());
    crate::wire::put_bytes(&mut put, 2, value.as_bytes());
    let mut header = Vec::new();
    crate::wire::put_uint(&mut header, 1, id);
    let mut request = Vec::new();
    crate::wire::put_bytes(&mut request, 4, &put);
    crate::wire::put_bytes(&mut request, 100, &header);
    let data = Bytes::from(request);
    Entry {
        kind: EntryKind::Normal,
        term: Term(1),
        index: LogIndex(index),
        data,
    }
}

fn complete_entries() -> Vec<Entry> {
    vec![
        entry(6, "replayed/1", "from-wal", 0x1111),
        entry(7, "replayed/2", "from-wal-2", 0x1112),
    ]
}

fn state(commit: u64) -> HardState {
    HardState {
        term: Term(1),
        vote: MEMBER,
        commit: LogIndex(commit),
    }
}

fn planted(bytes: &[u8]) -> SimFs {
    let fs = SimFs::new();
    fs.create_dir_all(Path::new("wal")).unwrap();
    fs.plant(
        Path::new("wal/0000000000000000-0000000000000000.wal"),
        bytes,
    )
    .unwrap();
    fs
}

#[test]
fn encodes_the_complete_log_to_the_byte() {
    let mut encoder = Encoder::new(0);
    encoder.crc_record();
    encoder.metadata(
        &Metadata {
            node_id: MEMBER,
            cluster_id: CLUSTER,
        }
        .encode(),
    );
    encoder.snapshot(&SnapshotMeta::default());
    encoder.state(&state(5));
    let conf = ConfState {
        voters: vec![MEMBER],
        ..ConfState::default()
    };
    encoder.snapshot(&SnapshotMeta {
        index: LogIndex(5),
        term: Term(1),
        conf,
    });
    for entry in complete_entries() {
        encoder.entry(&entry);
    }
    encoder.state(&state(7));
    assert_eq!(encoder.buf, unhex(COMPLETE));
}

#[test]
fn reads_the_complete_log() {
    let fs = planted(&unhex(COMPLETE));
    let dir = Path::new("wal");
    let from = WalSnapshot {
        index: LogIndex(5),
        term: Term(1),
    };
    let read_only = read(&fs, dir, from, Applied::default()).unwrap();
    assert_eq!(
        read_only.metadata,
        Metadata {
            node_id: MEMBER,
            cluster_id: CLUSTER
        }
    );
    assert_eq!(read_only.hard_state, state(7));
    assert_eq!(read_only.entries, complete_entries());
    assert!(read_only.snapshot_found);
    assert_eq!(read_only.torn, None);
    let applied = Applied {
        index: LogIndex(6),
        term: Term(1),
        may_lead: false,
    };
    let opened = Wal::open(
        std::sync::Arc::new(fs.clone()),
        dir,
        from,
        applied,
        Options::inline(),
    );
    assert_eq!(opened.unwrap().1, read_only);
    let snapshots = valid_snapshots(&fs, dir).unwrap();
    assert_eq!(
        snapshots.iter().map(|s| s.index.0).collect::<Vec<_>>(),
        [0, 5]
    );
    assert_eq!(snapshots[1].conf.voters, [MEMBER]);
    // An open log has not touched the bytes.
    let path = Path::new("wal/0000000000000000-0000000000000000.wal");
    assert_eq!(fs.contents(path).unwrap(), unhex(COMPLETE));
}

#[test]
fn reads_the_heads_of_segments_by_etcd() {
    for (bytes, entries) in [(ETCD_3_5, 2), (ETCD_3_7, 2)] {
        let fs = planted(&unhex(bytes));
        let all = read(
            &fs,
            Path::new("wal"),
            WalSnapshot::default(),
            Applied::default(),
        )
        .unwrap();
        assert_eq!(all.metadata.node_id, 0x07e7_44ce_af96_c366);
        assert_eq!(all.metadata.cluster_id, 0x40f0_5fa4_c575_c39d);
        assert_eq!(all.entries.len(), entries);
        assert_eq!(all.entries[0].kind, EntryKind::ConfChange);
        assert!(all.entries[1].data.is_empty());
        assert_eq!(all.hard_state.term, Term(2));
    }
}

#[test]
fn a_log_of_ours_continues_one_of_etcd() {
    let fs = planted(&unhex(COMPLETE));
    let dir = Path::new("wal");
    let from = WalSnapshot {
        index: LogIndex(5),
        term: Term(1),
    };
    let shared: std::sync::Arc<dyn Fs> = std::sync::Arc::new(fs.clone());
    let (mut wal, _) = Wal::open(shared, dir, from, Applied::default(), Options::inline()).unwrap();
    wal.append(Some(state(7)), &[entry(8, "a", "b", 1)])
        .unwrap();
    wal.sync().unwrap();
    let path = Path::new("wal/0000000000000000-0000000000000000.wal");
    let bytes = fs.contents(path).unwrap();
    assert_eq!(bytes[..320], unhex(COMPLETE)[..]);
    let all = read(&fs, dir, from, Applied::default()).unwrap();
    assert_eq!(all.entries.len(), 3);
    assert_eq!(all.entries[2], entry(8, "a", "b", 1));
}

/// A log and a snapshot file by one release; see `tests/golden/README.md`.
struct Captured {
    log: &'static [u8],
    snap: &'static [u8],
    /// Since 3.7 the type of a normal entry, zero, is not written.
    omits_type: bool,
}

const CAPTURED: [Captured; 3] = [
    Captured {
        log: include_bytes!("../../../tests/golden/etcd-3.4/log.wal"),
        snap: include_bytes!("../../../tests/golden/etcd-3.4/newest.snap"),
        omits_type: false,
    },
    Captured {
        log: include_bytes!("../../../tests/golden/etcd-3.6/log.wal"),
        snap: include_bytes!("../../../tests/golden/etcd-3.6/newest.snap"),
        omits_type: false,
    },
    Captured {
        log: include_bytes!("../../../tests/golden/etcd-3.7/log.wal"),
        snap: include_bytes!("../../../tests/golden/etcd-3.7/newest.snap"),
        omits_type: true,
    },
];

#[test]
fn reads_whole_logs_and_snapshots_by_etcd() {
    for captured in CAPTURED {
        let fs = planted(captured.log);
        let dir = Path::new("wal");
        let all = read(&fs, dir, WalSnapshot::default(), Applied::default()).unwrap();
        assert_eq!(all.torn, None);
        let puts = all
            .entries
            .iter()
            .filter(|e| e.data.first() == Some(&0x22))
            .count();
        assert_eq!(puts, 12);
        assert_eq!(all.entries[0].kind, EntryKind::ConfChange);

        let snapshots = valid_snapshots(&fs, dir).unwrap();
        assert_eq!(snapshots.len(), 3);
        let newest = snapshots.last().unwrap();
        let snap_dir = Path::new("snap");
        fs.create_dir_all(snap_dir).unwrap();
        fs.plant(
            &snap_dir.join(crate::snap::file_name(newest)),
            captured.snap,
        )
        .unwrap();
        let loaded = crate::snap::load_newest(&fs, snap_dir, |meta| {
            (meta.index, meta.term) == (newest.index, newest.term)
        });
        let (path, snapshot) = loaded.unwrap().newest.unwrap();
        assert_eq!(snapshot.meta.conf.voters.len(), 1);
        assert!(snapshot.data.starts_with(b"{\"Root\":"));
        // Written by us, the file is the same.
        crate::snap::save(&fs, snap_dir, &snapshot).unwrap();
        assert_eq!(fs.contents(&path).unwrap(), captured.snap);

        let from = WalSnapshot {
            index: newest.index,
            term: newest.term,
        };
        let rest = read(&fs, dir, from, Applied::default()).unwrap();
        assert_eq!(rest.entries[..], all.entries[newest.index.0 as usize..]);
    }
}

#[test]
fn every_entry_of_etcd_is_reencoded_to_the_byte() {
    for captured in CAPTURED {
        let mut offset = 0;
        let mut entries = 0;
        while let Some((word, rest)) = captured.log[offset..].split_first_chunk::<8>() {
            let len = record::FrameLen::parse(u64::from_le_bytes(*word)).unwrap();
            let frame = &rest[..(len.record_bytes + len.padding) as usize];
            let record = record::parse_record(frame, len).unwrap();
            if record.kind == record::Kind::Entry {
                let entry = crate::log::codec::entry_ref(record.data)
                    .unwrap()
                    .to_entry();
                let mut written = Vec::new();
                crate::log::codec::put_entry(&mut written, &entry);
                if captured.omits_type && entry.kind == EntryKind::Normal {
                    written.drain(..2);
                }
                assert_eq!(written, record.data);
                entries += 1;
            }
            offset += len.frame_bytes() as usize;
        }
        assert!(entries > 12);
    }
}
