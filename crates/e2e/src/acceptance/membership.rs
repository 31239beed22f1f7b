//! Members come and go under load, all of it by etcdctl: a cluster grows from one to five members
//! through learners and shrinks to three, a member loses its disk and comes back as a learner,
//! changes that etcd refuses are refused, and two voters become one.
//!
//! For each step the story prints how long nobody's write was answered. Where leadership passes
//! on in order, that may take no longer than an election.

use std::time::{Duration, Instant};

use crate::http;
use crate::kv::said;
use crate::{Error, Member};

use super::fleet::{Fleet, Plan, UNHEALTHY};
use super::traffic::Traffic;

/// The default election timeout.
const ELECTION: Duration = Duration::from_secs(1);
/// Under these the log does not reach back to its begin for long.
const SHORT_LOG: [&str; 2] = ["--snapshot-count=100", "--snapshot-catchup-entries=10"];

/// Tells all of it.
///
/// # Errors
/// The first thing that is wrong, or `only` is in no name.
pub async fn run(plan: &Plan, only: &str) -> Result<(), Error> {
    let mut any = false;
    let mut wanted = |name: &str| {
        any |= name.contains(only);
        name.contains(only)
    };
    if wanted("grow") {
        grow_and_shrink(plan).await?;
    }
    if wanted("wipe") {
        wipe(plan, &[]).await?;
        wipe(plan, &SHORT_LOG).await?;
    }
    if wanted("update") {
        update(plan).await?;
    }
    if wanted("refuse") {
        refuse_for_learners(plan).await?;
        refuse_without_quorum(plan).await?;
    }
    if wanted("two") {
        remove_leader_of_two(plan).await?;
    }
    match any {
        true => Ok(()),
        false => Err(Error("nothing has such a name".into())),
    }
}

/// Prints what a step was like and checks its gap.
async fn step(traffic: &Traffic, from: Instant, what: &str) -> Result<(), Error> {
    traffic.go_on().await?;
    let stretch = traffic.since(from);
    println!("{what}: {stretch}");
    match stretch.gap > ELECTION {
        true => Err(Error(format!(
            "{what}: no write for longer than {ELECTION:?}"
        ))),
        false => Ok(()),
    }
}

/// 1 → 3 → 5 → 3.
async fn grow_and_shrink(plan: &Plan) -> Result<(), Error> {
    let mut fleet = Fleet::found(plan, 1, &[])?;
    let traffic = Traffic::start(fleet.addresses());
    step(&traffic, Instant::now(), "one member").await?;
    for number in 1..5 {
        let from = Instant::now();
        let at = fleet.prepare()?;
        fleet.join(at).await?;
        traffic.go_through(fleet.addresses());
        step(
            &traffic,
            from,
            &format!("member {} learns and is promoted", number + 1),
        )
        .await?;
        fleet.agree().await?;
    }
    // Two that lead are removed, after another one took over.
    for goes in [0, 1] {
        let from = Instant::now();
        fleet.move_leader(goes).await?;
        step(&traffic, from, &format!("m{goes} leads")).await?;
        let from = Instant::now();
        fleet.move_leader(goes + 1).await?;
        traffic.go_through((goes + 1..5).map(|at| fleet.address(at)).collect());
        fleet.remove(goes).await?;
        step(
            &traffic,
            from,
            &format!("m{} leads, m{goes} goes", goes + 1),
        )
        .await?;
        fleet.agree().await?;
    }
    for gone in [0, 1] {
        let from = Instant::now();
        fleet.cannot_return(gone)?;
        step(&traffic, from, &format!("m{gone} tries to return")).await?;
    }
    let count = traffic.end(&fleet.addresses()).await?;
    fleet.agree().await?;
    println!("1, 3, 5, 3 members: {count} acknowledged writes are on every one");
    Ok(())
}

