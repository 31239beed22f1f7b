//! Reading a scenario and running it.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::cluster::{Member, Ports, wait_until};

/// How long a command may take at most.
const COMMAND_WAIT: Duration = Duration::from_secs(30);

const FORMATS: [&str; 5] = ["simple", "fields", "json", "protobuf", "table"];

/// The programs of one side.
pub(crate) struct Tools {
    pub(crate) server: PathBuf,
    pub(crate) etcdctl: PathBuf,
    /// For commands that draw tables, if that is another program.
    pub(crate) table: Option<PathBuf>,
}

/// What a command said.
pub(crate) struct Said {
    pub(crate) command: String,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    /// `None` after an interrupt.
    pub(crate) code: Option<i32>,
    /// Numbers of the run that mean nothing elsewhere.
    pub(crate) endpoint: String,
    pub(crate) directory: String,
}

struct Step {
    command: String,
    stdin: Option<String>,
    keep: Option<(String, usize)>,
    /// Interrupt it when it has printed so many lines.
    lines: Option<usize>,
    /// Run it again until it prints this.
    until: Option<String>,
}

pub(crate) struct Scenario {
    pub(crate) name: String,
    steps: Vec<Step>,
}

impl Scenario {
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let mut steps: Vec<Step> = Vec::new();
        for line in text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
            if kind == "$" {
                steps.extend(expand(rest));
                continue;
            }
            let step = steps.last_mut().expect("a command comes first");
            match kind {
                "<" => {
                    let stdin = step.stdin.get_or_insert_default();
                    stdin.push_str(rest);
                    stdin.push('\n');
                }
                "=" => {
                    let (name, word) = rest.split_once(' ').expect("a name and a word");
                    step.keep = Some((name.to_owned(), word.parse().unwrap()));
                }
                "~" => step.lines = Some(rest.parse().unwrap()),
                "?" => step.until = Some(rest.to_owned()),
                _ => panic!("{name}: what is {line:?}?"),
            }
        }
        Scenario { name, steps }
    }

    /// Runs the scenario against a fresh member.
    pub(crate) fn run(&self, tools: &Tools, ports: Ports) -> Vec<Said> {
        let directory = Directory::new();
        let _member = Member::start(&tools.server, &directory.0, ports);
        let mut values = HashMap::from([
            ("DIR".to_owned(), directory.0.display().to_string()),
            (
                "EP".to_owned(),
                format!("http://127.0.0.1:{}", ports.client),
            ),
        ]);
        let mut said = Vec::new();
        for step in &self.steps {
            let answer = step.answer(tools, &values);
            if let Some((name, word)) = &step.keep {
                let stdout = String::from_utf8_lossy(&answer.stdout);
                let value = stdout.split_whitespace().nth(*word).unwrap_or_default();
                values.insert(name.clone(), value.to_owned());
            }
            said.push(answer);
        }
        said
    }
}

fn expand(command: &str) -> Vec<Step> {
    let step = |command: String| Step {
        command,
        stdin: None,
        keep: None,
        lines: None,
        until: None,
    };
    match command.strip_prefix("all: ") {
        None => vec![step(command.to_owned())],
        Some(command) => FORMATS
            .iter()
            .map(|format| step(format!("{command} -w {format}")))
            .collect(),
    }
}

/// A temporary directory, removed when dropped.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn new() -> Self {
        static NEXT: Mutex<u32> = Mutex::new(0);
        let mut next = NEXT.lock().unwrap();
        *next += 1;
        let name = format!("etcdctl-conversation-{}-{}", std::process::id(), *next);
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _removed = std::fs::remove_dir_all(&self.0);
    }
}

impl Step {
    /// What it says; the last time, if it is to be run again.
    fn answer(&self, tools: &Tools, values: &HashMap<String, String>) -> Said {
        let mut answer = self.run(tools, values);
        if let Some(text) = &self.until {
            let comes = wait_until(COMMAND_WAIT, || {
                let stdout = String::from_utf8_lossy(&answer.stdout).into_owned();
                stdout.contains(text) || {
                    answer = self.run(tools, values);
                    false
                }
            });
            assert!(comes, "{} does not print {text}", self.command);
        }
        answer
    }

    fn run(&self, tools: &Tools, values: &HashMap<String, String>) -> Said {
        let mut command = self.command.clone();
        for (name, value) in values {
            command = command.replace(&format!("${name}"), value);
        }
        let mut words = words(&command);
        let draws_table = words.iter().any(|word| word == "table");
        let program = tools
            .table
            .as_ref()
            .filter(|_| draws_table)
            .unwrap_or(&tools.etcdctl);
        let mut process = Command::new(program);
        while let Some((name, value)) = words
            .first()
            .and_then(|w| w.split_once('='))
            .filter(|(name, _)| is_variable(name))
        {
            process.env(name, value);
            words.remove(0);
        }
        if !command.contains("--endpoints") && !command.contains("ETCDCTL_ENDPOINTS") {
            process.env("ETCDCTL_ENDPOINTS", &values["EP"]);
        }
        process
            .args(&words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = process.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let text = self.stdin.clone().unwrap_or_default();
        // A command need not read what it is given.
        let _written = stdin.write_all(text.as_bytes());
        // A command that goes on keeps its input open.
        let open = self.lines.map(|_| stdin);
        let stdout = collect(child.stdout.take().unwrap());
        let stderr = collect(child.stderr.take().unwrap());
        let code = self.wait(&mut child, &stdout.bytes);
        drop(open);
        Said {
            command,
            stdout: stdout.finish(),
            stderr: String::from_utf8_lossy(&stderr.finish()).into_owned(),
            code,
            endpoint: values["EP"].clone(),
            directory: values["DIR"].clone(),
        }
    }

    /// Waits for the end, or for the lines after which the command is interrupted.
    fn wait(&self, child: &mut Child, stdout: &Mutex<Vec<u8>>) -> Option<i32> {
        let wanted = self.lines.unwrap_or(usize::MAX);
        let mut ended = None;
        wait_until(COMMAND_WAIT, || {
            ended = child.try_wait().unwrap();
            let lines = stdout
                .lock()
                .unwrap()
                .iter()
                .filter(|byte| **byte == b'\n')
                .count();
            ended.is_some() || lines >= wanted
        });
        if let Some(status) = ended {
            return status.code();
        }
        let id = child.id().to_string();
        Command::new("kill").args(["-INT", &id]).status().unwrap();
        let done = wait_until(COMMAND_WAIT, || child.try_wait().unwrap().is_some());
        if !done {
            child.kill().unwrap();
            child.wait().unwrap();
            return Some(-1);
        }
        None
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')
}

struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: std::thread::JoinHandle<()>,
}

impl Collected {
    fn finish(self) -> Vec<u8> {
        self.reader.join().unwrap();
        std::mem::take(&mut *self.bytes.lock().unwrap())
    }
}

fn collect(mut pipe: impl Read + Send + 'static) -> Collected {
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&bytes);
    let reader = std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(length @ 1..) = pipe.read(&mut buffer) {
            shared.lock().unwrap().extend_from_slice(&buffer[..length]);
        }
    });
    Collected { bytes, reader }
}

/// Splits a command as a shell does: blanks, `"…"` and `'…'`; a backslash takes the next
/// character literally outside of single quotes.
fn words(command: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = command.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(chars.next()),
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (' ', None) => found.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    found.extend(word);
    found
}
