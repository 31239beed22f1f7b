//! Whether the cluster has a leader, for callers who want their streams to end when it has none.
//!
//! A member ends a stream that asks for that (`hasleader`) when it has known no leader for a
//! while. The proxy holds one such stream, while anybody wants to know; that it ends so is the
//! news. It watches a key far in the future: nothing ever comes of it, and a member that refuses
//! the watch because nobody is named has a leader all the same.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use api::pb::etcdserverpb::{WatchCreateRequest, WatchRequest, watch_request};
use client::Client;
use client::stub::WatchClient;
use tokio::sync::watch;
use tonic::Status;
use tonic::codegen::tokio_stream::{self, StreamExt};

use crate::below::refused;

/// The watched key; etcd's proxy watches the same.
const KEY: &str = "__lostleader";

/// A revision that no store reaches, with room for those that count on from it.
const NEVER: i64 = i64::MAX - 2;

/// Pause before a stream that ended is opened again.
const RETRY_WAIT: Duration = Duration::from_millis(100);

/// What is known: nothing yet, or whether there is a leader.
type Known = Option<bool>;

/// Knows of the leader while somebody wants to know.
pub(crate) struct Leader {
    client: Client,
    /// The news, as long as somebody holds them. Locked to find or begin them.
    news: Mutex<Weak<News>>,
}

struct News {
    known: watch::Receiver<Known>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for News {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A share in the news.
#[derive(Clone)]
pub(crate) struct Observer(Arc<News>);

impl Leader {
    pub(crate) fn new(client: Client) -> Self {
        Leader {
            client: client.requiring_leader(),
            news: Mutex::default(),
        }
    }

    /// For a caller who requires a leader.
    ///
    /// # Errors
    /// There is none.
    pub(crate) async fn observe(&self) -> Result<Observer, Status> {
        let observer = Observer(self.news());
        let mut known = observer.0.known.clone();
        let has_leader = known.wait_for(Option::is_some).await;
        match has_leader.is_ok_and(|known| *known == Some(true)) {
            true => Ok(observer),
            false => Err(refused(api::Error::NoLeader)),
        }
    }

    fn news(&self) -> Arc<News> {
        let mut current = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(news) = current.upgrade() {
            return news;
        }
        let (sender, known) = watch::channel(None);
        let task = tokio::spawn(follow(self.client.clone(), sender));
        let news = Arc::new(News { known, task });
        *current = Arc::downgrade(&news);
        news
    }
}

impl Observer {
    /// Waits until there is no leader.
    pub(crate) async fn lost(&self) -> Status {
        let mut known = self.0.known.clone();
        // The task ends with the last observer, and so does this one.
        let _lost = known.wait_for(|known| *known == Some(false)).await;
        refused(api::Error::NoLeader)
    }
}

async fn follow(client: Client, news: watch::Sender<Known>) {
    loop {
        let status = stream(&client, &news).await;
        // A member that cannot be reached, or that stops, says nothing of the leader.
        if client::Error::from(status).is(api::Error::NoLeader) {
            news.send_replace(Some(false));
        }
        tokio::time::sleep(RETRY_WAIT).await;
    }
}

/// Holds one stream, and tells how it ended.
async fn stream(client: &Client, news: &watch::Sender<Known>) -> Status {
    let create = WatchCreateRequest {
        key: KEY.into(),
        start_revision: NEVER,
        ..WatchCreateRequest::default()
    };
    let request = WatchRequest {
        request_union: Some(watch_request::RequestUnion::CreateRequest(create)),
    };
    let requests = tokio_stream::once(request).chain(tokio_stream::pending());
    let mut stub = WatchClient::new(client.channel());
    let mut answers = match stub.watch(client.request(requests)).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return status,
    };
    loop {
        match answers.message().await {
            Ok(Some(_)) => drop(news.send_replace(Some(true))),
            Ok(None) => return Status::unavailable("the watch stream ended"),
            Err(status) => return status,
        }
    }
}
