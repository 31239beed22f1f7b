//! Answers on standard output, in the format that `-w` asks for.

use cli::text::{bytes, push_json};

use crate::exit::{BAD_FEATURE, Failure, Outcome};
use crate::status::Status;

/// A format of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Simple,
    Fields,
    Json,
    Protobuf,
    Table,
}

impl Format {
    /// The format with this name.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn parse(name: &str) -> Result<Self, Failure> {
        Ok(match name {
            "simple" => Format::Simple,
            "fields" => Format::Fields,
            "json" => Format::Json,
            "protobuf" => Format::Protobuf,
            "table" => Format::Table,
            _ => return Err(Failure::new(BAD_FEATURE, "unsupported output format")),
        })
    }
}

/// One answer: a row of values, with their names where a format shows names.
struct Row {
    heads: Vec<&'static str>,
    cells: Vec<String>,
    /// Names and values of `-w fields`.
    fields: Vec<(&'static str, String)>,
    json: String,
}

/// Prints the state of a snapshot.
///
/// # Errors
/// The format has no form for it.
pub(crate) fn status(format: Format, status: &Status) -> Outcome {
    let mut version = String::new();
    push_json(&mut version, &status.version);
    print(
        format,
        Row {
            heads: vec!["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE", "VERSION"],
            cells: vec![
                format!("{:x}", status.hash),
                status.revision.to_string(),
                status.keys.to_string(),
                bytes(status.size_bytes),
                status.version.clone(),
            ],
            fields: vec![
                ("Hash", status.hash.to_string()),
                ("Revision", status.revision.to_string()),
                ("Keys", status.keys.to_string()),
                ("Size", status.size_bytes.to_string()),
                ("Version", status.version.clone()),
            ],
            json: format!(
                "{{\"hash\":{},\"revision\":{},\"totalKey\":{},\"totalSize\":{},\
                 \"version\":{version}}}",
                status.hash, status.revision, status.keys, status.size_bytes
            ),
        },
    )
}

/// Prints the hash of a history.
///
/// # Errors
/// The format has no form for it.
pub(crate) fn hash_kv(format: Format, hash: &state::KvHash) -> Outcome {
    let values = [
        hash.hash.to_string(),
        hash.revision.to_string(),
        hash.compact_revision.to_string(),
    ];
    let names = ["Hash", "Hash revision", "Compact revision"];
    print(
        format,
        Row {
            heads: vec!["HASH", "HASH REVISION", "COMPACT REVISION"],
            fields: names.into_iter().zip(values.clone()).collect(),
            cells: values.to_vec(),
            json: format!(
                "{{\"hash\":{},\"hashRevision\":{},\"compactRevision\":{}}}",
                hash.hash, hash.revision, hash.compact_revision
            ),
        },
    )
}

fn print(format: Format, row: Row) -> Outcome {
    cli::out::text(&draw(format, row)?);
    Ok(())
}

fn draw(format: Format, row: Row) -> Result<String, Failure> {
    Ok(match format {
        Format::Simple => row.cells.join(", ") + "\n",
        Format::Fields => {
            let line = |(name, value): &(&str, String)| format!("\"{name}\" : {value}\n");
            row.fields.iter().map(line).collect()
        }
        Format::Json => row.json + "\n",
        Format::Table => cli::table::draw(&row.heads, &[row.cells]),
        Format::Protobuf => {
            let text = "protobuf not supported as output format";
            return Err(Failure::new(BAD_FEATURE, text));
        }
    })
}
