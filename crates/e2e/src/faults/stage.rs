//! A cluster, its load, and the hands that break and mend it.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Plan;
use super::check::{self, Record};
use super::history::Op;
use super::leases::Holders;
use super::links::Links;
use super::load::{self, Load};
use super::namespaces::Namespaces;
use super::watchers::{Watchers, everything};
use crate::kv::Kv;
use crate::member::{Member, Options};
use crate::pki::Pki;
use crate::{Cluster, Error};

/// Default of `--election-timeout`.
pub(super) const ELECTION: Duration = Duration::from_secs(1);
/// Longest wait for what must come.
pub(super) const LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);
/// How long the load goes on before and after the faults.
const CALM: Duration = Duration::from_millis(1500);

/// How the members reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Network {
    Direct,
    /// Through a proxy for each directed link.
    Links,
    /// The same, with TLS between the members, who ask each other for certificates.
    SecureLinks,
    /// Each in a network namespace of its own.
    Namespaces,
}

/// What a scenario can break between the members.
enum Broken {
    Nothing,
    Links(Links),
    Namespaces(Namespaces),
}

/// A running scenario. The members go before what they stand on.
pub(super) struct Stage {
    cluster: Cluster,
    network: Broken,
    load: Load,
    watchers: Watchers,
    holders: Holders,
    /// The revision with which the load began.
    first: i64,
    /// How long it took until every endpoint wrote again after the last fault.
    healed: Duration,
    term: u64,
    /// Members that SIGSTOP stopped.
    paused: Vec<usize>,
    /// How long a fault lasts.
    pub(super) lasting: Duration,
    /// Certificates of the members.
    _pki: Option<Pki>,
}

impl Stage {
    /// Founds a cluster and starts the load.
    pub(super) async fn start(
        plan: &Plan,
        binary: &Path,
        members: usize,
        wanted: Network,
    ) -> Result<Stage, Error> {
        let mut network = match wanted {
            Network::Namespaces => Broken::Namespaces(Namespaces::start(members)?),
            _ => Broken::Nothing,
        };
        let pki = match wanted {
            Network::SecureLinks => Some(Pki::new()?),
            _ => None,
        };
        let mut members = (0..members)
            .map(|at| Member::prepare(options(binary, at, &network, pki.as_ref())?))
            .collect::<Result<Vec<_>, _>>()?;
        if matches!(wanted, Network::Links | Network::SecureLinks) {
            let targets: Vec<_> = members.iter().map(Member::peer).collect();
            let links = Links::start(&targets).await?;
            for (member, address) in members.iter_mut().zip(links.addresses()) {
                member.advertise(*address);
            }
            network = Broken::Links(links);
        }
        let mut cluster = Cluster::found(members)?;
        tell(&cluster, &network);
        tokio::task::block_in_place(|| cluster.wait_until_healthy())?;
        let leader = cluster.leader().await?;
        let status = cluster.kv(leader).status().await.map_err(crate::kv::said)?;
        let first = load::answers(&cluster.kv(leader)).await? + 1;
        let endpoints: Vec<_> = cluster.members().iter().map(Member::address).collect();
        let load = Load::start(&endpoints, plan.seed);
        let watchers = Watchers::start(&endpoints, first, &load.history);
        let holders = Holders::start(&endpoints, &load.history);
        let stage = Stage {
            cluster,
            network,
            load,
            watchers,
            holders,
            first,
            healed: Duration::ZERO,
            term: status.raft_term,
            paused: Vec::new(),
            lasting: Duration::from_secs(plan.seconds),
            _pki: pki,
        };
        stage.progress_of_each(&stage.all(), LIMIT).await?;
        stage.calm().await;
        Ok(stage)
    }

    /// Lets the load go on undisturbed for a while.
    pub(super) async fn calm(&self) {
        tokio::time::sleep(CALM).await;
    }

    /// A connection of its own to a member.
    pub(super) fn kv(&self, at: usize) -> Kv {
        self.cluster.kv(at)
    }

    /// Every member.
    pub(super) fn all(&self) -> Vec<usize> {
        (0..self.cluster.members().len()).collect()
    }

    /// Every member but those.
    pub(super) fn others(&self, than: &[usize]) -> Vec<usize> {
        let mut all = self.all();
        all.retain(|member| !than.contains(member));
        all
    }

    /// The member that says it leads and that these members all follow; it is one of them.
    pub(super) async fn leader_of(&self, members: &[usize]) -> Result<usize, Error> {
        self.cluster.leader_of(members).await
    }

