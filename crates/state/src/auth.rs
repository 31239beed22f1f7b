//! Users, roles and the switch.

use std::sync::Arc;

use storage::backend::{ApplyTxn, Bucket, Reader};

use crate::fatal::Fatal;
use crate::schema;

/// The replicated state of authentication.
#[derive(Clone, Debug, Default)]
pub(crate) struct Auth {
    pub(crate) enabled: bool,
    /// 0 until the first entry stores the initial 1.
    pub(crate) revision: u64,
}

impl Auth {
    pub(crate) fn restore(reader: &Reader) -> Result<Auth, Fatal> {
        let damaged = |what: &str| Fatal::Damaged {
            bucket: "auth",
            what: what.to_string(),
        };
        let enabled = reader.get(Bucket::Auth, schema::AUTH_ENABLED)?;
        let enabled = enabled.is_some_and(|value| value[..] == [1]);
        let revision = match reader.get(Bucket::Auth, schema::AUTH_REVISION)? {
            None => 0,
            Some(value) => {
                let bytes = value[..].try_into().map_err(|_| damaged("authRevision"))?;
                u64::from_be_bytes(bytes)
            }
        };
        Ok(Auth { enabled, revision })
    }

    /// Stores the initial revision, once.
    pub(crate) fn ensure_revision(&mut self, txn: &mut ApplyTxn<'_>) {
        if self.revision == 0 {
            self.revision = 1;
            let value = Arc::from(self.revision.to_be_bytes());
            txn.put(Bucket::Auth, schema::AUTH_REVISION, value);
        }
    }
}
