//! What clients may say and what we may answer: messages, errors, validation, versions.

pub mod error;
pub mod ids;
pub mod pb;
pub mod validate;
pub mod version;

pub use error::{Code, Error, Status};
