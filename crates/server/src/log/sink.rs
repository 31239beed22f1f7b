//! Where lines go: a stream, a file that may be rotated, or systemd's journal.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::tz::TimeZone;

use super::line::Timestamp;
use crate::config::LogRotation;

/// Where the journal listens.
const JOURNAL: &str = "/run/systemd/journal/socket";
/// The name under which lines are found in the journal.
const IDENTIFIER: &str = "etcd";
/// The suffix of a compressed file.
const GZIP: &str = "gz";
const DAY: Duration = Duration::from_secs(86_400);

/// One of the places.
pub(super) enum Sink {
    Stream(Box<dyn Write + Send>),
    File(LogFile),
    Journal(UnixDatagram),
}

impl Sink {
    /// A file to which lines are appended.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(super) fn file(path: &Path, rotation: Option<LogRotation>) -> io::Result<Sink> {
        let file = open(path)?;
        Ok(Sink::File(LogFile {
            path: path.to_owned(),
            bytes: file.metadata()?.len(),
            file,
            rotation,
        }))
    }

    /// systemd's journal.
    ///
    /// # Errors
    /// Nobody listens.
    pub(super) fn journal() -> io::Result<Sink> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(JOURNAL)?;
        Ok(Sink::Journal(socket))
    }

    /// Writes a line with its end; `priority` is syslog's.
    ///
    /// # Errors
    /// It is lost.
    pub(super) fn write(&mut self, line: &[u8], priority: u8) -> io::Result<()> {
        match self {
            Sink::Stream(stream) => stream.write_all(line).and_then(|()| stream.flush()),
            Sink::File(file) => file.write(line),
            Sink::Journal(socket) => {
                let message = entry(line, priority);
                socket.send(&message).map(|_| ())
            }
        }
    }

    /// Opens a file anew: somebody may have moved it away.
    pub(super) fn reopen(&mut self) {
        if let Sink::File(log) = self
            && let Ok(file) = open(&log.path)
        {
            log.bytes = file.metadata().map_or(0, |data| data.len());
            log.file = file;
        }
    }
}

/// A message of the journal's protocol; a line has no line breaks but its last.
fn entry(line: &[u8], priority: u8) -> Vec<u8> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut message = b"MESSAGE=".to_vec();
    message.extend_from_slice(line);
    let rest = format!("\nPRIORITY={priority}\nSYSLOG_IDENTIFIER={IDENTIFIER}\n");
    message.extend_from_slice(rest.as_bytes());
    message
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// A file of lines, moved away when it is full.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    rotation: Option<LogRotation>,
}

impl LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if let Some(rotation) = self.rotation.clone()
            && self.bytes > 0
            && self.bytes + line.len() as u64 > rotation.bytes_max
        {
            // While the file cannot be moved away it grows on.
            let rotated = self.rotate(&rotation, SystemTime::now());
            drop(rotated);
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    fn rotate(&mut self, rotation: &LogRotation, now: SystemTime) -> io::Result<()> {
        let zone = match rotation.local_time {
            true => TimeZone::system(),
            false => TimeZone::UTC,
        };
        let backup = backup_name(&self.path, now, &zone);
        fs::rename(&self.path, &backup)?;
        self.file = open(&self.path)?;
        self.bytes = 0;
        let (path, rotation) = (self.path.clone(), rotation.clone());
        // Compressing a full file takes seconds, in which lines must not wait.
        thread::Builder::new()
            .name("log-rotation".into())
            .spawn(move || {
                if rotation.compress {
                    // It stays as it is when it cannot be compressed.
                    let _ = compress(&backup);
                }
                remove_old(&path, &rotation, now);
            })?;
        Ok(())
    }
}

/// `etcd-2026-11-25T21-58-11.123.log` beside `etcd.log`, as etcd names it.
fn backup_name(path: &Path, now: SystemTime, zone: &TimeZone) -> PathBuf {
    let time = Timestamp(clock_of(now, zone)).to_string();
    let millis = time.get(..23).unwrap_or(&time).replace(':', "-");
    let (stem, extension) = parts(path);
    path.with_file_name(format!("{stem}-{millis}{extension}"))
}

/// The time at which clocks in UTC show what those of the zone show now.
fn clock_of(now: SystemTime, zone: &TimeZone) -> SystemTime {
    let Ok(timestamp) = jiff::Timestamp::try_from(now) else {
        return now;
    };
    let ahead_s = zone.to_offset(timestamp).seconds();
    let shift = Duration::from_secs(u64::from(ahead_s.unsigned_abs()));
    let shown = match ahead_s > 0 {
        true => now.checked_add(shift),
        false => now.checked_sub(shift),
    };
    shown.unwrap_or(now)
}

/// Whether a text is a time as [`backup_name`] writes it: other files may begin like the log's.
fn is_time(text: &str) -> bool {
    const SHAPE: &[u8] = b"0000-00-00T00-00-00.000";
    let fits = |(byte, shape): (u8, &u8)| match shape {
        b'0' => byte.is_ascii_digit(),
        mark => byte == *mark,
    };
    text.len() == SHAPE.len() && text.bytes().zip(SHAPE).all(fits)
}

