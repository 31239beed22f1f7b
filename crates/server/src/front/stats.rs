//! Counters of one net thread, written by it alone and read by anybody.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! stats {
    ($($(#[doc = $doc:literal])* $name:ident;)*) => {
        /// The counters. One writer: plain loads and stores, no locked instruction.
        #[derive(Debug, Default)]
        pub struct Stats {
            $(pub(super) $name: Counter,)*
        }

        /// [`Stats`] at one moment, also as a sum over threads.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct StatsSnapshot {
            $($(#[doc = $doc])* pub $name: u64,)*
        }

        impl Stats {
            /// The counters' values now.
            pub fn snapshot(&self) -> StatsSnapshot {
                StatsSnapshot { $($name: self.$name.value(),)* }
            }
        }

        impl StatsSnapshot {
            /// Adds another thread's values.
            pub fn add(&mut self, other: &StatsSnapshot) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

stats! {
    #[doc = " Bytes of request messages, uncompressed (etcd_network_client_grpc_received_bytes_total)."]
    received_bytes;
    #[doc = " Bytes of response messages (etcd_network_client_grpc_sent_bytes_total)."]
    sent_bytes;
    #[doc = " Connections accepted."]
    accepted;
    #[doc = " Connections closed or handed over."]
    closed;
    #[doc = " gRPC calls begun."]
    calls;
    #[doc = " Connections closed for breaking a rule of HTTP/2 or a limit."]
    violations;
    #[doc = " Turns of the loop."]
    turns;
}

/// A counter with one writer.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed) + count, Relaxed);
    }

    pub(super) fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
