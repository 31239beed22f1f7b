//! What `/metrics` of three members says: families, types, labels and buckets, and whatever the
//! alert rules and dashboards of etcd's mixin ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use api::pb::etcdserverpb::{
    HashRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp,
    TxnRequest, WatchCreateRequest, WatchRequest, request_op::Request, watch_request::RequestUnion,
};
use client::stub::{LeaseClient, MaintenanceClient, WatchClient};
use e2e::kv::said;
use e2e::{Cluster, http};

/// Longest wait for what comes by itself, such as probes between members.
const LIMIT: Duration = Duration::from_secs(30);

/// Samples of a page: name, labels in order, and the value.
type Samples = Vec<(String, BTreeMap<String, String>, f64)>;

#[derive(Default)]
struct Page {
    /// Types by family.
    types: BTreeMap<String, String>,
    samples: Samples,
}

/// `name{a="b",c="d"} 1`; no value in use has a quote or a comma.
fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let (head, value) = line.rsplit_once(' ').expect("a value");
    let (name, labels) = head.split_once('{').unwrap_or((head, ""));
    let pairs = labels.trim_end_matches('}').split("\",");
    let labels = pairs
        .filter_map(|pair| pair.split_once("=\""))
        .map(|(label, value)| (label.to_owned(), value.trim_end_matches('"').to_owned()))
        .collect();
    (name.to_owned(), labels, value.parse().expect("a number"))
}

impl Page {
    fn read(&mut self, text: &str) {
        for line in text.lines() {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a type");
                self.types.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') {
                self.samples.push(sample(line));
            }
        }
    }

    fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a BTreeMap<String, String>> {
        let found = self.samples.iter().filter(move |(of, ..)| of == name);
        found.map(|(_, labels, _)| labels)
    }

    fn value(&self, name: &str) -> f64 {
        let found = self.samples.iter().filter(|(of, ..)| of == name);
        found.map(|(.., value)| value).sum()
    }

    /// What is wrong with a row of `families.txt`.
    fn check_family(&self, row: &str) -> Option<String> {
        let words: Vec<&str> = row.split(' ').collect();
        let [name, kind, labels, buckets] = words[..] else {
            return Some(format!("{row}: four words are needed"));
        };
        let (name, is_rare) = match name.strip_prefix('(') {
            Some(name) => (name.trim_end_matches(')'), true),
            None => (name, false),
        };
        let Some(found) = self.types.get(name) else {
            return (!is_rare).then(|| format!("{name} is missing"));
        };
        if found != kind {
            return Some(format!("{name} is a {found}, not a {kind}"));
        }
        let mut wanted: BTreeSet<&str> = labels.split(',').filter(|word| *word != "-").collect();
        let series = match kind {
            "histogram" => {
                wanted.insert("le");
                format!("{name}_bucket")
            }
            _ => name.to_owned(),
        };
        let differs = |labels: &&BTreeMap<String, String>| !labels.keys().eq(wanted.iter());
        if let Some(labels) = self.of(&series).find(differs) {
            return Some(format!("{name} has labels {labels:?}, wanted {wanted:?}"));
        }
        (kind == "histogram")
            .then(|| self.check_buckets(name, &series, buckets))
            .flatten()
    }

    fn check_buckets(&self, name: &str, series: &str, buckets: &str) -> Option<String> {
        let numbers: Vec<f64> = buckets.split('*').filter_map(|n| n.parse().ok()).collect();
        let [first, factor, count] = numbers[..] else {
            return Some(format!("{name}: {buckets} are no buckets"));
        };
        let steps = 0..count as i32;
        let bounds: Vec<f64> = steps.map(|step| first * factor.powi(step)).collect();
        let found: BTreeSet<&str> = self.of(series).map(|labels| &*labels["le"]).collect();
        let finite: Vec<f64> = found.iter().filter_map(|le| le.parse().ok()).collect();
        let mut finite: Vec<f64> = finite.into_iter().filter(|le| le.is_finite()).collect();
        finite.sort_by(f64::total_cmp);
        let alike = |a: &f64, b: &f64| (a - b).abs() <= b * 1e-9;
        let same =
            finite.len() == bounds.len() && finite.iter().zip(&bounds).all(|(a, b)| alike(a, b));
        (!same).then(|| format!("{name} has buckets {finite:?}, wanted {bounds:?}"))
    }

    /// What is wrong with a series of `mixin.txt`, `name{label,label}`.
    fn check_series(&self, series: &str) -> Option<String> {
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let wanted: BTreeSet<&str> = labels
            .trim_end_matches('}')
            .split(',')
            .filter(|word| !word.is_empty())
            .collect();
        let mut found = self.of(name).peekable();
        if found.peek().is_none() {
            return Some(format!("{name} has no sample"));
        }
        let fits = |labels: &BTreeMap<String, String>| labels.keys().eq(wanted.iter());
        let all = found.all(fits);
        (!all).then(|| format!("{name} has other labels than {wanted:?}"))
    }
}

