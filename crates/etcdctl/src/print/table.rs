//! `-w table`: boxes of `+`, `-` and `|` around columns, as etcd 3.4 to 3.6 draw them.

use super::{Answer, hash_rows, member_rows, status_rows};

const MEMBER_LIST: &[&str] = &[
    "ID",
    "STATUS",
    "NAME",
    "PEER ADDRS",
    "CLIENT ADDRS",
    "IS LEARNER",
];

const HEALTH: &[&str] = &["ENDPOINT", "HEALTH", "TOOK", "ERROR"];

const HASH_KV: &[&str] = &["ENDPOINT", "HASH", "HASH REVISION"];

const STATUS: &[&str] = &[
    "ENDPOINT",
    "ID",
    "VERSION",
    "STORAGE VERSION",
    "DB SIZE",
    "IN USE",
    "PERCENTAGE NOT IN USE",
    "QUOTA",
    "IS LEADER",
    "IS LEARNER",
    "RAFT TERM",
    "RAFT INDEX",
    "RAFT APPLIED INDEX",
    "ERRORS",
    "DOWNGRADE TARGET VERSION",
    "DOWNGRADE ENABLED",
];

/// The table of an answer, or `None` for answers that are no rows.
pub(super) fn print(answer: &Answer<'_>) -> Option<Vec<u8>> {
    let (head, rows) = match answer {
        Answer::MemberList(answer) => (MEMBER_LIST, member_rows(answer)),
        Answer::Status(answers) => (STATUS, status_rows(answers)),
        Answer::HashKv(answers) => (HASH_KV, hash_rows(answers)),
        Answer::Health(answers) => {
            let row = |health: &super::Health| {
                let healthy = health.is_healthy.to_string();
                vec![
                    health.endpoint.clone(),
                    healthy,
                    health.took.clone(),
                    health.error.clone(),
                ]
            };
            (HEALTH, answers.iter().map(row).collect())
        }
        _ => return None,
    };
    Some(draw(head, &rows).into_bytes())
}

/// Cells wider than this are wrapped at blanks.
const CELL_WIDTH_MAX: usize = 30;

/// Draws the box. Heads are centred, cells stand to the right.
fn draw(head: &[&str], rows: &[Vec<String>]) -> String {
    let wrapped: Vec<Vec<Vec<String>>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| wrap(cell)).collect())
        .collect();
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in &wrapped {
        for (width, cell) in widths.iter_mut().zip(row) {
            let widest = cell
                .iter()
                .map(|line| line.chars().count())
                .max()
                .unwrap_or_default();
            *width = widest.max(*width);
        }
    }
    let rule: String = widths
        .iter()
        .map(|width| format!("+{}", "-".repeat(width + 2)))
        .collect();
    let mut out = format!("{rule}+\n");
    let heads = head
        .iter()
        .zip(&widths)
        .map(|(cell, width)| centred(cell, *width));
    out.push_str(&format!("|{}\n{rule}+\n", heads.collect::<String>()));
    for row in &wrapped {
        let height = row.iter().map(Vec::len).max().unwrap_or_default();
        for line in 0..height {
            out.push('|');
            for (cell, width) in row.iter().zip(&widths) {
                let text = cell.get(line).map_or("", String::as_str);
                out.push_str(&format!(" {text:>width$} |"));
            }
            out.push('\n');
        }
    }
    out.push_str(&format!("{rule}+\n"));
    out
}

/// A head in the middle of its column; the odd blank stands to the right.
fn centred(cell: &str, width: usize) -> String {
    let free = width - cell.chars().count();
    let left = free / 2;
    format!(" {}{cell}{} |", " ".repeat(left), " ".repeat(free - left))
}

fn wrap(cell: &str) -> Vec<String> {
    if cell.chars().count() <= CELL_WIDTH_MAX || !cell.contains(' ') {
        return vec![cell.to_owned()];
    }
    let mut lines: Vec<String> = Vec::new();
    for word in cell.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= CELL_WIDTH_MAX => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::draw;

    #[test]
    fn a_table_as_the_first_user_saw_it() {
        let rows = [
            [
                "8dc5f1bc33f2f56",
                "started",
                "n2",
                "https://n2:2380",
                "https://n2:2379",
                "false",
            ],
            [
                "77508fdcfa570432",
                "started",
                "n1",
                "https://n1:2380",
                "https://n1:2379",
                "false",
            ],
        ];
        let rows: Vec<Vec<String>> = rows.iter().map(|r| r.map(str::to_owned).to_vec()).collect();
        let expected = "\
+------------------+---------+------+-----------------+-----------------+------------+
|        ID        | STATUS  | NAME |   PEER ADDRS    |  CLIENT ADDRS   | IS LEARNER |
+------------------+---------+------+-----------------+-----------------+------------+
|  8dc5f1bc33f2f56 | started |   n2 | https://n2:2380 | https://n2:2379 |      false |
| 77508fdcfa570432 | started |   n1 | https://n1:2380 | https://n1:2379 |      false |
+------------------+---------+------+-----------------+-----------------+------------+
";
        assert_eq!(draw(super::MEMBER_LIST, &rows), expected);
    }
}
