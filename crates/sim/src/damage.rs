//! Damage to bytes that were durable: a member must not start on it, or nothing may be lost.
//!
//! What the formats do not let anybody see is left out: bytes of records inside the bolt file's
//! leaves have no checksum; and a last WAL record that has a sector of zeros by nature looks torn
//! when any other byte of it is wrong, unless the database or a later commit index proves it; and
//! the newest meta page, when the next commit had begun: the older one, which is taken instead, may
//! point to pages that this commit has overwritten (`run` leaves such disks alone).

use std::path::{Path, PathBuf};

use storage::simfs::{Faults, Rng, SimFs};

use crate::ledger::Ledger;
use crate::life::{End, Life, Setup};
use crate::run::files_of;
use crate::{Broken, Trace, broken};

/// What became of a damaged directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The member does not start.
    Refused,
    /// It starts, and everything is there.
    Harmless,
    /// There was nothing to damage.
    NothingHit,
}

/// Damages a disk and boots on it. `settled` says that the database holds all that was
/// acknowledged; then even bytes that vanish without a trace must be missed.
///
/// # Errors
/// The member starts and something is lost, or starts and then breaks a promise.
pub fn strike(
    setup: &Setup,
    (disk, settled): (&SimFs, bool),
    mut ledger: Ledger,
    rng: &mut Rng,
    trace: &mut Trace,
) -> Result<Outcome, Broken> {
    let Some((path, offset)) = target(setup, disk, rng) else {
        return Ok(Outcome::NothingHit);
    };
    let mut bytes = disk.contents(&path).map_err(|error| broken!("{error}"))?;
    let is_log = path.extension().is_some_and(|ext| ext == "wal");
    if is_log && !settled && has_blank_sector(&bytes) {
        return Ok(Outcome::NothingHit);
    }
    let what = hurt(&mut bytes, offset, settled, rng);
    let what = format!("{what} in {} at {offset}", path.display());
    trace.say(|| format!("--- damage: {what}"));
    disk.plant(&path, &bytes)
        .map_err(|error| broken!("{error}"))?;
    let mut setup = setup.clone();
    setup.config.unix_ms += 500;
    let lost = |Broken(text): Broken| broken!("after {what}: {text}");
    let booted = Life::boot(&setup, (disk, Faults::default()), &mut ledger, rng, trace);
    let mut life = match booted {
        Ok(life) => life,
        Err(End::Stopped(why)) => {
            trace.say(|| format!("refused: {why}"));
            return Ok(Outcome::Refused);
        }
        Err(End::Broken(broken)) => return Err(lost(broken)),
    };
    match life.settle(&mut ledger, rng, trace) {
        Ok(()) => Ok(Outcome::Harmless),
        Err(End::Stopped(why)) => {
            trace.say(|| format!("stopped: {why}"));
            Ok(Outcome::Refused)
        }
        Err(End::Broken(broken)) => Err(lost(broken)),
    }
}

/// Flips a bit or overwrites a few bytes; blanks a sector or cuts the end off only where what
/// is missing can be known from elsewhere.
fn hurt(bytes: &mut Vec<u8>, offset: usize, settled: bool, rng: &mut Rng) -> &'static str {
    match rng.below(if settled { 6 } else { 4 }) {
        0..3 => {
            bytes[offset] ^= 1 << rng.below(8);
            "a flipped bit"
        }
        3 => {
            let end = (offset + 1 + rng.below(8) as usize).min(bytes.len());
            bytes[offset..end]
                .iter_mut()
                .for_each(|byte| *byte = rng.next_u64() as u8);
            "noise"
        }
        4 => {
            let begin = offset / SECTOR_BYTES * SECTOR_BYTES;
            let end = (begin + SECTOR_BYTES).min(bytes.len());
            bytes[begin..end].fill(0);
            "a blank sector"
        }
        _ => {
            bytes.truncate(offset);
            "an end cut off"
        }
    }
}

/// Whether a sector before the last byte that is not zero is all zeros.
fn has_blank_sector(bytes: &[u8]) -> bool {
    let used = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    bytes[..used]
        .chunks(SECTOR_BYTES)
        .any(|sector| sector.iter().all(|byte| *byte == 0))
}

fn target(setup: &Setup, disk: &SimFs, rng: &mut Rng) -> Option<(PathBuf, usize)> {
    let paths = &setup.config.dir;
    if rng.one_in(2) {
        let segments: Vec<PathBuf> = files_of(disk, paths.wal())
            .into_iter()
            .filter(|path| path.extension().is_some_and(|ext| ext == "wal"))
            .collect();
        let path = pick(&segments, rng)?.clone();
        let used = disk
            .contents(&path)
            .ok()?
            .iter()
            .rposition(|byte| *byte != 0)?
            + 1;
        return Some((path, rng.below(used as u64) as usize));
    }
    let path = paths.database();
    let offset = structure_offset(&path, disk, setup.config.backend.bolt.page_size?, rng)?;
    Some((path, offset))
}

/// A byte of a meta or branch page, or of a leaf's header.
fn structure_offset(path: &Path, disk: &SimFs, page_size: u32, rng: &mut Rng) -> Option<usize> {
    let bytes = disk.contents(path).ok()?;
    let page_bytes = page_size as usize;
    let mut ranges = vec![0..80, page_bytes..page_bytes + 80];
    for (number, page) in bytes.chunks_exact(page_bytes).enumerate().skip(2) {
        let begin = number * page_bytes;
        let is_itself = page[..8] == (number as u64).to_le_bytes();
        match page[8] {
            BRANCH if is_itself => ranges.extend([begin..begin + page_bytes, begin..begin + 64]),
            LEAF if is_itself => ranges.push(begin..begin + PAGE_HEADER_BYTES),
            _ => {}
        }
    }
    let range = pick(&ranges, rng)?.clone();
    Some(range.start + rng.below(range.len() as u64) as usize)
}

fn pick<'a, T>(from: &'a [T], rng: &mut Rng) -> Option<&'a T> {
    (!from.is_empty()).then(|| &from[rng.below(from.len() as u64) as usize])
}

const SECTOR_BYTES: usize = 512;
/// Flags of bolt pages.
const BRANCH: u8 = 1;
const LEAF: u8 = 2;
const PAGE_HEADER_BYTES: usize = 16;
