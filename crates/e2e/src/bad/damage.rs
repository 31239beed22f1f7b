//! Files that were damaged while the member was down: it refuses with a reason, or comes up
//! with everything. It never comes up with less.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{block, no_panic, start};
use crate::kv::{Keys, Kv};
use crate::random::Random;
use crate::{Error, Member, Options};

const KEYS: usize = 3000;
/// Pages of a bolt file of this machine.
const PAGE: usize = 4096;

/// A stopped member's directory, and what it knew.
struct Base {
    /// Keeps the directory; does not run.
    member: Member,
    revision: i64,
    keys: Keys,
    binary: PathBuf,
}

/// What a member did on a damaged copy.
enum Outcome {
    Refused,
    Whole,
}

/// How often each came out.
#[derive(Default)]
struct Tally {
    refused: usize,
    whole: usize,
}

impl Base {
    /// Puts, overwrites and deletes, then an orderly stop.
    fn new(binary: &Path) -> Result<Self, Error> {
        let mut member = start(binary)?;
        let kv = Kv::to(member.address());
        block(write(&kv))?;
        let (revision, keys) = block(kv.all(0))?;
        member.stop()?;
        Ok(Self {
            member,
            revision,
            keys,
            binary: binary.into(),
        })
    }

    /// Damages a copy and starts on it.
    fn attempt(
        &self,
        what: &str,
        damage: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<Outcome, Error> {
        let copy = Copy::of(&self.member.data_dir())?;
        damage(&copy.0.join("data/member"))?;
        let options = Options {
            binary: Some(self.binary.clone()),
            data_dir: Some(copy.0.clone()),
            ..Options::default()
        };
        let mut member = Member::prepare(options)?;
        let started = member.restart();
        no_panic(&member).map_err(|error| Error(format!("{what}: {error}")))?;
        if started.is_err() {
            return match member.poll_exit()? {
                Some(_) if !member.log().trim().is_empty() => Ok(Outcome::Refused),
                _ => Err(Error(format!(
                    "{what}: neither up nor down:\n{}",
                    member.log()
                ))),
            };
        }
        let read = block(Kv::to(member.address()).all(0));
        no_panic(&member).map_err(|error| Error(format!("{what}: {error}")))?;
        match read {
            // An error to the reader is an answer, too.
            Err(_) => Ok(Outcome::Refused),
            Ok((revision, keys)) if revision == self.revision && keys == self.keys => {
                Ok(Outcome::Whole)
            }
            Ok((revision, keys)) => Err(Error(format!(
                "{what}: LOST: up with revision {revision} of {} and {} keys of {}",
                self.revision,
                keys.len(),
                self.keys.len(),
            ))),
        }
    }

    /// The last segment, and where its records begin; the last offset is their end.
    fn segment(&self) -> Result<(String, Vec<usize>), Error> {
        let directory = self.member.data_dir().join("member/wal");
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.ends_with(".wal") {
                names.push(name);
            }
        }
        names.sort();
        let name = names.pop().ok_or_else(|| Error("no WAL".into()))?;
        let bytes = std::fs::read(directory.join(&name))?;
        Ok((name, record_offsets(&bytes)))
    }
}

/// Offsets of the length words, by the format's own lengths, and the end of the last record.
fn record_offsets(bytes: &[u8]) -> Vec<usize> {
    let mut offsets = Vec::new();
    let mut at = 0;
    while let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*word);
        offsets.push(at);
        if word == 0 {
            break;
        }
        let length = (word & ((1 << 56) - 1)) as usize;
        at += 8 + length.next_multiple_of(8);
    }
    offsets
}

async fn write(kv: &Kv) -> Result<(), Error> {
    let mut tasks = tokio::task::JoinSet::new();
    for lane in 0..32 {
        let kv = kv.clone();
        tasks.spawn(async move {
            for number in (lane..KEYS).step_by(32) {
                let value = format!("{number} {}", "d".repeat(number % 900));
                kv.put(format!("damage/{number:05}").into(), value.into())
                    .await?;
                if number % 3 == 0 {
                    kv.put(format!("damage/{number:05}").into(), "again".into())
                        .await?;
                }
            }
            Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.map_err(|error| Error(error.to_string()))?
            .map_err(crate::kv::said)?;
    }
    kv.delete("damage/005".into(), "damage/007".into())
        .await
        .map_err(crate::kv::said)?;
    Ok(())
}

impl Tally {
    fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Refused => self.refused += 1,
            Outcome::Whole => self.whole += 1,
        }
    }

    fn text(&self, what: &str) -> String {
        format!(
            "{what}: {} refused, {} came up whole",
            self.refused, self.whole
        )
    }
}

/// A record that was being written when the power went: dropped, everything before it stays.
pub(super) fn torn_tail(binary: &Path) -> Result<String, Error> {
    let base = Base::new(binary)?;
    let (name, offsets) = base.segment()?;
    let end = offsets.last().copied().unwrap_or_default();
    // A disk writes whole sectors: up to a border the record is there, beyond it is not.
    let border = (end + 8).next_multiple_of(512);
    for sectors in 0..4 {
        let written = border + sectors * 512 - end - 8;
        let tail = [&3000_u64.to_le_bytes()[..], &vec![0x08; written]].concat();
        let outcome = base.attempt("torn tail", |member| {
            write_at(&member.join("wal").join(&name), end, &tail)
        })?;
        if let Outcome::Refused = outcome {
            return Err(Error(format!(
                "a torn record of {sectors} sectors is not repaired"
            )));
        }
    }
    Ok("4 torn records dropped".into())
}

