//! Disks that sync nothing for a while.

use std::time::Duration;

use super::{Error, LIMIT, Stage};

/// The disks of some members hold every sync for so long, twice.
pub(super) async fn stall(
    stage: &Stage,
    victims: &[usize],
    during: Duration,
) -> Result<String, Error> {
    let (from, term) = (stage.now(), stage.highest_term().await?);
    for _ in 0..2 {
        for at in victims {
            stage.stall(*at)?;
        }
        tokio::time::sleep(during).await;
        for at in victims {
            stage.flow(*at)?;
        }
        stage.progress_of_each(&stage.all(), LIMIT).await?;
        stage.calm().await;
    }
    let others = stage.others(victims);
    let gap = stage.longest_gap(from, &others);
    let terms = stage.highest_term().await? - term;
    Ok(format!(
        "longest gap through the others {} ms, {terms} elections",
        gap.as_millis()
    ))
}
