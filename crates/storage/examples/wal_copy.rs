//! Writes a log anew from what a log says, to see that etcd reads what we write.
//!
//! ```text
//! wal_copy SOURCE TARGET [segment-bytes] [data of one more entry, in hexadecimal]
//! ```

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use storage::fs::RealFs;
use storage::log::{Entry, EntryKind, HardState};
use storage::wal::{Applied, Options, SEGMENT_BYTES, Wal, WalSnapshot, read, valid_snapshots};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let (source, target) = (Path::new(&args[1]), Path::new(&args[2]));
    let segment_bytes = args.get(3).map_or(Ok(SEGMENT_BYTES), |a| a.parse())?;
    let snapshots = valid_snapshots(&RealFs, source)?;
    let log = read(&RealFs, source, WalSnapshot::default(), Applied::default())?;
    println!(
        "member {:x} of cluster {:x}, {:?}, {} entries, {} snapshots, torn: {:?}",
        log.metadata.node_id,
        log.metadata.cluster_id,
        log.hard_state,
        log.entries.len(),
        snapshots.len(),
        log.torn,
    );
    let mut entries = log.entries;
    if let Some(hex) = args.get(4) {
        let last = entries.last().ok_or("an empty log has no term")?;
        let byte = |i| u8::from_str_radix(&hex[i..i + 2], 16);
        let data: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(byte)
            .collect::<Result<_, _>>()?;
        let (kind, data) = (EntryKind::Normal, Bytes::from(data));
        entries.push(Entry {
            kind,
            term: last.term,
            index: last.index.next(),
            data,
        });
    }
    let options = Options {
        segment_bytes,
        ..Options::default()
    };
    let mut wal = Wal::create(Arc::new(RealFs), target, &log.metadata, options)?;
    let mut snapshots = snapshots.into_iter().skip(1).peekable();
    for entry in &entries {
        let (term, commit) = (entry.term, entry.index);
        let state = HardState {
            term,
            commit,
            ..log.hard_state
        };
        wal.append(Some(state), std::slice::from_ref(entry))?;
        wal.sync()?;
        if let Some(snapshot) = snapshots.next_if(|s| s.index == entry.index) {
            wal.save_snapshot(&snapshot)?;
        }
    }
    wal.close()?;
    Ok(())
}
