//! Tenants, templates, constitutions and keys on either backend.

use std::time::Duration;

use cluegate_store::testing::each;
use cluegate_store::{
    Author, DatabaseErrorKind, Expect, KeyHash, KeyState, Kind, NewKey, Store, StoreError, TenantState,
};

const ANNA: Author<'_> = Author { by: "anna", at_ms: 1_000 };

fn key(id: &str, secret: &str) -> NewKey {
    let sha256 = KeyHash::of(secret);
    NewKey { id: id.into(), sha256, note: String::new(), not_before_ms: None, expires_ms: None }
}

#[tokio::test]
async fn a_change_is_seen_by_itself_and_as_a_whole() {
    each(|place| async move {
        let store = Store::new(place.open().await.unwrap());
        assert_eq!(store.generation().await.unwrap(), 0);
        let mut edit = store.edit(ANNA).await.unwrap();
        assert_eq!(edit.put_template("base", "tries = 3", Expect::Absent).await.unwrap(), 1);
        assert_eq!(edit.put_tenant("kids", "extends = \"base\"", Expect::Any).await.unwrap(), 1);
        assert_eq!(edit.put_tenant("news", "", Expect::Any).await.unwrap(), 1);
        edit.add_revision("scene", "aa11", "name = \"scene\"").await.unwrap();
        edit.set_current("scene", "aa11", Expect::Absent).await.unwrap();
        edit.add_key("kids", &key("one", "secret")).await.unwrap();
        assert_eq!(edit.commit().await.unwrap(), 1);

        let all = store.load().await.unwrap();
        assert!(all.everything && all.generation == 1);
        assert_eq!(all.tenants.len(), 2);
        assert_eq!(all.constitutions["scene"].as_ref().unwrap().text, "name = \"scene\"");
        assert_eq!(all.keys[&("kids".into(), "one".into())].as_ref().unwrap().sha256, KeyHash::of("secret"));
        assert!(store.changes_since(1).await.unwrap().is_empty());
        assert!(!store.changes_since(0).await.unwrap().everything);
        // A store that was set back, or a number from elsewhere.
        assert_eq!(store.changes_since(7).await.unwrap(), all);

        let mut edit = store.edit(Author { by: "ben", at_ms: 2_000 }).await.unwrap();
        assert_eq!(edit.put_tenant("kids", "tries = 2", Expect::Version(1)).await.unwrap(), 2);
        edit.remove_tenant("news", Expect::Any).await.unwrap();
        edit.commit().await.unwrap();
        let changes = store.changes_since(1).await.unwrap();
        assert_eq!((changes.generation, changes.everything), (2, false));
        assert_eq!(changes.tenants.len(), 2);
        let kids = changes.tenants["kids"].as_ref().unwrap();
        assert_eq!((kids.policy.as_str(), kids.version, kids.changed_by.as_str()), ("tries = 2", 2, "ben"));
        assert_eq!(changes.tenants["news"], None);
        assert!(changes.templates.is_empty() && changes.keys.is_empty() && changes.constitutions.is_empty());
        let history = store.history(10).await.unwrap();
        assert_eq!((history[0].generation, history[0].action.as_str()), (2, "put"));
        assert_eq!((history[1].kind, history[1].action.as_str()), (Kind::Tenant, "remove"));
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_edit_without_changes_or_without_commit_raises_nothing() {
    each(|place| async move {
        let store = Store::new(place.open().await.unwrap());
        let edit = store.edit(ANNA).await.unwrap();
        assert_eq!(edit.commit().await.unwrap(), 0);
        let mut edit = store.edit(ANNA).await.unwrap();
        edit.put_tenant("kids", "", Expect::Any).await.unwrap();
        drop(edit);
        assert_eq!(store.generation().await.unwrap(), 0);
        assert_eq!(store.tenant("kids").await.unwrap(), None);
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn who_changes_an_old_version_is_told() {
    each(|place| async move {
        let store = Store::new(place.open().await.unwrap());
        let mut edit = store.edit(ANNA).await.unwrap();
        edit.put_tenant("kids", "", Expect::Any).await.unwrap();
        let error = edit.put_tenant("kids", "a = 1", Expect::Version(7)).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict { expected: 7, found: 1, .. }), "{error}");
        let error = edit.put_tenant("kids", "a = 1", Expect::Absent).await.unwrap_err();
        assert!(matches!(error, StoreError::Exists { kind: Kind::Tenant, .. }), "{error}");
        let error = edit.put_template("base", "", Expect::Version(1)).await.unwrap_err();
        assert!(matches!(error, StoreError::Missing { kind: Kind::Template, .. }), "{error}");
        assert_eq!(edit.set_state("kids", TenantState::Suspended, Expect::Version(1)).await.unwrap(), 2);
        // What was refused left the rest as it was.
        edit.commit().await.unwrap();
        let kids = store.tenant("kids").await.unwrap().unwrap();
        assert_eq!((kids.state, kids.version, kids.policy.as_str()), (TenantState::Suspended, 2, ""));
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn edits_of_several_gateways_follow_each_other() {
    each(|place| async move {
        let stores = [Store::new(place.open().await.unwrap()), Store::new(place.open().await.unwrap())];
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..16 {
            let store = stores[task % 2].clone();
            tasks.spawn(async move {
                let mut edit = store.edit(ANNA).await.unwrap();
                let policy = format!("a = {task}");
                let version = edit.put_tenant("kids", &policy, Expect::Any).await.unwrap();
                (version, edit.commit().await.unwrap())
            });
        }
        let mut seen = tasks.join_all().await;
        seen.sort_unstable();
        assert_eq!(seen, (1..=16).map(|number| (number, number)).collect::<Vec<_>>());
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_revision_never_changes_and_an_old_one_comes_back() {
    each(|place| async move {
        let store = Store::new(place.open().await.unwrap());
        let mut edit = store.edit(ANNA).await.unwrap();
        edit.add_revision("scene", "r1", "one").await.unwrap();
        edit.add_revision("scene", "r1", "one").await.unwrap();
        let error = edit.add_revision("scene", "r1", "other").await.unwrap_err();
        assert!(matches!(error, StoreError::OtherText { .. }), "{error}");
        edit.set_current("scene", "r1", Expect::Absent).await.unwrap();
        edit.commit().await.unwrap();
        let mut edit = store.edit(Author { by: "ben", at_ms: 2_000 }).await.unwrap();
        edit.add_revision("scene", "r2", "two").await.unwrap();
        assert_eq!(edit.set_current("scene", "r2", Expect::Version(1)).await.unwrap(), 2);
        let error = edit.set_current("scene", "r3", Expect::Any).await.unwrap_err();
        assert!(error.to_string().contains("scene@r3"), "{error}");
        edit.commit().await.unwrap();
        let mut edit = store.edit(ANNA).await.unwrap();
        edit.set_current("scene", "r1", Expect::Version(2)).await.unwrap();
        edit.commit().await.unwrap();
        let scene = store.constitution("scene").await.unwrap().unwrap();
        assert_eq!((scene.text.as_str(), scene.revision.as_str(), scene.version), ("one", "r1", 3));
        let revisions = store.revisions("scene", 10).await.unwrap();
        assert_eq!(revisions.iter().map(|one| one.revision.as_str()).collect::<Vec<_>>(), ["r2", "r1"]);
        assert_eq!(store.revision("scene", "r2").await.unwrap().unwrap().text, "two");
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn keys_are_rotated_and_revoked_and_belong_to_one_tenant() {
    each(|place| async move {
        let store = Store::new(place.open().await.unwrap());
        let mut edit = store.edit(ANNA).await.unwrap();
        edit.put_tenant("kids", "", Expect::Any).await.unwrap();
        edit.put_tenant("news", "", Expect::Any).await.unwrap();
        edit.add_key("kids", &key("main", "first")).await.unwrap();
        // The same id for another tenant tells nothing about the first.
        edit.add_key("news", &key("main", "theirs")).await.unwrap();
        let error = edit.add_key("news", &key("other", "first")).await.unwrap_err();
        assert!(
            matches!(error, StoreError::KeyTaken { .. }) && !error.to_string().contains("kids"),
            "{error}"
        );
        let error = edit.add_key("kids", &key("main", "second")).await.unwrap_err();
        assert!(matches!(error, StoreError::Exists { kind: Kind::Key, .. }), "{error}");
        let error = edit.add_key("nobody", &key("main", "second")).await.unwrap_err();
        assert!(matches!(error, StoreError::Missing { kind: Kind::Tenant, .. }), "{error}");
        let late = NewKey { expires_ms: Some(500), ..key("late", "third") };
        assert!(matches!(edit.add_key("kids", &late).await.unwrap_err(), StoreError::Invalid { .. }));
        edit.rotate_key("kids", "main", &key("next", "second"), 5_000).await.unwrap();
        edit.commit().await.unwrap();

        let old = store.key("kids", "main").await.unwrap().unwrap();
        let new = store.key("kids", "next").await.unwrap().unwrap();
        assert_eq!((old.state(4_999), old.state(5_000)), (KeyState::Valid, KeyState::Expired));
        assert_eq!((new.state(999), new.state(1_000)), (KeyState::TooEarly, KeyState::Valid));
        assert_eq!(store.key("news", "next").await.unwrap(), None);
        assert_eq!(store.key("news", "main").await.unwrap().unwrap().expires_ms, None);

        let mut edit = store.edit(Author { by: "ben", at_ms: 2_000 }).await.unwrap();
        assert!(matches!(edit.revoke_key("news", "next").await.unwrap_err(), StoreError::Missing { .. }));
        edit.revoke_key("kids", "next").await.unwrap();
        edit.commit().await.unwrap();
        let changes = store.changes_since(1).await.unwrap();
        assert_eq!(changes.keys.len(), 1);
        let new = changes.keys[&("kids".into(), "next".into())].as_ref().unwrap();
        assert_eq!((new.revoked_ms, new.state(0)), (Some(2_000), KeyState::Revoked));
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn names_are_values_and_never_sql() {
    each(|place| async move {
        let store = Store::new(place.open().await.unwrap());
        let odd = ["'; DROP TABLE tenant; --", "a\"b", "$1", "100%", "_", "ключ", "😀", "a' OR '1'='1"];
        let mut edit = store.edit(ANNA).await.unwrap();
        for (number, name) in odd.iter().enumerate() {
            edit.put_tenant(name, name, Expect::Absent).await.unwrap();
            edit.add_key(name, &key(name, &number.to_string())).await.unwrap();
        }
        for name in ["", " a", "a\0b", "a\nb", &"x".repeat(201)] {
            let error = edit.put_tenant(name, "", Expect::Any).await.unwrap_err();
            assert!(matches!(error, StoreError::Invalid { .. }), "{name:?}: {error}");
        }
        let error = edit.put_tenant("nul", "a = \"\0\"", Expect::Any).await.unwrap_err();
        assert!(error.to_string().contains("NUL at byte 5"), "{error}");
        edit.commit().await.unwrap();
        assert_eq!(store.tenants("", 100).await.unwrap().len(), odd.len());
        for name in odd {
            assert_eq!(store.tenant(name).await.unwrap().unwrap().policy, name);
            let keys = store.keys(name, "", 100).await.unwrap();
            assert_eq!(keys.iter().map(|key| key.id.as_str()).collect::<Vec<_>>(), [name]);
        }
        assert_eq!(store.tenant("a\0b").await.unwrap(), None);
        assert!(store.tenants("a\0", 10).await.is_err());
    })
    .await
    .unwrap();
}

/// Whatever a caller for one tenant guesses as a name or id, nothing of another tenant comes back.
#[tokio::test]
async fn no_guess_of_an_id_reaches_another_tenant() {
    each(|place| async move {
        let store = Store::new(place.open().await.unwrap());
        let mut edit = store.edit(ANNA).await.unwrap();
        for tenant in ["kids", "news"] {
            edit.put_tenant(tenant, "", Expect::Any).await.unwrap();
            for number in 0..5 {
                let id = format!("{tenant}-{number}");
                edit.add_key(tenant, &key(&id, &id)).await.unwrap();
            }
        }
        edit.commit().await.unwrap();
        let hash = KeyHash::of("news-1").to_string();
        let guesses = [
            "news-1",
            "news",
            "news/news-1",
            "%",
            "_",
            "*",
            "",
            "' OR 1=1 --",
            "../news/news-1",
            &hash,
            "kids\0news",
        ];
        for guess in guesses {
            assert_eq!(store.key("kids", guess).await.unwrap(), None, "{guess}");
            let listed = store.keys("kids", guess, 100).await.unwrap_or_default();
            assert!(listed.iter().all(|key| key.tenant == "kids"), "{guess}");
            let usage = store.usage(guess, 0).await.unwrap_or_default();
            assert!(usage.is_empty(), "{guess}");
            let mut edit = store.edit(ANNA).await.unwrap();
            assert!(edit.revoke_key("kids", guess).await.is_err(), "{guess}");
            assert!(edit.rotate_key("kids", guess, &key("new", "new"), 0).await.is_err(), "{guess}");
            drop(edit);
        }
        assert_eq!(store.keys("news", "", 100).await.unwrap().len(), 5);
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_watcher_hears_of_changes_and_outlives_a_failure() {
    each(|place| async move {
        let store = Store::new(place.open().await.unwrap());
        // On PostgreSQL nothing but a notification can end the wait within the test's patience.
        let interval =
            if place.path().is_some() { Duration::from_millis(20) } else { Duration::from_secs(600) };
        let mut watch = store.watch(0, interval);
        let (begun, waits) = tokio::sync::oneshot::channel();
        let heard = tokio::spawn(async move {
            let mut numbers = Vec::new();
            let mut begun = Some(begun);
            while numbers.last() != Some(&3) {
                if let Some(begun) = begun.take() {
                    begun.send(()).unwrap();
                }
                numbers.push(watch.changed().await.unwrap());
            }
            numbers
        });
        waits.await.unwrap();
        for number in 0..3 {
            let mut edit = store.edit(ANNA).await.unwrap();
            edit.put_tenant("kids", &format!("a = {number}"), Expect::Any).await.unwrap();
            edit.commit().await.unwrap();
        }
        let numbers = tokio::time::timeout(Duration::from_secs(60), heard).await.unwrap().unwrap();
        assert!(numbers.is_sorted() && numbers.last() == Some(&3), "{numbers:?}");
        store.database().close().await;
        let mut watch = store.watch(3, Duration::from_millis(1));
        let StoreError::Database(error) = watch.changed().await.unwrap_err() else {
            panic!("no database error")
        };
        assert_eq!(error.kind(), DatabaseErrorKind::Unreachable);
    })
    .await
    .unwrap();
}