/// A member loses its disk, is removed, learns and is promoted.
async fn wipe(plan: &Plan, flags: &[&str]) -> Result<(), Error> {
    let mut fleet = Fleet::found(plan, 3, flags)?;
    let wiped = (fleet.cluster.leader().await? + 1) % 3;
    let traffic = Traffic::start(fleet.addresses());
    traffic.go_on().await?;
    let from = Instant::now();
    let id = fleet.id(wiped)?;
    fleet.cluster.member(wiped).kill()?;
    fleet.cluster.member(wiped).wipe()?;
    traffic.go_through(fleet.addresses());
    fleet
        .etcdctl_unless(UNHEALTHY, &["member", "remove", &id])
        .await?;
    traffic.go_on().await?;
    fleet.join(wiped).await?;
    traffic.go_through(fleet.addresses());
    let log = if flags.is_empty() {
        "the log"
    } else {
        "a database"
    };
    step(
        &traffic,
        from,
        &format!("m{wiped} comes back without its disk, by {log}"),
    )
    .await?;
    if !flags.is_empty() && databases_received(fleet.cluster.member(wiped))? == 0 {
        return Err(Error(format!(
            "m{wiped} came back by the log, which was to be gone"
        )));
    }
    // It serves like any other, and leads.
    let from = Instant::now();
    fleet.move_leader(wiped).await?;
    fleet
        .cluster
        .kv(wiped)
        .put("/wiped".into(), "serves".into())
        .await
        .map_err(said)?;
    step(&traffic, from, &format!("m{wiped} leads")).await?;
    let count = traffic.end(&fleet.addresses()).await?;
    fleet.agree().await?;
    println!("m{wiped} was wiped: {count} acknowledged writes are on every member");
    Ok(())
}

/// A member moves to another peer port: first the others are told, then it starts there.
async fn update(plan: &Plan) -> Result<(), Error> {
    let mut fleet = Fleet::found(plan, 3, &[])?;
    let moved = (fleet.cluster.leader().await? + 1) % 3;
    let id = fleet.id(moved)?;
    let traffic = Traffic::start(fleet.addresses());
    traffic.go_on().await?;
    let from = Instant::now();
    fleet.cluster.member(moved).stop()?;
    fleet.cluster.member(moved).move_peer()?;
    let peer = fleet.cluster.members()[moved].peer();
    fleet.etcdctl(&[
        "member",
        "update",
        &id,
        &format!("--peer-urls=http://{peer}"),
    ])?;
    fleet.cluster.member(moved).restart()?;
    if fleet.id(moved)? != id {
        return Err(Error(format!("m{moved} has another ID after its move")));
    }
    step(&traffic, from, &format!("m{moved} moves to another port")).await?;
    fleet.move_leader(moved).await?;
    traffic.end(&fleet.addresses()).await?;
    fleet.agree().await
}

/// How many databases a member got from others since it started.
fn databases_received(member: &Member) -> Result<u64, Error> {
    let metrics = http::get(member.address(), "/metrics")?.body;
    let lines = metrics.lines();
    let of_peers = lines.filter(|line| line.starts_with("etcd_network_snapshot_receive_success{"));
    let numbers = of_peers.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    Ok(numbers.sum())
}

/// What learners cannot do, and what cannot be done with them.
async fn refuse_for_learners(plan: &Plan) -> Result<(), Error> {
    let mut fleet = Fleet::found(plan, 3, &[])?;
    let all = fleet.addresses();
    let leader = fleet.cluster.leader().await?;
    let (follower, voter) = ((leader + 1) % 3, fleet.id((leader + 1) % 3)?);
    let (learner, second) = (fleet.prepare()?, fleet.prepare()?);
    fleet.add(learner, true).await?;
    let (id, nobody) = (fleet.id(learner)?, "123456789abcdef0");
    let status = fleet.listed(learner)?;
    if status[1] != "unstarted" || !status[2].is_empty() {
        return Err(Error(format!(
            "a member that never ran is listed as {status:?}"
        )));
    }
    let at = |fleet: &Fleet, member: usize| fleet.cluster.members()[member].peer();
    let peers = |fleet: &Fleet, member| format!("--peer-urls=http://{}", at(fleet, member));
    let (same, other) = (peers(&fleet, 0), peers(&fleet, second));
    let refusals: [(&[&str], &str); 8] = [
        (
            &["member", "add", "x", &other, "--learner"],
            "too many learner members in cluster",
        ),
        (&["member", "add", "x", &same], "Peer URLs already exists"),
        (
            &["member", "update", &id, &same],
            "Peer URLs already exists",
        ),
        (
            &["member", "promote", &id],
            "can only promote a learner member which is in sync with",
        ),
        (
            &["member", "promote", &voter],
            "can only promote a learner member",
        ),
        (&["member", "promote", nobody], "member not found"),
        (&["member", "remove", nobody], "member not found"),
        (&["move-leader", nobody], "bad leader transferee"),
    ];
    for (words, text) in refusals {
        // Whether others are connected well enough is looked at first.
        fleet.refused_then(&all, words, text).await?;
    }
    fleet.refused(
        &[fleet.address(follower)],
        &["move-leader", &voter],
        "no leader endpoint",
    )?;
    fleet.cluster.member(learner).restart()?;
    let own = [fleet.address(learner)];
    fleet.refused(&all, &["move-leader", &id], "bad leader transferee")?;
    fleet.refused(&own, &["put", "k", "v"], "rpc not supported for learner")?;
    fleet.refused(&own, &["get", "k"], "rpc not supported for learner")?;
    fleet.etcdctl(&["put", "k", "v"])?;
    let deadline = Instant::now() + Duration::from_secs(10);
    let read = ["get", "k", "--consistency=s", "--print-value-only"];
    while fleet.etcdctl_at(&own, &read)? != "v\n" {
        if Instant::now() > deadline {
            return Err(Error("a learner does not get what is put".into()));
        }
    }
    fleet.remove(learner).await?;
    fleet.cannot_return(learner)?;
    println!("learners: limits and refusals are etcd's");
    Ok(())
}

