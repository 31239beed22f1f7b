//! The table of gRPC methods, found by path.

use std::collections::HashMap;

use api::{Code, Status};

use super::super::call::Method;

/// The number of a path that is no method.
pub(crate) const NO_ROUTE: u16 = u16::MAX;

pub(crate) struct Routes {
    methods: &'static [Method],
    by_path: HashMap<&'static [u8], u16>,
}

impl Routes {
    pub(crate) fn new(methods: &'static [Method]) -> Self {
        assert!(
            methods.len() < usize::from(NO_ROUTE),
            "{} methods",
            methods.len()
        );
        let numbered = methods.iter().zip(0..);
        let by_path = numbered
            .map(|(method, number)| (method.path.as_bytes(), number))
            .collect();
        Routes { methods, by_path }
    }

    pub(crate) fn find(&self, path: &[u8]) -> u16 {
        self.by_path.get(path).copied().unwrap_or(NO_ROUTE)
    }

    /// The row of a number that [`Self::find`] gave and that is not [`NO_ROUTE`].
    pub(crate) fn method(&self, number: u16) -> &'static Method {
        &self.methods[usize::from(number)]
    }

    /// The status for a path that is no method, in grpc-go's words.
    pub(crate) fn refusal(&self, path: &[u8]) -> Status {
        let path = String::from_utf8_lossy(path);
        let bare = path.strip_prefix('/').unwrap_or(&path);
        let text = match bare.rsplit_once('/') {
            None => format!("malformed method name: {path:?}"),
            Some((service, method)) => {
                let prefix = format!("/{service}/");
                if self
                    .methods
                    .iter()
                    .any(|known| known.path.starts_with(&prefix))
                {
                    format!("unknown method {method} for service {service}")
                } else {
                    format!("unknown service {service}")
                }
            }
        };
        Status::new(Code::Unimplemented, text)
    }
}
