//! Comparing the members' data: before this member serves (`InitialCorruptCheck`), every now and
//! then (`--corrupt-check-time`), and after compactions (`CompactHashCheck`). Whoever differs is
//! accused by the alarm CORRUPT, which is replicated; a member that finds itself accused keeps its
//! data to itself (see `drive::Shared::on_alarms`).

mod verdict;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use api::ids::{ClusterId, MemberId};
use api::pb::etcdserverpb as pb;
use api::pb::etcdserverpb::alarm_request::AlarmAction;
use http::{Method, StatusCode};
use node::member::Member;
use serde::Deserialize;
use state::{KvHash, Members, ReadError};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Net;
use super::client::{Client, head, whole};
use super::head::CLUSTER_ID;
use super::socket::Dialer;
use crate::config::{Config, GoDuration, Url};
use crate::drive::entry;
use crate::drive::stop::fatal;
use crate::tls::Credentials;
use verdict::{Failure, PeerHash, Said, Verdict};

/// What all members are asked.
#[derive(Clone)]
struct Question {
    dialer: Arc<Dialer>,
    cluster: ClusterId,
    own: MemberId,
    revision: i64,
    /// Bound of one question.
    limit: Duration,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Header {
    revision: i64,
}

#[derive(Deserialize)]
struct HashAnswer {
    #[serde(default)]
    header: Header,
    #[serde(default)]
    hash: u32,
    #[serde(default)]
    compact_revision: i64,
    #[serde(default)]
    hash_revision: i64,
}

impl Question {
    /// Asks all others at once.
    async fn ask(self, members: &Members) -> Vec<PeerHash> {
        let mut questions = JoinSet::new();
        for member in members.iter().filter(|member| member.id != self.own.0) {
            let urls: Vec<Url> = member
                .peer_urls
                .iter()
                .filter_map(|url| Url::parse(url).ok())
                .collect();
            let (id, question) = (MemberId(member.id), self.clone());
            questions.spawn(async move { question.ask_one(id, &urls).await });
        }
        let mut answers = Vec::new();
        while let Some(answer) = questions.join_next().await {
            answers.extend(answer.ok());
        }
        answers.sort_by_key(|answer| answer.id);
        answers
    }

    async fn ask_one(&self, id: MemberId, urls: &[Url]) -> PeerHash {
        let mut answer = Err(Failure::Other("no URL is known".into()));
        for url in urls {
            answer = self.ask_url(url).await;
            match &answer {
                Ok(_) => break,
                Err(failure) => tracing::warn!(
                    "local-member-id" = %self.own,
                    "requested-revision" = self.revision,
                    "remote-peer-endpoint" = %url,
                    error = %failure,
                    "failed hash kv request"
                ),
            }
        }
        PeerHash { id, answer }
    }

