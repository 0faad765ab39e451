//! `cluegate health`: whether a gateway answers, for images that hold no other program to ask with.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};

use super::args::HealthArgs;
use super::{Exit, say};

pub(super) fn run(arguments: &HealthArgs) -> anyhow::Result<Exit> {
    let wait = Duration::from_millis(arguments.timeout_ms);
    let mut config = ureq::Agent::config_builder().timeout_global(Some(wait)).http_status_as_error(false);
    if let Some(file) = &arguments.certificates {
        let trusted = RootCerts::new_with_certs(&certificates(file)?);
        config = config.tls_config(TlsConfig::builder().root_certs(trusted).build());
    }
    let agent: ureq::Agent = config.max_redirects(0).build().into();
    let answer = agent.get(&arguments.url).call()?;
    let healthy = answer.status().is_success();
    say(format_args!("{}: {}", arguments.url, answer.status()))?;
    Ok(if healthy { Exit::Clean } else { Exit::Violation })
}

/// The certificates in a file.
fn certificates(file: &Path) -> anyhow::Result<Vec<Certificate<'static>>> {
    let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let items = ureq::tls::parse_pem(&text).collect::<Result<Vec<_>, _>>();
    let items = items.with_context(|| format!("{}: expected certificates in PEM", file.display()))?;
    let found: Vec<_> = items
        .into_iter()
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    ensure!(!found.is_empty(), "{}: expected a certificate in PEM, found none", file.display());
    Ok(found)
}
