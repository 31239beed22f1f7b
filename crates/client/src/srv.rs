//! Endpoints from DNS SRV records (RFC 2782), asked of the system's name servers over UDP.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

/// How long to wait for one name server.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// The largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 4096;

const TYPE_SRV: u16 = 33;
const CLASS_IN: u16 = 1;
const TYPE_OPT: u16 = 41;

/// One SRV record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Those with the lowest are meant to be tried first.
    pub priority: u16,
    /// Its share among those of the same priority.
    pub weight: u16,
    /// Without the final dot.
    pub host: String,
    pub port: u16,
}

/// The endpoints of a domain: `https://` for the service `etcd-client-ssl`, `http://` for
/// `etcd-client`, both followed by `-` and the suffix if there is one.
///
/// # Errors
/// Neither service could be found.
pub fn endpoints(domain: &str, suffix: &str) -> Result<Vec<String>, String> {
    let found = clients(domain, suffix)?;
    let endpoint =
        |(scheme, record): &(&str, Record)| format!("{scheme}://{}:{}", record.host, record.port);
    Ok(found.iter().map(endpoint).collect())
}

/// The records behind [`endpoints`], each with its scheme.
///
/// # Errors
/// As [`endpoints`].
pub fn clients(domain: &str, suffix: &str) -> Result<Vec<(&'static str, Record)>, String> {
    let suffix = if suffix.is_empty() {
        String::new()
    } else {
        format!("-{suffix}")
    };
    let mut found = Vec::new();
    let mut failures = Vec::new();
    for (service, scheme) in [("etcd-client-ssl", "https"), ("etcd-client", "http")] {
        let name = format!("_{service}{suffix}._tcp.{domain}");
        match lookup(&name) {
            Ok(records) => found.extend(records.into_iter().map(|record| (scheme, record))),
            Err(text) => {
                failures.push(format!("error querying DNS SRV records for {name}: {text}"))
            }
        }
    }
    match found.is_empty() {
        true => Err(format!("dns lookup errors: {}", failures.join(" and "))),
        false => Ok(found),
    }
}

/// The records of a name, those with the lowest priority first.
///
/// # Errors
/// There are none, or no name server answers.
pub fn lookup(name: &str) -> Result<Vec<Record>, String> {
    let query = query(name).ok_or("the name is too long")?;
    let mut last = "no name server".to_owned();
    for server in name_servers() {
        match ask(server, &query) {
            Ok(answer) => match records(&answer) {
                Some(records) if records.is_empty() => return Err("no such host".to_owned()),
                Some(mut records) => {
                    records.sort_by_key(|record| record.priority);
                    return Ok(records);
                }
                None => last = format!("{server} gave an answer that makes no sense"),
            },
            Err(error) => last = format!("{server}: {error}"),
        }
    }
    Err(last)
}

fn name_servers() -> Vec<SocketAddr> {
    let config = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let addresses = config.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse::<IpAddr>().ok())?
    });
    addresses
        .map(|address| SocketAddr::new(address, 53))
        .collect()
}

fn ask(server: SocketAddr, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let local: IpAddr = if server.is_ipv4() {
        [0; 4].into()
    } else {
        [0_u16; 8].into()
    };
    let socket = UdpSocket::bind(SocketAddr::new(local, 0))?;
    socket.set_read_timeout(Some(ANSWER_WAIT))?;
    // A connected socket takes no datagrams from others.
    socket.connect(server)?;
    socket.send(query)?;
    let mut answer = vec![0; ANSWER_BYTES_MAX];
    loop {
        let length = socket.recv(&mut answer)?;
        if answer.get(..2) == query.get(..2) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

/// A query with recursion and room for a large answer; `None` if the name has a bad length.
fn query(name: &str) -> Option<Vec<u8>> {
    let id = (std::process::id() as u16).to_be_bytes();
    let mut out = id.to_vec();
    // Flags (recursion desired), one question, no answer, no authority, one addition.
    out.extend([0x01, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|length| (1..64).contains(length))?;
        out.push(length);
        out.extend(label.as_bytes());
    }
    out.push(0);
    out.extend(TYPE_SRV.to_be_bytes());
    out.extend(CLASS_IN.to_be_bytes());
    // EDNS: root name, type OPT, the size that we accept, no flags, no data.
    out.push(0);
    out.extend(TYPE_OPT.to_be_bytes());
    out.extend((ANSWER_BYTES_MAX as u16).to_be_bytes());
    out.extend([0; 6]);
    (out.len() < 512).then_some(out)
}

/// The SRV records of an answer, or `None` if it is damaged.
fn records(message: &[u8]) -> Option<Vec<Record>> {
    let questions = number(message, 4)?;
    let answers = number(message, 6)?;
    let mut at = 12;
    for _ in 0..questions {
        at = name(message, at)?.1 + 4;
    }
    let mut found = Vec::new();
    for _ in 0..answers {
        at = name(message, at)?.1;
        let kind = number(message, at)?;
        let length = usize::from(number(message, at + 8)?);
        let data = at + 10;
        if kind == TYPE_SRV {
            found.push(Record {
                priority: number(message, data)?,
                weight: number(message, data + 2)?,
                port: number(message, data + 4)?,
                host: name(message, data + 6)?.0,
            });
        }
        at = data + length;
    }
    Some(found)
}

fn number(message: &[u8], at: usize) -> Option<u16> {
    let bytes = message.get(at..at + 2)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// The name at an offset, and where what follows it begins.
fn name(message: &[u8], at: usize) -> Option<(String, usize)> {
    let mut labels: Vec<String> = Vec::new();
    let mut at = at;
    let mut end = None;
    // A name has at most 127 labels; more steps are a loop of pointers.
    for _ in 0..128 {
        let length = usize::from(*message.get(at)?);
        if length >= 0xc0 {
            end = end.or(Some(at + 2));
            at = usize::from(number(message, at)? & 0x3fff);
            continue;
        }
        if length == 0 {
            return Some((labels.join("."), end.unwrap_or(at + 1)));
        }
        labels.push(String::from_utf8_lossy(message.get(at + 1..at + 1 + length)?).into_owned());
        at += 1 + length;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_an_answer() {
        let mut message = query("_etcd-client._tcp.a.example").unwrap();
        // Without the additional record: an answer that points back to the question's name.
        message.truncate(message.len() - 11);
        message[7] = 1;
        message.extend([0xc0, 12]);
        message.extend([0, 33, 0, 1, 0, 0, 0, 60, 0, 11]);
        message.extend([0, 5, 0, 0, 0x09, 0x4b, 2, b'n', b'1', 0xc0, 30]);
        let records = records(&message).unwrap();
        assert_eq!(records.len(), 1);
        assert_eq!((records[0].priority, records[0].weight), (5, 0));
        assert_eq!((&*records[0].host, records[0].port), ("n1.a.example", 2379));
    }

    #[test]
    fn damaged_answers() {
        let mut message = query("a").unwrap();
        message[7] = 1;
        for length in 0..message.len() {
            assert!(records(&message[..length]).is_none(), "{length}");
        }
        // A pointer to itself.
        let message = [&[0; 4][..], &[0, 0, 0, 1, 0, 0, 0, 0, 0xc0, 12]].concat();
        assert!(records(&message).is_none());
    }
}
