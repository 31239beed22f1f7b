//! How long nobody can write when the leader dies.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::stage::{ELECTION, LIMIT, Stage};
use crate::Error;
use crate::kv::Kv;

/// Between two writes that ask whether it is over.
const PAUSE: Duration = Duration::from_millis(20);

/// Kills the leader again and again, under the load of the stage, and measures each time how long
/// it takes until a write that was asked after the kill is acknowledged, through any of the
/// endpoints that are left. The killed member comes back before the next kill.
///
/// # Errors
/// No write within 30 s; the median is not below two election timeouts, or the worst not below
/// four.
pub(super) async fn run(stage: &mut Stage, kills: usize) -> Result<String, Error> {
    let mut taken = Vec::with_capacity(kills);
    for _ in 0..kills {
        let leader = stage.leader().await?;
        let others = stage.others(&[leader]);
        let endpoints: Vec<Kv> = others.iter().map(|at| stage.kv(*at)).collect();
        stage.kill(leader)?;
        taken.push(until_written(&endpoints).await?);
        stage.start_again(leader)?;
        stage.progress_of_each(&stage.all(), LIMIT).await?;
        stage.calm().await;
    }
    taken.sort_unstable();
    let (median, worst) = (taken[kills / 2], taken[kills - 1]);
    let all: Vec<u128> = taken.iter().map(Duration::as_millis).collect();
    let text = format!(
        "{kills} kills: median {} ms, worst {} ms of {all:?}",
        median.as_millis(),
        worst.as_millis()
    );
    match median < 2 * ELECTION && worst < 4 * ELECTION {
        true => Ok(text),
        false => Err(Error(format!("too slow: {text}"))),
    }
}

/// A write may be lost with the leader to which it was sent, and then tells nothing before its
/// deadline: so a new one is asked all the time.
async fn until_written(endpoints: &[Kv]) -> Result<Duration, Error> {
    let begin = Instant::now();
    let mut writes = JoinSet::new();
    let mut next = tokio::time::interval(PAUSE);
    while begin.elapsed() < LIMIT {
        tokio::select! {
            _ = next.tick() => for kv in endpoints {
                let kv = kv.clone();
                writes.spawn(async move { kv.put("probe/".into(), "".into()).await });
            },
            Some(done) = writes.join_next() => if let Ok(Ok(_)) = done {
                return Ok(begin.elapsed());
            },
        }
    }
    Err(Error(format!("no write in {LIMIT:?} after a kill")))
}
