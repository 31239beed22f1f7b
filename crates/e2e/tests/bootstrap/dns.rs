//! Founders that DNS names. Needs root: a name server on port 53 of a loopback address, and a
//! `resolv.conf` of their own for the members.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;

use e2e::kv::Kv;

use super::start::{Newcomer, port_of, url};

const A: u16 = 1;
const SRV: u16 = 33;

/// What a name server knows: SRV records by name, and that every other name below `test` is this
/// machine.
type Zone = Vec<(&'static str, Vec<(&'static str, u16)>)>;

fn put_name(out: &mut Vec<u8>, name: &str) {
    for label in name.split('.') {
        out.push(label.len() as u8);
        out.extend(label.as_bytes());
    }
    out.push(0);
}

/// The answer to a query of one question.
fn answer(query: &[u8], zone: &Zone) -> Option<Vec<u8>> {
    let mut name = Vec::new();
    let mut at = 12;
    while query.get(at).is_some_and(|length| *length > 0) {
        let end = at + 1 + usize::from(query[at]);
        name.push(String::from_utf8_lossy(query.get(at + 1..end)?).to_lowercase());
        at = end;
    }
    let name = name.join(".");
    let kind = u16::from_be_bytes([*query.get(at + 1)?, *query.get(at + 2)?]);
    let found = zone.iter().find(|(of, _)| *of == name);
    let mut records: Vec<Vec<u8>> = Vec::new();
    match (kind, found) {
        (SRV, Some((_, targets))) => {
            for (target, port) in targets {
                let mut data = vec![0, 1, 0, 1];
                data.extend(port.to_be_bytes());
                put_name(&mut data, target);
                records.push(data);
            }
        }
        (A, None) if name.ends_with(".test") => {
            records.push(Ipv4Addr::LOCALHOST.octets().to_vec());
        }
        _ => {}
    }
    let is_there = found.is_some() || name.ends_with(".test") && !name.starts_with('_');
    let code = if is_there { 0 } else { 3 };
    let mut out = query.get(..2)?.to_vec();
    out.extend([0x85, 0x80 | code, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
    out.extend(query.get(12..at + 5)?);
    for data in records {
        out.extend([0xc0, 12]);
        out.extend(kind.to_be_bytes());
        out.extend([0, 1, 0, 0, 0, 60, 0, data.len() as u8]);
        out.extend(data);
    }
    Some(out)
}

/// A name server until the process ends; gives words that start a program which asks it.
fn serve(zone: Zone, last: u8, dir: &Path) -> Vec<String> {
    let address = Ipv4Addr::new(127, 0, 53, last);
    let socket = UdpSocket::bind((address, 53)).expect("port 53, as root");
    std::thread::spawn(move || {
        let mut query = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            if let Some(answer) = answer(&query[..length], &zone) {
                // Who asks again gets it again.
                let _ = socket.send_to(&answer, from);
            }
        }
    });
    let file = dir.join("resolv.conf");
    std::fs::write(&file, format!("nameserver {address}\n")).expect("a file");
    let script = format!(
        "mount --bind {} /etc/resolv.conf && exec \"$@\"",
        file.display()
    );
    let words = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    words.map(str::to_owned).to_vec()
}

fn target(url: &str, name: &str) -> String {
    format!("http://{name}.cluster.test:{}", port_of(url))
}

#[tokio::test]
async fn founders_that_dns_names() {
    let dir = tempfile::tempdir().expect("a directory");
    let owns = [url(), url(), url()];
    let records = ["n0.cluster.test", "n1.cluster.test", "n2.cluster.test"];
    let records: Vec<_> = records
        .into_iter()
        .zip(owns.iter().map(|own| port_of(own)))
        .collect();
    let zone = vec![("_etcd-server-blue._tcp.cluster.test", records)];
    let wrapper = serve(zone, 1, dir.path());
    let mut founders = Vec::new();
    for (n, own) in owns.iter().enumerate() {
        let advertised = target(own, &format!("n{n}"));
        let flags = [
            format!("--name=m{n}"),
            format!("--initial-advertise-peer-urls={advertised}"),
            "--discovery-srv=cluster.test".to_owned(),
            "--discovery-srv-name=blue".to_owned(),
            "--initial-cluster-token=t".to_owned(),
        ];
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        founders.push(Newcomer::start_within(&wrapper, own, &flags));
    }
    for founder in &mut founders {
        founder.wait_until_healthy();
    }
    let members = Kv::to(founders[0].client).members().await;
    let members = members.expect("a list");
    let named = members.iter();
    let mut named: Vec<_> = named
        .map(|member| (member.name.clone(), member.peer_ur_ls.clone()))
        .collect();
    named.sort();
    let want = |n: usize| (format!("m{n}"), vec![target(&owns[n], &format!("n{n}"))]);
    assert_eq!(named, [want(0), want(1), want(2)]);
}

#[test]
fn records_that_do_not_fit() {
    let dir = tempfile::tempdir().expect("a directory");
    let own = url();
    let zone = vec![
        (
            "_etcd-server._tcp.cluster.test",
            vec![("n0.cluster.test", 1)],
        ),
        (
            "_etcd-server-ssl._tcp.secure.test",
            vec![("n0.cluster.test", port_of(&own))],
        ),
    ];
    let wrapper = serve(zone, 2, dir.path());
    let refused = |domain: &str, want: &str| {
        let domain = format!("--discovery-srv={domain}");
        let mut newcomer = Newcomer::start_within(&wrapper, &own, &[&domain]);
        let ended = newcomer.wait();
        assert_eq!(ended.code, Some(1), "{domain}: {}", ended.log);
        assert_eq!(
            ended.error,
            format!("error setting up initial cluster: {want}")
        );
    };
    refused(
        "cluster.test",
        "cannot find local etcd member \"x\" in SRV records",
    );
    let nobody = |service: &str, domain: &str| {
        format!(
            "error querying DNS SRV records for _{service} lookup _{service}._tcp.{domain} on \
             127.0.53.2:53: no such host"
        )
    };
    let both = [
        nobody("etcd-server-ssl", "nobody.test"),
        nobody("etcd-server", "nobody.test"),
    ];
    refused("nobody.test", &both.join("\n"));
    let mismatch = format!(
        "error querying DNS SRV records for _etcd-server-ssl bootstrap at \
         https://n0.cluster.test:{} from DNS for etcd-server-ssl has scheme mismatch with expected \
         peer {own}\n{}",
        port_of(&own),
        nobody("etcd-server", "secure.test")
    );
    refused("secure.test", &mismatch);
}
