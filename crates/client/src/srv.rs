//! DNS SRV records (RFC 2782), asked of the system's name servers, and the endpoints that they name.

use std::io;
use std::net::SocketAddr;
use std::str::FromStr;

use domain::base::iana::{Rcode, Rtype};
use domain::base::{Name, ParsedName};
use domain::rdata::Srv;
use domain::resolv::StubResolver;
use domain::resolv::stub::conf::ResolvConf;

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
        match lookup(&format!("_{service}{suffix}._tcp.{domain}")) {
            Ok(records) => found.extend(records.into_iter().map(|record| (scheme, record))),
            Err(text) => failures.push(text),
        }
    }
    match found.is_empty() {
        true => Err(format!("dns lookup errors: {}", failures.join(" and "))),
        false => Ok(found),
    }
}

/// The records of a name, those with the lowest priority first. Blocks, for as long as the system's
/// configuration lets name servers take.
///
/// # Errors
/// There are none, or no name server answers, as Go's resolver puts it.
pub fn lookup(name: &str) -> Result<Vec<Record>, String> {
    let name = name.trim_end_matches('.');
    let conf = ResolvConf::default();
    let server = conf.servers.first().map(|server| server.addr);
    // The caller may be on a runtime, where nothing may block on another one.
    let asked = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(ask(name, conf))
        });
        asking.join()
    });
    let asked = asked.unwrap_or_else(|_| Err(io::Error::other("the resolver failed")));
    asked.map_err(|error| text(name, server, &error))
}

fn text(name: &str, server: Option<SocketAddr>, error: &io::Error) -> String {
    let on = server.map(|server| format!(" on {server}"));
    let why = match error.kind() {
        io::ErrorKind::NotFound => "no such host".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => error.to_string(),
    };
    format!("lookup {name}{}: {why}", on.unwrap_or_default())
}

async fn ask(name: &str, conf: ResolvConf) -> io::Result<Vec<Record>> {
    let question = Name::<Vec<u8>>::from_str(name).map_err(io::Error::other)?;
    let resolver = StubResolver::from_conf(conf);
    let answer = resolver.query((&question, Rtype::SRV)).await?;
    match answer.header().rcode() {
        Rcode::NOERROR => {}
        Rcode::NXDOMAIN => return Err(io::ErrorKind::NotFound.into()),
        _ => return Err(io::Error::other("server misbehaving")),
    }
    let records = answer.answer().map_err(io::Error::other)?;
    let mut found = Vec::new();
    for record in records.limit_to_in::<Srv<ParsedName<_>>>() {
        let record = record.map_err(io::Error::other)?;
        let data = record.data();
        found.push(Record {
            priority: data.priority(),
            weight: data.weight(),
            host: data.target().to_string().trim_end_matches('.').to_owned(),
            port: data.port(),
        });
    }
    if found.is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    found.sort_by_key(|record| record.priority);
    Ok(found)
}
