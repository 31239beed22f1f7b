//! Tables: boxes of `+`, `-` and `|` around columns, as etcd 3.4 to 3.6 draw them.

/// Cells wider than this are broken at blanks; their column stays at least this wide.
const CELL_WIDTH_MAX: usize = 30;

/// Draws a box. Heads are centred, cells stand to the right.
#[must_use]
pub fn draw(head: &[&str], rows: &[Vec<String>]) -> String {
    let broken: Vec<Vec<Vec<String>>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| lines(cell)).collect())
        .collect();
    let mut widths: Vec<usize> = head.iter().map(|cell| width_of(cell)).collect();
    for (row, broken) in rows.iter().zip(&broken) {
        for (width, (cell, lines)) in widths.iter_mut().zip(row.iter().zip(broken)) {
            let widest = lines
                .iter()
                .map(|line| width_of(line))
                .max()
                .unwrap_or_default();
            *width = widest.max(width_of(cell).min(CELL_WIDTH_MAX)).max(*width);
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
    for row in &broken {
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

fn width_of(text: &str) -> usize {
    text.chars().count()
}

/// A head in the middle of its column; the odd blank stands to the right.
fn centred(cell: &str, width: usize) -> String {
    let free = width - width_of(cell);
    let left = free / 2;
    format!(" {}{cell}{} |", " ".repeat(left), " ".repeat(free - left))
}

/// Breaks a wide cell into lines of about the same length: the squares of what the lines but
/// the last lack are as small as can be.
fn lines(cell: &str) -> Vec<String> {
    let words: Vec<&str> = cell.split_whitespace().collect();
    if width_of(cell) <= CELL_WIDTH_MAX || words.len() < 2 {
        return vec![cell.to_owned()];
    }
    let longest = words
        .iter()
        .map(|word| width_of(word))
        .max()
        .unwrap_or_default();
    let limit = longest.max(CELL_WIDTH_MAX);
    let line = |from: usize, to: usize| words[from..to].join(" ");
    // best[i] is the cost of the words from i on, and where the line that begins there ends.
    let mut best = vec![(0, words.len()); words.len() + 1];
    for from in (0..words.len()).rev() {
        if width_of(&line(from, words.len())) <= limit {
            continue;
        }
        let ends = (from + 1..words.len()).filter(|to| width_of(&line(from, *to)) <= limit);
        let costs = ends.map(|to| ((limit - width_of(&line(from, to))).pow(2) + best[to].0, to));
        best[from] = costs.min().expect("a line takes at least its longest word");
    }
    let mut broken = Vec::new();
    let mut from = 0;
    while from < words.len() {
        let to = best[from].1;
        broken.push(line(from, to));
        from = to;
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::{draw, lines};

    const MEMBER_LIST: [&str; 6] = [
        "ID",
        "STATUS",
        "NAME",
        "PEER ADDRS",
        "CLIENT ADDRS",
        "IS LEARNER",
    ];

    #[test]
    fn wide_cells_are_broken_at_blanks() {
        assert_eq!(lines("short enough"), ["short enough"]);
        assert_eq!(lines(&"x".repeat(40)), ["x".repeat(40)]);
        let alarm = "memberID:2493354512146466098 alarm:NOSPACE";
        assert_eq!(
            lines(alarm),
            ["memberID:2493354512146466098", "alarm:NOSPACE"]
        );
        assert_eq!(
            lines("the cluster has lost its leader and cannot answer"),
            ["the cluster has lost its", "leader and cannot answer"]
        );
    }

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
        assert_eq!(draw(&MEMBER_LIST, &rows), expected);
    }
}
