//! A PostgreSQL cluster of its own, from the system's packages.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use ring::rand::{SecureRandom as _, SystemRandom};
use sqlx::{Connection as _, Executor as _};

/// Where Debian puts the programs, below a folder for each version.
const PACKAGES: &str = "/usr/lib/postgresql";
/// The user whom Debian's package makes; a PostgreSQL refuses to run as root.
const USER: &str = "postgres";
/// Stops the server when this process ends, however it ends.
const SCRIPT: &str = include_str!("cluster.sh");

/// A PostgreSQL for tests could not be had.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "cannot {what} for a PostgreSQL to test with: {problem}; install one (Debian: apt-get install postgresql), or leave its \
     tests out with CLUEGATE_TEST_POSTGRES=skip"
)]
pub struct TestingError {
    what: &'static str,
    problem: String,
}

impl TestingError {
    pub(super) fn new(what: &'static str, problem: impl ToString) -> Self {
        Self { what, problem: problem.to_string() }
    }
}

/// Whether a commit waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// No: for tests, where only the server may die and not the machine.
    Off,
    /// Yes, as in use: for measurements.
    On,
}

/// A server of its own on a port of 127.0.0.1, gone when this value is dropped or its process ends.
#[derive(Debug)]
pub struct PostgresServer {
    port: u16,
    folder: PathBuf,
    password: String,
    keeper: Mutex<Keeper>,
    made: AtomicU64,
}

/// The script that keeps the server.
#[derive(Debug)]
struct Keeper {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl PostgresServer {
    /// Makes a cluster in the system's folder for temporary files, and starts it.
    ///
    /// # Errors
    /// If no PostgreSQL is installed, or it does not start.
    pub fn start(durability: Durability) -> Result<Self, TestingError> {
        Self::start_with(durability, &std::env::temp_dir(), &[])
    }

    /// As [`start`](Self::start), with the cluster in a new folder below `parent` and further settings (`name=value`, without
    /// spaces).
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(
        durability: Durability,
        parent: &Path,
        settings: &[&str],
    ) -> Result<Self, TestingError> {
        let programs = find_programs()?;
        let port = free_port().map_err(|source| TestingError::new("find a port", source))?;
        let password = random_hex().ok_or_else(|| TestingError::new("draw a password", "no random bytes"))?;
        let folder =
            make_folder(parent, &password).map_err(|source| TestingError::new("make a folder", source))?;
        let fsync = if durability == Durability::On { "on" } else { "off" };
        let mut command = as_user();
        command.args(["sh", "-c", SCRIPT, "cluster.sh"]).arg(&programs).arg(&folder);
        command.arg(port.to_string()).arg(fsync).args(settings.iter().flat_map(|setting| ["-c", setting]));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|source| TestingError::new("run the shell", source))?;
        let (Some(orders), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(TestingError::new("run the shell", "it has no standard input or output"));
        };
        let mut keeper = Keeper { child, orders: Some(orders), answers: BufReader::new(answers) };
        keeper.answer("made")?;
        let server = Self { port, folder, password, keeper: Mutex::new(keeper), made: AtomicU64::new(0) };
        server.resume()?;
        Ok(server)
    }

    /// Starts it again on the same port, with the same data.
    ///
    /// # Errors
    /// If it does not start.
    pub fn resume(&self) -> Result<(), TestingError> {
        self.order("start")
    }

    /// Stops it as an operator would: connections are closed, what is written is kept.
    ///
    /// # Errors
    /// If it does not stop.
    pub fn stop(&self) -> Result<(), TestingError> {
        self.order("stop")
    }

