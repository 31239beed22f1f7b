//! Damage to bytes that were durable: a member must not start on it, or nothing may be lost.
//!
//! What nobody can see is left out: bytes of records inside the bolt file's leaves have no
//! checksum in that format.

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

/// Damages a copy of a disk on which everything was settled, and boots on it.
///
/// # Errors
/// The member starts and something is lost, or starts and then breaks a promise.
pub fn strike(
    setup: &Setup,
    disk: SimFs,
    ledger: &mut Ledger,
    rng: &mut Rng,
    trace: &mut Trace,
) -> Result<Outcome, Broken> {
    let Some((path, offset)) = target(setup, &disk, rng) else {
        return Ok(Outcome::NothingHit);
    };
    let mut bytes = disk.contents(&path).map_err(|error| broken!("{error}"))?;
    let end = hurt(&mut bytes, offset, rng);
    trace.say(|| format!("--- damage to {} at {offset}..{end}", path.display()));
    disk.plant(&path, &bytes)
        .map_err(|error| broken!("{error}"))?;
    let lost = |broken: Broken| {
        let Broken(text) = broken;
        broken!(
            "after damage to {} at {offset}..{end}: {text}",
            path.display()
        )
    };
    let mut life = match Life::boot(setup, (&disk, Faults::default()), ledger, rng, trace) {
        Ok(life) => life,
        Err(End::Stopped(why)) => {
            trace.say(|| format!("refused: {why}"));
            return Ok(Outcome::Refused);
        }
        Err(End::Broken(broken)) => return Err(lost(broken)),
    };
    match life.settle(ledger, rng, trace) {
        Ok(()) => Ok(Outcome::Harmless),
        Err(End::Stopped(why)) => {
            trace.say(|| format!("stopped: {why}"));
            Ok(Outcome::Refused)
        }
        Err(End::Broken(broken)) => Err(lost(broken)),
    }
}

/// Flips a bit, overwrites a few bytes, or blanks a sector.
fn hurt(bytes: &mut [u8], offset: usize, rng: &mut Rng) -> usize {
    match rng.below(4) {
        0 | 1 => {
            bytes[offset] ^= 1 << rng.below(8);
            offset + 1
        }
        2 => {
            let end = (offset + 1 + rng.below(8) as usize).min(bytes.len());
            bytes[offset..end]
                .iter_mut()
                .for_each(|byte| *byte = rng.next_u64() as u8);
            end
        }
        _ => {
            let begin = offset / SECTOR_BYTES * SECTOR_BYTES;
            let end = (begin + SECTOR_BYTES).min(bytes.len());
            bytes[begin..end].fill(0);
            end
        }
    }
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
