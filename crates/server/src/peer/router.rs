//! The task that carries out what the core wants: messages to links, links as the members are.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::ids::MemberId;
use node::raft::Message;

use super::link::Lane;
use super::outbox::ToPeers;
use super::{Known, Net, leases, pipeline, probe, promote, reader, snapshot, versions};
use crate::config::Url;

/// Runs for as long as the thread.
pub(super) async fn run(net: &Arc<Net>) {
    loop {
        for item in net.shared.peers.take().await {
            match item {
                ToPeers::Send(messages) => send(net, messages),
                ToPeers::Database(outgoing) => {
                    tokio::spawn(snapshot::send(Arc::clone(net), *outgoing));
                }
                ToPeers::Members(members) => follow(net, members),
                ToPeers::Renew { id, token } => {
                    tokio::spawn(leases::renew(Arc::clone(net), id, token));
                }
                ToPeers::TimeToLive(request, token) => {
                    tokio::spawn(leases::time_to_live(Arc::clone(net), request, token));
                }
                ToPeers::Promote { id, token, bearer } => {
                    tokio::spawn(promote::forward(Arc::clone(net), id, token, bearer));
                }
                ToPeers::AskVersions => {
                    tokio::spawn(versions::ask(Arc::clone(net)));
                }
            }
        }
    }
}

fn send(net: &Net, messages: Vec<Message>) {
    let mut lost = BTreeSet::new();
    let known = net.known();
    for message in messages {
        let to = message.to;
        let Some(target) = known.get(&to) else {
            tracing::debug!("unknown-target-peer-id" = %to, "ignored message send request");
            continue;
        };
        if !target.link.send(message) {
            target.link.meters.sent_failures.inc();
            lost.insert(to);
        }
    }
    drop(known);
    lost.into_iter()
        .for_each(|peer| net.report_unreachable(peer));
}

/// Makes the links those of the members.
fn follow(net: &Arc<Net>, members: Vec<(MemberId, Vec<String>)>) {
    let own = net.identity.member;
    let members: Vec<(MemberId, Vec<Url>)> = members
        .into_iter()
        .filter(|(id, _)| *id != own)
        .map(|(id, urls)| (id, parse(id, &urls)))
        .collect();
    let local = own.to_string();
    let mut known = net.known();
    known.retain(|id, one| {
        let stays = !one.is_member || members.iter().any(|(member, _)| member == id);
        if !stays {
            let remote = id.to_string();
            net.metrics.known_peers.with([&local, &remote]).set(0);
            one.link.on_removed();
            tracing::info!("remote-peer-id" = %id, "removed remote peer");
        }
        stays
    });
    for (id, urls) in members {
        match known.get(&id).filter(|one| one.is_member) {
            Some(one) => one.link.set_urls(urls),
            None => {
                tracing::info!("remote-peer-id" = %id, "starting remote peer");
                known.insert(id, begin(net, id, urls));
            }
        }
    }
}

/// URLs that cannot be used are left out: one member's mistake is not another one's end.
fn parse(id: MemberId, urls: &[String]) -> Vec<Url> {
    let mut parsed = Vec::with_capacity(urls.len());
    for url in urls {
        match Url::parse(url) {
            Ok(url) => parsed.push(url),
            Err(error) => {
                tracing::warn!("remote-peer-id" = %id, url, error, "cannot use a peer URL");
            }
        }
    }
    parsed
}

fn begin(net: &Arc<Net>, id: MemberId, urls: Vec<Url>) -> Known {
    let link = net.link(id, urls);
    let mut tasks = Vec::new();
    for _ in 0..pipeline::WORKERS {
        tasks.push(tokio::spawn(pipeline::run(
            Arc::clone(net),
            Arc::clone(&link),
        )));
    }
    for lane in Lane::ALL {
        tasks.push(tokio::spawn(reader::run(
            Arc::clone(net),
            Arc::clone(&link),
            lane,
        )));
    }
    tasks.push(tokio::spawn(probe::run(Arc::clone(net), Arc::clone(&link))));
    Known {
        link,
        tasks: tasks
            .iter()
            .map(tokio::task::JoinHandle::abort_handle)
            .collect(),
        is_member: true,
    }
}
