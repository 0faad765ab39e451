//! Usage against a model, and copies of stores.

use std::collections::BTreeMap;

use cluegate_store::testing::TestDatabase;
use cluegate_store::{
    Author, Consumed, Contents, Current, Database, Key, KeyHash, Measure, Period, Revision, Store, Template,
    Tenant, TenantState, Want,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::{Builder, Runtime};

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Both backends, each with how many cases it gets.
fn backends(runtime: &Runtime) -> Vec<(TestDatabase, u32)> {
    let mut backends = vec![(TestDatabase::sqlite().unwrap(), 40)];
    backends.extend(runtime.block_on(TestDatabase::postgres()).unwrap().map(|database| (database, 20)));
    backends
}

fn run<S: Strategy>(cases: u32, strategy: &S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new(config).run(strategy, test).unwrap();
}

/// A request: how much it asks for in the day and the month, and what it does then.
#[derive(Debug, Clone)]
struct Request {
    amount: i64,
    day: i64,
    settles: Option<i64>,
}

fn requests() -> impl Strategy<Value = (i64, i64, Vec<Request>)> {
    let request = (0..30_i64, 0..3_i64, prop::option::of(0..30_i64))
        .prop_map(|(amount, day, settles)| Request { amount, day, settles });
    (0..120_i64, 0..200_i64, vec(request, 1..24))
}

const DAY: i64 = 86_400_000;

fn wants(amount: i64, (day, month): (i64, i64)) -> [Want; 2] {
    let want = |period, quota| Want { measure: Measure::Pictures, period, quota, amount };
    [want(Period::Day, day), want(Period::Month, month)]
}

async fn used(store: &Store, tenant: &str, day: i64) -> BTreeMap<String, i64> {
    let usage = store.usage(tenant, day * DAY).await.unwrap();
    usage.into_iter().map(|one| (one.period, one.used)).collect()
}

/// One request after the other does what a model of two counters does.
#[test]
fn usage_is_what_a_model_counts() {
    let runtime = runtime();
    for (place, cases) in backends(&runtime) {
        let store = Store::new(runtime.block_on(place.open()).unwrap());
        let number = std::cell::Cell::new(0);
        run(cases, &requests(), |(day_quota, month_quota, requests)| {
            let tenant = format!("tenant-{}", number.replace(number.get() + 1));
            let (mut days, mut month) = ([0; 3], 0);
            runtime.block_on(async {
                for request in requests {
                    let wants = wants(request.amount, (day_quota, month_quota));
                    let day = usize::try_from(request.day).unwrap();
                    let consumed = store.consume(&tenant, &wants, request.day * DAY).await.unwrap();
                    let fits =
                        days[day] + request.amount <= day_quota && month + request.amount <= month_quota;
                    prop_assert_eq!(matches!(consumed, Consumed::Counted(_)), fits);
                    let Consumed::Counted(counted) = consumed else { continue };
                    let used = request.settles.unwrap_or(request.amount);
                    store.settle(counted, |_| used).await.unwrap();
                    days[day] += used;
                    month += used;
                }
                for (day, expected) in days.into_iter().enumerate() {
                    let found = used(&store, &tenant, i64::try_from(day).unwrap()).await;
                    prop_assert_eq!(found.get("day").copied().unwrap_or(0), expected);
                    prop_assert_eq!(found.get("month").copied().unwrap_or(0), month);
                }
                Ok(())
            })
        });
    }
}

/// Requests at once over several gateways: no window ever holds more than its quota, and in the end each holds exactly what
/// was counted.
#[test]
fn requests_at_once_stay_within_their_quota() {
    let runtime = runtime();
    for (place, cases) in backends(&runtime) {
        let stores: Vec<Store> =
            (0..2).map(|_| Store::new(runtime.block_on(place.open()).unwrap())).collect();
        let number = std::cell::Cell::new(0);
        run(cases, &requests(), |(day_quota, month_quota, requests)| {
            let tenant = format!("together-{}", number.replace(number.get() + 1));
            runtime.block_on(async {
                let mut tasks = tokio::task::JoinSet::new();
                for (turn, request) in requests.into_iter().enumerate() {
                    let (store, tenant) = (stores[turn % 2].clone(), tenant.clone());
                    tasks.spawn(async move {
                        let wants = wants(request.amount, (day_quota, month_quota));
                        let consumed = store.consume(&tenant, &wants, 0).await.unwrap();
                        let Consumed::Counted(counted) = consumed else { return (0, 0) };
                        let most = used(&store, &tenant, 0).await.into_values().max().unwrap();
                        // Never more than was counted: then the quota holds throughout.
                        let used = request.settles.unwrap_or(request.amount).min(request.amount);
                        store.settle(counted, |_| used).await.unwrap();
                        (used, most)
                    });
                }
                let (all, most) = tasks
                    .join_all()
                    .await
                    .into_iter()
                    .fold((0, 0), |(all, most), (used, seen)| (all + used, most.max(seen)));
                prop_assert!(most <= day_quota.max(month_quota));
                let found = used(&stores[0], &tenant, 0).await;
                prop_assert_eq!(found.get("day").copied().unwrap_or(0), all);
                prop_assert_eq!(found.get("month").copied().unwrap_or(0), all);
                prop_assert!(all <= day_quota.min(month_quota));
                Ok(())
            })
        });
    }
}

fn name() -> impl Strategy<Value = String> {
    "[^\\p{C}\\s]([^\\p{C}\\p{Zl}\\p{Zp}]{0,12}[^\\p{C}\\s])?"
}

fn stamp() -> impl Strategy<Value = (i64, String, i64)> {
    (1..1_i64 << 53, name(), any::<i64>())
}

fn text() -> impl Strategy<Value = String> {
    "[^\\x00]{0,200}"
}

/// Id, note, when it was added and is valid from, when it expires and was revoked.
type KeyParts = (String, String, [i64; 2], [Option<i64>; 2]);

fn keys() -> impl Strategy<Value = Vec<KeyParts>> {
    let times = (any::<[i64; 2]>(), any::<[Option<i64>; 2]>());
    vec((name(), text(), times).prop_map(|(id, note, (times, ends))| (id, note, times, ends)), 0..4)
}

prop_compose! {
    fn contents()(
        templates in btree_map(name(), (text(), stamp()), 0..4),
        tenants in btree_map(name(), (text(), any::<bool>(), stamp(), keys()), 0..5),
        constitutions in btree_map(name(), (btree_map(name(), (text(), name(), any::<i64>()), 1..4), stamp()), 0..4),
    ) -> Contents {
        let mut contents = Contents::default();
        for (name, (policy, (version, changed_by, changed_ms))) in templates {
            contents.templates.push(Template { name, policy, version, changed_by, changed_ms });
        }
        let mut hashes = 0;
        for (name, (policy, active, (version, changed_by, changed_ms), keys)) in tenants {
            let state = if active { TenantState::Active } else { TenantState::Suspended };
            for (number, (id, note, [created_ms, not_before_ms], [expires_ms, revoked_ms])) in keys.into_iter().enumerate() {
                hashes += 1;
                let (tenant, id, sha256) = (name.clone(), format!("{id}{number}"), KeyHash::of(&hashes.to_string()));
                contents.keys.push(Key { tenant, id, sha256, note, created_ms, not_before_ms, expires_ms, revoked_ms });
            }
            contents.tenants.push(Tenant { name, policy, state, version, changed_by, changed_ms });
        }
        for (name, (revisions, (version, changed_by, changed_ms))) in constitutions {
            let revision = revisions.keys().next().unwrap().clone();
            contents.current.push(Current { name: name.clone(), revision, version, changed_by, changed_ms });
            for (revision, (text, added_by, added_ms)) in revisions {
                contents.revisions.push(Revision { name: name.clone(), revision, text, added_by, added_ms });
            }
        }
        contents
    }
}

async fn import(place: &TestDatabase, contents: &Contents) -> Database {
    let database = place.open().await.unwrap();
    let mut edit = Store::new(database.clone()).edit(Author { by: "copy", at_ms: 0 }).await.unwrap();
    edit.import(contents).await.unwrap();
    edit.commit().await.unwrap();
    database
}

/// What is exported from one database, written as JSON, read and imported into the other is what was imported into the
/// first.
#[test]
fn a_copy_of_a_store_is_the_store() {
    let runtime = runtime();
    run(12, &contents(), |contents| {
        runtime.block_on(async {
            let file = TestDatabase::sqlite().unwrap();
            let first = Store::new(import(&file, &contents).await);
            let exported = first.export().await.unwrap();
            let sorted = |mut revisions: Vec<Revision>| {
                revisions.sort_by_key(|one| (one.name.clone(), one.revision.clone()));
                revisions
            };
            let mut keys = contents.keys.clone();
            keys.sort_by_key(|key| (key.tenant.clone(), key.id.clone()));
            prop_assert_eq!(&exported.templates, &contents.templates);
            prop_assert_eq!(&exported.tenants, &contents.tenants);
            prop_assert_eq!(&exported.keys, &keys);
            prop_assert_eq!(&exported.current, &contents.current);
            prop_assert_eq!(sorted(exported.revisions.clone()), sorted(contents.revisions.clone()));
            first.database().close().await;

            let json = serde_json::to_string(&exported).unwrap();
            let read: Contents = serde_json::from_str(&json).unwrap();
            let second = match TestDatabase::postgres().await.unwrap() {
                Some(place) => place,
                None => TestDatabase::sqlite().unwrap(),
            };
            let second = Store::new(import(&second, &read).await);
            prop_assert_eq!(second.export().await.unwrap(), exported);
            second.database().close().await;
            Ok(())
        })
    });
}
