//! Snapshots of a cluster under writes, restored into new clusters by every tool for every server.
//!
//! Three members are written to by several clients; `etcdctl snapshot save` takes the state of one
//! of them meanwhile. What a watcher of everything was told is the history from which follows what
//! the snapshot must hold at its revision. Each cluster that is made of it must serve exactly that,
//! with the leases, and go on. With Go's programs the snapshots, the tools and the servers are
//! theirs and ours in turn.

mod check;
mod source;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::member::{fresh_directory, remove};
use crate::{Cluster, Error, Member, Options};

use check::Wanted;
use source::{Pace, Source};

/// How far a raised revision lies above the snapshot's.
const BUMP: i64 = 1_000_000_000;

/// The programs of one side.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The server.
    pub etcd: PathBuf,
    /// What saves snapshots.
    pub etcdctl: PathBuf,
    /// What restores them.
    pub etcdutl: PathBuf,
}

/// What the story needs.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The programs under test.
    pub ours: Programs,
    /// Go's.
    pub reference: Option<Programs>,
    /// Other etcdutls, which restore what was saved of our members.
    pub others: Vec<PathBuf>,
    /// Acknowledged writes before a snapshot is saved.
    pub writes: u64,
    /// What is chosen at random follows from it.
    pub seed: u64,
}

/// A file that was saved, and what must come out of it.
struct Saved {
    file: PathBuf,
    what: String,
    wanted: Wanted,
}

/// Saves, restores, looks.
///
/// # Errors
/// The first thing that is wrong.
pub async fn run(plan: &Plan) -> Result<(), Error> {
    let directory = fresh_directory();
    std::fs::create_dir_all(&directory)?;
    let outcome = within(plan, &directory).await;
    remove(&directory);
    outcome
}

async fn within(plan: &Plan, directory: &Path) -> Result<(), Error> {
    let ours = &plan.ours;
    let Some(theirs) = &plan.reference else {
        println!("no reference is given: our programs alone");
        let saved = save(plan, ours, &ours.etcdctl, directory, "ours").await?;
        restored(&[&saved], &[&ours.etcdutl], &[&ours.etcd]).await?;
        return raised(&saved, &[&ours.etcdutl], &[&ours.etcd]).await;
    };
    let servers = [ours.etcd.as_path(), &theirs.etcd];
    // Either etcdctl saves of either cluster.
    let first = save(plan, ours, &ours.etcdctl, directory, "ours").await?;
    let second = save(
        plan,
        ours,
        &theirs.etcdctl,
        directory,
        "ours by Go's etcdctl",
    )
    .await?;
    let mut tools = vec![ours.etcdutl.as_path(), &theirs.etcdutl];
    let raising = tools.clone();
    tools.extend(plan.others.iter().map(PathBuf::as_path));
    restored(&[&first, &second], &tools, &servers).await?;
    raised(&first, &raising, &servers).await?;
    mixed(&first, &tools, &servers).await?;
    let first = save(plan, theirs, &theirs.etcdctl, directory, "Go's").await?;
    let second = save(
        plan,
        theirs,
        &ours.etcdctl,
        directory,
        "Go's by our etcdctl",
    )
    .await?;
    restored(&[&first, &second], &raising, &servers).await?;
    raised(&first, &raising, &servers).await?;
    mixed(&first, &raising, &servers).await
}

/// Runs a cluster under writes and saves a snapshot of it. Where the tool is not the server's own,
/// compactions go on meanwhile.
async fn save(
    plan: &Plan,
    of: &Programs,
    etcdctl: &Path,
    directory: &Path,
    what: &str,
) -> Result<Saved, Error> {
    let file = directory.join(format!("{}.db", what.replace([' ', '\''], "-")));
    let pace = Pace {
        writes: plan.writes,
        compacts_on: of.etcdctl != etcdctl,
        seed: plan.seed,
    };
    let mut source = Source::start(&of.etcd, pace).await?;
    let during = source.save(etcdctl, &file).await?;
    let revision = revision_of(plan, &file)?;
    let wanted = source.end(revision).await?;
    println!(
        "a snapshot of {what}: revision {revision}, {} keys, {} leases, {} bytes, {during} writes \
         were acknowledged while it was saved",
        wanted.keys.len(),
        wanted.leases_min.len(),
        std::fs::metadata(&file)?.len(),
    );
    let what = what.to_owned();
    Ok(Saved { file, what, wanted })
}

