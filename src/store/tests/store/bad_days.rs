//! Databases that are gone, full, closed for writing, damaged, locked or too new.

use std::net::TcpListener;
use std::time::Duration;

use cluegate_store::migrate::MIGRATIONS;
use cluegate_store::testing::{Durability, PostgresServer, SKIP_VARIABLE, SmallDisk, TestDatabase, each};
use cluegate_store::{
    Author, Database, DatabaseError, DatabaseErrorKind, DatabaseOptions, Expect, Store, StoreError, args,
};

const ANNA: Author<'_> = Author { by: "anna", at_ms: 1_000 };

/// Options that give up soon.
const SOON: DatabaseOptions = DatabaseOptions {
    connections: 2,
    connect: Duration::from_millis(500),
    statement: Duration::from_millis(500),
    migrate: Duration::from_secs(20),
};

fn kind(error: StoreError) -> DatabaseErrorKind {
    match error {
        StoreError::Database(error) => error.kind(),
        other => panic!("no error of the database: {other}"),
    }
}

fn own_server() -> Option<PostgresServer> {
    if std::env::var_os(SKIP_VARIABLE).is_some_and(|value| value == "skip") {
        return None;
    }
    Some(PostgresServer::start(Durability::Off).unwrap())
}

async fn put(store: &Store, tenant: &str, policy: &str) -> Result<i64, StoreError> {
    let mut edit = store.edit(ANNA).await?;
    edit.put_tenant(tenant, policy, Expect::Any).await?;
    edit.commit().await
}

#[tokio::test]
async fn a_server_that_is_gone_is_named_and_used_again_when_it_is_back() {
    let Some(server) = own_server() else { return };
    let url = server.database().await.unwrap();
    server.stop().unwrap();
    let error = Database::open(&url, SOON).await.unwrap_err();
    assert_eq!(error.kind(), DatabaseErrorKind::Unreachable, "{error}");
    assert!(error.kind().may_pass() && error.to_string().contains(&server.port().to_string()), "{error}");

    server.resume().unwrap();
    let store = Store::new(Database::open(&url, SOON).await.unwrap());
    put(&store, "kids", "a = 1").await.unwrap();
    let mut watch = store.watch(0, Duration::from_millis(10));
    assert_eq!(watch.changed().await.unwrap(), 1);
    let mut edit = store.edit(ANNA).await.unwrap();
    edit.put_tenant("kids", "a = 2", Expect::Any).await.unwrap();
    server.crash().unwrap();
    assert_eq!(kind(edit.commit().await.unwrap_err()), DatabaseErrorKind::Unreachable);
    assert_eq!(kind(store.generation().await.unwrap_err()), DatabaseErrorKind::Unreachable);
    assert_eq!(kind(watch.changed().await.unwrap_err()), DatabaseErrorKind::Unreachable);

    server.resume().unwrap();
    assert_eq!(store.tenant("kids").await.unwrap().unwrap().policy, "a = 1");
    assert_eq!(put(&store, "kids", "a = 3").await.unwrap(), 2);
    assert_eq!(watch.changed().await.unwrap(), 2);
}

#[tokio::test]
async fn a_file_that_is_gone_takes_no_writes_until_it_is_back() {
    let error = Database::open("sqlite:/nowhere/at/all/gate.db", SOON).await.unwrap_err();
    assert_eq!(error.kind(), DatabaseErrorKind::Unreachable, "{error}");

    let place = TestDatabase::sqlite().unwrap();
    let store = Store::new(place.open().await.unwrap());
    put(&store, "kids", "a = 1").await.unwrap();
    let (path, aside) = (place.path().unwrap(), place.folder().unwrap().join("aside.db"));
    std::fs::rename(&path, &aside).unwrap();
    let error = put(&store, "kids", "a = 2").await.unwrap_err();
    assert!(error.to_string().contains("moved, removed or replaced"), "{error}");
    // Another file in its place is not the one that was opened.
    std::fs::copy(&aside, &path).unwrap();
    assert_eq!(kind(store.tenant("kids").await.unwrap_err()), DatabaseErrorKind::Unreachable);
    std::fs::rename(&aside, &path).unwrap();
    assert_eq!(put(&store, "kids", "a = 3").await.unwrap(), 2);
}

