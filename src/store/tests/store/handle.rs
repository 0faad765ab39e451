//! The handle on either backend: transactions, errors, migrations.

use cluegate_store::testing::{TestDatabase, each};
use cluegate_store::{DatabaseErrorKind, args};

const TABLE: &str =
    "CREATE TABLE example (name TEXT NOT NULL PRIMARY KEY, size BIGINT, share DOUBLE PRECISION)";

#[tokio::test]
async fn what_is_committed_stays_and_nothing_else() {
    each(|place| async move {
        let database = place.open().await.unwrap();
        let mut write = database.write().await.unwrap();
        write.execute(TABLE, args![]).await.unwrap();
        let insert = "INSERT INTO example (name, size, share) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
        assert_eq!(write.execute(insert, args!["a", 7, None::<f64>]).await.unwrap(), 1);
        assert_eq!(write.execute(insert, args!["a", 8, 0.5]).await.unwrap(), 0);
        write.commit().await.unwrap();

        let mut write = database.write().await.unwrap();
        write.execute(insert, args!["dropped", 1, 0.5]).await.unwrap();
        drop(write);
        let mut write = database.write().await.unwrap();
        write.execute(insert, args!["given up", 1, 0.5]).await.unwrap();
        write.finish().await.unwrap();

        let mut read = database.read().await.unwrap();
        let rows = read.fetch_all("SELECT name, size, share FROM example", args![]).await.unwrap();
        assert_eq!(rows.len(), 1);
        let (name, size): (&str, Option<i64>) = (rows[0].get("name").unwrap(), rows[0].get("size").unwrap());
        assert_eq!((name, size, rows[0].get::<Option<f64>>("share").unwrap()), ("a", Some(7), None));
        assert!(
            read.fetch_optional("SELECT name FROM example WHERE size > $1", args![7])
                .await
                .unwrap()
                .is_none()
        );
        read.finish().await.unwrap();
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_failed_statement_undoes_its_transaction() {
    each(|place| async move {
        let database = place.open().await.unwrap();
        let mut write = database.write().await.unwrap();
        write.execute(TABLE, args![]).await.unwrap();
        write.commit().await.unwrap();
        let mut write = database.write().await.unwrap();
        write.execute("INSERT INTO example (name) VALUES ('a')", args![]).await.unwrap();
        let error = write.execute("INSERT INTO example (name) VALUES ('a')", args![]).await.unwrap_err();
        assert_eq!(error.kind(), DatabaseErrorKind::Statement);
        assert!(write.commit().await.unwrap_err().to_string().contains("an earlier statement"));
        let mut read = database.read().await.unwrap();
        let count: i64 =
            read.fetch_one("SELECT COUNT(*) AS n FROM example", args![]).await.unwrap().get("n").unwrap();
        assert_eq!(count, 0);
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_reader_writes_nothing() {
    each(|place| async move {
        let database = place.open().await.unwrap();
        let mut read = database.read().await.unwrap();
        let error = read.execute("UPDATE store_generation SET value = 7", args![]).await.unwrap_err();
        assert_eq!(error.kind(), DatabaseErrorKind::ReadOnly, "{error}");
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_file_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = TestDatabase::sqlite().unwrap();
    let database = place.open().await.unwrap();
    let read = database.read().await.unwrap();
    for entry in std::fs::read_dir(place.folder().unwrap()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.file_name());
    }
    drop(read);
}
