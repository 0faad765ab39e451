//! Where a database is, read from what a person wrote.

use std::path::PathBuf;
use std::str::FromStr as _;

use sqlx::postgres::PgConnectOptions;

use crate::{DatabaseError, DatabaseErrorKind};

/// What may stand behind the `?` of PostgreSQL's address.
const PARAMETERS: [&str; 11] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "password",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "user",
];

/// A database, and how to reach it.
#[derive(Clone)]
pub(crate) enum Address {
    /// A file.
    Sqlite(PathBuf),
    /// A server.
    Postgres(Box<PgConnectOptions>),
}

impl Address {
    /// Reads `sqlite:PATH`, `sqlite://PATH`, `postgres://...` or `postgresql://...`. No error repeats the text: it may hold
    /// a password.
    pub(crate) fn parse(url: &str) -> Result<Self, DatabaseError> {
        let fail = |problem: String| DatabaseError::new(DatabaseErrorKind::Address, "address", problem);
        if url.contains('\0') {
            return Err(fail("it contains a NUL".into()));
        }
        if let Some(path) = url.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path.starts_with(':') {
                return Err(fail(
                    "there is no file; a database in memory would be gone with the program".into(),
                ));
            }
            if path.contains('?') {
                return Err(fail("SQLite takes no parameters behind a `?`".into()));
            }
            return Ok(Self::Sqlite(path.into()));
        }
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(fail("it begins with neither `sqlite:` nor `postgres://`".into()));
        }
        for parameter in url.split_once('?').map_or("", |(_, query)| query).split('&') {
            let name = parameter.split_once('=').map_or(parameter, |(name, _)| name);
            if !name.is_empty() && !PARAMETERS.contains(&name) {
                return Err(fail(format!(
                    "PostgreSQL takes no parameter {name:?} here, only {}",
                    PARAMETERS.join(", ")
                )));
            }
        }
        let options = PgConnectOptions::from_str(url).map_err(|source| fail(source.to_string()))?;
        Ok(Self::Postgres(Box::new(options)))
    }

    /// The place for messages, without a password.
    pub(crate) fn place(&self) -> String {
        match self {
            Self::Sqlite(path) => format!("sqlite:{}", path.display()),
            Self::Postgres(options) => {
                let user = options.get_username();
                let database = options.get_database().unwrap_or(user);
                match options.get_socket() {
                    Some(socket) => format!("postgres://{user}@{}/{database}", socket.display()),
                    None => {
                        format!("postgres://{user}@{}:{}/{database}", options.get_host(), options.get_port())
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_and_a_server_are_told_apart() {
        for (url, place) in [
            ("sqlite:gate.db", "sqlite:gate.db"),
            ("sqlite:///var/lib/gate.db", "sqlite:/var/lib/gate.db"),
            ("postgres://gate:secret@db.example:6543/gate", "postgres://gate@db.example:6543/gate"),
            ("postgresql://gate@[::1]/gate?sslmode=verify-full", "postgres://gate@[::1]:5432/gate"),
            ("postgres://gate:secret@%2Frun%2Fpostgresql/gate", "postgres://gate@/run/postgresql/gate"),
        ] {
            assert_eq!(Address::parse(url).map(|address| address.place()).unwrap(), place);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_without_its_password() {
        for (url, word) in [
            ("sqlite::memory:", "in memory"),
            ("sqlite:", "no file"),
            ("sqlite:gate.db?mode=rw", "parameters"),
            ("mysql://gate:hunter2@db/gate", "neither"),
            ("/var/lib/hunter2", "neither"),
            ("postgres://gate:hunter2@db:99999/gate", "port"),
            ("postgres://gate:hunter2@db/gate?sslmode=perhaps", "perhaps"),
            ("postgres://gate@db/gate?passwrod=hunter2", "passwrod"),
            ("postgres://gate@db/gate?options=hunter2", "options"),
            ("sqlite:ga\0te", "NUL"),
        ] {
            let error = Address::parse(url).err().unwrap();
            assert_eq!(error.kind(), DatabaseErrorKind::Address, "{url}");
            let text = format!("{error} {error:?}");
            assert!(text.contains(word) && !text.contains("hunter2"), "{url}: {text}");
        }
    }
}
