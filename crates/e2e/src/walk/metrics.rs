//! Metrics of three members that have lived through something: names, types, labels, buckets;
//! and the errors that only a cluster gives.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use api::pb::etcdserverpb::alarm_request::AlarmAction;
use api::pb::etcdserverpb::{
    AlarmRequest, AlarmType, LeaseGrantRequest, LeaseKeepAliveRequest, MemberAddRequest,
    MemberPromoteRequest, MemberRemoveRequest, MoveLeaderRequest, PutRequest, RequestOp,
    TxnRequest, WatchCreateRequest, WatchRequest, request_op, watch_request,
};
use api::pb::v3lockpb::LockRequest;
use client::stub::{ClusterClient, LeaseClient, LockClient, MaintenanceClient, WatchClient};
use prost::Message;
use tonic::codegen::tokio_stream;

use super::{Found, Plan, errors, lines};
use crate::cluster::story::SHORT_LOG;
use crate::kv::said;
use crate::raw::Connection;
use crate::{Cluster, Error, http};

const TABLE: &str = include_str!("../../spec/metrics.txt");

/// Keys after which a member that was away gets the database.
const AWAY_KEYS: usize = 120;
/// Longest wait for a member to notice something.
const LIMIT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);

/// One line of the table.
struct Row {
    name: &'static str,
    /// It appears only after events that a walk cannot bring about.
    is_rare: bool,
    kind: &'static str,
    labels: BTreeSet<&'static str>,
    buckets: Option<&'static str>,
}

fn table() -> impl Iterator<Item = Row> {
    lines(TABLE).map(|line| {
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap_or_default();
        let (name, kind, labels, buckets) = (word(), word(), word(), word());
        Row {
            name: name.trim_start_matches('~'),
            is_rare: name.starts_with('~'),
            kind,
            labels: labels.split(',').filter(|label| *label != "-").collect(),
            buckets: Some(buckets).filter(|buckets| *buckets != "-"),
        }
    })
}

/// A metric as members show it.
#[derive(Default)]
struct Shown {
    kind: String,
    labels: BTreeSet<String>,
    /// Upper bounds of a histogram's buckets.
    bounds: BTreeMap<String, f64>,
}

/// Starts a cluster, lets it live, and compares what it measured.
///
/// # Errors
/// The cluster does not start or does not go on.
pub(super) async fn walk(plan: &Plan) -> Result<Found, Error> {
    let mut found = Found::default();
    let flags = [SHORT_LOG[0], SHORT_LOG[1], "--metrics=extensive"];
    let mut cluster = Cluster::start(vec![Some(plan.etcd.clone()); 3], &flags)?;
    traffic(&cluster).await?;
    learner(&cluster).await?;
    alarm(&cluster).await?;
    let away = (cluster.leader().await? + 1) % 3;
    fall_behind(&mut cluster, away).await?;
    not_the_leader(&cluster, &mut found).await?;
    let mut shown = BTreeMap::new();
    for at in 0..3 {
        let address = cluster.members()[at].address();
        for target in ["/health", "/livez", "/readyz"] {
            http::get(address, target)?;
        }
        read(&http::get(address, "/metrics")?.body, &mut shown);
    }
    for row in table() {
        let outcome = match shown.get(row.name) {
            None if row.is_rare => Ok(()),
            None => Err("no member shows it".to_owned()),
            Some(shown) => compare(&row, shown),
        };
        found.line("metric", row.name, outcome);
    }
    alone(&mut cluster, &mut found).await?;
    Ok(found)
}

