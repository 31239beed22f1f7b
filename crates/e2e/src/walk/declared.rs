//! The rows of `docs/compatibility.md` that say what is absent.

use std::path::Path;

use super::Missing;
use crate::Error;

/// The heading above the table.
const HEADING: &str = "## Absent, by name";

/// One row: a kind, a name whose last `*` stands for anything, and the reason.
#[derive(Debug)]
struct Row {
    kind: String,
    name: String,
    reason: String,
}

impl Row {
    fn covers(&self, missing: &Missing) -> bool {
        self.kind == missing.kind
            && match self.name.strip_suffix('*') {
                Some(start) => missing.name.starts_with(start),
                None => self.name == missing.name,
            }
    }
}

/// What the page declares.
#[derive(Debug, Default)]
pub(super) struct Declared {
    rows: Vec<Row>,
}

impl Declared {
    /// # Errors
    /// The page cannot be read, lacks the table, or has a row without a reason.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path)?;
        Self::parse(&text).map_err(|error| Error(format!("{}: {error}", path.display())))
    }

    fn parse(text: &str) -> Result<Self, Error> {
        let (_, rest) = text
            .split_once(HEADING)
            .ok_or_else(|| Error(format!("no heading {HEADING:?}")))?;
        let table = rest
            .lines()
            .skip(1)
            .take_while(|line| !line.starts_with('#'));
        // The first two lines of the table are its head.
        let rows = table.filter(|line| line.starts_with('|')).skip(2);
        let rows = rows.map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            match cells[..] {
                [kind, name, reason]
                    if !kind.is_empty() && !name.is_empty() && !reason.is_empty() =>
                {
                    Ok(Row {
                        kind: kind.to_owned(),
                        name: name.trim_matches('`').to_owned(),
                        reason: reason.to_owned(),
                    })
                }
                _ => Err(Error(format!("want kind, name and reason: {line}"))),
            }
        });
        Ok(Self {
            rows: rows.collect::<Result<_, _>>()?,
        })
    }

    /// Why that is absent, if the page says so.
    pub(super) fn reason(&self, missing: &Missing) -> Option<&str> {
        let row = self.rows.iter().find(|row| row.covers(missing))?;
        Some(&row.reason)
    }

    /// Rows that cover nothing of what is missing.
    pub(super) fn idle<'a>(&'a self, missing: &'a [Missing]) -> impl Iterator<Item = String> + 'a {
        self.rows
            .iter()
            .filter(|row| !missing.iter().any(|one| row.covers(one)))
            .map(|row| format!("{} {}", row.kind, row.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(kind: &'static str, name: &str) -> Missing {
        Missing {
            kind,
            name: name.to_owned(),
            why: "gone".to_owned(),
        }
    }

    #[test]
    fn rows_cover_names() {
        let page = "# x\n\n## Absent, by name\n\nWords.\n\n| kind | name | reason |\n|---|---|---|\n\
                    | metric | `go_*` | of Go |\n| flag | `x` | why |\n\n## Next\n| a | b | c |\n";
        let declared = Declared::parse(page).expect("a page");
        assert_eq!(declared.rows.len(), 2);
        assert_eq!(
            declared.reason(&missing("metric", "go_threads")),
            Some("of Go")
        );
        assert_eq!(declared.reason(&missing("metric", "x")), None);
        assert_eq!(declared.reason(&missing("flag", "xy")), None);
        let seen = [missing("flag", "x")];
        let idle: Vec<_> = declared.idle(&seen).collect();
        assert_eq!(idle, ["metric go_*"]);
    }

    #[test]
    fn a_row_needs_a_reason() {
        for page in [
            "",
            "## Absent, by name\n| k | n | r |\n|-|-|-|\n| a | b | |\n",
        ] {
            assert!(Declared::parse(page).is_err(), "{page}");
        }
    }
}
