//! Who is calling: tokens, passwords and certificates, on the side of the member that is asked.
//!
//! What a caller may do is the replicated state's to say (`state::auth`); here a request's token or
//! certificate becomes the name that is asked about there. Nothing of this runs while authentication
//! is off.

pub(crate) mod simple;
pub(crate) mod token;
