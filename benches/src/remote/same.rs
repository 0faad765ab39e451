//! Two reports on one picture, by the judge here and by the one elsewhere.

use cluegate::judge::{Report, StatementEvidence};

/// Two thoughts apart, a rating has another question.
const RATED_ALIKE: f64 = 1e-3;

/// Whether verdict and violated rules are the same.
pub(super) fn is_same(local: &Report, remote: &Report) -> bool {
    local.verdict() == remote.verdict() && local.violated() == remote.violated()
}

/// The largest difference of a score or a cosine that both reports have; ratings after different thoughts are no such
/// scores.
pub(super) fn largest_gap(local: &Report, remote: &Report) -> f64 {
    let cosines = local
        .rules()
        .iter()
        .zip(remote.rules())
        .filter_map(|(here, there)| Some(f64::from((here.relevance? - there.relevance?).abs())));
    let scores = pairs(local, remote).into_iter().flat_map(|(_, here, there)| gaps(here, there));
    scores.chain(cosines).fold(0.0, f64::max)
}

/// What the reports differ in, for people.
pub(super) fn differences(local: &Report, remote: &Report) -> String {
    let mut said = vec![format!("{:?} here, {:?} there", local.violated(), remote.violated())];
    for (here, there) in local.rules().iter().zip(remote.rules()).filter(|(a, b)| a.outcome != b.outcome) {
        said.push(format!("{}: {:?} here, {:?} there", here.id, here.outcome, there.outcome));
    }
    for (rule, here, there) in pairs(local, remote) {
        let apart = gaps(here, there).into_iter().fold(0.0, f64::max) > RATED_ALIKE;
        if here.holds != there.holds || here.decided_by != there.decided_by || apart {
            let one = |one: &StatementEvidence| {
                format!(
                    "holds {:?}, decided by {:?}, score {:?}, region removed {:?}, rating {:?}, thought {:?}",
                    one.holds, one.decided_by, one.score, one.score_region_removed, one.rating, one.thought
                )
            };
            said.push(format!("{rule}: {:?}:\n  here  {}\n  there {}", here.text, one(here), one(there)));
        }
    }
    said.join("\n  ")
}

/// The same statements in both reports.
fn pairs<'a>(
    local: &'a Report,
    remote: &'a Report,
) -> Vec<(&'a str, &'a StatementEvidence, &'a StatementEvidence)> {
    let mut pairs = Vec::new();
    for (here, there) in local.rules().iter().zip(remote.rules()) {
        // Link by link: the exception's are there only where the chain holds.
        for (one, other) in [(&here.preconditions, &there.preconditions), (&here.unless, &there.unless)] {
            let statements = one.iter().zip(other).flat_map(|(a, b)| a.statements.iter().zip(&b.statements));
            pairs.extend(statements.map(|(a, b)| (here.id.as_str(), a, b)));
        }
    }
    pairs
}

fn gaps(here: &StatementEvidence, there: &StatementEvidence) -> Vec<f64> {
    let rated = |one: &StatementEvidence| one.rating.filter(|_| here.thought == there.thought);
    let scores = |one: &StatementEvidence| {
        [
            one.score,
            Some(one.score_without_image),
            one.score_whole_picture,
            one.score_region_removed,
            rated(one),
        ]
    };
    let both = scores(here).into_iter().zip(scores(there));
    both.filter_map(|(here, there)| Some((here? - there?).abs())).collect()
}