    pub(super) async fn leader(&self) -> Result<usize, Error> {
        self.leader_of(&self.all()).await
    }

    /// The term in which a member is.
    pub(super) async fn term(&self, at: usize) -> Result<u64, Error> {
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            if let Some(status) = self.cluster.status(at).await {
                return Ok(status.raft_term);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(Error(format!("m{at} tells no status")))
    }

    /// The highest term in which a member is.
    pub(super) async fn highest_term(&self) -> Result<u64, Error> {
        let mut highest = 0;
        for at in self.all() {
            highest = highest.max(self.term(at).await?);
        }
        Ok(highest)
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self, at: usize) -> Result<(), Error> {
        self.cluster.member(at).kill()
    }

    /// Starts a member again, without waiting for it.
    pub(super) fn start_again(&mut self, at: usize) -> Result<(), Error> {
        self.cluster.member(at).spawn()?;
        tell(&self.cluster, &self.network);
        Ok(())
    }

    /// SIGSTOP.
    pub(super) fn pause(&mut self, at: usize) -> Result<(), Error> {
        self.paused.push(at);
        self.cluster.member(at).signal("STOP")
    }

    /// SIGCONT.
    pub(super) fn resume(&mut self, at: usize) -> Result<(), Error> {
        self.paused.retain(|paused| *paused != at);
        self.cluster.member(at).signal("CONT")
    }

    /// The links, which the scenario asked for.
    fn links(&self) -> Result<&Links, Error> {
        match &self.network {
            Broken::Links(links) => Ok(links),
            _ => Err(Error("the scenario has no links to break".into())),
        }
    }

    /// Nothing that `from` sends reaches `to`.
    pub(super) fn cut(&self, from: usize, to: usize) -> Result<(), Error> {
        if let Broken::Namespaces(hosts) = &self.network {
            return hosts.cut(from, to);
        }
        self.links()?.cut(from, to);
        Ok(())
    }

    /// Undoes [`Stage::cut`].
    pub(super) fn open(&self, from: usize, to: usize) -> Result<(), Error> {
        if let Broken::Namespaces(hosts) = &self.network {
            return hosts.open(from, to);
        }
        self.links()?.open(from, to);
        Ok(())
    }

    /// Cuts everything between the two groups.
    pub(super) fn part(&self, one: &[usize], other: &[usize]) -> Result<(), Error> {
        for (a, b) in pairs(one, other) {
            self.cut(a, b)?;
            self.cut(b, a)?;
        }
        Ok(())
    }

    /// Nothing that one of the senders sends reaches one of the receivers.
    pub(super) fn silence_links(&self, from: &[usize], to: &[usize]) -> Result<(), Error> {
        let mut pairs = pairs(from, to).into_iter();
        pairs.try_for_each(|(a, b)| self.cut(a, b))
    }

    /// Opens everything between the two groups.
    pub(super) fn join(&self, one: &[usize], other: &[usize]) -> Result<(), Error> {
        for (a, b) in pairs(one, other) {
            self.open(a, b)?;
            self.open(b, a)?;
        }
        Ok(())
    }

    /// Opens all links, without delay.
    pub(super) fn heal(&self) -> Result<(), Error> {
        let all = self.all();
        self.join(&all, &all)?;
        match &self.network {
            Broken::Links(_) => self.delay(Duration::ZERO),
            Broken::Nothing | Broken::Namespaces(_) => Ok(()),
        }
    }

    /// Holds every sync of a member's disk until [`Stage::flow`]; the binary is a test build.
    pub(super) fn stall(&self, at: usize) -> Result<(), Error> {
        Ok(std::fs::write(self.cluster.members()[at].stall_file(), "")?)
    }

    /// Lets its syncs go on.
    pub(super) fn flow(&self, at: usize) -> Result<(), Error> {
        Ok(std::fs::remove_file(
            self.cluster.members()[at].stall_file(),
        )?)
    }

    /// Delays everything on all links.
    pub(super) fn delay(&self, delay: Duration) -> Result<(), Error> {
        let all = self.all();
        for (a, b) in pairs(&all, &all) {
            self.links()?.delay(a, b, delay);
        }
        Ok(())
    }

    /// Resets all connections between two members.
    pub(super) fn reset(&self, a: usize, b: usize) -> Result<(), Error> {
        self.links()?.reset(a, b);
        self.links()?.reset(b, a);
        Ok(())
    }

    /// Waits until one of the endpoints acknowledges a write that it was asked for after now.
    pub(super) async fn progress(
        &self,
        endpoints: &[usize],
        limit: Duration,
    ) -> Result<Duration, Error> {
        let history = &self.load.history;
        let (begin, from) = (Instant::now(), history.now());
        while begin.elapsed() < limit {
            if history.acknowledged_since(from, endpoints) > 0 {
                return Ok(begin.elapsed());
            }
            tokio::time::sleep(PAUSE).await;
        }
        let text = format!("no write through {endpoints:?} in {limit:?}");
        Err(Error(text))
    }

    /// The same for each of them.
    pub(super) async fn progress_of_each(
        &self,
        endpoints: &[usize],
        limit: Duration,
    ) -> Result<Duration, Error> {
        let waits = endpoints.iter().map(|at| self.progress_of(*at, limit));
        let mut longest = Duration::ZERO;
        for wait in join_all(waits).await {
            longest = longest.max(wait?);
        }
        Ok(longest)
    }

    async fn progress_of(&self, at: usize, limit: Duration) -> Result<Duration, Error> {
        self.progress(&[at], limit).await
    }

    /// Fails if one of the endpoints acknowledges a write that it was asked for from now on.
    pub(super) async fn silence(&self, endpoints: &[usize], during: Duration) -> Result<(), Error> {
        let history = &self.load.history;
        let from = history.now();
        tokio::time::sleep(during).await;
        match history.acknowledged_since(from, endpoints) {
            0 => Ok(()),
            count => Err(Error(format!(
                "{count} writes through {endpoints:?}, where none may be: no majority runs, hears the \
                 leader, answers it and syncs"
            ))),
        }
    }

    /// Longest time between two acknowledgements of writes through the endpoints, from a moment on.
    pub(super) fn longest_gap(&self, from: u64, endpoints: &[usize]) -> Duration {
        let history = &self.load.history;
        gap(&history.ops(), from, history.now(), endpoints)
    }

    /// A moment on the clock of the history.
    pub(super) fn now(&self) -> u64 {
        self.load.history.now()
    }

    /// Mends everything, waits until every endpoint writes again, and judges the run.
    pub(super) async fn end(mut self) -> Result<Report, Error> {
        for at in self.paused.clone() {
            self.resume(at)?;
        }
        if !matches!(self.network, Broken::Nothing) {
            self.heal()?;
        }
        for at in self.all() {
            if self.cluster.members()[at].process().is_none() {
                self.start_again(at)?;
            }
        }
        self.healed = self.progress_of_each(&self.all(), LIMIT).await?;
        tokio::time::sleep(CALM).await;
        let all = self.all();
        let leader = self.leader().await?;
        let terms = self.term(leader).await? - self.term;
        let history = self.load.stop().await?;
        let leases = self.holders.stop().await;
        if leases.iter().all(|life| life.renewals == 0) {
            return Err(Error("no holder renewed its lease".into()));
        }
        let kv = self.cluster.kv(leader);
        let last = load::answers(&kv).await?;
        caught_up(&self.watchers, last).await?;
        self.cluster.agreed_hash(last).await?;
        let mut watchers = self.watchers.stop();
        for log in &mut watchers {
            // What came later is not part of the run.
            log.told.retain(|told| told.revision <= last);
        }
        let mut truth = None;
        for at in &all {
            let kv = self.cluster.kv(*at);
            let mut told = everything(&kv, self.first, last_change(&watchers)).await?;
            told.retain(|told| told.revision <= last);
            for told in &mut told {
                told.at = 0;
            }
            match &truth {
                None => truth = Some(told),
                Some(truth) if *truth != told => {
                    return Err(Error(format!("m0 and m{at} tell different histories")));
                }
                Some(_) => {}
            }
        }
        let record = Record {
            ops: history.ops(),
            truth: truth.unwrap_or_default(),
            watchers,
            leases,
        };
        let complaints = check::check(&record);
        if complaints.is_empty() {
            let mut report = Report::new(&record, terms, self.healed, all.len());
            report.failures = history.failures();
            return Ok(report);
        }
        Err(Error(complaints.join("\n")))
    }
}

fn last_change(watchers: &[super::watchers::Log]) -> i64 {
    let last = watchers.iter().filter_map(|log| log.told.last());
    last.map(|told| told.revision).max().unwrap_or(0)
}

/// Tells the proxies which process is which member.
fn tell(cluster: &Cluster, network: &Broken) {
    for (at, member) in cluster.members().iter().enumerate() {
        if let (Broken::Links(links), Some(process)) = (network, member.process()) {
            links.belongs(process, at);
        }
    }
}

/// How the member with that number is started.
fn options(
    binary: &Path,
    at: usize,
    network: &Broken,
    pki: Option<&Pki>,
) -> Result<Options, Error> {
    let mut options = Options {
        binary: Some(binary.to_owned()),
        ..Options::default()
    };
    if let Broken::Namespaces(hosts) = network {
        options.host = Some(hosts.address(at));
        options.wrapper = hosts.wrapper(at);
    }
    if let Some(pki) = pki {
        let leaf = pki.leaf(&format!("m{at}"), "peer")?;
        options.secure_peers = true;
        options.flags = vec![
            "--peer-client-cert-auth".into(),
            format!("--peer-trusted-ca-file={}", pki.path("chain.pem").display()),
            format!("--peer-cert-file={}", leaf.certificate.display()),
            format!("--peer-key-file={}", leaf.key.display()),
        ];
    }
    Ok(options)
}

async fn caught_up(watchers: &Watchers, revision: i64) -> Result<(), Error> {
    let deadline = Instant::now() + LIMIT;
    while watchers.last().iter().any(|last| *last < revision) {
        if Instant::now() > deadline {
            let last = watchers.last();
            return Err(Error(format!(
                "watchers were told of {last:?}, not of {revision}"
            )));
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

fn pairs(one: &[usize], other: &[usize]) -> Vec<(usize, usize)> {
    let both = |a: &usize| other.iter().map(|b| (*a, *b)).collect::<Vec<_>>();
    let pairs = one.iter().flat_map(both);
    pairs.filter(|(a, b)| a != b).collect()
}

async fn join_all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    let mut results: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, result) in futures.iter_mut().zip(&mut results) {
            if result.is_none()
                && let std::task::Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *result = Some(ready);
            }
        }
        match results.iter().all(Option::is_some) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    results.into_iter().flatten().collect()
}

fn gap(ops: &[Op], from: u64, to: u64, endpoints: &[usize]) -> Duration {
    let acknowledged = ops
        .iter()
        .filter(|op| op.is_acknowledged_write() && endpoints.contains(&op.endpoint))
        .filter_map(|op| op.answer.as_ref())
        .map(|answer| answer.at);
    let mut times: Vec<u64> = acknowledged.filter(|at| *at >= from && *at <= to).collect();
    times.extend([from, to]);
    times.sort_unstable();
    let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
    Duration::from_micros(gaps.max().unwrap_or(0))
}

/// Figures of a run in which all was as it must be.
pub(super) struct Report {
    writes: usize,
    reads: usize,
    unknown: usize,
    /// Why.
    failures: String,
    events: usize,
    streams: usize,
    renewals: usize,
    leases: usize,
    terms: u64,
    gap: Duration,
    healed: Duration,
    /// What the scenario measured by itself.
    pub(super) notes: Vec<String>,
}

impl Report {
    fn new(record: &Record, terms: u64, healed: Duration, members: usize) -> Report {
        let ops = &record.ops;
        let last = ops.iter().filter_map(|op| op.answer.as_ref());
        let last = last.map(|answer| answer.at).max().unwrap_or(0);
        let all: Vec<usize> = (0..members).collect();
        let writes = ops.iter().filter(|op| op.is_acknowledged_write()).count();
        let unknown = ops.iter().filter(|op| op.answer.is_none()).count();
        Report {
            writes,
            reads: ops.len() - writes - unknown,
            unknown,
            failures: String::new(),
            events: record.watchers.iter().map(|log| log.told.len()).sum(),
            streams: record.watchers.iter().map(|log| log.streams).sum(),
            renewals: record.leases.iter().map(|life| life.renewals).sum(),
            leases: record.leases.len(),
            terms,
            gap: gap(ops, 0, last, &all),
            healed,
            notes: Vec::new(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} writes, {} reads, {} unknown ({}); {} revisions on {} streams; {} leases, {} renewals; \
             terms +{}; longest gap {} ms, all write again in {} ms",
            self.writes,
            self.reads,
            self.unknown,
            self.failures,
            self.events,
            self.streams,
            self.leases,
            self.renewals,
            self.terms,
            self.gap.as_millis(),
            self.healed.as_millis(),
        )?;
        self.notes
            .iter()
            .try_for_each(|note| write!(out, "; {note}"))
    }
}