#[tokio::test]
async fn who_may_not_log_in_is_told_without_the_password() {
    let Some(server) = own_server() else { return };
    let url = server.database().await.unwrap();
    server.execute("CREATE ROLE reader LOGIN PASSWORD 'hunter2'").await.unwrap();
    let (scheme, rest) = url.split_once("://").unwrap();
    let place = rest.split_once('@').unwrap().1;
    let database = place.split_once('/').unwrap();
    for wrong in [
        format!("{scheme}://cluegate:hunter3@{place}"),
        format!("{scheme}://nobody:hunter3@{place}"),
        url.replace(database.1, "hunter3?sslmode=disable").replace("hunter3", "nowhere"),
        // May log in, and make no tables.
        format!("{scheme}://reader:hunter2@{place}"),
    ] {
        let error = Database::open(&wrong, SOON).await.unwrap_err();
        assert_eq!(error.kind(), DatabaseErrorKind::Refused, "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("postgres://gate:hunter2@127.0.0.1:{}/gate", silent.local_addr().unwrap().port());
    let error = Database::open(&url, SOON).await.unwrap_err();
    assert_eq!(error.kind(), DatabaseErrorKind::TimedOut, "{error}");
    assert!(!error.to_string().contains("hunter2"));
}

#[tokio::test]
async fn a_lock_that_is_held_is_waited_for_no_longer_than_the_options_say() {
    each(|place| async move {
        let [first, second] = [place.open().await.unwrap(), Database::open(&place.url, SOON).await.unwrap()];
        let (first, second) = (Store::new(first), Store::new(second));
        let edit = first.edit(ANNA).await.unwrap();
        assert_eq!(kind(put(&second, "kids", "").await.unwrap_err()), DatabaseErrorKind::TimedOut);
        drop(edit);
        // Readers wait for no writer.
        let edit = first.edit(ANNA).await.unwrap();
        assert_eq!(second.generation().await.unwrap(), 0);
        edit.commit().await.unwrap();
        put(&second, "kids", "").await.unwrap();
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn all_connections_in_use_is_a_time_out() {
    each(|place| async move {
        let database = Database::open(&place.url, SOON).await.unwrap();
        let held = [database.read().await.unwrap(), database.read().await.unwrap()];
        let error = database.read().await.unwrap_err();
        assert_eq!(error.kind(), DatabaseErrorKind::TimedOut, "{error}");
        drop(held);
        database.read().await.unwrap();
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_full_file_loses_nothing_and_is_written_again_when_there_is_room() {
    let place = TestDatabase::sqlite().unwrap();
    let store = Store::new(place.open().await.unwrap());
    put(&store, "kids", "a = 1").await.unwrap();
    // A limit of the one connection that writes; it is closed after the failure, and with it the limit is gone.
    let mut write = store.database().write().await.unwrap();
    write.execute("PRAGMA max_page_count = 1", args![]).await.unwrap();
    write.finish().await.unwrap();
    let large = "#".repeat(1 << 20);
    assert_eq!(kind(put(&store, "news", &large).await.unwrap_err()), DatabaseErrorKind::Full);
    assert_eq!(store.generation().await.unwrap(), 1);
    put(&store, "news", &large).await.unwrap();
    assert_eq!(store.load().await.unwrap().tenants.len(), 2);
}

#[tokio::test]
async fn a_full_disk_is_told_at_start_and_at_run_time() {
    let Some(disk) = SmallDisk::mount(4).unwrap() else { return };
    let url = format!("sqlite:{}", disk.folder().join("gate.db").display());
    let filler = disk.folder().join("filler");
    let store = Store::new(Database::open(&url, SOON).await.unwrap());
    put(&store, "kids", "a = 1").await.unwrap();
    // Until the disk takes no more.
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    let error = put(&store, "news", &"#".repeat(1 << 20)).await.unwrap_err();
    assert_eq!(kind(error), DatabaseErrorKind::Full);
    let other = format!("sqlite:{}", disk.folder().join("other.db").display());
    let error = Database::open(&other, SOON).await.unwrap_err();
    assert_eq!(error.kind(), DatabaseErrorKind::Full, "{error}");
    assert_eq!(store.tenant("kids").await.unwrap().unwrap().policy, "a = 1");
    std::fs::remove_file(&filler).unwrap();
    drop(file);
    put(&store, "news", &"#".repeat(1 << 20)).await.unwrap();
    store.database().close().await;
}

#[tokio::test]
async fn a_full_disk_of_the_server_is_told() {
    let Some(server) = own_server() else { return };
    let Some(disk) = SmallDisk::mount(24).unwrap() else { return };
    server.give(disk.folder()).unwrap();
    let folder = disk.folder().display();
    server.execute(&format!("CREATE TABLESPACE small LOCATION '{folder}'")).await.unwrap();
    server.execute("CREATE DATABASE small TABLESPACE small").await.unwrap();
    let store = Store::new(Database::open(&server.url("small"), DatabaseOptions::default()).await.unwrap());
    put(&store, "kids", "a = 1").await.unwrap();
    // Digits that cannot be compressed into nothing.
    let mut random = 1_u64;
    let mut large = String::new();
    while large.len() < 1_000_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        large.push_str(&format!("{random:016x}"));
    }
    let mut failed = None;
    for number in 0..40 {
        if let Err(error) = put(&store, &format!("news-{number}"), &large).await {
            failed = Some((number, error));
            break;
        }
    }
    let (number, error) = failed.unwrap();
    assert_eq!(kind(error), DatabaseErrorKind::Full);
    assert_eq!(store.load().await.unwrap().tenants.len(), number + 1);
    store.database().close().await;
    server.stop().unwrap();
}

#[tokio::test]
async fn a_file_that_may_not_be_written_is_told_at_start() {
    let Some(disk) = SmallDisk::mount(4).unwrap() else { return };
    let url = format!("sqlite:{}", disk.folder().join("gate.db").display());
    let store = Store::new(Database::open(&url, SOON).await.unwrap());
    put(&store, "kids", "").await.unwrap();
    store.database().close().await;
    disk.read_only().unwrap();
    let error = Database::open(&url, SOON).await.unwrap_err();
    assert_eq!(error.kind(), DatabaseErrorKind::ReadOnly, "{error}");
    let other = format!("sqlite:{}", disk.folder().join("other.db").display());
    assert_eq!(Database::open(&other, SOON).await.unwrap_err().kind(), DatabaseErrorKind::ReadOnly);
}

#[tokio::test]
async fn a_server_that_takes_no_writes_is_told() {
    let Some(server) = own_server() else { return };
    let url = server.database().await.unwrap();
    let store = Store::new(Database::open(&url, SOON).await.unwrap());
    put(&store, "kids", "").await.unwrap();
    store.database().close().await;
    server.execute("ALTER DATABASE test_0 SET default_transaction_read_only = on").await.unwrap();
    let store = Store::new(Database::open(&url, SOON).await.unwrap());
    assert!(store.tenant("kids").await.unwrap().is_some());
    assert_eq!(kind(put(&store, "kids", "").await.unwrap_err()), DatabaseErrorKind::ReadOnly);
}

#[tokio::test]
async fn what_is_no_database_is_left_as_it_is() {
    let place = TestDatabase::sqlite().unwrap();
    let path = place.path().unwrap();
    let text = "This is a letter, and longer than the header of a database has to be. ".repeat(20);
    std::fs::write(&path, &text).unwrap();
    let error = place.open().await.unwrap_err();
    assert_eq!(error.kind(), DatabaseErrorKind::Corrupt, "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn a_damaged_file_is_told() {
    let place = TestDatabase::sqlite().unwrap();
    let store = Store::new(place.open().await.unwrap());
    for number in 0..40 {
        put(&store, &format!("tenant-{number}"), &"a = 1\n".repeat(500)).await.unwrap();
    }
    store.database().close().await;
    let path = place.path().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    // All but the first pages, where the tables are listed.
    bytes[8 * 4096..].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    let found = match place.open().await {
        Ok(database) => Store::new(database).load().await.map(drop).map_err(kind),
        Err(error) => Err(error.kind()),
    };
    assert_eq!(found, Err(DatabaseErrorKind::Corrupt));
}

#[tokio::test]
async fn a_damaged_table_of_the_server_is_told() {
    let Some(server) = own_server() else { return };
    let url = server.database().await.unwrap();
    let store = Store::new(Database::open(&url, SOON).await.unwrap());
    put(&store, "kids", "a = 1").await.unwrap();
    let mut read = store.database().read().await.unwrap();
    let row = read.fetch_one("SELECT pg_relation_filepath('tenant') AS path", args![]).await.unwrap();
    let file = server.data().join(row.get::<&str>("path").unwrap());
    read.finish().await.unwrap();
    server.stop().unwrap();
    let pages = std::fs::read(&file).unwrap().len();
    std::fs::write(&file, vec![0xa5; pages]).unwrap();
    server.resume().unwrap();
    assert_eq!(kind(store.load().await.unwrap_err()), DatabaseErrorKind::Corrupt);
}

async fn alter(place: &TestDatabase, sql: &'static str) -> Result<Database, DatabaseError> {
    let database = place.open().await?;
    let mut write = database.write().await?;
    write.execute(sql, args![]).await?;
    write.commit().await?;
    database.close().await;
    place.open().await
}

#[tokio::test]
async fn tables_of_a_newer_program_are_refused() {
    each(|place| async move {
        let newer = "INSERT INTO cluegate_migrations (number, name, checksum) VALUES (1000, 'flying', 'ab')";
        let error = alter(&place, newer).await.unwrap_err();
        assert_eq!(error.kind(), DatabaseErrorKind::Newer);
        let text = error.to_string();
        assert!(text.contains("\"flying\"") && text.contains("run the newer program"), "{text}");
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn tables_of_another_program_are_refused() {
    each(|place| async move {
        let changed = "UPDATE cluegate_migrations SET checksum = 'ab' WHERE number = 1";
        let error = alter(&place, changed).await.unwrap_err();
        assert_eq!(error.kind(), DatabaseErrorKind::Changed);
        assert!(error.to_string().contains("\"store\""), "{error}");
    })
    .await
    .unwrap();
}

#[test]
fn migrations_are_numbered_without_a_gap() {
    for (migration, number) in MIGRATIONS.iter().zip(1..) {
        assert_eq!(migration.number, number, "{}", migration.name);
    }
}
