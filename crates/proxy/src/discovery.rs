//! Endpoints from the SRV records of a domain.

use client::{TlsConfig, srv};

use crate::settings::{Discovery, Settings};

/// Puts the discovered endpoints in the place of those of the command line, if there are any;
/// those whose certificates are trusted, unless all are wanted. Asks name servers and blocks.
///
/// # Errors
/// There are no such records, or no endpoints at all.
pub async fn discover(settings: &mut Settings) -> Result<(), String> {
    let Some(discovery) = settings.discovery.clone() else {
        return has_endpoints(settings);
    };
    let found = srv::endpoints(&discovery.domain, &discovery.name)?;
    tracing::info!(
        "dns-server" = discovery.domain.as_str(),
        endpoints = found.len(),
        "discovered cluster from SRV"
    );
    let mut endpoints = Vec::new();
    for endpoint in found {
        if discovery.insecure || is_trusted(settings, &discovery, &endpoint).await {
            endpoints.push(endpoint);
        }
    }
    if !endpoints.is_empty() {
        settings.cluster.endpoints = endpoints;
    }
    has_endpoints(settings)
}

fn has_endpoints(settings: &Settings) -> Result<(), String> {
    match settings.cluster.endpoints.is_empty() {
        true => Err("etcdclient: no available endpoints".to_owned()),
        false => Ok(()),
    }
}

async fn is_trusted(settings: &Settings, discovery: &Discovery, endpoint: &str) -> bool {
    let greeted = match endpoint.starts_with("https://") {
        true => {
            let ca_file = settings.cluster.tls.as_ref();
            let mut config = client::Config::new(vec![endpoint.to_owned()]);
            config.tls = Some(TlsConfig {
                ca_file: ca_file.and_then(|tls| tls.ca_file.clone()),
                server_name: Some(discovery.domain.clone()),
                ..TlsConfig::default()
            });
            let greeted = client::greet(&config).await;
            greeted.map_err(|error| error.to_string())
        }
        false => Err("the record names a server without TLS".to_owned()),
    };
    if let Err(error) = &greeted {
        tracing::warn!(
            "srv-server" = discovery.domain.as_str(),
            endpoint,
            error = error.as_str(),
            "failed to validate discovered endpoints"
        );
    }
    greeted.is_ok()
}
