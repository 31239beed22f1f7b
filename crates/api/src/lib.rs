//! What clients may say and what we may answer: messages, errors, validation, versions; how
//! members, clusters and their addresses are named.

pub mod cluster;
pub mod error;
pub mod ids;
pub mod pb;
pub mod url;
pub mod validate;
pub mod version;

pub use error::{Code, Error, Status};
