//! Every call by everybody, in each way to say who one is.

use std::path::PathBuf;
use std::time::Instant;

use e2e::auth::{Door, Outcome, ROWS, Root, Row, Who, users};
use e2e::kv::Kv;
use e2e::raw::Connection;
use e2e::{Member, Options};

/// Headers that say who calls.
pub(crate) type Headers = Vec<(String, String)>;

/// One way to be somebody: how everybody calls.
pub(crate) struct Way {
    pub(crate) name: &'static str,
    pub(crate) callers: Vec<(Who, Door, Headers)>,
    /// Root's, for steps between calls.
    pub(crate) root: (Door, Headers),
    pub(crate) json: bool,
    pub(crate) peer: String,
}

/// A file that is removed with the test.
pub(crate) struct Secret(tempfile::TempDir);

impl Secret {
    pub(crate) fn new() -> Secret {
        let secret = Secret(tempfile::tempdir().unwrap());
        std::fs::write(secret.path(), "a key that everybody shares, of any length").unwrap();
        secret
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("secret")
    }

    /// The flag that makes tokens with it.
    pub(crate) fn flag(&self) -> String {
        let path = self.path();
        format!(
            "--auth-token=jwt,priv-key={},sign-method=HS256,ttl=10m",
            path.display()
        )
    }
}

pub(crate) fn token(text: &str) -> Headers {
    vec![("token".into(), text.into())]
}

/// Over JSON, tokens are in another header.
fn authorization(headers: &Headers) -> Headers {
    headers
        .iter()
        .map(|(_, value)| ("Authorization".to_owned(), value.clone()))
        .collect()
}

/// A member with everybody on it, who all have tokens.
async fn by_token(name: &'static str, member: &Member) -> Way {
    let everybody = users();
    let mut root = Root::at(&Kv::to(member.address()));
    root.enable(&everybody).await.unwrap();
    let door = Door {
        connection: Connection::to(member.address()),
        address: member.address(),
    };
    let mut callers = vec![
        (Who::Nobody, door.clone(), Headers::new()),
        (Who::WrongToken, door.clone(), token("abcdefghijklmnop.1")),
    ];
    for user in everybody {
        let text = root.authenticate(&user.name).await.unwrap();
        callers.push((Who::User(user), door.clone(), token(&text)));
    }
    let headers = token(root.token.as_deref().unwrap());
    Way {
        name,
        callers,
        root: (door, headers),
        json: true,
        peer: format!("http://{}", member.peer()),
    }
}

impl Way {
    async fn steps(&self, steps: &[(&str, &str)]) {
        let (door, headers) = &self.root;
        for (call, request) in steps {
            let outcome = door.grpc(headers, call, request).await.unwrap();
            let fine = outcome == Outcome::Done || *call == "Lease/LeaseRevoke";
            assert!(fine, "{}: root's {call} {request}: {outcome:?}", self.name);
        }
    }

    /// Tries everything; gives what came out otherwise than wanted.
    pub(crate) async fn run(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for row in ROWS {
            for (who, door, headers) in &self.callers {
                let wanted = row.wanted(who);
                if wanted == Outcome::Untried {
                    continue;
                }
                let request = row.request.replace("{peer}", &self.peer);
                self.steps(row.before).await;
                let came = door.grpc(headers, row.call, &request).await;
                let came = came.unwrap_or_else(|error| {
                    panic!("{} {request} {} {error}", row.call, who.name())
                });
                self.note(&mut wrong, row, who, "gRPC", (&wanted, &came));
                self.steps(row.after).await;
                if !self.json {
                    continue;
                }
                self.steps(row.before).await;
                let came = door.json(&authorization(headers), row.call, &request);
                let came = came.unwrap_or_else(|error| {
                    panic!("{} {request} {} {error}", row.call, who.name())
                });
                if let Some(came) = came {
                    self.note(&mut wrong, row, who, "JSON", (&wanted, &came));
                }
                self.steps(row.after).await;
            }
        }
        wrong
    }

    fn note(
        &self,
        wrong: &mut Vec<String>,
        row: &Row,
        who: &Who,
        over: &str,
        (wanted, came): (&Outcome, &Outcome),
    ) {
        if wanted != came {
            let (way, call, request) = (self.name, row.call, row.request);
            let name = who.name();
            wrong.push(format!(
                "{way}, {over}, {name}: {call} {request}\n  wanted {wanted:?}\n  came   {came:?}"
            ));
        }
    }
}

pub(crate) fn check(wrong: &[String]) {
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// A member that hashes passwords fast.
pub(crate) fn start(flags: Vec<String>) -> Member {
    let mut flags = flags;
    flags.push("--bcrypt-cost=4".into());
    Member::start(Options {
        flags,
        ..Options::default()
    })
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn simple_tokens() {
    let member = start(vec![]);
    let way = by_token("simple token", &member).await;
    let begun = Instant::now();
    let wrong = way.run().await;
    println!("{} rows in {:?}", ROWS.len(), begun.elapsed());
    check(&wrong);
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_tokens() {
    let secret = Secret::new();
    let member = start(vec![secret.flag()]);
    check(&by_token("JWT", &member).await.run().await);
}
