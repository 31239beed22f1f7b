//! Flags that do not fit each other, the cluster, or what its members run.

use api::ids::member_id;
use e2e::kv::Kv;
use e2e::{Member, Options};

use super::start::{Fake, Newcomer, url};

const EXISTING: &str = "--initial-cluster-state=existing";

/// Starts a member and compares its last words, in which `{own}` stands for its peer URL.
fn refused(flags: &[&str], want: &str) {
    refused_at(&url(), flags, want);
}

fn refused_at(own: &str, flags: &[&str], want: &str) {
    let mut newcomer = Newcomer::start(own, flags);
    let ended = newcomer.wait();
    assert_eq!(ended.code, Some(1), "{flags:?}:\n{}", ended.log);
    let want = want.replace("{own}", own);
    assert_eq!(ended.error, want, "{flags:?}");
}

#[test]
fn founders_that_do_not_fit() {
    let unlisted = "couldn't find local name \"x\" in the initial cluster configuration";
    refused(&["--initial-cluster=y={own}"], unlisted);
    refused(
        &["--initial-cluster=x=http://127.0.0.1:1"],
        "--initial-cluster has x=http://127.0.0.1:1 but missing from \
         --initial-advertise-peer-urls={own} (resolved urls: \"{own}\" != \"http://127.0.0.1:1\")",
    );
    refused(
        &["--initial-cluster=x={own},y={own}"],
        "initial cluster x={own},y={own} has duplicate url",
    );
    refused(
        &[
            "--initial-advertise-peer-urls={own},http://127.0.0.9:1",
            "--initial-cluster=x={own}",
        ],
        "--initial-advertise-peer-urls has http://127.0.0.9:1 but missing from \
         --initial-cluster=x={own},x=http://127.0.0.9:1",
    );
    refused(
        &["--initial-cluster=x={own},x=http://127.0.0.9:1"],
        "--initial-cluster has x=http://127.0.0.9:1 but missing from \
         --initial-advertise-peer-urls={own} (len([\"{own}\"]) != \
         len([\"{own}\" \"http://127.0.0.9:1\"]))",
    );
    refused(
        &["--initial-cluster=x"],
        "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: ",
    );
}

/// Two ways to write an address are one address.
#[test]
fn urls_that_mean_the_same_found_a_cluster() {
    let port = e2e::free_address().expect("a free port").port();
    let flags = [
        format!("--initial-advertise-peer-urls=http://[::1]:{port}"),
        format!("--initial-cluster=e2e=http://[0:0:0:0:0:0:0:1]:{port}"),
    ];
    let options = Options {
        flags: flags.to_vec(),
        ..Options::default()
    };
    Member::start(options).expect("the member founds its cluster");
}

#[test]
fn a_founder_that_was_here_before() {
    let own = url();
    let initial = |other: &Fake| format!("--initial-cluster=x={own},y={}", other.url());
    let id = member_id(std::slice::from_ref(&own), "etcd-cluster", None);
    let said = |client: &str| format!("[{{\"id\":{},\"peerURLs\":[\"{own}\"]{client}}}]", id.0);
    let published = said(",\"name\":\"x\",\"clientURLs\":[\"http://c\"]");
    let other = Fake::serve(|_| vec![("/members", published)]);
    let want = format!("member {id} has already been bootstrapped");
    refused_at(&own, &[&initial(&other)], &want);
    // One that never served may begin anew.
    let other = Fake::serve(|_| vec![("/members", said(""))]);
    Newcomer::start(&own, &[&initial(&other)]).wait_for_wal();
}

#[tokio::test]
async fn joiners_that_do_not_fit() {
    let member = Member::start(Options::default()).expect("a member");
    let running = format!("http://{}", member.peer());
    let refused_with = |cluster: &str, want: &str| {
        refused(&[EXISTING, &format!("--initial-cluster={cluster}")], want);
    };
    let unlisted = "couldn't find local name \"x\" in the initial cluster configuration";
    refused_with("y={own}", unlisted);
    refused_with(
        "x={own},y={own}",
        "initial cluster x={own},y={own} has duplicate url",
    );
    let nobody = "cannot fetch cluster info from peer urls: could not retrieve cluster \
                  information from the given URLs";
    refused_with("x={own}", nobody);
    refused_with("x={own},b=http://127.0.0.1:1", nobody);
    let status = Kv::to(member.address()).status().await.expect("a status");
    let header = status.header.expect("a header");
    let unequal = format!(
        "error validating peerURLs {{ClusterID:{:x} Members:[&{{ID:{:x} \
         RaftAttributes:{{PeerURLs:[{running}] IsLearner:false}} Attributes:{{Name:e2e \
         ClientURLs:[http://{}]}}}}] RemovedMemberIDs:[]}}: member count is unequal",
        header.cluster_id,
        header.member_id,
        member.address()
    );
    refused_with(&format!("x={{own}},a={running}"), &unequal);
}

