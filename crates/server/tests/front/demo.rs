//! A small service on the front end: echo, a big body, a stream, and a call that never ends.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use api::{Code, Status};
use bytes::Bytes;
use server::front::{
    self, BodySource, CallId, Config, Front, Handler, Limits, Listener, Mailbox, Method, MethodId,
    MethodKind, Net, RequestHead,
};

pub(crate) const METHODS: &[Method] = &[
    Method {
        path: "/demo.Demo/Echo",
        kind: MethodKind::Unary,
    },
    Method {
        path: "/demo.Demo/Later",
        kind: MethodKind::Unary,
    },
    Method {
        path: "/demo.Demo/Big",
        kind: MethodKind::Unary,
    },
    Method {
        path: "/demo.Demo/Chat",
        kind: MethodKind::Streaming,
    },
    Method {
        path: "/demo.Demo/Hang",
        kind: MethodKind::Unary,
    },
    Method {
        path: "/demo.Demo/Fail",
        kind: MethodKind::Unary,
    },
    Method {
        path: "/demo.Demo/Flood",
        kind: MethodKind::Unary,
    },
    Method {
        path: "/demo.Demo/Broken",
        kind: MethodKind::Unary,
    },
];
const ECHO: MethodId = MethodId(0);
const LATER: MethodId = MethodId(1);
const BIG: MethodId = MethodId(2);
const HANG: MethodId = MethodId(4);
const FAIL: MethodId = MethodId(5);
const FLOOD: MethodId = MethodId(6);
const BROKEN: MethodId = MethodId(7);

/// What a flood sends in messages of 64 KiB.
pub(crate) const FLOOD_MESSAGES: u64 = 512;
const FLOOD_MESSAGE_BYTES: usize = 64 * 1024;

/// Something that the test may wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Cancelled,
    Token(Option<Bytes>),
}

pub(crate) struct Demo {
    later: Vec<(CallId, Bytes)>,
    worker: mpsc::Sender<Vec<(CallId, Bytes)>>,
    floods: HashMap<CallId, u64>,
    seen: mpsc::Sender<Seen>,
}

/// `left` bytes of `x`, in chunks of at most 64 KiB; then an error if `broken`.
struct Body {
    left: usize,
    broken: bool,
}

impl BodySource for Body {
    fn next_chunk(&mut self, bytes_max: usize) -> Result<Option<Bytes>, Status> {
        if self.left == 0 {
            return if self.broken {
                Err(Status::new(Code::DataLoss, "broken"))
            } else {
                Ok(None)
            };
        }
        let length = self.left.min(bytes_max);
        self.left -= length;
        Ok(Some(vec![b'x'; length].into()))
    }
}

impl Demo {
    fn flood(&mut self, net: &mut Net, call: CallId) {
        let left = self.floods.entry(call).or_insert(FLOOD_MESSAGES);
        while *left > 0
            && net
                .queued_bytes(call)
                .is_some_and(|queued| queued < 256 * 1024)
        {
            net.send(call, vec![b'y'; FLOOD_MESSAGE_BYTES]);
            *left -= 1;
        }
        if *left == 0 {
            self.floods.remove(&call);
            net.finish(call, Status::new(Code::Ok, ""));
        }
    }
}

impl Handler for Demo {
    type Mail = (CallId, Bytes);

    fn on_unary(&mut self, net: &mut Net, call: CallId, head: &RequestHead, message: Bytes) {
        match head.method() {
            ECHO => {
                let _ = self.seen.send(Seen::Token(head.auth_token()));
                net.reply_encoded(call, message.len(), |out| out.extend_from_slice(&message));
            }
            LATER => self.later.push((call, message)),
            BIG => {
                let length = std::str::from_utf8(&message).unwrap().parse().unwrap();
                let body = Body {
                    left: length,
                    broken: false,
                };
                net.reply_body(call, length as u64, Box::new(body));
            }
            BROKEN => {
                let left = std::str::from_utf8(&message).unwrap().parse().unwrap();
                let body = Body { left, broken: true };
                net.reply_body(call, left as u64 + 100, Box::new(body));
            }
            FAIL => {
                net.finish(
                    call,
                    Status::new(Code::NotFound, "50% of ümlauts\n are lost"),
                );
            }
            FLOOD => self.flood(net, call),
            HANG => {}
            other => panic!("{other:?} is no unary method"),
        }
    }

