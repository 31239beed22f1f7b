//! Who may do what: users, the table of calls, and what each of them must be told.
//!
//! [`table`] is data: a call and what it needs. [`users`] are people with permissions. What comes
//! out for one of them is worked out here from both ([`Row::wanted`]), in a few lines that share
//! nothing with a server, and [`call`] asks a member, over gRPC or JSON.

pub mod call;
pub mod setup;
pub mod table;
pub mod users;

pub use call::{Door, Outcome};
pub use setup::Root;
pub use table::{Key, Needs, ROWS, Row};
pub use users::{Kind, User, Who, users};

impl Row {
    /// What this caller must be told.
    #[must_use]
    pub fn wanted(&self, who: &Who) -> Outcome {
        if let Some((_, answer)) = self.except.iter().find(|(one, _)| *one == who.name()) {
            return outcome(*answer);
        }
        // Locks and elections keep the text of what refuses them, and lose its code; an observer
        // is told nothing at all.
        let error = |code, text| match self.call {
            "v3electionpb.Election/Observe" => Outcome::Ended,
            call if call.starts_with("v3") => Outcome::error("UNKNOWN", text),
            _ => Outcome::error(code, text),
        };
        let denied = error("PERMISSION_DENIED", "etcdserver: permission denied");
        let nobody = error("INVALID_ARGUMENT", "etcdserver: user name is empty");
        let wrong = error("UNAUTHENTICATED", "etcdserver: invalid auth token");
        let stranger = error("FAILED_PRECONDITION", "etcdserver: user name not found");
        let allowed = outcome(self.answer);
        match (self.needs, who) {
            (Needs::Nothing, _) | (_, Who::User(User { root: true, .. })) => allowed,
            (_, Who::WrongToken) => wrong,
            // Of strangers it is known that they are somebody.
            (Needs::LoggedIn, Who::User(_) | Who::Stranger) => allowed,
            (Needs::Root | Needs::User(_) | Needs::Role(_), Who::Stranger) => stranger,
            (_, Who::Nobody) => nobody,
            (Needs::Keys(keys), Who::User(user)) if keys.iter().all(|key| user.may(key)) => allowed,
            (Needs::User(name) | Needs::Role(name), Who::User(user)) if user.name == name => {
                allowed
            }
            _ => denied,
        }
    }
}

fn outcome(answer: table::Answer) -> Outcome {
    match answer {
        table::Answer::Done => Outcome::Done,
        table::Answer::Error(code, message) => Outcome::error(code, message),
        table::Answer::Untried => Outcome::Untried,
    }
}
