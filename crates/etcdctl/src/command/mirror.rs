//! make-mirror: copies a cluster's keys to another and follows their changes.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use api::pb::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest,
    request_op,
};
use api::pb::mvccpb::{Event, event::EventType};
use bytes::Bytes;
use client::{Client, Config, prefix_end};

use crate::cli::flags::{Flag, Flags, Kind};
use crate::cli::globals::{self, Session, TlsFlags};
use crate::cli::{Call, Command, group};
use crate::exit::{self, Failure, Outcome};
use crate::out;

pub(super) const MAKE_MIRROR: Command = Command {
    name: "make-mirror",
    usage: "[options] <destination>",
    short: "Copies keys to another cluster and follows their changes",
    group: group::UTILITY,
    flags: &[
        Flag::text("prefix", "", "copy the keys that begin so"),
        Flag::int("rev", "copy no keys, follow changes from this revision on"),
        Flag {
            kind: Kind::Uint,
            ..Flag::text(
                "max-txn-ops",
                "128",
                "how many changes go into one transaction at most",
            )
        },
        Flag::text("dest-prefix", "", "the prefix that the copies have instead"),
        Flag::switch("no-dest-prefix", "take the prefix off the copies"),
        Flag::text("dest-cert", "", "certificate file for the destination"),
        Flag::text("dest-key", "", "key file of that certificate"),
        Flag::text(
            "dest-cacert",
            "",
            "file with the certificates that vouch for the destination",
        ),
        Flag {
            kind: Kind::Bool,
            ..Flag::text(
                "dest-insecure-transport",
                "true",
                "talk to the destination in clear text unless it or certificates say TLS",
            )
        },
        Flag::text("dest-user", "", "name[:password] at the destination"),
        Flag::text(
            "dest-password",
            "",
            "password there, when --dest-user has only the name",
        ),
    ],
    run: Some(|call| Box::pin(make_mirror(call))),
    ..Command::EMPTY
};

/// How many pairs are read at once, and how often the total is printed.
const PAGE_PAIRS: i64 = 1000;
const REPORT_INTERVAL: Duration = Duration::from_secs(30);

async fn make_mirror(mut call: Call) -> Outcome {
    if call.args.len() != 1 {
        return Err(Failure::bad_args(
            "make-mirror takes one destination argument",
        ));
    }
    let destination = destination(&call.flags, call.text(0).into_owned())?;
    let session = Session::new(&mut call)?;
    let target = globals::connect(destination).await?;
    let source = session.connect().await?;
    let flags = &call.flags;
    let prefix = flags.text("prefix").to_owned();
    let (dest_prefix, no_dest_prefix) = (
        flags.text("dest-prefix").to_owned(),
        flags.bool("no-dest-prefix"),
    );
    if no_dest_prefix && !dest_prefix.is_empty() {
        let text = "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose \
                    one";
        return Err(Failure::bad_args(text));
    }
    let keeps_prefix = dest_prefix.is_empty() && !no_dest_prefix;
    let mirror = Mirror {
        dest_prefix: if keeps_prefix {
            prefix.clone()
        } else {
            dest_prefix
        },
        prefix,
        ops_max: usize::try_from(flags.uint("max-txn-ops"))
            .unwrap_or(usize::MAX)
            .max(1),
        source,
        target,
        total: Rc::new(Cell::new(0)),
    };
    let total = Rc::clone(&mirror.total);
    let report = async move {
        loop {
            tokio::time::sleep(REPORT_INTERVAL).await;
            out::line(&total.get().to_string());
        }
    };
    let ended = tokio::select! {
        ended = mirror.run(flags.int("rev")) => ended,
        () = report => Ok(()),
    };
    let text = ended
        .err()
        .map_or_else(|| "<nil>".to_owned(), |error| error.to_string());
    Err(Failure::new(exit::ERROR, text))
}

fn destination(flags: &Flags, endpoint: String) -> Result<Config, Failure> {
    let tls = globals::tls_config(&TlsFlags {
        cert: flags.text("dest-cert"),
        key: flags.text("dest-key"),
        cacert: flags.text("dest-cacert"),
        server_name: "",
        insecure: flags.bool("dest-insecure-transport"),
        skip_verify: false,
    })?;
    let credentials = globals::user(
        flags.text("dest-user"),
        flags.text("dest-password"),
        "Destination Password: ",
    )?;
    let config = globals::connection(flags, vec![endpoint])?;
    Ok(Config {
        tls,
        credentials,
        ..config
    })
}

