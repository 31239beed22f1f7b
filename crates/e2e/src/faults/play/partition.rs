//! Links that are cut, in every shape, slow, or broken again and again.

use std::time::Duration;

use super::{Calm, Error, Follower, LIMIT, Leader, Role, Stage, leader_and_others, one};

/// The leader and so many less one are cut from the others, who are a majority.
pub(super) async fn part(stage: &mut Stage, count: usize) -> Result<String, Error> {
    let minority = leader_and_others(stage, count).await?;
    let majority = stage.others(&minority);
    stage.part(&minority, &majority)?;
    let gap = stage.progress_of_each(&majority, LIMIT).await?;
    stage.silence(&minority, stage.lasting).await?;
    stage.heal()?;
    stage.progress_of_each(&stage.all(), LIMIT).await?;
    let gap = gap.as_millis();
    Ok(format!("the majority writes after {gap} ms"))
}

/// A follower is cut from all others, through many elections that it cannot win; nobody notices,
/// nor when it returns.
pub(super) async fn part_follower(stage: &mut Stage) -> Result<String, Error> {
    let victim = one(stage, Follower).await?;
    let others = stage.others(&[victim]);
    let calm = Calm::before(stage, others.clone()).await?;
    stage.part(&[victim], &others)?;
    stage.silence(&[victim], stage.lasting).await?;
    stage.heal()?;
    stage.progress_of_each(&stage.all(), LIMIT).await?;
    stage.calm().await;
    calm.after(stage).await
}

/// Nothing reaches one member, whose own messages arrive.
pub(super) async fn deaf(stage: &mut Stage, role: Role) -> Result<String, Error> {
    let victim = one(stage, role).await?;
    let others = stage.others(&[victim]);
    one_way(stage, role, victim, (&others, &[victim])).await
}

/// Nothing that one member says arrives; it hears the others.
pub(super) async fn mute(stage: &mut Stage, role: Role) -> Result<String, Error> {
    let victim = one(stage, role).await?;
    let others = stage.others(&[victim]);
    one_way(stage, role, victim, (&[victim], &others)).await
}

/// Cuts links one way. The others go on, with another leader when the victim was theirs.
async fn one_way(
    stage: &mut Stage,
    role: Role,
    victim: usize,
    (from, to): (&[usize], &[usize]),
) -> Result<String, Error> {
    let others = stage.others(&[victim]);
    let calm = Calm::before(stage, others.clone()).await?;
    stage.silence_links(from, to)?;
    let gap = stage.progress_of_each(&others, LIMIT).await?;
    stage.silence(&[victim], stage.lasting).await?;
    stage.heal()?;
    stage.progress_of_each(&stage.all(), LIMIT).await?;
    match role {
        Leader => Ok(format!("the others write after {} ms", gap.as_millis())),
        Follower => {
            stage.calm().await;
            calm.after(stage).await
        }
    }
}

/// All links of the leader are cut and opened, for less and for more than an election.
pub(super) async fn flap(stage: &mut Stage) -> Result<String, Error> {
    let victim = one(stage, Leader).await?;
    let others = stage.others(&[victim]);
    for millis in [150, 300, 700, 1_500, 2_500, 1_500, 700, 300, 150] {
        stage.part(&[victim], &others)?;
        tokio::time::sleep(Duration::from_millis(millis)).await;
        stage.join(&[victim], &others)?;
        tokio::time::sleep(Duration::from_millis(millis / 2)).await;
    }
    let back = stage.progress_of_each(&stage.all(), LIMIT).await?;
    let back = back.as_millis();
    Ok(format!("all write {back} ms after the last cut"))
}

/// Two halves see each other only through one member. The side of the leader goes on undisturbed;
/// the others cannot make anybody elect them.
pub(super) async fn bridge(stage: &mut Stage, role: Role) -> Result<String, Error> {
    let leader = stage.leader().await?;
    let mut rest = stage.others(&[leader]);
    let middle = match role {
        Leader => leader,
        Follower => rest.remove(0),
    };
    let far = rest.split_off(rest.len() - stage.all().len() / 2);
    let mut near = rest;
    if role == Follower {
        near.push(leader);
    }
    let mut serving = near.clone();
    serving.push(middle);
    if role == Leader {
        serving.extend(&far);
    }
    let calm = Calm::before(stage, serving.clone()).await?;
    stage.part(&near, &far)?;
    tokio::time::sleep(stage.lasting).await;
    stage.progress_of_each(&serving, LIMIT).await?;
    stage.heal()?;
    stage.progress_of_each(&stage.all(), LIMIT).await?;
    stage.calm().await;
    let text = calm.after(stage).await?;
    Ok(format!("{near:?} and {far:?} through {middle}: {text}"))
}

/// Everything between members takes longer; nobody loses its leader by that.
pub(super) async fn delay(stage: &mut Stage, delay: Duration) -> Result<String, Error> {
    let leader = stage.leader().await?;
    let term = stage.term(leader).await?;
    stage.delay(delay)?;
    tokio::time::sleep(2 * stage.lasting).await;
    let time = stage.progress_of_each(&stage.all(), LIMIT).await?;
    let after = stage.term(leader).await?;
    stage.heal()?;
    if after != term {
        return Err(Error(format!("the term rose from {term} to {after}")));
    }
    Ok(format!("all write within {} ms", time.as_millis()))
}

/// All connections between members are reset, again and again.
pub(super) async fn reset(stage: &mut Stage) -> Result<String, Error> {
    let all = stage.all();
    let pause = Duration::from_millis(300);
    let rounds = 2 * stage.lasting.as_millis() / pause.as_millis();
    for _ in 0..rounds {
        for a in &all {
            for b in all.iter().filter(|b| *b > a) {
                stage.reset(*a, *b)?;
            }
        }
        tokio::time::sleep(pause).await;
    }
    let time = stage.progress_of_each(&all, LIMIT).await?;
    Ok(format!("all write {} ms later", time.as_millis()))
}