    /// Stops it as a crash would.
    ///
    /// # Errors
    /// If it does not stop.
    pub fn crash(&self) -> Result<(), TestingError> {
        self.order("crash")
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address of its database `name`, with the password of its superuser.
    pub fn url(&self, name: &str) -> String {
        format!("postgres://cluegate:{}@127.0.0.1:{}/{name}?sslmode=disable", self.password, self.port)
    }

    /// The folder of its data, for tests that damage it while it is stopped.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Gives `path` to the user as whom it runs.
    ///
    /// # Errors
    /// If this process may not.
    pub fn give(&self, path: &Path) -> Result<(), TestingError> {
        give(path).map_err(|source| TestingError::new("give a folder to the server", source))
    }

    /// Makes an empty database and gives its address.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn database(&self) -> Result<String, TestingError> {
        let name = format!("test_{}", self.made.fetch_add(1, Ordering::Relaxed));
        self.execute(&format!("CREATE DATABASE {name}")).await?;
        Ok(self.url(&name))
    }

    /// Runs a statement as superuser, in the database `postgres`.
    ///
    /// # Errors
    /// If the server does not answer, or refuses it.
    pub async fn execute(&self, sql: &str) -> Result<(), TestingError> {
        let fail = |source: sqlx::Error| TestingError::new("run a statement", source);
        let mut connection = sqlx::PgConnection::connect(&self.url("postgres")).await.map_err(fail)?;
        connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(sql))).await.map_err(fail)?;
        connection.close().await.map_err(fail)
    }

    fn order(&self, order: &str) -> Result<(), TestingError> {
        let mut keeper =
            self.keeper.lock().map_err(|_| TestingError::new("give an order", "an earlier one panicked"))?;
        let sent = match &mut keeper.orders {
            Some(orders) => writeln!(orders, "{order}").and_then(|()| orders.flush()),
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        };
        sent.map_err(|source| TestingError::new("give an order", source))?;
        keeper.answer("done")
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        let keeper = self.keeper.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        // The end of its orders is what stops it.
        keeper.orders = None;
        let _ = keeper.child.wait();
    }
}

impl Keeper {
    fn answer(&mut self, expected: &str) -> Result<(), TestingError> {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line);
        read.map_err(|source| TestingError::new("hear from the server", source))?;
        if line.trim_end() == expected {
            return Ok(());
        }
        let said = if line.is_empty() { "the script ended" } else { line.trim_end() };
        Err(TestingError::new("start or stop the server", said))
    }
}

/// The newest version's folder of programs.
fn find_programs() -> Result<PathBuf, TestingError> {
    let versions = std::fs::read_dir(PACKAGES).into_iter().flatten().flatten();
    versions
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin")))
        })
        .filter(|(_, programs)| programs.join("initdb").is_file())
        .max()
        .map(|(_, programs)| programs)
        .ok_or_else(|| TestingError::new("find the programs", format!("there is none in {PACKAGES}")))
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn random_hex() -> Option<String> {
    let mut bytes = [0_u8; 16];
    SystemRandom::new().fill(&mut bytes).ok()?;
    let mut hex = String::new();
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    Some(hex)
}

/// A folder that belongs to the user as whom the server runs, with the password in it.
fn make_folder(parent: &Path, password: &str) -> std::io::Result<PathBuf> {
    let folder = parent.join(format!("cluegate-postgres-{}", random_hex().ok_or(std::io::ErrorKind::Other)?));
    std::fs::create_dir(&folder)?;
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700))?;
    let file = folder.join("password");
    std::fs::write(&file, password)?;
    give(&file)?;
    give(&folder)?;
    Ok(folder)
}

fn give(path: &Path) -> std::io::Result<()> {
    match other_user()? {
        Some((user, group)) => chown(path, Some(user), Some(group)),
        None => Ok(()),
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// User and group of the server, if it is not this process's.
fn other_user() -> std::io::Result<Option<(u32, u32)>> {
    if !is_root() {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd")?;
    let mut fields = users
        .lines()
        .map(|line| line.split(':'))
        .find_map(|mut fields| (fields.next() == Some(USER)).then_some(fields));
    let mut number = |skip: usize| fields.as_mut()?.nth(skip)?.parse().ok();
    match (number(1), number(0)) {
        (Some(user), Some(group)) => Ok(Some((user, group))),
        _ => Err(std::io::Error::other(format!("there is no user {USER}"))),
    }
}

/// A command that runs as the server's user.
fn as_user() -> Command {
    if is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", USER, "--"]);
        command
    } else {
        Command::new("env")
    }
}
