//! Members in one thread on simulated disks, replayable from a seed: a whole cluster on virtual
//! time ([`cluster`]), or the lives of one member on a disk that is looked at more closely.
//!
//! A run of the second kind is several lives of one member. In each, the parts that are threads in the server take
//! steps in random order; then the process or the machine dies, at a random operation on the disk
//! or between two steps, and the next life boots from what is left. What must hold is checked
//! from outside, against [`model`]:
//!
//! - what was acknowledged is there after every crash (invariant 1);
//! - the state equals the replay of the log up to its applied index (invariant 1);
//! - the revision that clients see never decreases (invariant 3);
//! - a linearizable read sees everything that was acknowledged before it arrived (invariant 4);
//! - the bolt file is sound, and the newest snapshot record has its file and database;
//! - damaged bytes stop the member or change nothing (invariant 9).
//!
//! In reading order: [`run`] (a seed's lives), [`life`] (one life's steps), [`ledger`] (what is
//! known from outside), [`damage`], [`workload`], [`model`].

pub mod cluster;
pub mod damage;
pub mod ledger;
pub mod life;
pub mod model;
pub mod run;
pub mod workload;

/// What a run says about itself, line by line, when somebody listens.
pub struct Trace(Option<Vec<String>>);

impl Trace {
    /// Keeps every line.
    #[must_use]
    pub fn on() -> Trace {
        Trace(Some(Vec::new()))
    }

    /// Keeps nothing.
    #[must_use]
    pub fn off() -> Trace {
        Trace(None)
    }

    /// Adds a line, which is only made when somebody listens.
    pub fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.0 {
            lines.push(line());
        }
    }

    /// The lines so far.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        self.0.as_deref().unwrap_or_default()
    }
}

/// A promise that was broken, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken(pub String);

/// Makes a [`Broken`] as `format!` makes a string.
#[macro_export]
macro_rules! broken {
    ($($arg:tt)*) => { $crate::Broken(format!($($arg)*)) };
}
