//! defrag.

use api::pb::etcdserverpb::DefragmentRequest;
use tokio::time::Instant;

use super::endpoint::{CLUSTER, endpoints, took};
use crate::cli::globals::Session;
use crate::cli::{Call, Command, group};
use crate::exit::{self, Failure, Outcome};
use crate::{log, out};

pub(super) const DEFRAG: Command = Command {
    name: "defrag",
    short: "Gives unused space of the servers' databases back",
    group: group::MAINTENANCE,
    flags: &[CLUSTER],
    run: Some(|call| Box::pin(defrag(call))),
    ..Command::EMPTY
};

async fn defrag(mut call: Call) -> Outcome {
    let session = Session::new(&mut call)?;
    let mut failed = false;
    for endpoint in endpoints(&call, &session).await? {
        let client = session.connect_to(&endpoint).await?;
        let begin = Instant::now();
        match client.defragment(DefragmentRequest {}).await {
            Ok(_) => {
                let took = took(begin);
                out::line(&format!(
                    "Finished defragmenting etcd member[{endpoint}]. took {took}"
                ));
            }
            Err(error) => {
                log::cause(&error);
                let took = took(begin);
                eprintln!("Failed to defragment etcd member[{endpoint}]. took {took}. ({error})");
                failed = true;
            }
        }
    }
    if failed {
        Err(Failure::silent(exit::ERROR))
    } else {
        Ok(())
    }
}
