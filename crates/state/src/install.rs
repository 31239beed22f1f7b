//! A received database takes the state's place, while readers read and watchers watch.
//!
//! The new state is built beside the old one. Then the views go over to it, in the moment in which
//! the log of events forgets what it had: whoever reads in several steps goes on in the old state,
//! whose file stays open for as long, and a watcher that lags reads the new database's history or
//! learns that it was compacted. The revision never decreases.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use api::ids::MemberId;
use storage::backend::{MaintenanceWriter, Reader, Writer};

use crate::fatal::Fatal;
use crate::machine::{Built, Machine, OpenError};
use crate::shared::Shared;
use crate::sweep::Sweep;
use crate::view::View;

/// A state that is built and that nobody reads yet.
pub struct Replacement {
    shared: Arc<Shared>,
    writer: Writer,
    maintenance: MaintenanceWriter,
}

impl View {
    /// Builds the state of a received database, under the configuration of the present one.
    ///
    /// # Errors
    /// The database is damaged, too new, or older than what is shown.
    pub fn prepare(
        &self,
        writer: Writer,
        reader: Reader,
        maintenance: MaintenanceWriter,
    ) -> Result<Replacement, OpenError> {
        let old = self.shared();
        let built = Built::new(&reader, &old.config)?;
        let (found, shown) = (built.state.revision, self.revision());
        if found < shown {
            let what = format!("revision {found} of a received database is below {shown}");
            return Err(Fatal::Damaged {
                bucket: "key",
                what,
            }
            .into());
        }
        let shared = built.share(reader, old.lasting(), old.config.clone());
        // What compactions left is the same on all members.
        shared.hashes.lock().clone_from(&old.hashes.lock());
        Ok(Replacement {
            shared,
            writer,
            maintenance,
        })
    }

    /// Goes over to a prepared state, for all clones of this view. Nothing may be applied to the
    /// old one any more; its machine, sweep and committer are to be dropped.
    #[must_use]
    pub fn replace(&self, with: Replacement, member: MemberId) -> (Machine, Sweep) {
        let Replacement {
            shared,
            writer,
            maintenance,
        } = with;
        let (revision, compacted, auth_stamp) = {
            let state = shared.state.read();
            (state.revision, state.compacted, state.auth.stamp())
        };
        let reader = shared.reader.clone();
        shared.log.replace(revision, compacted, reader, || {
            self.go_over(shared.clone());
            shared.auth_stamp.store(auth_stamp, Ordering::Relaxed);
        });
        let machine = Machine::new(shared.clone(), writer, member);
        (machine, Sweep::new(shared, maintenance))
    }
}