/// The end is missing although it was applied: that is no torn tail.
pub(super) fn truncated(binary: &Path) -> Result<String, Error> {
    let base = Base::new(binary)?;
    let (name, offsets) = base.segment()?;
    let mut random = Random::new(3);
    let mut tally = Tally::default();
    for attempt in 0..8 {
        let record = offsets[offsets.len() / 2 + random.below(offsets.len() as u64 / 2) as usize];
        let cut = record as u64 + random.below(40);
        let zeros = attempt % 2 == 1;
        tally.add(base.attempt("truncated", |member| {
            let file = OpenOptions::new()
                .write(true)
                .open(member.join("wal").join(&name))?;
            let length = file.metadata()?.len();
            file.set_len(cut)?;
            if zeros {
                file.set_len(length)?;
            }
            Ok(())
        })?);
    }
    Ok(tally.text("8 cuts"))
}

/// Length words are outside the checksum: a flipped one looks like an end.
pub(super) fn lengths(binary: &Path) -> Result<String, Error> {
    let base = Base::new(binary)?;
    let (name, offsets) = base.segment()?;
    let mut random = Random::new(5);
    let mut tally = Tally::default();
    for _ in 0..16 {
        let at = offsets[random.below(offsets.len() as u64 - 1) as usize];
        let bit = random.below(64) as usize;
        tally.add(
            base.attempt(&format!("bit {bit} of the length at {at}"), |member| {
                flip(
                    &member.join("wal").join(&name),
                    at + bit / 8,
                    1 << (bit % 8),
                )
            })?,
        );
    }
    Ok(tally.text("16 flipped lengths"))
}

/// Any byte of any record.
pub(super) fn records(binary: &Path) -> Result<String, Error> {
    let base = Base::new(binary)?;
    let (name, offsets) = base.segment()?;
    let end = offsets.last().copied().unwrap_or_default() as u64;
    let mut random = Random::new(7);
    let mut tally = Tally::default();
    for _ in 0..16 {
        let at = random.below(end) as usize;
        let mask = 1 << random.below(8);
        tally.add(base.attempt(&format!("byte {at}"), |member| {
            flip(&member.join("wal").join(&name), at, mask)
        })?);
    }
    Ok(tally.text("16 flipped bytes"))
}

/// Meta, branch and freelist pages, and the element tables of leaf pages. The bytes of keys
/// and values have no checksum in this format.
pub(super) fn pages(binary: &Path) -> Result<String, Error> {
    let base = Base::new(binary)?;
    let path = base.member.data_dir().join("member/snap/db");
    let bytes = std::fs::read(&path)?;
    let mut random = Random::new(11);
    let mut tally = Tally::default();
    let mut chosen: Vec<(String, usize)> = Vec::new();
    for (name, flag, used) in [
        ("meta", 4, 80),
        ("branch", 1, 200),
        ("freelist", 16, 64),
        ("leaf", 2, 16 + 16),
    ] {
        let pages: Vec<usize> = pages_of(&bytes, flag);
        for _ in 0..if pages.is_empty() { 0 } else { 10 } {
            let page = pages[random.below(pages.len() as u64) as usize];
            chosen.push((
                format!("{name} page {page}"),
                page * PAGE + random.below(used) as usize,
            ));
        }
    }
    for (name, at) in &chosen {
        let mask = 1 << random.below(8);
        tally.add(base.attempt(&format!("{name}, byte {at}"), |member| {
            flip(&member.join("snap/db"), *at, mask)
        })?);
    }
    let both = base.attempt("both metas", |member| {
        flip(&member.join("snap/db"), 40, 1)?;
        flip(&member.join("snap/db"), PAGE + 40, 1)
    })?;
    match both {
        Outcome::Refused => Ok(tally.text(&format!("{} flips", chosen.len()))),
        Outcome::Whole => Err(Error("both meta pages are damaged, yet it is up".into())),
    }
}

/// Numbers of the pages with that flag in their header.
fn pages_of(bytes: &[u8], flag: u16) -> Vec<usize> {
    let is = |number: &usize| {
        let page = &bytes[number * PAGE..];
        let id = page.first_chunk::<8>().map(|id| u64::from_le_bytes(*id));
        id == Some(*number as u64) && page.get(8..10) == Some(&flag.to_le_bytes())
    };
    (0..bytes.len() / PAGE).filter(is).collect()
}

fn flip(path: &Path, at: usize, mask: u8) -> Result<(), Error> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64)?;
    file.write_all_at(&[byte[0] ^ mask], at as u64)?;
    Ok(())
}

fn write_at(path: &Path, at: usize, bytes: &[u8]) -> Result<(), Error> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(bytes, at as u64)?;
    Ok(())
}

/// A copy of a data directory, without the spare segment that nothing depends on.
struct Copy(PathBuf);

impl Copy {
    fn of(data_dir: &Path) -> Result<Self, Error> {
        let copy = std::env::temp_dir().join(format!("etcd-bad-copy-{}", std::process::id()));
        std::fs::create_dir_all(&copy)?;
        let status = Command::new("cp")
            .args(["-a", "--sparse=always"])
            .arg(data_dir)
            .arg(&copy)
            .status()?;
        match status.success() {
            true => Ok(Self(copy)),
            false => Err(Error("cannot copy the data directory".into())),
        }
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        crate::member::remove(&self.0);
    }
}