/// Reads, writes, transactions, watches, leases and locks through every member.
async fn traffic(cluster: &Cluster) -> Result<(), Error> {
    for at in 0..3 {
        let kv = cluster.kv(at);
        kv.put("walk".into(), "1".into()).await.map_err(said)?;
        kv.revision(true).await.map_err(said)?;
        let put = |key: &str| RequestOp {
            request: Some(request_op::Request::RequestPut(PutRequest {
                key: key.to_owned().into(),
                ..PutRequest::default()
            })),
        };
        let txn = TxnRequest {
            success: vec![put("a"), put("b")],
            ..TxnRequest::default()
        };
        kv.txn(txn).await.map_err(said)?;
        kv.delete("a".into(), "c".into()).await.map_err(said)?;
        let channel = kv.channel();
        let grant = LeaseGrantRequest { ttl: 60, id: 0 };
        let mut lease = LeaseClient::new(channel.clone());
        let id = lease
            .lease_grant(grant)
            .await
            .map_err(said)?
            .into_inner()
            .id;
        let alive = tokio_stream::once(LeaseKeepAliveRequest { id });
        let mut alive = lease
            .lease_keep_alive(alive)
            .await
            .map_err(said)?
            .into_inner();
        alive.message().await.map_err(said)?;
        let lock = LockRequest {
            name: format!("walk-{at}").into(),
            lease: id,
        };
        LockClient::new(channel.clone())
            .lock(lock)
            .await
            .map_err(said)?;
        let create = WatchCreateRequest {
            key: "walk".into(),
            ..WatchCreateRequest::default()
        };
        let create = WatchRequest {
            request_union: Some(watch_request::RequestUnion::CreateRequest(create)),
        };
        let mut watch = WatchClient::new(channel)
            .watch(tokio_stream::once(create))
            .await
            .map_err(said)?
            .into_inner();
        watch.message().await.map_err(said)?;
    }
    Ok(())
}

/// A learner that does not exist cannot be promoted.
async fn learner(cluster: &Cluster) -> Result<(), Error> {
    let leader = cluster.leader().await?;
    let mut client = ClusterClient::new(cluster.kv(leader).channel());
    let add = MemberAddRequest {
        peer_ur_ls: vec!["http://127.0.0.1:1".to_owned()],
        is_learner: true,
    };
    // Members are not changed before all have been connected for a while.
    let deadline = Instant::now() + LIMIT;
    let added = loop {
        match client.member_add(add.clone()).await {
            Ok(added) => break added.into_inner(),
            Err(status) if Instant::now() > deadline => return Err(said(status)),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    };
    let id = added.member.map_or(0, |member| member.id);
    if client
        .member_promote(MemberPromoteRequest { id })
        .await
        .is_ok()
    {
        return Err(Error("a learner that never ran was promoted".into()));
    }
    client
        .member_remove(MemberRemoveRequest { id })
        .await
        .map_err(said)?;
    Ok(())
}

/// An alarm, and its end.
async fn alarm(cluster: &Cluster) -> Result<(), Error> {
    let mut client = MaintenanceClient::new(cluster.kv(0).channel());
    for action in [AlarmAction::Activate, AlarmAction::Deactivate] {
        let request = AlarmRequest {
            action: action.into(),
            member_id: 1,
            alarm: AlarmType::Nospace.into(),
        };
        client.alarm(request).await.map_err(said)?;
    }
    Ok(())
}

async fn fall_behind(cluster: &mut Cluster, away: usize) -> Result<(), Error> {
    cluster.member(away).kill()?;
    for n in 0..AWAY_KEYS {
        let key = format!("away-{n}");
        cluster
            .put_until_done((away + 1) % 3, &key, "value")
            .await?;
    }
    cluster.member(away).restart()?;
    let revision = cluster.put_until_done(away, "back", "again").await?;
    cluster.agreed_hash(revision).await?;
    Ok(())
}

async fn not_the_leader(cluster: &Cluster, found: &mut Found) -> Result<(), Error> {
    let follower = (cluster.leader().await? + 1) % 3;
    let mut client = MaintenanceClient::new(cluster.kv(follower).channel());
    let came = client.move_leader(MoveLeaderRequest { target_id: 1 }).await;
    found.line(
        "error",
        "NotLeader",
        errors::is("NotLeader", came.map(|_| ())),
    );
    Ok(())
}

/// What a member says that has lost the others.
async fn alone(cluster: &mut Cluster, found: &mut Found) -> Result<(), Error> {
    let left = cluster.leader().await?;
    for other in (0..3).filter(|at| *at != left) {
        cluster.member(other).kill()?;
    }
    let connection = Connection::to(cluster.members()[left].address());
    let body = PutRequest {
        key: "alone".into(),
        ..PutRequest::default()
    };
    let body = bytes::Bytes::from(body.encode_to_vec());
    let path = "etcdserverpb.KV/Put";
    let came = connection.call(path, &[], body.clone()).await.map(|_| ());
    let name = match &came {
        Err(status) if status.message().contains("leader failure") => "TimeoutDueToLeaderFail",
        Err(status) if status.message().contains("connection lost") => "TimeoutDueToConnectionLost",
        _ => "Timeout",
    };
    found.line("error", name, errors::is(name, came));
    let metadata = [("hasleader".to_owned(), "true".to_owned())];
    let deadline = Instant::now() + LIMIT;
    let outcome = loop {
        let came = connection.call(path, &metadata, body.clone()).await;
        let outcome = errors::is("NoLeader", came.map(|_| ()));
        if outcome.is_ok() || Instant::now() > deadline {
            break outcome;
        }
        tokio::time::sleep(PAUSE).await;
    };
    found.line("error", "NoLeader", outcome);
    Ok(())
}

/// Adds one member's metrics to what is known.
fn read(text: &str, shown: &mut BTreeMap<String, Shown>) {
    let mut family = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, ""));
            family = name.to_owned();
            shown.entry(family.clone()).or_default().kind = kind.to_owned();
            continue;
        }
        let Some(metric) = shown.get_mut(&family).filter(|_| !line.starts_with('#')) else {
            continue;
        };
        let Some((name, rest)) = line.split_once('{') else {
            continue;
        };
        let labels = rest.rsplit_once('}').map_or("", |(labels, _)| labels);
        for pair in labels.split("\",") {
            let Some((label, value)) = pair.split_once("=\"") else {
                continue;
            };
            match label {
                "le" if name.ends_with("_bucket") => {
                    let bound = value.trim_end_matches('"');
                    let number = bound.parse().unwrap_or(f64::INFINITY);
                    metric.bounds.insert(bound.to_owned(), number);
                }
                "quantile" => {}
                label => {
                    metric.labels.insert(label.to_owned());
                }
            }
        }
    }
}

