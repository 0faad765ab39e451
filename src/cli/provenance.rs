//! What files of released pictures are signed with.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use cluegate_gate::Signer;
use cluegate_provenance::{CredentialError, Opened};
use cluegate_server::config::Config;

/// Opens what the configuration signs with, if it names anything.
pub(super) fn open(config: &Config) -> Result<Option<Opened>, CredentialError> {
    config.provenance.as_ref().map(cluegate_provenance::open).transpose()
}

/// Who signs for a gateway of this configuration.
pub(super) fn signer(config: &Config) -> anyhow::Result<Option<Arc<dyn Signer>>> {
    let opened = open(config).context("the configuration's [provenance] cannot be used")?;
    Ok(opened.map(|opened| {
        tracing::info!(subject = opened.subject, valid_until = opened.valid_until, "files are signed");
        opened.signer
    }))
}

/// Who signs for a command that is given a configuration, or none.
pub(super) fn signer_of(file: Option<&Path>) -> anyhow::Result<Option<Arc<dyn Signer>>> {
    match file {
        Some(file) => signer(&Config::load(file)?),
        None => Ok(None),
    }
}
