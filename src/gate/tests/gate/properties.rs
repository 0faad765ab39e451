//! Whatever the judge and the generator do, nothing gets out without a verdict that lets it.

use std::collections::HashSet;

use cluegate_gate::{MemberOutcome, Outcome, Reason};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::driven::{Draw, Script, drive};
use cluegate_gate::fakes::{Fault, World, gate, violated};

const ACTIONS: [&str; 5] = ["allow", "redact", "regenerate", "hold", "block"];
const RULES: [&str; 3] = ["smoking", "beer", "sword"];

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        12 => Just(Fault::None),
        1 => Just(Fault::Error),
        1 => Just(Fault::Panic),
        1 => Just(Fault::OutOfTime),
        1 => Just(Fault::OtherPicture),
        1 => Just(Fault::Partial),
    ]
}

fn objects() -> impl Strategy<Value = Vec<usize>> {
    proptest::sample::subsequence(vec![0, 1, 2, 3], 0..=4)
}

fn draw() -> impl Strategy<Value = Draw> {
    prop_oneof![
        12 => (objects(), objects()).prop_map(|(finished, preview)| Draw::Picture(finished, preview)),
        1 => Just(Draw::Black),
        1 => Just(Draw::Fails),
        1 => Just(Draw::Panics),
        1 => Just(Draw::StopsByItself),
        1 => Just(Draw::LosesAJob),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_released_without_a_verdict_that_lets_it(
        actions in [0_usize..5, 0..5, 0..5],
        tries in 1_u32..4,
        redact_last in any::<bool>(),
        open in any::<bool>(),
        faults in vec(fault(), 0..20),
        draws in vec(vec(draw(), 3), 1..5),
        batch in 1_usize..4,
    ) {
        let count = draws.len();
        let on_error = if open { "release-unjudged" } else { "block" };
        let after = if redact_last { "redact" } else { "block" };
        let head = format!("tries = {tries}\nafter_tries = \"{after}\"\non_error = \"{on_error}\"\nplaceholder = \"none\"");
        let rules: Vec<String> =
            RULES.iter().zip(actions).map(|(rule, action)| format!("{rule} = \"{}\"", ACTIONS[action])).collect();
        let (gate, log) = gate(&World::new(faults), &head, &format!("[tenant.t.action.rule]\n{}", rules.join("\n")));
        let script = draws.into_iter().enumerate().flat_map(|(member, draws)| {
            draws.into_iter().enumerate().map(move |(attempt, draw)| ((member, attempt as u32 + 1), draw))
        });
        let outcomes = drive(&gate, &Script::new(script, batch), count as u32);

        // Pictures in = outcomes out, in order, each with one line in the log.
        prop_assert_eq!(outcomes.len(), count);
        let records = log.records();
        prop_assert_eq!(records.len(), count);
        let ids: HashSet<&str> = records.iter().map(|record| record.decision_id.as_str()).collect();
        prop_assert_eq!(ids.len(), count);
        for (member, outcome) in outcomes.iter().enumerate() {
            let decision = outcome.decision();
            prop_assert_eq!(outcome.member(), member);
            prop_assert!(ids.contains(decision.decision_id.as_str()));
            prop_assert!(decision.attempts.len() <= tries as usize);
            match outcome {
                MemberOutcome::Released(released) => {
                    prop_assert_eq!(decision.outcome, Outcome::Released);
                    let hash = released.picture().hash().to_hex();
                    prop_assert_eq!(decision.released_picture.as_deref(), Some(hash.as_str()));
                    if released.is_unjudged() {
                        prop_assert!(open, "released unjudged though the policy fails closed");
                        prop_assert_eq!(released.reason(), Reason::Unjudged);
                        continue;
                    }
                    for rule in violated(released.pixels()) {
                        let index = RULES.iter().position(|known| *known == rule).unwrap();
                        prop_assert_eq!(ACTIONS[actions[index]], "allow", "{} is violated and not allowed", rule);
                        prop_assert!(decision.violated.iter().any(|logged| logged == rule));
                    }
                    // The last judgment in the log is a verdict, and on this picture.
                    let last = decision.attempts.last().unwrap();
                    let redacted = last.redactions.last().and_then(|redaction| redaction.judgment.as_ref());
                    let judgment = redacted.or(last.judgment.as_ref()).unwrap();
                    prop_assert!(judgment.error.is_none());
                    let judged = judgment.evidence.as_ref().and_then(|evidence| evidence["picture"].as_str());
                    prop_assert_eq!(judged, Some(hash.as_str()));
                }
                MemberOutcome::Held(_) => {
                    prop_assert_eq!(decision.outcome, Outcome::Held);
                    prop_assert!(decision.released_picture.is_none());
                }
                MemberOutcome::Withheld(withheld) => {
                    prop_assert_eq!(decision.outcome, Outcome::Withheld);
                    prop_assert!(decision.released_picture.is_none() && !withheld.message().is_empty());
                    prop_assert!(!matches!(decision.reason, Reason::Safe | Reason::Allowed | Reason::Redacted | Reason::Unjudged));
                }
            }
        }
    }
}