    fn on_open(&mut self, _: &mut Net, _: CallId, head: &RequestHead) -> Result<(), Status> {
        match head.token.as_deref() {
            Some(b"bad") => Err(Status::new(Code::Unauthenticated, "no entry")),
            _ => Ok(()),
        }
    }

    fn on_message(&mut self, net: &mut Net, call: CallId, message: Bytes) {
        net.send(call, message);
    }

    fn on_half_close(&mut self, net: &mut Net, call: CallId) {
        net.finish(call, Status::new(Code::Ok, ""));
    }

    fn on_cancel(&mut self, _: &mut Net, call: CallId) {
        self.floods.remove(&call);
        let _ = self.seen.send(Seen::Cancelled);
    }

    fn on_writable(&mut self, net: &mut Net, call: CallId) {
        self.flood(net, call);
    }

    fn on_turn_end(&mut self, _: &mut Net) {
        if !self.later.is_empty() {
            let _ = self.worker.send(std::mem::take(&mut self.later));
        }
    }

    fn on_mail(&mut self, net: &mut Net, mail: &mut Vec<Self::Mail>) {
        for (call, message) in mail.drain(..) {
            net.reply(call, message);
        }
    }
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) front: Front<(CallId, Bytes)>,
    pub(crate) seen: mpsc::Receiver<Seen>,
}

impl Server {
    pub(crate) fn start(limits: Limits) -> Server {
        Server::start_with(limits, |_| {})
    }

    pub(crate) fn start_with(limits: Limits, change: impl FnOnce(&mut Config)) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Server::listen(vec![Listener::Tcp(listener)], limits, change)
    }

    pub(crate) fn listen(
        listeners: Vec<Listener>,
        limits: Limits,
        change: impl FnOnce(&mut Config),
    ) -> Server {
        let address = match &listeners[0] {
            Listener::Tcp(listener) => listener.local_addr().unwrap(),
            _ => SocketAddr::from(([0; 4], 0)),
        };
        let mailboxes = Mailbox::set(2).unwrap();
        let (worker, work) = mpsc::channel::<Vec<(CallId, Bytes)>>();
        let back = mailboxes.clone();
        // Answers from another thread, grouped by net thread, as the core does.
        std::thread::spawn(move || {
            for batch in work {
                let mut batches = vec![Vec::new(); back.len()];
                batch
                    .into_iter()
                    .for_each(|mail| batches[mail.0.thread()].push(mail));
                back.iter()
                    .zip(&mut batches)
                    .for_each(|(mailbox, batch)| mailbox.push(batch));
            }
        });
        let (seen_sender, seen) = mpsc::channel();
        let mut config = Config {
            limits,
            methods: METHODS,
            traffic: Vec::new(),
            foreign: None,
            bridge: None,
        };
        change(&mut config);
        let front = front::start(config, listeners, mailboxes, move |_| Demo {
            later: Vec::new(),
            worker: worker.clone(),
            floods: HashMap::new(),
            seen: seen_sender.clone(),
        })
        .unwrap();
        Server {
            address,
            front,
            seen,
        }
    }

    /// Waits until the service has seen what `wanted` accepts.
    pub(crate) fn wait_for(&self, wanted: impl Fn(&Seen) -> bool) -> Seen {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let seen = self
                .seen
                .recv_timeout(left)
                .expect("the service saw nothing of it");
            if wanted(&seen) {
                return seen;
            }
        }
    }

    pub(crate) fn stop(self) {
        self.front.drain(Duration::from_secs(5));
        self.front.join().unwrap();
    }
}