/// What a member says that is founded by nobody: two members, the second of which is the one that
/// joins at `own`.
fn two(own: &str, url: &str) -> String {
    format!(
        "[{{\"id\":1,\"peerURLs\":[\"{url}\"],\"name\":\"a\"}},\
         {{\"id\":2,\"peerURLs\":[\"{own}\"],\"isLearner\":true}}]\n"
    )
}

#[test]
fn a_cluster_without_the_one_that_joins() {
    let own = url();
    let other = Fake::serve(|other| vec![("/members", two("http://127.0.0.9:1", other))]);
    let other = other.url();
    let want = format!(
        "error validating peerURLs {{ClusterID:99 Members:[&{{ID:1 RaftAttributes:{{\
         PeerURLs:[{other}] IsLearner:false}} Attributes:{{Name:a ClientURLs:[]}}}} &{{ID:2 \
         RaftAttributes:{{PeerURLs:[http://127.0.0.9:1] IsLearner:true}} Attributes:{{Name: \
         ClientURLs:[]}}}}] RemovedMemberIDs:[]}}: PeerURLs: no match found for existing member \
         (2, [http://127.0.0.9:1]), last resolver error (resolved urls: \"http://127.0.0.9:1\" != "
    );
    let initial = format!("--initial-cluster=a={other},x={own}");
    let mut newcomer = Newcomer::start(&own, &[EXISTING, &initial]);
    let error = newcomer.wait().error;
    // Which one was compared last depends on the ids that the URLs would give.
    let last = [&own, &other].map(|last| format!("{want}\"{last}\")"));
    assert!(last.contains(&error), "{error}\n{last:?}");
    let empty = Fake::serve(|_| vec![("/members", "[]".to_owned())]);
    refused(
        &[
            EXISTING,
            &format!("--initial-cluster=a={},x={{own}}", empty.url()),
        ],
        "cannot fetch cluster info from peer urls: failed to get raft cluster member(s) from the \
         given URLs",
    );
}

/// Versions of a cluster that can be joined, or not.
#[test]
fn clusters_that_run_something_else() {
    let own = url();
    let attempt = |answers: &[(&'static str, &str)], want: &str| {
        let other = Fake::serve(|other| {
            let mut all = vec![("/members", two(&own, other))];
            all.extend(
                answers
                    .iter()
                    .map(|(path, body)| (*path, (*body).to_owned())),
            );
            all
        });
        let initial = format!("--initial-cluster=a={},x={own}", other.url());
        refused_at(&own, &[EXISTING, "--max-learners=0", &initial], want);
    };
    let incompatible = "incompatible with current running cluster";
    // What is looked at next shows that a version was good enough.
    let learners = "membership: too many learner members in cluster";
    for (cluster, downgrade, want) in [
        ("3.8.0", "false", incompatible),
        ("3.7.1", "false", incompatible),
        ("4.0.0", "false", incompatible),
        ("2.3.0", "false", incompatible),
        ("not_decided", "false", incompatible),
        ("3.7.0", "true", incompatible),
        ("3.6.0", "true", incompatible),
        ("3.7.0", "false", learners),
        ("3.0.0", "false", learners),
        ("3.7.0", "perhaps", learners),
        ("3.8.0", "true", learners),
    ] {
        let version = format!("{{\"etcdserver\":\"3.9.9\",\"etcdcluster\":\"{cluster}\"}}");
        let answers = [
            ("/version", version.as_str()),
            ("/downgrade/enabled", downgrade),
        ];
        attempt(&answers, want);
    }
    attempt(&[], incompatible);
    attempt(&[("/version", "nonsense")], incompatible);
}
