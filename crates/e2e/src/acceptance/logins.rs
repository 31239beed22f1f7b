//! `logins`: what a hundred logins a second cost whoever puts.

use std::path::Path;
use std::time::{Duration, Instant};

use api::pb::etcdserverpb::PutRequest;
use client::stub::KvClient;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::auth::setup::with_token;
use crate::auth::users::{Kind, Permission, User};
use crate::auth::{Root, setup};
use crate::kv::{Kv, said};
use crate::{Error, Member, Options};

/// Puts and logins that are offered in a second, whatever becomes of those before.
const PUTS: u64 = 500;
const LOGINS: u64 = 100;
const USERS: usize = 10;

/// Sorted times that calls took from the moment at which they were due.
struct Times(Vec<Duration>);

impl Times {
    fn percentile(&self, percent: usize) -> f64 {
        let at = (self.0.len() * percent / 100).min(self.0.len().saturating_sub(1));
        self.0
            .get(at)
            .map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    }

    fn show(&self, what: &str) {
        println!(
            "{what}: {} done, p50 {:.2} ms, p99 {:.2} ms",
            self.0.len(),
            self.percentile(50),
            self.percentile(99)
        );
    }
}

/// Offers calls at a rate; gives what each took.
async fn offer<F>(rate: u64, time: Duration, mut call: impl FnMut(u64) -> F) -> Result<Times, Error>
where
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    let begun = tokio::time::Instant::now();
    let mut calls = JoinSet::new();
    for n in 0..rate * time.as_secs() {
        let due = begun + Duration::from_secs_f64(n as f64 / rate as f64);
        tokio::time::sleep_until(due).await;
        let call = call(n);
        calls.spawn(async move {
            call.await?;
            Ok::<Duration, Error>(due.elapsed())
        });
    }
    let mut times = Vec::new();
    while let Some(done) = calls.join_next().await {
        times.push(done.map_err(|error| Error(error.to_string()))??);
    }
    times.sort_unstable();
    Ok(Times(times))
}

fn put(channel: Channel, token: Option<String>, n: u64) -> impl Future<Output = Result<(), Error>> {
    let request = PutRequest {
        key: format!("a/{}", n % 1000).into(),
        value: vec![b'v'; 256].into(),
        ..PutRequest::default()
    };
    async move {
        let mut stub = KvClient::new(channel);
        let put = stub.put(with_token(request, token.as_deref())).await;
        put.map(|_| ()).map_err(said)
    }
}

fn person(name: &str) -> User {
    User {
        name: name.into(),
        root: name == "root",
        has_role: true,
        permissions: vec![Permission {
            kind: Kind::ReadWrite,
            key: "a/",
            end: "a0",
        }],
    }
}

/// Puts alone, then beside the logins of ten users. Prints what both took.
///
/// # Errors
/// A call that fails.
pub async fn run(binary: &Path, seconds: u64) -> Result<(), Error> {
    let member = Member::start(Options {
        binary: Some(binary.to_owned()),
        ..Options::default()
    })?;
    let kv = Kv::to(member.address());
    let mut root = Root::at(&kv);
    let names: Vec<String> = (0..USERS).map(|n| format!("user{n}")).collect();
    let mut people = vec![person("root")];
    people.extend(names.iter().map(|name| person(name)));
    root.enable(&people).await?;
    let token = root.authenticate("user0").await.map_err(said)?;
    let time = Duration::from_secs(seconds);
    let puts = |n| put(kv.channel(), Some(token.clone()), n);
    // The first part warms up whatever is cold.
    offer(PUTS, Duration::from_secs(2), puts).await?;
    let quiet = offer(PUTS, time, puts).await?;
    quiet.show("puts alone");
    let login = |n: u64| {
        let (anybody, name) = (Root::at(&kv), names[n as usize % USERS].clone());
        async move {
            let password = setup::password(&name);
            let login = anybody.authenticate_by(&name, &password).await;
            login.map(|_| ()).map_err(said)
        }
    };
    let begun = Instant::now();
    let (busy, logins) = tokio::try_join!(offer(PUTS, time, puts), offer(LOGINS, time, login))?;
    let took = begun.elapsed();
    busy.show("puts beside logins");
    logins.show("logins");
    println!(
        "{LOGINS} logins a second offered, {:.1} done; put p99 {:.2} times the quiet one",
        logins.0.len() as f64 / took.as_secs_f64(),
        busy.percentile(99) / quiet.percentile(99)
    );
    Ok(())
}