/// What strict reconfiguration refuses, and who can tell of the members, when some are away.
async fn refuse_without_quorum(plan: &Plan) -> Result<(), Error> {
    let mut fleet = Fleet::found(plan, 1, &[])?;
    let (second, third) = (fleet.prepare()?, fleet.prepare()?);
    fleet.add(second, false).await?;
    // One of two voters runs: nothing can be decided until the other one does.
    let url = format!(
        "--peer-urls=http://{}",
        fleet.cluster.members()[third].peer()
    );
    let add = ["member", "add", "m2", &url];
    fleet.refused(&fleet.addresses(), &add, "not enough started members")?;
    fleet.cluster.member(second).restart()?;
    fleet.join(third).await?;
    let leader = fleet.cluster.leader().await?;
    let (away, stays) = ((leader + 1) % 3, (leader + 2) % 3);
    let ids = [fleet.id(leader)?, fleet.id(stays)?];
    // Of three, one is away: no fourth comes, and none of the others goes.
    fleet.settle(leader).await?;
    fleet.cluster.member(away).kill()?;
    let fourth = fleet.prepare()?;
    let url = format!(
        "--peer-urls=http://{}",
        fleet.cluster.members()[fourth].peer()
    );
    let alone = [fleet.address(leader)];
    fleet.refused(&alone, &["member", "add", "m3", &url], UNHEALTHY)?;
    fleet.refused(&alone, &["member", "remove", &ids[1]], UNHEALTHY)?;
    // Two are away: only a list that may be old is to be had.
    fleet.cluster.member(stays).kill()?;
    let list = |consistency| ["member", "list", "--command-timeout=2s", consistency];
    let linearizable = fleet.etcdctl_at(&alone, &list("--consistency=l"));
    let serializable = fleet.etcdctl_at(&alone, &list("--consistency=s"))?;
    if linearizable.is_ok() || serializable.lines().count() != 3 {
        return Err(Error(format!("lists: {linearizable:?} and {serializable}")));
    }
    fleet.cluster.member(stays).restart()?;
    fleet.cluster.member(away).restart()?;
    fleet.agree().await?;
    println!("strict reconfiguration: refusals are etcd's, lists are linearizable");
    Ok(())
}

/// Two voters, of which the leader is removed: the other one goes on alone.
async fn remove_leader_of_two(plan: &Plan) -> Result<(), Error> {
    for through_leader in [true, false] {
        let mut fleet = Fleet::found(plan, 2, &[])?;
        let leader = fleet.cluster.leader().await?;
        let other = 1 - leader;
        let through = if through_leader { leader } else { other };
        fleet.settle(through).await?;
        let traffic = Traffic::start(vec![fleet.address(other)]);
        traffic.go_on().await?;
        let (id, from) = (fleet.id(leader)?, Instant::now());
        fleet.etcdctl_at(&[fleet.address(through)], &["member", "remove", &id])?;
        fleet.cluster.member(leader).wait_for_exit()?;
        traffic.go_on().await?;
        let stretch = traffic.since(from);
        println!("the leader of two is removed (through itself: {through_leader}): {stretch}");
        if stretch.gap > 4 * ELECTION {
            return Err(Error("the other one does not take over".into()));
        }
        fleet.cannot_return(leader)?;
        traffic.end(&fleet.addresses()).await?;
        if fleet.etcdctl(&["member", "list"])?.lines().count() != 1 {
            return Err(Error("not one member is left".into()));
        }
    }
    Ok(())
}