/// The snapshot's revision. All tools must say the same of the file.
fn revision_of(plan: &Plan, file: &Path) -> Result<i64, Error> {
    let mut tools = vec![&plan.ours.etcdutl];
    tools.extend(plan.reference.iter().map(|programs| &programs.etcdutl));
    let status = |tool: &&PathBuf| {
        let words = [
            "snapshot",
            "status",
            &file.display().to_string(),
            "-w",
            "json",
        ];
        run_tool(tool, &words)
    };
    let said = tools.iter().map(status).collect::<Result<Vec<_>, _>>()?;
    if said.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err(Error(format!(
            "the tools differ about {}: {said:?}",
            file.display()
        )));
    }
    let json: serde_json::Value =
        serde_json::from_str(&said[0]).map_err(|error| Error(format!("{error}: {}", said[0])))?;
    let revision = json.get("revision").and_then(serde_json::Value::as_i64);
    revision.ok_or_else(|| Error(format!("no revision in {}", said[0])))
}

/// Every snapshot by every tool for every server.
async fn restored(saved: &[&Saved], tools: &[&Path], servers: &[&Path]) -> Result<(), Error> {
    for one in saved {
        for tool in tools {
            for server in servers {
                let began = Instant::now();
                let mut cluster = restore(&one.file, &[tool], &[server], &[])?;
                let what = title(one, tool, server);
                look(&mut cluster, one, 0, &what, began).await?;
            }
        }
    }
    Ok(())
}

/// The same with a raised revision.
async fn raised(one: &Saved, tools: &[&Path], servers: &[&Path]) -> Result<(), Error> {
    let bump = BUMP.to_string();
    let flags = ["--bump-revision", &bump, "--mark-compacted"];
    for tool in tools {
        for server in servers {
            let began = Instant::now();
            let mut cluster = restore(&one.file, &[tool], &[server], &flags)?;
            let what = format!("{}, raised", title(one, tool, server));
            look(&mut cluster, one, BUMP, &what, began).await?;
        }
    }
    Ok(())
}

/// One cluster of members that different tools restored for different servers.
async fn mixed(one: &Saved, tools: &[&Path], servers: &[&Path]) -> Result<(), Error> {
    let began = Instant::now();
    let mut cluster = restore(&one.file, tools, servers, &[])?;
    let what = format!("{}, by all tools for all servers in one cluster", one.what);
    look(&mut cluster, one, 0, &what, began).await
}

async fn look(
    cluster: &mut Cluster,
    one: &Saved,
    bump: i64,
    what: &str,
    began: Instant,
) -> Result<(), Error> {
    let outcome = match cluster.wait_until_healthy() {
        Ok(()) => check::serves(cluster, &one.wanted, bump).await,
        Err(error) => Err(error),
    };
    match outcome {
        Ok(()) => {
            println!(
                "{what}: equal, and goes on, {:.1} s",
                began.elapsed().as_secs_f64()
            );
            Ok(())
        }
        Err(error) => {
            for member in cluster.members() {
                eprint!("{}", member.log());
            }
            Err(Error(format!("{what}: {error}")))
        }
    }
}

fn title(one: &Saved, tool: &Path, server: &Path) -> String {
    let (tool, server) = (tool.display(), server.display());
    format!("{}, restored by {tool} for {server}", one.what)
}

/// Restores three members, each by itself, and starts them as a cluster. Tools and servers come
/// in turn.
fn restore(
    file: &Path,
    tools: &[&Path],
    servers: &[&Path],
    flags: &[&str],
) -> Result<Cluster, Error> {
    let prepare = |server: &&Path| {
        Member::prepare(Options {
            binary: Some(server.to_path_buf()),
            ..Options::default()
        })
    };
    let servers = servers.iter().cycle().take(3);
    let members = servers
        .map(prepare)
        .collect::<Result<Vec<Member>, Error>>()?;
    let named: Vec<(String, &Member)> = (0..3).map(|at| format!("m{at}")).zip(&members).collect();
    let listed: Vec<String> = named.iter().map(|(name, one)| one.listed(name)).collect();
    for ((name, member), tool) in named.iter().zip(tools.iter().cycle()) {
        let (file, data_dir) = (file.display().to_string(), member.data_dir());
        let mut words = vec![
            "snapshot".to_owned(),
            "restore".to_owned(),
            file,
            format!("--name={name}"),
            format!("--data-dir={}", data_dir.display()),
            format!("--initial-cluster={}", listed.join(",")),
            format!("--initial-advertise-peer-urls=http://{}", member.peer()),
            "--initial-cluster-token=restored".to_owned(),
        ];
        words.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        run_tool(tool, &words)?;
    }
    Cluster::found(members)
}

/// What a tool prints.
fn run_tool(program: &Path, words: &[&str]) -> Result<String, Error> {
    let output = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Error(format!("{}: {error}", program.display())))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(Error(format!(
            "{} {}: {}",
            program.display(),
            words.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        ))),
    }
}