fn compare(row: &Row, shown: &Shown) -> Result<(), String> {
    if row.kind != shown.kind {
        return Err(format!("a {}, not a {}", shown.kind, row.kind));
    }
    let labels: BTreeSet<&str> = shown.labels.iter().map(String::as_str).collect();
    if labels != row.labels {
        return Err(format!("labels {labels:?}, want {:?}", row.labels));
    }
    let Some(wanted) = row.buckets else {
        return Ok(());
    };
    let mut bounds: Vec<f64> = shown.bounds.values().copied().collect();
    bounds.retain(|bound| bound.is_finite());
    bounds.sort_by(f64::total_cmp);
    let wanted = exponential(wanted).ok_or_else(|| format!("{wanted} is no exp(…)"))?;
    let is_equal = bounds.len() == wanted.len()
        && bounds
            .iter()
            .zip(&wanted)
            .all(|(one, other)| (one / other - 1.0).abs() < 1e-6);
    match is_equal {
        true => Ok(()),
        false => Err(format!("buckets {bounds:?}, want {wanted:?}")),
    }
}

/// The bounds of `exp(first,factor,count)`.
fn exponential(text: &str) -> Option<Vec<f64>> {
    let inside = text.strip_prefix("exp(")?.strip_suffix(')')?;
    let numbers: Vec<f64> = inside
        .split(',')
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    let [first, factor, count] = numbers[..] else {
        return None;
    };
    Some((0..count as i32).map(|n| first * factor.powi(n)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_compared() {
        let text = "# HELP x y\n# TYPE x histogram\nx_bucket{op=\"a\",le=\"0.001\"} 1\n\
                    x_bucket{op=\"a\",le=\"0.002\"} 1\nx_bucket{op=\"a\",le=\"+Inf\"} 1\n\
                    x_sum{op=\"a\"} 1\n# TYPE y gauge\ny 1\n";
        let mut shown = BTreeMap::new();
        read(text, &mut shown);
        let row = |buckets| Row {
            name: "x",
            is_rare: false,
            kind: "histogram",
            labels: BTreeSet::from(["op"]),
            buckets: Some(buckets),
        };
        assert_eq!(compare(&row("exp(0.001,2,2)"), &shown["x"]), Ok(()));
        assert!(compare(&row("exp(0.001,2,3)"), &shown["x"]).is_err());
        assert!(compare(&row("exp(0.001,2,2)"), &shown["y"]).is_err());
    }

    #[test]
    fn the_table_is_whole() {
        let kinds = ["counter", "gauge", "histogram", "summary"];
        let mut count = 0;
        for row in table() {
            assert!(kinds.contains(&row.kind), "{}", row.name);
            assert!(
                row.buckets.is_none_or(|text| exponential(text).is_some()),
                "{}",
                row.name
            );
            count += 1;
        }
        assert!(count > 150);
    }
}