struct Mirror {
    source: Client,
    target: Client,
    prefix: String,
    dest_prefix: String,
    ops_max: usize,
    /// How many keys and changes were copied.
    total: Rc<Cell<u64>>,
}

impl Mirror {
    /// Copies what there is, unless a revision says where to begin, then follows changes.
    async fn run(&self, revision: i64) -> Result<(), client::Error> {
        let begin = match revision {
            ..=1 => self.copy().await? + 1,
            revision => revision,
        };
        let (key, range_end) = self.range();
        let watches = self.source.watches();
        let mut watcher = watches.create(WatchCreateRequest {
            key,
            range_end,
            start_revision: begin,
            ..WatchCreateRequest::default()
        });
        while let Some(answer) = watcher.next().await {
            match answer.cancelled {
                Some(client::Cancellation::Compacted(_)) => return Err(compacted()),
                Some(client::Cancellation::Refused(text)) => {
                    return Err(client::Error::Recipe(text));
                }
                None => self.follow(answer.events).await?,
            }
        }
        Ok(())
    }

    fn range(&self) -> (Bytes, Bytes) {
        if self.prefix.is_empty() {
            let open = Bytes::from_static(b"\0");
            return (open.clone(), open);
        }
        let key = Bytes::from(self.prefix.clone());
        let end = prefix_end(&key);
        (key, end)
    }

    /// Copies the keys of one revision and returns it.
    async fn copy(&self) -> Result<i64, client::Error> {
        let (mut key, range_end) = self.range();
        let mut revision = 0;
        loop {
            let answer = self
                .source
                .range(RangeRequest {
                    key,
                    range_end: range_end.clone(),
                    limit: PAGE_PAIRS,
                    revision,
                    ..RangeRequest::default()
                })
                .await?;
            if revision == 0 {
                revision = answer.header.unwrap_or_default().revision;
            }
            let last = answer.kvs.last().map(|kv| kv.key.clone());
            for kv in answer.kvs {
                let request = PutRequest {
                    key: self.target_key(&kv.key),
                    value: kv.value,
                    ..PutRequest::default()
                };
                self.target.put(request).await?;
                self.total.set(self.total.get() + 1);
            }
            match last {
                Some(last) if answer.more => key = [&last[..], b"\0"].concat().into(),
                _ => return Ok(revision),
            }
        }
    }

    /// Applies events; those of different revisions never share a transaction.
    async fn follow(&self, events: Vec<Event>) -> Result<(), client::Error> {
        let mut ops: Vec<RequestOp> = Vec::new();
        let mut revision = 0;
        for event in events {
            let kind = event.r#type();
            let kv = event.kv.unwrap_or_default();
            if !ops.is_empty() && (kv.mod_revision != revision || ops.len() == self.ops_max) {
                self.apply(std::mem::take(&mut ops)).await?;
            }
            revision = kv.mod_revision;
            let key = self.target_key(&kv.key);
            let request = match kind {
                EventType::Put => request_op::Request::RequestPut(PutRequest {
                    key,
                    value: kv.value,
                    ..PutRequest::default()
                }),
                EventType::Delete => request_op::Request::RequestDeleteRange(DeleteRangeRequest {
                    key,
                    ..DeleteRangeRequest::default()
                }),
            };
            ops.push(RequestOp {
                request: Some(request),
            });
            self.total.set(self.total.get() + 1);
        }
        if ops.is_empty() {
            Ok(())
        } else {
            self.apply(ops).await
        }
    }

    async fn apply(&self, success: Vec<RequestOp>) -> Result<(), client::Error> {
        self.target
            .txn(TxnRequest {
                success,
                ..TxnRequest::default()
            })
            .await
            .map(|_| ())
    }

    fn target_key(&self, key: &[u8]) -> Bytes {
        let rest = key.strip_prefix(self.prefix.as_bytes()).unwrap_or(key);
        [self.dest_prefix.as_bytes(), rest].concat().into()
    }
}

fn compacted() -> client::Error {
    let error = api::Error::Compacted;
    client::Error::Rpc {
        code: error.code(),
        message: error.message().to_owned(),
    }
}
