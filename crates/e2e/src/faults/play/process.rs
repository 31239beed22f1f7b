//! Members that die, and members that stand still.

use super::{Calm, ELECTION, Error, Follower, LIMIT, Leader, Stage, leader_and_others, one};

/// Kills members without which the others have a majority; later they come back.
pub(super) async fn kill(stage: &mut Stage, victims: &[usize]) -> Result<String, Error> {
    for at in victims {
        stage.kill(*at)?;
    }
    let others = stage.others(victims);
    let gap = stage.progress_of_each(&others, LIMIT).await?;
    tokio::time::sleep(stage.lasting).await;
    for at in victims {
        stage.start_again(*at)?;
    }
    stage.progress_of_each(&stage.all(), LIMIT).await?;
    Ok(format!("the others write after {} ms", gap.as_millis()))
}

/// Nobody notices that a follower dies and comes back.
pub(super) async fn kill_follower(stage: &mut Stage) -> Result<String, Error> {
    let victim = one(stage, Follower).await?;
    let calm = Calm::before(stage, stage.others(&[victim])).await?;
    kill(stage, &[victim]).await?;
    stage.calm().await;
    calm.after(stage).await
}

/// Kills so many that nothing can be written, until one is back.
pub(super) async fn kill_majority(stage: &mut Stage, count: usize) -> Result<String, Error> {
    let victims = leader_and_others(stage, count).await?;
    for at in &victims {
        stage.kill(*at)?;
    }
    let mut serving = stage.others(&victims);
    let during = stage.lasting.max(3 * ELECTION);
    stage.silence(&serving, during).await?;
    stage.start_again(victims[0])?;
    serving.push(victims[0]);
    let back = stage.progress_of_each(&serving, LIMIT).await?;
    stage.calm().await;
    let back = back.as_millis();
    Ok(format!("writes again {back} ms after one is back"))
}

/// The leader stands still for longer than an election, and wakes up as one who is none.
pub(super) async fn pause_leader(stage: &mut Stage) -> Result<String, Error> {
    let leader = one(stage, Leader).await?;
    stage.pause(leader)?;
    let others = stage.others(&[leader]);
    let gap = stage.progress_of_each(&others, LIMIT).await?;
    tokio::time::sleep(stage.lasting).await;
    stage.resume(leader)?;
    stage.progress_of_each(&stage.all(), LIMIT).await?;
    Ok(format!("the others write after {} ms", gap.as_millis()))
}

/// Nobody notices that a follower stood still.
pub(super) async fn pause_follower(stage: &mut Stage) -> Result<String, Error> {
    let victim = one(stage, Follower).await?;
    let calm = Calm::before(stage, stage.others(&[victim])).await?;
    stage.pause(victim)?;
    tokio::time::sleep(stage.lasting).await;
    stage.resume(victim)?;
    stage.progress_of_each(&stage.all(), LIMIT).await?;
    stage.calm().await;
    calm.after(stage).await
}

/// Both followers of the leader stand still: nothing is written until they go on.
pub(super) async fn pause_majority(stage: &mut Stage) -> Result<String, Error> {
    let leader = one(stage, Leader).await?;
    let followers = stage.others(&[leader]);
    for at in &followers {
        stage.pause(*at)?;
    }
    let during = stage.lasting.max(3 * ELECTION);
    stage.silence(&[leader], during).await?;
    for at in followers {
        stage.resume(at)?;
    }
    let back = stage.progress_of_each(&stage.all(), LIMIT).await?;
    let back = back.as_millis();
    Ok(format!("all write again {back} ms after they go on"))
}
