//! The first deployment to the letter: three machines, each with a member under its unit,
//! certificates made by `openssl`, and `etcdctl` on each machine.
//!
//! `seed/etcd.service` is the unit, `seed/members.txt` what the check must print. A machine is a
//! set of namespaces (`crate::machine`); what systemd would do with the unit is `unit`'s part.

mod unit;

use std::path::PathBuf;
use std::process::Output;
use std::time::Instant;

use crate::Error;
use crate::machine::{Machine, Network, check_abilities, check_tools};
use crate::pki::{Leaf, Pki};

use unit::{Service, Unit};

/// What `seed` needs.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server under test.
    pub binary: PathBuf,
    /// An etcdctl that draws tables in ASCII.
    pub etcdctl: PathBuf,
}

const NAMES: [&str; 3] = ["etcd-node01", "etcd-node02", "etcd-node03"];
const UNIT: &str = include_str!("../../seed/etcd.service");
const MEMBERS: &str = include_str!("../../seed/members.txt");
/// The unit that is shipped.
const SHIPPED_UNIT: &str = include_str!("../../../../contrib/systemd/etcd.service");

const CHAIN: &str = "/etc/etcd/ca-etcd-chain-cert.pem";
/// Flags that the unit lacks, for the certificates that were taken back.
const WITH_REVOCATIONS: [&str; 2] = [
    "--client-crl-file=/etc/etcd/crl.der",
    "--peer-crl-file=/etc/etcd/crl.der",
];
/// A certificate that only some connections show, below `/etc/etcd`.
const REVOKED: &str = "revoked";
const OUTSIDERS: [&str; 2] = ["stranger", "server-only"];

/// Founds the cluster, checks what it says and whom it lets in, restarts it with a revocation
/// list, and stops it.
///
/// # Errors
/// The first thing that is not as it must be, or what the machine lacks.
pub fn run(plan: &Plan) -> Result<(), Error> {
    check_abilities()?;
    check_tools(&["openssl", "curl"])?;
    let begin = Instant::now();
    let programs = [
        ("etcd", plan.binary.as_path()),
        ("etcdctl", plan.etcdctl.as_path()),
    ];
    let network = Network::new(&NAMES, &programs)?;
    let machines = network.machines();
    let (pki, other) = (Pki::new()?, Pki::new()?);
    install(&pki, &other, machines)?;
    check_units(&machines[0])?;
    println!("three machines with certificates, {}", seconds(begin));

    let unit = Unit::parse(UNIT)?;
    let start = |machine| Service::start(&unit, machine, &[]);
    let mut services = machines.iter().map(start).collect::<Result<Vec<_>, _>>()?;
    for service in &mut services {
        service.wait_until_ready()?;
    }
    check_members(machines)?;
    println!(
        "ready, and the table is right on every machine, {}",
        seconds(begin)
    );
    check_replication(machines)?;
    check_json(plan, machines)?;
    let outsiders: Vec<_> = [None].into_iter().chain(OUTSIDERS.map(Some)).collect();
    check_entrances(machines, &[REVOKED], &outsiders)?;
    check_log(&services)?;

    for (service, machine) in services.iter_mut().zip(machines) {
        service.stop()?;
        *service = Service::start(&unit, machine, &WITH_REVOCATIONS)?;
        service.wait_until_ready()?;
    }
    check_entrances(machines, &[], &[None, Some(REVOKED), Some(OUTSIDERS[0])])?;
    check_members(machines)?;
    println!(
        "outsiders and the revoked get in nowhere, {}",
        seconds(begin)
    );
    // The last one stops without the others, as when machines are switched off together.
    for service in &mut services {
        service.stop()?;
    }
    println!("stopped, {}", seconds(begin));
    Ok(())
}

fn seconds(begin: Instant) -> String {
    format!("{:.1} s", begin.elapsed().as_secs_f64())
}

/// Every machine gets its two certificates, the chain, and the list of revocations; the ones of
/// the people at the door go to all of them.
fn install(pki: &Pki, other: &Pki, machines: &[Machine]) -> Result<(), Error> {
    let revoked = pki.leaf(REVOKED, "peer")?;
    let stranger = other.leaf("stranger", "peer")?;
    let server_only = pki.leaf("server-only", "server")?;
    let list = pki.revoke(Some(REVOKED))?;
    for machine in machines {
        let name = machine.name();
        let names = format!(
            "DNS:localhost,DNS:{name},DNS:{},DNS:*.kube.demo,IP:127.0.0.1,IP:127.0.1.1",
            machine.full_name()
        );
        let server = pki.leaf_of(name, "server", &names)?;
        let peer = pki.leaf_of(&format!("{name}-peer"), "peer", &names)?;
        let give = |leaf: &Leaf, own: &str| {
            machine.install(&leaf.certificate, &format!("etc/etcd/{own}-cert.pem"))?;
            machine.install(&leaf.key, &format!("etc/etcd/{own}-key.pem"))
        };
        give(&server, name)?;
        give(&peer, &format!("{name}-peer"))?;
        give(&revoked, REVOKED)?;
        give(&stranger, "stranger")?;
        give(&server_only, "server-only")?;
        machine.install(&pki.path("chain.pem"), "etc/etcd/ca-etcd-chain-cert.pem")?;
        machine.install(&list, "etc/etcd/crl.der")?;
    }
    Ok(())
}

