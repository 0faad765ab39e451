#![allow(clippy::unwrap_used, clippy::panic)]

use cluegate_gate::Policies;
use proptest::prelude::*;

use super::*;

const NOON: i64 = 1_772_366_400_000; // 2026-03-01T12:00:00Z

fn policy(quota: &str) -> Policies {
    Policies::from_toml(&format!("[tenant.t]\n[tenant.t.quota]\n{quota}\n"), "policy.toml").unwrap()
}

fn quotas() -> Arc<Quotas> {
    let config = Config::parse("[keys]\nanonymous = \"t\"\n", "gate.toml", std::path::Path::new("")).unwrap();
    Arc::new(Quotas::open(&config, &PolicySource::files(&config)))
}

fn client() -> Client {
    Client::new("t", "k")
}

fn decision(reason: &str, judge_seconds: f64) -> DecisionRecord {
    serde_json::from_value(serde_json::json!({
        "decision_id": "d", "timestamp": "2026-03-01T12:00:00Z", "tenant": "t",
        "constitution": { "name": "c", "revision": "r" }, "models": {},
        "request": { "id": "r", "prompt_hash": "h", "seed": 0, "count": 1 },
        "member": 0, "outcome": "released", "reason": reason, "message": "", "action": null, "violated": [],
        "unjudged": false, "cost": { "judgments": 1, "passes": 9, "judge_seconds": judge_seconds, "amount": 0.25 },
        "attempts": [], "timings_ms": { "total": 1.0, "judging": 1.0, "redacting": 0.0 },
    }))
    .unwrap()
}

async fn used(quotas: &Quotas, measure: Measure) -> i64 {
    let usage = quotas.usage("t").await.unwrap();
    let found = usage.iter().find(|usage| usage.measure == measure.name() && usage.period == "day");
    found.map_or(0, |usage| usage.used)
}

/// Waits until everything that was dropped is counted.
async fn settle(quotas: &Quotas) {
    quotas.settling.close();
    quotas.settling.wait().await;
    quotas.settling.reopen();
}

#[tokio::test]
async fn pictures_are_reserved_whole_and_what_is_not_spent_is_given_back() {
    let (quotas, policies) = (quotas(), policy("pictures_per_day = 5"));
    let policy = policies.get("t").unwrap();
    let four = quotas.reserve(&client(), policy, 4).await.unwrap();
    let refused = quotas.reserve(&client(), policy, 2).await.unwrap_err();
    assert_eq!(refused.kind(), ProblemKind::QuotaExceeded);
    let told = refused.to_string();
    assert!(
        told.contains("`pictures_per_day` of 5 is used up: 4 spent or reserved, and 2 asked for"),
        "{told}"
    );
    let response = refused.respond(());
    let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("ratelimit-policy"), "\"pictures_per_day\";q=5;w=86400");
    assert!(header("ratelimit").starts_with("\"pictures_per_day\";r=0;t="));
    let wait: u64 = header("retry-after").parse().unwrap();
    assert!((1..=86_400).contains(&wait), "{wait}");
    // A released picture and a withheld one count, one that failed does not, and one was never decided.
    for (reason, seconds) in [("safe", 0.5), ("violation", 0.25), ("generator-failure", 0.0)] {
        four.note(&decision(reason, seconds));
    }
    drop(four);
    settle(&quotas).await;
    assert_eq!((used(&quotas, Measure::Pictures).await, used(&quotas, Measure::JudgeMs).await), (2, 750));
    drop(quotas.reserve(&client(), policy, 3).await.unwrap());
    let never = quotas.reserve(&client(), policy, 6).await.unwrap_err();
    assert_eq!(never.kind(), ProblemKind::BadRequest);
}

#[tokio::test]
async fn judging_is_reserved_at_the_mean_and_counted_as_it_was() {
    let (quotas, policies) = (quotas(), policy("judge_seconds_per_day = 3.0"));
    let policy = policies.get("t").unwrap();
    let first = quotas.reserve(&client(), policy, 1).await.unwrap();
    first.note(&decision("safe", 2.0));
    drop(first);
    settle(&quotas).await;
    assert_eq!(used(&quotas, Measure::JudgeMs).await, 2000);
    // Another one is likely to take as long, which is more than is left.
    let refused = quotas.reserve(&client(), policy, 1).await.unwrap_err();
    assert!(refused.to_string().contains("`judge_seconds_per_day` of 3 is used up: 2 spent"), "{refused}");
}

#[tokio::test]
async fn without_a_quota_what_is_spent_is_counted_all_the_same() {
    let (quotas, policies) = (quotas(), policy(""));
    let reserved = quotas.reserve(&client(), policies.get("t").unwrap(), 2).await.unwrap();
    assert!(reserved.held.is_none());
    reserved.note(&decision("safe", 0.1));
    drop(reserved);
    settle(&quotas).await;
    assert_eq!(
        (used(&quotas, Measure::Pictures).await, used(&quotas, Measure::CostMicros).await),
        (1, 250_000)
    );
}

#[tokio::test]
async fn a_request_counts_once_against_the_rate() {
    let (quotas, policies) = (quotas(), policy("requests_per_minute = 2"));
    let policy = policies.get("t").unwrap();
    let many = client();
    for _ in 0..5 {
        drop(quotas.reserve(&many, policy, 1).await.unwrap());
    }
    drop(quotas.reserve(&client(), policy, 1).await.unwrap());
    let refused = quotas.reserve(&client(), policy, 1).await.unwrap_err();
    assert_eq!(refused.kind(), ProblemKind::RateLimited);
    assert!(refused.to_string().contains("`requests_per_minute` of 2"), "{refused}");
}

proptest! {
    #[test]
    fn counters_never_pass_their_quota_nor_fall_below_what_is_spent(
        requests in prop::collection::vec((1_i64..6, 0_i64..6), 1..40),
        quota in 1_i64..20,
    ) {
        let memory = MemoryCounters::default();
        let want = |amount| [Want { measure: Measure::Pictures, period: Period::Day, quota, amount }];
        let used = || memory.usage("t", NOON).iter().map(|usage| usage.used).sum::<i64>();
        let mut spent = 0;
        for (asked, took) in requests {
            match memory.consume("t", &want(asked), NOON) {
                Answer::Held(Held::Memory(held)) => {
                    prop_assert!(spent + asked <= quota);
                    memory.settle(held, |_| took.min(asked));
                    spent += took.min(asked);
                }
                Answer::Held(Held::Store(_)) => prop_assert!(false, "there is no store"),
                Answer::Exhausted(exhausted) => {
                    prop_assert!(spent + asked > quota && exhausted.used == spent);
                }
            }
            prop_assert_eq!(used(), spent);
        }
        // The next day begins anew, and the clock may jump back.
        prop_assert!(matches!(memory.consume("t", &want(1), NOON + 86_400_000), Answer::Held(_)));
        prop_assert_eq!(used(), spent);
    }
}
