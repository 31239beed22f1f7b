//! Members restart under load: one after another, stopped or killed, and all of them killed at
//! once. Nothing that was acknowledged is lost, and the cluster serves again within seconds.

use std::time::{Duration, Instant};

use crate::Error;

use super::fleet::{Fleet, Plan};
use super::traffic::Traffic;

/// Longest time without an answer to any write, for each kind of restart. One member that goes
/// costs an election at most, which takes up to two timeouts of one second, and more when two ask
/// for votes at once; all of them cost their start too.
const LIMIT: Duration = Duration::from_secs(10);

/// Restarts three members in three ways.
///
/// # Errors
/// The first thing that is wrong.
pub async fn run(plan: &Plan) -> Result<(), Error> {
    let mut fleet = Fleet::found(plan, 3, &[])?;
    let traffic = Traffic::start(fleet.addresses());
    traffic.go_on().await?;
    for kill in [false, true] {
        for at in 0..3 {
            let from = Instant::now();
            let leads = fleet.cluster.leader().await? == at;
            match kill {
                true => fleet.cluster.member(at).kill()?,
                false => drop(fleet.cluster.member(at).stop()?),
            }
            fleet.cluster.member(at).restart()?;
            let how = if kill { "killed" } else { "stopped" };
            let role = if leads { "leader" } else { "follower" };
            look(
                &traffic,
                from,
                &format!("m{at} ({role}) {how} and restarted"),
            )
            .await?;
            fleet.agree().await?;
        }
    }
    for _ in 0..3 {
        let from = Instant::now();
        for at in 0..3 {
            fleet.cluster.member(at).kill()?;
        }
        for at in 0..3 {
            fleet.cluster.member(at).spawn()?;
        }
        for at in 0..3 {
            fleet.cluster.member(at).wait_until_healthy()?;
        }
        look(&traffic, from, "all killed and restarted").await?;
        fleet.agree().await?;
    }
    let count = traffic.end(&fleet.addresses()).await?;
    println!("{count} acknowledged writes are on every member");
    Ok(())
}

async fn look(traffic: &Traffic, from: Instant, what: &str) -> Result<(), Error> {
    traffic.go_on().await?;
    let stretch = traffic.since(from);
    println!("{what}: {stretch}");
    match stretch.gap > LIMIT {
        true => Err(Error(format!("{what}: no write for longer than {LIMIT:?}"))),
        false => Ok(()),
    }
}
