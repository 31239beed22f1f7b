//! The snapshot becomes the database: what was copied is hashed, and the digest cut off.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use sha2::{Digest, Sha256};
use storage::datadir::DataDir;
use storage::fs::{Fs, RealFs};

/// Bytes of the SHA-256 behind a snapshot.
const DIGEST_BYTES: u64 = 32;
/// Every database is a multiple of this many bytes, so that a digest behind it shows in the size.
const SECTOR_BYTES: u64 = 512;
/// Bytes that are hashed at once.
const CHUNK_BYTES: usize = 1 << 20;
/// Mode of the database.
const FILE_MODE: u32 = 0o600;

/// Copies the database in `source` to its place in `dir`, without the digest behind it.
///
/// # Errors
/// There is no digest or it does not fit (unless `skip_hash_check`), or a file cannot be read or
/// written.
pub(super) fn copy(source: &Path, dir: &DataDir, skip_hash_check: bool) -> Result<(), String> {
    let failed = |what: &str, path: &Path, error: &io::Error| {
        format!("{what} {}: {}", path.display(), cli::text::io_error(error))
    };
    let from = File::open(source).map_err(|error| failed("open", source, &error))?;
    let metadata = from.metadata();
    let len = metadata
        .map_err(|error| failed("stat", source, &error))?
        .len();
    if len < DIGEST_BYTES {
        // What a seek to the digest says.
        return Err(format!("seek {}: invalid argument", source.display()));
    }
    let has_digest = len % SECTOR_BYTES == DIGEST_BYTES;
    if !has_digest && !skip_hash_check {
        return Err("snapshot missing hash but --skip-hash-check=false".to_owned());
    }
    let snap = dir.snap();
    RealFs
        .create_dir_all(&snap)
        .map_err(|error| failed("mkdir", &snap, &error))?;
    let database_bytes = if has_digest { len - DIGEST_BYTES } else { len };
    let target = dir.database();
    let at_target = |error| failed("copy", &target, &error);
    let to = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(&target)
        .map_err(at_target)?;
    // The kernel copies, and on some file systems only refers to the blocks of the source.
    let copied = io::copy(&mut (&from).take(database_bytes), &mut &to).map_err(at_target)?;
    if copied != database_bytes {
        let short = io::ErrorKind::UnexpectedEof.into();
        return Err(failed("read", source, &short));
    }
    if has_digest && !skip_hash_check {
        let mut stored = [0; DIGEST_BYTES as usize];
        from.read_exact_at(&mut stored, database_bytes)
            .map_err(|error| failed("read", source, &error))?;
        let computed = digest(&to, database_bytes).map_err(at_target)?;
        if stored != computed {
            return Err(format!(
                "expected sha256 {}, got {}",
                decimal(&stored),
                decimal(&computed)
            ));
        }
    }
    to.sync_data().map_err(at_target)
}

/// The digest of the first `len` bytes of a file.
fn digest(file: &File, len: u64) -> io::Result<[u8; DIGEST_BYTES as usize]> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut done = 0;
    while done < len {
        let part = (len - done).min(CHUNK_BYTES as u64) as usize;
        file.read_exact_at(&mut chunk[..part], done)?;
        hash.update(&chunk[..part]);
        done += part as u64;
    }
    Ok(hash.finalize().into())
}

/// Bytes as Go prints a slice of them.
fn decimal(bytes: &[u8]) -> String {
    let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
    format!("[{}]", numbers.join(" "))
}
