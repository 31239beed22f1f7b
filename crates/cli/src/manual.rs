//! Pages of the manual, made from the table of commands: one for the program and one for each
//! command, as `man` reads them.

use crate::flags::Flag;
use crate::{Command, Program, help};

/// A page and the name of its file, such as `etcdctl-lease-grant.1`.
pub struct Page {
    pub file: String,
    pub text: String,
}

/// The pages of a program, for a section of the manual.
#[must_use]
pub fn pages<T>(program: &Program<T>, section: u8) -> Vec<Page> {
    let mut pages = Vec::new();
    add_pages(program, &[&program.root], section, &mut pages);
    pages
}

fn add_pages<T>(program: &Program<T>, path: &[&Command<T>], section: u8, pages: &mut Vec<Page>) {
    pages.push(page(program, path, section));
    for command in path[path.len() - 1].shown() {
        let path: Vec<&Command<T>> = path.iter().copied().chain([command]).collect();
        add_pages(program, &path, section, pages);
    }
}

/// A page under construction; texts are given plain and written as `man` wants them.
pub struct Writer {
    out: String,
}

impl Writer {
    /// Begins a page: its name in lower case, its section, and one line about it.
    #[must_use]
    pub fn new(name: &str, section: u8, short: &str) -> Self {
        let title = escape(&name.to_uppercase());
        let (name, short) = (escape(name), escape(short.trim_end_matches('.')));
        Writer {
            out: format!(
                ".TH \"{title}\" \"{section}\" \"\" \"Quorate\" \"Quorate\"\n.nh\n.ad l\n\
                 .SH NAME\n{name} \\- {short}\n"
            ),
        }
    }

    /// Begins a part of the page.
    pub fn heading(&mut self, title: &str) {
        self.out.push_str(&format!(".SH {}\n", escape(title)));
    }

    /// A line of bold words, and plain ones behind them.
    pub fn command(&mut self, bold: &str, plain: &str) {
        self.out.push_str(&format!("\\fB{}\\fR", escape(bold)));
        if !plain.is_empty() {
            self.out.push_str(&format!(" {}", escape(plain)));
        }
        self.out.push_str("\n.br\n");
    }

    /// Words with a paragraph of their own.
    pub fn paragraph(&mut self, text: &str) {
        self.out
            .push_str(&format!(".PP\n{}\n", escape(text.trim())));
    }

    /// A term and what it means.
    pub fn item(&mut self, term: &str, text: &str) {
        self.out.push_str(&format!(
            ".TP\n\\fB{}\\fR\n{}\n",
            escape(term),
            escape(text)
        ));
    }

    /// Lines as they are.
    pub fn lines(&mut self, text: &str) {
        self.out
            .push_str(&format!(".PP\n.nf\n{}\n.fi\n", escape(text.trim_end())));
    }

    /// The page.
    #[must_use]
    pub fn finish(self) -> String {
        self.out
    }
}

/// Plain text for the typesetter: dashes stay dashes, and no line is taken for a request.
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let lines = text.split('\n').map(|line| match line.chars().next() {
        Some('.' | '\'') => format!("\\&{line}"),
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn page<T>(program: &Program<T>, path: &[&Command<T>], section: u8) -> Page {
    let command = path[path.len() - 1];
    let names: Vec<&str> = path.iter().map(|command| command.name).collect();
    let mut page = Writer::new(&names.join("-"), section, command.short);
    page.heading("SYNOPSIS");
    let name = names.join(" ");
    if command.run.is_some() {
        page.command(&name, format!("{} [flags]", command.usage).trim_start());
    }
    if command.shown().next().is_some() {
        page.command(&name, "[command]");
    }
    if !command.long.is_empty() {
        page.heading("DESCRIPTION");
        command
            .long
            .trim()
            .split("\n\n")
            .for_each(|part| page.paragraph(part));
    }
    if command.shown().next().is_some() {
        page.heading("COMMANDS");
        for child in command.shown() {
            let file = format!("{}-{}({section})", names.join("-"), child.name);
            page.item(&file, child.short);
        }
    }
    if !command.flags.is_empty() {
        page.heading("OPTIONS");
        flag_items(&mut page, command.flags);
    }
    let parents = path[..path.len() - 1].iter();
    let inherited: Vec<&Flag> = parents
        .filter(|parent| parent.inherit_flags)
        .flat_map(|parent| parent.flags)
        .collect();
    if !inherited.is_empty() {
        page.heading("OPTIONS OF THE GROUP");
        flag_items(&mut page, inherited);
    }
    if path.len() == 1 && !program.globals.is_empty() {
        page.heading("GLOBAL OPTIONS");
        flag_items(&mut page, program.globals);
    }
    if !command.example.is_empty() {
        page.heading("EXAMPLES");
        page.lines(command.example);
    }
    if path.len() > 1 {
        page.heading("SEE ALSO");
        let parent = names[..names.len() - 1].join("-");
        page.paragraph(&format!("{parent}({section})"));
    }
    Page {
        file: format!("{}.{section}", names.join("-")),
        text: page.finish(),
    }
}

fn flag_items<'a>(page: &mut Writer, flags: impl IntoIterator<Item = &'a Flag>) {
    for flag in flags {
        let short = flag
            .short
            .map_or(String::new(), |short| format!("-{short}, "));
        let term = format!("{short}--{}{}", flag.name, help::value_name(flag));
        page.item(&term, &format!("{}{}", flag.help, help::default_note(flag)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: Program<()> = Program {
        root: Command {
            name: "tool",
            short: "Does things.",
            commands: &[
                Command {
                    name: "do",
                    usage: "<what>",
                    short: "Does it",
                    long: "Does it.\n\n.hidden at first\n",
                    flags: &[Flag::text("how-well", "fine", "a back\\slash")],
                    run: Some(|_| ()),
                    ..Command::EMPTY
                },
                Command {
                    name: "secret",
                    is_hidden: true,
                    run: Some(|_| ()),
                    ..Command::EMPTY
                },
            ],
            ..Command::EMPTY
        },
        globals: &[Flag::switch("loud", "say more")],
        shows_globals: true,
        groups: &[],
    };

    #[test]
    fn a_page_for_each_command() {
        let pages = pages(&PROGRAM, 1);
        let files: Vec<_> = pages.iter().map(|page| page.file.as_str()).collect();
        assert_eq!(files, ["tool.1", "tool-do.1"]);
        assert!(pages[0].text.contains("\\fB\\-\\-loud\\fR\nsay more\n"));
        assert!(!pages[0].text.contains("secret"));
        let page = &pages[1].text;
        assert!(page.contains("tool\\-do \\- Does it\n"), "{page}");
        assert!(page.contains("\\fBtool do\\fR <what> [flags]\n"), "{page}");
        assert!(page.contains("\n\\&.hidden at first\n"), "{page}");
        assert!(page.contains("a back\\eslash (default \"fine\")"), "{page}");
    }

    #[test]
    fn only_its_whole_name_finds_a_hidden_command() {
        let found = |name| PROGRAM.root.find(name).map(|command| command.name);
        assert_eq!(found("secret"), Some("secret"));
        assert_eq!(found("secre"), None);
        assert_eq!(found("d"), Some("do"));
    }
}