/// Asks systemd what it thinks of both units, where it is installed.
fn check_units(machine: &Machine) -> Result<(), Error> {
    if check_tools(&["systemd-analyze"]).is_err() {
        println!("not checked by systemd, which is not installed: the units");
        return Ok(());
    }
    // It says of the first that a unit cannot conflict with itself, and drops the line.
    let units = [
        ("first deployment's", UNIT, "Conflicts=etcd.service"),
        ("shipped", SHIPPED_UNIT, ""),
    ];
    for (which, text, excused) in units {
        std::fs::write(machine.path("run/etcd.service"), text)?;
        let output = machine.run("systemd-analyze", &["verify", "/run/etcd.service"])?;
        let words = String::from_utf8_lossy(&output.stderr);
        let excused = |line: &&str| !excused.is_empty() && line.contains(excused);
        let complains = |line: &str| line.contains("etcd.service:");
        let mut complaints = words
            .lines()
            .filter(|line| complains(line) && !excused(line));
        if !output.status.success() || complaints.next().is_some() {
            return Err(Error(format!("systemd on the {which} unit: {words}")));
        }
    }
    Ok(())
}

/// The check of the first deployment, on every machine.
fn check_members(machines: &[Machine]) -> Result<(), Error> {
    for machine in machines {
        let own = format!("{}-peer", machine.name());
        let mut words = vec!["member".to_owned(), "list".into()];
        words.extend(identity(&own));
        words.extend(["-w".into(), "table".into()]);
        let output = etcdctl(machine, &words)?;
        let printed = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() || printed != MEMBERS {
            return Err(Error(format!(
                "on {} the table is\n{printed}{}\nnot\n{MEMBERS}",
                machine.name(),
                String::from_utf8_lossy(&output.stderr)
            )));
        }
    }
    Ok(())
}

/// Flags by which etcdctl is somebody.
fn identity(who: &str) -> Vec<String> {
    vec![
        format!("--cacert={CHAIN}"),
        format!("--cert=/etc/etcd/{who}-cert.pem"),
        format!("--key=/etc/etcd/{who}-key.pem"),
    ]
}

fn etcdctl(machine: &Machine, words: &[String]) -> Result<Output, Error> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    machine.run("etcdctl", &words)
}

/// What one machine puts by etcdctl, the others get.
fn check_replication(machines: &[Machine]) -> Result<(), Error> {
    for machine in machines {
        let name = machine.name();
        let own = identity(&format!("{name}-peer"));
        let with = |words: &[&str]| {
            let words = words.iter().map(|word| (*word).to_owned());
            words.chain(own.iter().cloned()).collect::<Vec<_>>()
        };
        let value = format!("of {name}");
        let put = etcdctl(machine, &with(&["put", "/seed/key", &value]))?;
        expect(&put.stdout, "OK\n", &put)?;
        for other in machines {
            let url = format!("--endpoints=https://{}:2379", other.full_name());
            let get = etcdctl(
                machine,
                &with(&["get", "/seed/key", "--print-value-only", &url]),
            )?;
            expect(&get.stdout, &format!("{value}\n"), &get)?;
        }
    }
    Ok(())
}

fn expect(came: &[u8], wanted: &str, output: &Output) -> Result<(), Error> {
    match came == wanted.as_bytes() {
        true => Ok(()),
        false => Err(Error(format!("{wanted:?} was wanted: {output:?}"))),
    }
}

