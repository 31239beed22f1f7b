use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::time::Timespec;

use super::*;

/// A sleep this long means that a wake-up was lost.
const LOST: Duration = Duration::from_secs(20);

/// What the loop waits on.
fn waiting_on(mailbox: &Mailbox<u64, ()>) -> OwnedFd {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    mailbox.register(&epoll, EventData::new_u64(7)).unwrap();
    epoll
}

/// Sleeps as the loop does; true if there was something to wake for.
fn sleep(mailbox: &Mailbox<u64, ()>, epoll: &OwnedFd) -> bool {
    if !mailbox.may_sleep() {
        return true;
    }
    let mut ready = Vec::with_capacity(1);
    let timeout = Timespec {
        tv_sec: LOST.as_secs() as i64,
        tv_nsec: 0,
    };
    epoll::wait(epoll, spare_capacity(&mut ready), Some(&timeout)).unwrap();
    mailbox.awake();
    !ready.is_empty()
}

#[test]
fn no_wake_up_is_lost() {
    const PRODUCERS: u64 = 3;
    const BATCHES: u64 = 20_000;
    let mailbox = Mailbox::<u64, ()>::new().unwrap();
    let epoll = waiting_on(&mailbox);
    // Every batch waits until an earlier one was taken, so the consumer sleeps all the time.
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|producer| {
            let mailbox = mailbox.clone();
            let (taken, wait) = mpsc::channel::<()>();
            let thread = thread::spawn(move || {
                for batch in 0..BATCHES {
                    mailbox.push(&mut vec![producer, producer]);
                    if batch % 3 != 0 {
                        wait.recv().unwrap();
                    }
                    if batch % 7 == producer {
                        thread::yield_now();
                    }
                }
            });
            (taken, thread)
        })
        .collect();
    let begin = Instant::now();
    let (mut mail, mut control) = (Vec::new(), Vec::new());
    let mut left = PRODUCERS * BATCHES * 2;
    while left > 0 {
        assert!(
            sleep(&mailbox, &epoll),
            "a wake-up was lost, {left} messages are missing"
        );
        mailbox.take(&mut mail, &mut control);
        left -= mail.len() as u64;
        for producer in mail.drain(..).step_by(2) {
            // The producer may have ended already.
            let _ = producers[producer as usize].0.send(());
        }
        assert!(begin.elapsed() < Duration::from_secs(120));
    }
    for (_, thread) in producers {
        thread.join().unwrap();
    }
}

#[test]
fn batches_keep_their_order() {
    let mailbox = Mailbox::<u64, u8>::new().unwrap();
    mailbox.push(&mut vec![1, 2]);
    mailbox.push(&mut Vec::new());
    mailbox.push(&mut vec![3]);
    mailbox.push_control(9);
    assert!(!mailbox.may_sleep());
    let (mut mail, mut control) = (Vec::new(), Vec::new());
    mailbox.take(&mut mail, &mut control);
    assert_eq!((mail, control), (vec![1, 2, 3], vec![9]));
    assert!(mailbox.may_sleep());
}
