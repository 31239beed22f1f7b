//! The hashing thread: hashes read every record, so neither apply nor a net thread makes them.

use std::sync::Arc;
use std::time::Instant;

use api::Status;
use api::pb::etcdserverpb as pb;
use node::machine::Token;
use prost::Message;
use state::ReadError;

use super::Shared;
use super::mailbox::Mailbox;
use super::post::{Mail, Post};
use super::stop::fatal;

/// What the hashing thread is asked.
pub(crate) enum ToHash {
    /// `Maintenance.Hash`
    All(Token),
    /// `Maintenance.HashKV` at a revision, 0 for the current one.
    Keys {
        revision: i64,
        token: Token,
    },
    Stop,
}

pub(crate) struct HashThread {
    pub(crate) shared: Arc<Shared>,
    pub(crate) inbox: Arc<Mailbox<ToHash>>,
    pub(crate) post: Post,
}

impl HashThread {
    pub(crate) fn new(shared: &Arc<Shared>, post: Post) -> HashThread {
        HashThread {
            shared: Arc::clone(shared),
            inbox: Arc::clone(&shared.hashing),
            post,
        }
    }

    pub(crate) fn run(mut self) {
        let mut asked = Vec::new();
        loop {
            self.inbox.wait(&mut asked, None);
            for question in asked.drain(..) {
                let (token, answer) = match question {
                    ToHash::All(token) => (token, Ok(self.all())),
                    ToHash::Keys { revision, token } => (token, self.keys(revision)),
                    ToHash::Stop => return,
                };
                self.post.put(Mail::Answer(token, answer));
                self.post.deliver();
            }
        }
    }

    fn all(&self) -> Vec<u8> {
        let begin = Instant::now();
        let hash = match self.shared.view.hash() {
            Ok(hash) => hash,
            Err(error) => fatal("hash the database", &error),
        };
        self.shared.metrics.hash.observe_seconds(begin.elapsed());
        let header = Some(self.shared.header().message(self.shared.view.revision()));
        pb::HashResponse { header, hash }.encode_to_vec()
    }

    fn keys(&self, revision: i64) -> Result<Vec<u8>, Status> {
        let begin = Instant::now();
        let (hash, current) = match self.shared.view.hash_kv(revision) {
            Ok(hashed) => hashed,
            Err(ReadError::Refused(error)) => return Err(error.into()),
            Err(ReadError::Broken(error)) => fatal("hash the keys", &error),
        };
        self.shared
            .metrics
            .hash_rev
            .observe_seconds(begin.elapsed());
        let response = pb::HashKvResponse {
            header: Some(self.shared.header().message(current)),
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            hash_revision: hash.revision,
        };
        Ok(response.encode_to_vec())
    }
}
