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
    // All that are left, or all when all stall.
    let mut others = stage.others(victims);
    if others.is_empty() {
        others = stage.all();
    }
    let gap = stage.longest_gap(from, &others);
    let terms = stage.highest_term().await? - term;
    Ok(format!(
        "longest gap {} ms, {terms} elections",
        gap.as_millis()
    ))
}