/// The name without its extension, and the extension with its dot.
fn parts(path: &Path) -> (String, String) {
    let text = |part: Option<&OsStr>| {
        part.map_or_else(String::new, |part| part.to_string_lossy().into_owned())
    };
    let extension = text(path.extension());
    let dot = if extension.is_empty() { "" } else { "." };
    (text(path.file_stem()), format!("{dot}{extension}"))
}

fn compress(path: &Path) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(GZIP);
    let pack = || {
        let mut packed = GzEncoder::new(File::create(&name)?, Compression::default());
        io::copy(&mut File::open(path)?, &mut packed)?;
        packed.finish()?.sync_all()
    };
    pack().inspect_err(|_| {
        // Half a copy is none, and the original stays.
        let _ = fs::remove_file(&name);
    })?;
    fs::remove_file(path)
}

/// Removes what is too many or too old of the files that were moved away.
fn remove_old(path: &Path, rotation: &LogRotation, now: SystemTime) {
    let (stem, extension) = parts(path);
    let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let Ok(entries) = fs::read_dir(parent.unwrap_or(Path::new("."))) else {
        return;
    };
    let prefix = format!("{stem}-");
    let is_backup = |name: &str| {
        let plain = name.strip_suffix(&format!(".{GZIP}")).unwrap_or(name);
        let rest = plain.strip_prefix(&prefix);
        rest.and_then(|rest| rest.strip_suffix(&extension))
            .is_some_and(is_time)
    };
    let mut backups: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| is_backup(&name.to_string_lossy()))
        })
        .collect();
    // Their names hold the time.
    backups.sort();
    backups.reverse();
    for (place, backup) in backups.iter().enumerate() {
        let age = fs::metadata(backup)
            .and_then(|data| data.modified())
            .ok()
            .and_then(|time| now.duration_since(time).ok());
        let too_many = rotation.files_max > 0 && place >= rotation.files_max;
        let days = u32::try_from(rotation.days_max).unwrap_or(u32::MAX);
        let too_old = days > 0 && age.is_some_and(|age| age > DAY.saturating_mul(days));
        if too_many || too_old {
            // It is tried again at the next rotation.
            let _ = fs::remove_file(backup);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::time::UNIX_EPOCH;

    fn rotation() -> LogRotation {
        LogRotation {
            bytes_max: 20,
            days_max: 0,
            files_max: 2,
            local_time: false,
            compress: true,
        }
    }

    #[test]
    fn names_of_rotated_files() {
        let winter = UNIX_EPOCH + Duration::from_micros(1_795_620_978_411_401);
        let summer = winter - 180 * DAY;
        let zone = |rules| TimeZone::posix(rules).unwrap();
        let berlin = zone("CET-1CEST,M3.5.0,M10.5.0/3");
        let cases = [
            (winter, &TimeZone::UTC, "2026-11-25T15-36-18.411"),
            (winter, &berlin, "2026-11-25T16-36-18.411"),
            (summer, &berlin, "2026-05-29T17-36-18.411"),
            (winter, &zone("NST3:30"), "2026-11-25T12-06-18.411"),
            (winter, &zone("LINT-14"), "2026-11-26T05-36-18.411"),
        ];
        for (time, zone, want) in cases {
            for (path, want) in [
                ("/var/log/etcd.log", format!("/var/log/etcd-{want}.log")),
                ("etcd", format!("etcd-{want}")),
            ] {
                assert_eq!(backup_name(Path::new(path), time, zone), Path::new(&want));
            }
        }
    }

    #[test]
    fn full_files_are_moved_away_compressed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etcd.log");
        let Sink::File(mut log) = Sink::file(&path, Some(rotation())).unwrap() else {
            panic!("a file");
        };
        log.write(b"0123456789\n").unwrap();
        // Another member's, which begins alike.
        fs::write(dir.path().join("etcd-1.log"), b"").unwrap();
        let begin = UNIX_EPOCH + Duration::from_secs(1_795_620_978);
        for second in 0..4 {
            let now = begin + Duration::from_secs(second);
            let backup = backup_name(&path, now, &TimeZone::UTC);
            fs::rename(&path, &backup).unwrap();
            compress(&backup).unwrap();
            fs::write(&path, b"").unwrap();
            remove_old(&path, &rotation(), now);
        }
        let mut names: Vec<String> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(
            names,
            [
                "etcd-1.log",
                "etcd-2026-11-25T15-36-20.000.log.gz",
                "etcd-2026-11-25T15-36-21.000.log.gz",
                "etcd.log",
            ]
        );
    }

    #[test]
    fn a_full_file_is_rotated_by_the_next_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etcd.log");
        let mut sink = Sink::file(&path, Some(rotation())).unwrap();
        for _ in 0..3 {
            sink.write(b"0123456789\n", 6).unwrap();
        }
        let mut left = String::new();
        File::open(&path)
            .unwrap()
            .read_to_string(&mut left)
            .unwrap();
        assert_eq!(left, "0123456789\n");
        fs::rename(&path, dir.path().join("moved")).unwrap();
        sink.reopen();
        sink.write(b"after\n", 6).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"after\n");
    }

    #[test]
    fn entries_of_the_journal() {
        let message = entry(b"{\"msg\":\"x\"}\n", 4);
        let want = b"MESSAGE={\"msg\":\"x\"}\nPRIORITY=4\nSYSLOG_IDENTIFIER=etcd\n";
        assert_eq!(message, want);
    }
}