    async fn ask_url(&self, url: &Url) -> Result<Said, Failure> {
        let other = |error: &dyn Error| Failure::Other(error.to_string());
        let body = format!("{{\"revision\":{}}}", self.revision);
        let request = head(Method::GET, url, "/members/hashkv")
            .header(CLUSTER_ID, self.cluster.to_string())
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(whole(body))
            .map_err(|error| other(&error))?;
        let mut client = Client::new(Arc::clone(&self.dialer));
        let answer = client.ask(url, request, self.limit).await;
        let answer = answer.map_err(|error| other(&error))?;
        if answer.status != StatusCode::OK {
            return Err(Failure::of_text(&answer.text()));
        }
        let answer: HashAnswer =
            serde_json::from_slice(&answer.body).map_err(|error| other(&error))?;
        Ok(Said {
            current: answer.header.revision,
            hash: KvHash {
                hash: answer.hash,
                compact_revision: answer.compact_revision,
                revision: answer.hash_revision,
            },
        })
    }
}

/// Compares this member's data with the others' before anything is served. Blocks.
///
/// # Errors
/// The data differs from another member's, or cannot be hashed.
pub(crate) fn check_initially(
    config: &Config,
    tls: Option<&Arc<Credentials>>,
    member: &Member,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let (own, limit) = (member.id, config.raft.request_timeout());
    tracing::info!(
        "local-member-id" = %own,
        timeout = %GoDuration::from(limit),
        "starting initial corruption check"
    );
    let (hash, _) = match member.view.hash_kv(0) {
        Ok(hashed) => hashed,
        Err(ReadError::Refused(error)) => {
            return Err(format!("{own} failed to fetch hash ({error})").into());
        }
        Err(ReadError::Broken(error)) => return Err(error.into()),
    };
    let asker = super::asker(config, tls)?;
    let question = Question {
        dialer: Arc::clone(&asker.dialer),
        cluster: member.cluster,
        own,
        revision: hash.revision,
        limit,
    };
    let peers = asker.run(question.ask(&member.view.members()));
    let differs = peers.iter().filter(|peer| peer.differs_from(&hash));
    let differing = differs.inspect(|peer| peer.report(own, &hash)).count();
    if differing > 0 {
        return Err(format!("{own} found data inconsistency with peers").into());
    }
    tracing::info!(
        "local-member-id" = %own,
        "initial corruption checking passed; no corruption"
    );
    Ok(())
}

/// Starts the checks that the configuration asks for; called on the peer thread's runtime.
pub(super) fn start(net: &Arc<Net>, config: &Config) {
    if let Some(every) = config.checks.periodic {
        tracing::info!(
            "local-member-id" = %net.identity.member,
            interval = %GoDuration::from(every),
            "enabled corruption checking"
        );
        tokio::spawn(check_periodically(Arc::clone(net), every));
    }
    if let Some(every) = config.checks.compactions {
        tokio::spawn(check_compactions(Arc::clone(net), every));
    }
}

fn leads(net: &Net) -> bool {
    net.shared.status.leader() == Some(net.identity.member)
}

async fn check_periodically(net: Arc<Net>, every: Duration) {
    loop {
        sleep(every).await;
        if !leads(&net) {
            continue;
        }
        if let Err(error) = check_once(&net).await {
            tracing::warn!(%error, "failed to check hash KV");
        }
    }
}

/// The present data of all members at this member's revision.
///
/// # Errors
/// Nobody confirmed that this member still leads.
async fn check_once(net: &Arc<Net>) -> Result<(), api::Error> {
    let (first, _) = own_hash(net).await?;
    let peers = ask(net, first.revision).await;
    net.shared.confirm().await?;
    let (second, current) = own_hash(net).await?;
    let own = net.identity.member;
    let accused = verdict::of_hashes(own, (&first, &second, current), &peers);
    for id in accused {
        accuse(net, id);
    }
    let checked = peers.iter().filter(|peer| peer.answer.is_ok()).count();
    tracing::info!(
        "number-of-peers-checked" = checked,
        "finished peer corruption check"
    );
    Ok(())
}

/// Hashing reads every record: not on the thread that carries raft's messages.
async fn own_hash(net: &Arc<Net>) -> Result<(KvHash, i64), api::Error> {
    let view = net.shared.view.clone();
    match tokio::task::spawn_blocking(move || view.hash_kv(0)).await {
        Ok(Ok(hashed)) => Ok(hashed),
        Ok(Err(ReadError::Refused(error))) => Err(error),
        Ok(Err(ReadError::Broken(error))) => fatal("hash the keys", &error),
        Err(_) => Err(api::Error::Stopped),
    }
}

async fn ask(net: &Arc<Net>, revision: i64) -> Vec<PeerHash> {
    let question = Question {
        dialer: Arc::clone(&net.dialer),
        cluster: net.identity.cluster,
        own: net.identity.member,
        revision,
        limit: net.request_limit,
    };
    let members = net.shared.view.members();
    question.ask(&members).await
}

async fn check_compactions(net: Arc<Net>, every: Duration) {
    let mut checked = 0;
    loop {
        sleep(every).await;
        if leads(&net) {
            checked = check_hashes(&net, checked).await;
        }
    }
}

/// Compares what compactions left, from the newest on, until all members could be compared.
/// Returns up to which revision they were.
async fn check_hashes(net: &Arc<Net>, checked: i64) -> i64 {
    let hashes = net.shared.view.compaction_hashes();
    let unchecked = hashes.iter().rev();
    for hash in unchecked.take_while(|hash| hash.revision > checked) {
        let peers = ask(net, hash.revision).await;
        if peers.is_empty() {
            continue;
        }
        match verdict::of_compaction(net.identity.member, hash, &peers) {
            Verdict::Alike => {
                tracing::info!(
                    revision = hash.revision,
                    "compact-revision" = hash.compact_revision,
                    "number-of-peers-checked" = peers.len(),
                    "successfully checked hash on whole cluster"
                );
                return hash.revision;
            }
            Verdict::Unknown => tracing::warn!(
                revision = hash.revision,
                "number-of-peers" = peers.len(),
                "skipped revision in compaction hash check; was not able to check all peers"
            ),
            Verdict::Accused(accused) => {
                tracing::error!(
                    "leader-revision" = hash.revision,
                    "leader-compact-revision" = hash.compact_revision,
                    "leader-hash" = hash.hash,
                    "Detected compaction hash mismatch"
                );
                accused.into_iter().for_each(|id| accuse(net, id));
                return checked;
            }
        }
    }
    checked
}

/// Raises the alarm for a member, 0 when it is unknown which one differs.
fn accuse(net: &Net, id: MemberId) {
    let kind = pb::AlarmType::Corrupt as i32;
    let alarms = net.shared.view.alarms(kind);
    if alarms.iter().any(|alarm| alarm.member_id == id.0) {
        return;
    }
    tracing::error!("member-id" = %id, "raising the CORRUPT alarm");
    let alarm = pb::AlarmRequest {
        action: AlarmAction::Activate as i32,
        member_id: id.0,
        alarm: kind,
    };
    net.shared.propose_unattended(entry::ALARM, &alarm);
}
