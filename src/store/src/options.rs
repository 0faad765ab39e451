//! Limits of a database handle.

use std::time::Duration;

/// How many connections a handle opens and how long it waits. The defaults suit a gateway of some cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatabaseOptions {
    /// Connections to PostgreSQL, or readers of SQLite (which has one writer beside them); 1 or more. Default: 8.
    pub connections: u32,
    /// Longest wait for the first connection, and for a free one afterwards. Default: 5 s.
    pub connect: Duration,
    /// Longest a statement may take, waiting for locks included. Default: 10 s.
    pub statement: Duration,
    /// Longest the migrations may take, waiting for another program's included. Default: 60 s.
    pub migrate: Duration,
}

impl Default for DatabaseOptions {
    fn default() -> Self {
        Self {
            connections: 8,
            connect: Duration::from_secs(5),
            statement: Duration::from_secs(10),
            migrate: Duration::from_secs(60),
        }
    }
}