/// The same by curl.
fn check_json(plan: &Plan, machines: &[Machine]) -> Result<(), Error> {
    if !crate::is_ours(&plan.binary)? {
        // It would show itself a certificate that is for servers only, and refuse it.
        println!("not asked by JSON: Go's etcd, whose gateway is a client of its own port");
        return Ok(());
    }
    for (machine, round) in machines.iter().zip(1..) {
        let to = &machines[round % machines.len()];
        // The key `k`, and what stands there.
        let put = json(machine, to, "put", r#"{"key":"aw==","value":"dg=="}"#)?;
        let get = json(machine, machine, "range", r#"{"key":"aw=="}"#)?;
        if !put.contains(r#""revision":"#) || !get.contains(r#""value":"dg==""#) {
            let name = machine.name();
            return Err(Error(format!("JSON on {name}: {put}, then {get}")));
        }
    }
    Ok(())
}

fn json(machine: &Machine, to: &Machine, call: &str, body: &str) -> Result<String, Error> {
    let url = format!("https://{}:2379/v3/kv/{call}", to.full_name());
    let peer = format!("{}-peer", machine.name());
    let output = curl(machine, Some(&peer), &["--data", body, &url])?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn curl(machine: &Machine, who: Option<&str>, words: &[&str]) -> Result<Output, Error> {
    let mut command = machine.command("curl");
    command.args([
        "--silent",
        "--show-error",
        "--max-time",
        "10",
        "--cacert",
        CHAIN,
    ]);
    if let Some(who) = who {
        command.args(["--cert", &format!("/etc/etcd/{who}-cert.pem")]);
        command.args(["--key", &format!("/etc/etcd/{who}-key.pem")]);
    }
    Ok(command.args(words).output()?)
}

/// Members and `friends` get in on both ports of every machine, and the others on neither, from
/// a machine beside it and with either version of TLS.
fn check_entrances(
    machines: &[Machine],
    friends: &[&str],
    others: &[Option<&str>],
) -> Result<(), Error> {
    for (to, round) in machines.iter().zip(1..) {
        let from = &machines[round % machines.len()];
        let own = format!("{}-peer", from.name());
        let insiders = friends.iter().copied().chain([own.as_str()]).map(Some);
        let all = insiders
            .map(|who| (who, true))
            .chain(others.iter().map(|who| (*who, false)));
        for (who, wanted) in all {
            check_ports(from, to, who, wanted)?;
            // Which waits long before it gives up.
            if round == 1 {
                check_etcdctl(from, to, who, wanted)?;
            }
        }
    }
    Ok(())
}

fn check_ports(from: &Machine, to: &Machine, who: Option<&str>, wanted: bool) -> Result<(), Error> {
    for (port, path) in [(2379, "health"), (2380, "version")] {
        let url = format!("https://{}:{port}/{path}", to.full_name());
        for version in ["1.2", "1.3"] {
            // Without ALPN: etcd's own peer port chooses h2 and does not speak it.
            let words = [
                "--no-alpn",
                "--tls-max",
                version,
                "--write-out",
                "%{http_code}",
                &url,
            ];
            let output = curl(from, who, &words)?;
            let printed = String::from_utf8_lossy(&output.stdout);
            let came_in = output.status.success() && printed.ends_with("200");
            if came_in != wanted || (!wanted && printed != "000") {
                return Err(Error(format!(
                    "{who:?} at {url} by TLS {version}: {output:?}"
                )));
            }
        }
    }
    Ok(())
}

fn check_etcdctl(
    from: &Machine,
    to: &Machine,
    who: Option<&str>,
    wanted: bool,
) -> Result<(), Error> {
    let mut words = vec!["get".to_owned(), "/seed/key".into()];
    words.push(format!("--endpoints=https://{}:2379", to.full_name()));
    // Who is refused tries again until then.
    let limit = if wanted { "10s" } else { "2s" };
    words.extend(["dial", "command"].map(|which| format!("--{which}-timeout={limit}")));
    words.extend(match who {
        Some(who) => identity(who),
        None => vec![format!("--cacert={CHAIN}")],
    });
    let output = etcdctl(from, &words)?;
    match output.status.success() == wanted && output.stdout.is_empty() != wanted {
        true => Ok(()),
        false => Err(Error(format!(
            "etcdctl of {who:?} at {}: {output:?}",
            to.name()
        ))),
    }
}

/// The log so far is JSON, line by line, and nobody has to look.
fn check_log(services: &[Service]) -> Result<(), Error> {
    for service in services {
        let log = service.log();
        let mut said = false;
        for line in log.lines() {
            let record: serde_json::Value = serde_json::from_str(line)
                .map_err(|error| Error(format!("a log line: {error}: {line}")))?;
            let field = |name: &str| record.get(name).and_then(serde_json::Value::as_str);
            let (level, message) = (field("level"), field("msg"));
            let whole = level
                .and(message)
                .and(field("ts"))
                .and(field("caller"))
                .is_some();
            if !whole || matches!(level, Some("error" | "fatal" | "panic")) {
                return Err(Error(format!("a log line that must not be there: {line}")));
            }
            said |= message == Some("ready to serve client requests");
        }
        if !said {
            return Err(Error(format!(
                "a log that does not tell of readiness:\n{log}"
            )));
        }
    }
    Ok(())
}
