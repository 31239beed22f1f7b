//! The cluster as clients see it: its members are proxies.

use std::sync::Arc;
use std::time::Duration;

use api::pb::etcdserverpb::{Member, MemberListRequest, MemberListResponse};
use client::{Channel, Client};
use tokio::time::Instant;

use crate::below::Below;
use crate::registry::{self, Registration, Registry};
use crate::settings::Settings;

/// Longest time that one look at the member list may take.
const SYNC_LIMIT: Duration = Duration::from_secs(5);

/// What member lists say.
pub(crate) struct Cluster {
    advertised: String,
    /// Without a resolver prefix nobody is known but this proxy.
    registry: Option<Arc<Registry>>,
    registration: Option<Registration>,
}

impl Cluster {
    /// Registers this proxy, if that was asked for, and follows who else is there. `passed` is
    /// the channel beside the client's own.
    pub(crate) fn start(below: &Below, settings: &Settings, passed: &Channel) -> Self {
        let advertised = settings.advertise_url.clone();
        let resolver = settings.resolver.as_ref();
        let registry = resolver.map(|resolver| {
            let registry = Arc::<Registry>::default();
            let prefix = resolver.prefix.clone();
            tokio::spawn(Arc::clone(&registry).follow(below.clone(), prefix));
            registry
        });
        let registration = resolver.map(|resolver| {
            let address = advertised.clone();
            Registration::start(below.clone(), resolver.clone(), address)
        });
        if !settings.sync_interval.is_zero() {
            let (client, interval) = (below.client.clone(), settings.sync_interval);
            tokio::spawn(sync(client, passed.clone(), interval));
        }
        Cluster {
            advertised,
            registry,
            registration,
        }
    }

    /// Takes this proxy out of the list.
    pub(crate) async fn close(&self) {
        if let Some(registration) = &self.registration {
            registration.close().await;
        }
    }

    /// The proxies that are registered, or this one; `None` for the cluster's own list, when this
    /// proxy has no address to give away.
    pub(crate) fn members(&self) -> Option<MemberListResponse> {
        if self.advertised.is_empty() {
            return None;
        }
        let registered = self.registry.iter().flat_map(|it| it.members());
        let mut members: Vec<Member> = registered.collect();
        if members.is_empty() {
            members.push(Member {
                name: registry::host_name(),
                client_ur_ls: vec![self.advertised.clone()],
                ..Member::default()
            });
        }
        Some(MemberListResponse {
            members,
            ..MemberListResponse::default()
        })
    }
}

/// Looks at the member list again and again, and goes over to the endpoints that it names.
async fn sync(client: Client, passed: Channel, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let asking = client.clone().with_deadline(Instant::now() + SYNC_LIMIT);
        let request = MemberListRequest { linearizable: true };
        let answer = asking.member_list(request).await;
        let outcome = answer.and_then(|answer| {
            let members = answer.members.into_iter();
            let ready = members.filter(|it| !it.name.is_empty() && !it.is_learner);
            let endpoints: Vec<String> = ready.flat_map(|it| it.client_ur_ls).collect();
            client.channel().set_endpoints(&endpoints)?;
            passed.set_endpoints(&endpoints)
        });
        if let Err(error) = outcome {
            tracing::info!(%error, "Auto sync endpoints failed.");
        }
    }
}
