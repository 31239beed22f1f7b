//! Disks that sync nothing for a while.

use std::time::Duration;

use super::{Error, LIMIT, Stage};

/// The disks of some members hold every sync for so long, twice. When all do, nothing is written.
pub(super) async fn stall(
    stage: &Stage,
    victims: &[usize],
    during: Duration,
) -> Result<String, Error> {
    let (from, term) = (stage.now(), stage.highest_term().await?);
    let others = stage.others(victims);
    for _ in 0..2 {
        for at in victims {
            stage.stall(*at)?;
        }
        match others.is_empty() {
            // Without the hook in the server this is where it shows.
            true => stage.silence(victims, during).await?,
            false => tokio::time::sleep(during).await,
        }
        for at in victims {
            stage.flow(*at)?;
        }
        stage.progress_of_each(&stage.all(), LIMIT).await?;
        stage.calm().await;
    }
    // All that are left, or all when all stall.
    let serving = match others.is_empty() {
        true => stage.all(),
        false => others,
    };
    let gap = stage.longest_gap(from, &serving);
    let terms = stage.highest_term().await? - term;
    Ok(format!(
        "longest gap {} ms, {terms} elections",
        gap.as_millis()
    ))
}
