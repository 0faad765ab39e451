//! Quotas on either backend, over several gateways at once.

use cluegate_store::testing::each;
use cluegate_store::{Author, Consumed, Expect, Measure, Period, Store, Want};

const DAY: i64 = 86_400_000;

fn want(measure: Measure, period: Period, quota: i64, amount: i64) -> Want {
    Want { measure, period, quota, amount }
}

async fn used(store: &Store, tenant: &str, now_ms: i64) -> Vec<(String, String, i64)> {
    let usage = store.usage(tenant, now_ms).await.unwrap();
    usage.into_iter().map(|one| (one.measure, one.period, one.used)).collect()
}

#[tokio::test]
async fn gateways_together_never_use_more_than_the_quota() {
    each(|place| async move {
        let stores = [
            Store::new(place.open().await.unwrap()),
            Store::new(place.open().await.unwrap()),
            Store::new(place.open().await.unwrap()),
        ];
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..60_usize {
            let store = stores[task % 3].clone();
            tasks.spawn(async move {
                let wants = [
                    want(Measure::Pictures, Period::Month, 1_000, 3),
                    want(Measure::Pictures, Period::Day, 100, 3),
                ];
                matches!(store.consume("kids", &wants, 5).await.unwrap(), Consumed::Counted(_))
            });
        }
        let counted = tasks.join_all().await.into_iter().filter(|&counted| counted).count();
        assert_eq!(counted, 33);
        let expected = [("day", 99), ("month", 99)].map(|(p, n)| ("pictures".to_owned(), p.to_owned(), n));
        assert_eq!(used(&stores[0], "kids", 5).await, expected);
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn what_was_not_used_is_taken_out_and_what_was_used_beyond_is_counted() {
    each(|place| async move {
        let store = Store::new(place.open().await.unwrap());
        let wants = [
            want(Measure::JudgeMs, Period::Day, 1_000, 400),
            want(Measure::Pictures, Period::Day, Want::UNLIMITED, 4),
        ];
        let Consumed::Counted(first) = store.consume("kids", &wants, 5).await.unwrap() else { panic!() };
        let Consumed::Counted(second) = store.consume("kids", &wants, 5).await.unwrap() else { panic!() };
        let refused = store.consume("kids", &wants, 5).await.unwrap();
        assert_eq!(refused, Consumed::Exhausted { want: wants[0], used: 800, ends_ms: DAY });
        store.give_back(first).await.unwrap();
        let measured = |measure| if measure == Measure::JudgeMs { 700 } else { 1 };
        store.settle(second, measured).await.unwrap();
        let expected = [("judge_ms", 700), ("pictures", 1)].map(|(m, n)| (m.to_owned(), "day".to_owned(), n));
        assert_eq!(used(&store, "kids", 5).await, expected);
        // Another tenant, and another day, have their own.
        assert!(used(&store, "news", 5).await.is_empty());
        assert!(matches!(store.consume("kids", &wants, DAY).await.unwrap(), Consumed::Counted(_)));
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_clock_that_jumps_gives_no_quota_twice() {
    each(|place| async move {
        let store = Store::new(place.open().await.unwrap());
        let all = [want(Measure::Pictures, Period::Day, 10, 10)];
        for now_ms in [50 * DAY, 49 * DAY, -DAY, i64::MIN, i64::MAX] {
            let counted = matches!(store.consume("kids", &all, now_ms).await.unwrap(), Consumed::Counted(_));
            assert!(counted, "{now_ms}");
        }
        for now_ms in [50 * DAY + 5, 49 * DAY + DAY - 1, -1, i64::MIN + 1, i64::MAX - 1] {
            let refused = matches!(
                store.consume("kids", &all, now_ms).await.unwrap(),
                Consumed::Exhausted { used: 10, .. }
            );
            assert!(refused, "{now_ms}");
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_largest_numbers_are_counted_and_negative_ones_refused() {
    each(|place| async move {
        let store = Store::new(place.open().await.unwrap());
        let large = [want(Measure::CostMicros, Period::Month, i64::MAX, i64::MAX)];
        let Consumed::Counted(counted) = store.consume("kids", &large, 5).await.unwrap() else { panic!() };
        assert!(matches!(store.consume("kids", &large, 5).await.unwrap(), Consumed::Exhausted { .. }));
        store.give_back(counted).await.unwrap();
        let one = [want(Measure::CostMicros, Period::Month, i64::MAX, 1)];
        let Consumed::Counted(counted) = store.consume("kids", &one, 5).await.unwrap() else { panic!() };
        store.settle(counted, |_| i64::MAX).await.unwrap();
        assert_eq!(used(&store, "kids", 5).await[0].2, i64::MAX);
        for bad in [want(Measure::Pictures, Period::Day, 1, -1), want(Measure::Pictures, Period::Day, -1, 0)]
        {
            assert!(store.consume("kids", &[bad], 5).await.is_err());
        }
        assert!(store.consume("kids", &[one[0], one[0]], 5).await.is_err());
        assert!(store.consume("ki\0ds", &one, 5).await.is_err());
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn usage_is_forgotten_with_its_tenant_and_when_it_is_old() {
    each(|place| async move {
        let store = Store::new(place.open().await.unwrap());
        let author = Author { by: "anna", at_ms: 0 };
        let mut edit = store.edit(author).await.unwrap();
        edit.put_tenant("kids", "", Expect::Any).await.unwrap();
        edit.commit().await.unwrap();
        let one = [want(Measure::Pictures, Period::Day, 10, 1)];
        for (tenant, day) in [("kids", 100), ("news", 100), ("news", 39), ("news", 37)] {
            let Consumed::Counted(_) = store.consume(tenant, &one, day * DAY).await.unwrap() else {
                panic!()
            };
        }
        assert_eq!(store.forget_usage(100 * DAY, 1).await.unwrap(), 1);
        assert_eq!(store.forget_usage(i64::MIN, 1).await.unwrap(), 0);
        let mut edit = store.edit(author).await.unwrap();
        edit.remove_tenant("kids", Expect::Any).await.unwrap();
        edit.commit().await.unwrap();
        assert!(used(&store, "kids", 100 * DAY).await.is_empty());
        assert_eq!(used(&store, "news", 39 * DAY).await.len(), 1);
        assert_eq!(used(&store, "news", 100 * DAY).await.len(), 1);
    })
    .await
    .unwrap();
}

#[test]
fn windows_hold_their_time_and_touch_each_other() {
    for period in [Period::Minute, Period::Day, Period::Month] {
        for now_ms in [0, -1, 1, 1_795_000_000_000, 951_782_400_000, -62_135_596_800_000, 253_370_764_799_999]
        {
            let (begin, end) = period.window(now_ms);
            assert!(begin <= now_ms && now_ms < end, "{period:?} {now_ms}");
            assert_eq!(period.window(begin), (begin, end), "{period:?} {now_ms}");
            assert_eq!(period.window(end - 1), (begin, end), "{period:?} {now_ms}");
            if now_ms < 253_370_764_799_999 {
                assert_eq!(period.window(end).0, end, "{period:?} {now_ms}");
            }
        }
    }
    // February 2000 had 29 days.
    assert_eq!(Period::Month.window(951_782_400_000), (949_363_200_000, 951_868_800_000));
}
