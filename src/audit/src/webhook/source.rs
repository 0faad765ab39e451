//! Where entries are read from on their way to a receiver.

use std::path::{Path, PathBuf};

use tokio::runtime::Handle;

use crate::chain::Placed;
use crate::database::LogTables;
use crate::error::Result;
use crate::reader::Behind;

/// A chain in the durable log.
#[derive(Debug)]
pub(super) struct Source {
    instance: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    File { path: PathBuf, behind: Option<Behind> },
    Tables { tables: LogTables, runtime: Handle },
}

impl Source {
    pub(super) fn file(path: &Path, instance: &str) -> Self {
        Self { instance: instance.to_owned(), kind: Kind::File { path: path.to_path_buf(), behind: None } }
    }

    pub(super) fn tables(tables: &LogTables, runtime: &Handle, instance: &str) -> Self {
        let kind = Kind::Tables { tables: tables.clone(), runtime: runtime.clone() };
        Self { instance: instance.to_owned(), kind }
    }

    /// The entries that come behind `seq`, at most `most`.
    pub(super) fn behind(&mut self, seq: u64, most: usize) -> Result<Vec<Placed>> {
        match &mut self.kind {
            Kind::Tables { tables, runtime } => {
                runtime.block_on(tables.placed_after(&self.instance, seq, most))
            }
            Kind::File { path, behind } => {
                if !path.exists() {
                    return Ok(Vec::new());
                }
                // It stays where it is as long as entries are taken in their order.
                if behind.as_ref().is_none_or(|behind| !behind.is_at(seq)) {
                    *behind = Some(Behind::open(path, &self.instance, seq)?);
                }
                match behind {
                    Some(behind) => behind.next(most),
                    None => Ok(Vec::new()),
                }
            }
        }
    }
}
