//! What can go wrong between a program and its database, and what to do then.

use std::fmt;

use thiserror::Error;

/// What is wrong, so that a caller can decide whether to try again, to stop or to ask a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DatabaseErrorKind {
    /// The address is no address of a database.
    Address,
    /// Nobody answers there, or the connection broke. What was not committed is not there; of a commit without an answer
    /// nobody knows.
    Unreachable,
    /// The database took longer than the options allow, or all connections are in use.
    TimedOut,
    /// The database refuses the user, the password, the name of the database, or lacks a right.
    Refused,
    /// No room is left.
    Full,
    /// The file, its folder or the server takes no writes.
    ReadOnly,
    /// What lies there is no database, or a damaged one.
    Corrupt,
    /// Its tables are those of a newer program.
    Newer,
    /// A migration differs from the one that made the tables.
    Changed,
    /// It refuses a value or a statement: a mistake of the program, not of the database.
    Statement,
}

impl DatabaseErrorKind {
    /// A name for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::Refused => "refused",
            Self::Full => "full",
            Self::ReadOnly => "read_only",
            Self::Corrupt => "corrupt",
            Self::Newer => "newer",
            Self::Changed => "changed",
            Self::Statement => "statement",
        }
    }

    /// Whether the same call can succeed later without anybody changing anything.
    pub fn may_pass(self) -> bool {
        matches!(self, Self::Unreachable | Self::TimedOut)
    }

    fn advice(self) -> &'static str {
        match self {
            Self::Address => "expected sqlite:PATH or postgres://USER@HOST/DATABASE",
            Self::Unreachable => {
                "check that it is there and runs, and that its path, or host and port, are right"
            }
            Self::TimedOut => {
                "see what holds it up (locks, load, disk), or allow more time or connections in the options"
            }
            Self::Refused => "check user, password, name of the database, and what the user is granted",
            Self::Full => "make room on its disk; until then nothing is written",
            Self::ReadOnly => "give the program's user the right to write the file and its folder",
            Self::Corrupt => "restore it from a backup; the file is left as it is",
            Self::Newer => "run the newer program, or restore the backup from before its first start",
            Self::Changed => "run the program that made the tables, or one that was released after it",
            Self::Statement => "this is a mistake of the program; please report it",
        }
    }
}

/// An error of the database. It names the place without its password.
#[derive(Debug, Clone, Error)]
pub struct DatabaseError {
    kind: DatabaseErrorKind,
    place: String,
    problem: String,
}

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the database {}: {}; {}", self.place, self.problem, self.kind.advice())
    }
}

impl DatabaseError {
    /// An error about the database at `place`, which must hold no password.
    pub(crate) fn new(kind: DatabaseErrorKind, place: &str, problem: impl Into<String>) -> Self {
        Self { kind, place: place.to_owned(), problem: problem.into() }
    }

    /// What is wrong.
    pub fn kind(&self) -> DatabaseErrorKind {
        self.kind
    }

    /// Sorts what sqlx says.
    pub(crate) fn from_sqlx(place: &str, source: &sqlx::Error) -> Self {
        use DatabaseErrorKind as Kind;
        let kind = match source {
            sqlx::Error::Database(error) => return Self::from_database(place, error.as_ref()),
            sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => Kind::TimedOut,
            sqlx::Error::Io(_) | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => Kind::Unreachable,
            // A failed handshake, or a certificate that is not the expected one.
            sqlx::Error::Tls(_) => Kind::Refused,
            sqlx::Error::PoolTimedOut => Kind::TimedOut,
            // What a broken connection leaves half sent.
            sqlx::Error::Protocol(_) | sqlx::Error::BeginFailed => Kind::Unreachable,
            sqlx::Error::Configuration(_) => Kind::Address,
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Kind::Corrupt,
            _ => Kind::Statement,
        };
        Self::new(kind, place, source.to_string())
    }

    fn from_database(place: &str, error: &dyn sqlx::error::DatabaseError) -> Self {
        let code = error.code().unwrap_or_default();
        let kind = match error.try_downcast_ref::<sqlx::sqlite::SqliteError>() {
            Some(_) => sqlite_kind(&code),
            None => postgres_kind(&code),
        };
        Self::new(kind, place, format!("{} (code {code})", error.message()))
    }
}

/// By the primary result code, the low byte of an extended one (<https://www.sqlite.org/rescode.html>).
fn sqlite_kind(code: &str) -> DatabaseErrorKind {
    use DatabaseErrorKind as Kind;
    let code = code.parse::<i32>().unwrap_or_default();
    // IOERR_SHMSIZE: the index of the write-ahead log finds no room.
    if code == 10 | 19 << 8 {
        return Kind::Full;
    }
    match code & 0xff {
        // BUSY, LOCKED, INTERRUPT
        5 | 6 | 9 => Kind::TimedOut,
        // READONLY; PERM, AUTH
        8 => Kind::ReadOnly,
        3 | 23 => Kind::Refused,
        // IOERR, CANTOPEN, NOLFS, PROTOCOL (of the locks)
        10 | 14 | 15 | 22 => Kind::Unreachable,
        // CORRUPT, NOTADB, FORMAT
        11 | 24 | 26 => Kind::Corrupt,
        // FULL
        13 => Kind::Full,
        _ => Kind::Statement,
    }
}

/// By class and code (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
fn postgres_kind(code: &str) -> DatabaseErrorKind {
    use DatabaseErrorKind as Kind;
    match code {
        // No such database or schema; insufficient privilege.
        "3D000" | "3F000" | "42501" => Kind::Refused,
        "53100" => Kind::Full,
        "25006" => Kind::ReadOnly,
        // Too many connections; lock not available; query cancelled by its time-out; deadlock; serialization.
        "53300" | "55P03" | "57014" | "40P01" | "40001" => Kind::TimedOut,
        // System error of the server: its disk, mostly.
        "58030" => Kind::Unreachable,
        _ if code.starts_with("28") => Kind::Refused,
        _ if code.starts_with("08") || code.starts_with("57P") || code.starts_with("25P") => {
            Kind::Unreachable
        }
        _ if code.starts_with("53") => Kind::TimedOut,
        _ if code.starts_with("XX") || code.starts_with("58") => Kind::Corrupt,
        _ => Kind::Statement,
    }
}