fn scrape(cluster: &Cluster) -> Result<Page, e2e::Error> {
    let mut page = Page::default();
    let running = cluster.members().iter();
    for member in running.filter(|member| member.process().is_some()) {
        page.read(&http::get(member.address(), "/metrics")?.body);
    }
    Ok(page)
}

fn op(request: Request) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

/// Something of everything that is counted.
async fn live(cluster: &Cluster) -> Result<(), e2e::Error> {
    for at in 0..3 {
        let kv = cluster.kv(at);
        let range = || RangeRequest {
            key: "key".into(),
            ..RangeRequest::default()
        };
        let mut watch = WatchClient::new(kv.channel());
        let create = WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(WatchCreateRequest {
                key: "key".into(),
                ..WatchCreateRequest::default()
            })),
        };
        let requests = tonic::codegen::tokio_stream::once(create);
        let mut events = watch.watch(requests).await.map_err(said)?.into_inner();
        let created = events.message().await.map_err(said)?;
        assert!(created.is_some_and(|created| created.created));
        kv.put("key".into(), "value".into()).await.map_err(said)?;
        let event = events.message().await.map_err(said)?;
        assert!(event.is_some_and(|event| !event.events.is_empty()));
        kv.range(range()).await.map_err(said)?;
        let read = op(Request::RequestRange(range()));
        let write = op(Request::RequestPut(PutRequest {
            key: "other".into(),
            ..PutRequest::default()
        }));
        for ops in [vec![read.clone(), read], vec![write]] {
            let txn = TxnRequest {
                success: ops,
                ..TxnRequest::default()
            };
            kv.txn(txn).await.map_err(said)?;
        }
        kv.delete("key".into(), Default::default())
            .await
            .map_err(said)?;
        let mut lease = LeaseClient::new(kv.channel());
        let grant = LeaseGrantRequest { ttl: 60, id: 0 };
        let id = lease
            .lease_grant(grant)
            .await
            .map_err(said)?
            .into_inner()
            .id;
        let revoke = LeaseRevokeRequest { id };
        lease.lease_revoke(revoke).await.map_err(said)?;
        let mut maintenance = MaintenanceClient::new(kv.channel());
        maintenance.hash(HashRequest {}).await.map_err(said)?;
        let address = cluster.members()[at].address();
        for path in ["/livez", "/readyz", "/health"] {
            assert_eq!(http::get(address, path)?.status, 200, "{path}");
        }
    }
    let revision = cluster.kv(0).revision(false).await.map_err(said)?;
    cluster.kv(0).compact(revision).await.map_err(said)?;
    Ok(())
}

#[tokio::test]
async fn families_alerts_and_panels() {
    let flags = ["--metrics=extensive"];
    let mut cluster = Cluster::start(vec![None, None, None], &flags).expect("three members start");
    live(&cluster).await.expect("a few requests");
    // Some families begin with the first message that is lost.
    cluster.member(2).kill().expect("it is killed");
    let rows = |text: &'static str| text.lines().filter(|line| !line.starts_with('#'));
    let deadline = Instant::now() + LIMIT;
    loop {
        let page = scrape(&cluster).expect("three pages");
        let families = rows(include_str!("../metrics/families.txt"));
        let mut wrong: Vec<String> = families.filter_map(|row| page.check_family(row)).collect();
        for row in rows(include_str!("../metrics/mixin.txt")) {
            let (title, series) = row.split_once(": ").expect("a title");
            let faults = series.split(' ').filter_map(|one| page.check_series(one));
            wrong.extend(faults.map(|fault| format!("{title}: {fault}")));
        }
        if wrong.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "{}", wrong.join("\n"));
        // Members probe each other every few seconds.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn operations_are_counted() {
    let cluster = Cluster::start(vec![None, None, None], &[]).expect("three members start");
    let before = scrape(&cluster).expect("three pages");
    live(&cluster).await.expect("a few requests");
    let revision = cluster.kv(0).revision(false).await.expect("a revision");
    cluster.agreed_hash(revision).await.expect("members agree");
    let after = scrape(&cluster).expect("three pages");
    let grown = |name: &str| after.value(name) - before.value(name);
    // Each of three requests is applied by three members; ranges are read by one alone.
    assert_eq!(grown("etcd_mvcc_put_total"), 18.0);
    assert_eq!(grown("etcd_mvcc_delete_total"), 9.0);
    assert_eq!(grown("etcd_mvcc_txn_total"), 3.0);
    assert!(grown("etcd_mvcc_range_total") >= 9.0);
    assert_eq!(grown("etcd_debugging_mvcc_total_put_size_in_bytes"), 117.0);
    // Nine on each member, and the reads of `agreed_hash`.
    assert!(grown("etcd_server_client_requests_total") >= 28.0);
    let puts = |page: &Page| -> f64 {
        let name = "etcd_server_apply_duration_seconds_count";
        let of_puts = page.samples.iter().filter(|(of, labels, _)| {
            of == name && labels["op"] == "Put" && labels["success"] == "true"
        });
        of_puts.map(|(.., value)| value).sum()
    };
    assert_eq!(puts(&after) - puts(&before), 9.0);
}
