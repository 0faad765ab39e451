//! How sure a preview must be to give a picture up: thresholds for the points of a drawing, and what such thresholds do to
//! pictures that they were not chosen on.
//!
//! Each point has one threshold, and a picture is given up at the first point where its score is above it. Among all
//! choices of a few points, each with the lowest thresholds that give up few enough of the pictures that violate nothing,
//! the one is chosen that saves most of the drawing of those that violate something.

use cluegate_gate::{Inspector, PreviewFigures, PreviewThreshold};
use cluegate_judge::{Glance, Report};
use cluegate_perception::{Call, Picture};
use cluegate_student::recall_lower_bound;
use serde::{Deserialize, Serialize};

/// In so many parts pictures are counted, each by a choice on the others.
const PARTS: usize = 10;

/// The score of a preview of which no rule was even relevant.
pub const NOTHING: f64 = -1.0;

/// A picture that was watched while it was drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watched {
    /// Whether the finished picture violates a rule that would give it up.
    pub violating: bool,
    /// The score of its preview at each point, -1 to 1; none where it could not be judged.
    pub scores: Vec<Option<f64>>,
}

/// What a choice of thresholds has to keep to.
#[derive(Debug, Clone, PartialEq)]
pub struct Bounds {
    /// Largest share of the pictures that violate nothing which may be given up, 0 to 1.
    pub false_aborts: f64,
    /// How sure the bound is that is stated for it, 0 to 1, exclusive.
    pub confidence: f64,
    /// Most points.
    pub most: usize,
}

/// A point of a drawing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Share of the steps, between 0 and 1.
    pub at: f64,
    /// What a preview there costs, as a share of a picture's drawing.
    pub cost: f64,
}

/// Thresholds at some of the points.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    /// Indices of the points, ascending.
    pub points: Vec<usize>,
    /// The score that a preview has to be above at each of them, at least 0: what is given up violates a rule.
    pub above: Vec<f64>,
}

/// The score of a preview: how near a glance comes to one of `rules`. None if it could not be judged.
pub fn score(inspector: &dyn Inspector, rules: &[String], preview: &Picture) -> Option<f64> {
    // Every rule is asked, whatever the others say.
    let glance = Glance { rules: rules.to_vec(), first: Vec::new(), enough: f64::INFINITY };
    let report = inspector.glance(preview, &glance, None, &Call::default()).ok()?;
    Some(report.margin().unwrap_or(NOTHING))
}

/// Whether a finished picture violates one of `rules`.
pub fn violates(report: &Report, rules: &[String]) -> bool {
    report.violated().iter().any(|rule| rules.contains(rule))
}

/// Points and thresholds chosen on all `pictures`, whose scores are at `points`, and what such choices do
/// to pictures that they were not made on: every tenth of them in turn, by a choice on the other nine. None if nothing can be
/// saved within the bounds.
pub fn measure(pictures: &[Watched], points: &[Point], bounds: &Bounds) -> Option<(Chosen, PreviewFigures)> {
    let chosen = choose(&pictures.iter().collect::<Vec<_>>(), points, bounds)?;
    let parts = parts(pictures);
    let choices: Vec<Option<Chosen>> = (0..PARTS)
        .map(|part| {
            let others = pictures.iter().zip(&parts).filter(|(_, own)| **own != part).map(|(one, _)| one);
            choose(&others.collect::<Vec<_>>(), points, bounds)
        })
        .collect();
    let counted: Vec<(&Watched, Option<&Chosen>)> =
        pictures.iter().zip(&parts).map(|(one, part)| (one, choices[*part].as_ref())).collect();
    Some((chosen, count(&counted, points, bounds)))
}

/// The part that each picture is in, given in turns to the violating ones and to the rest.
fn parts(pictures: &[Watched]) -> Vec<usize> {
    let mut next = [0; 2];
    let part = |one: &Watched| {
        let next = &mut next[usize::from(one.violating)];
        *next += 1;
        (*next - 1) % PARTS
    };
    pictures.iter().map(part).collect()
}

/// Chooses points and thresholds on `pictures`. None if nothing can be saved within the bounds.
///
/// Each threshold is touched by a safe picture, and so costs a chance that the next one goes beyond it: there are no more of
/// them than pictures may be given up, but for one.
fn choose(pictures: &[&Watched], all: &[Point], bounds: &Bounds) -> Option<Chosen> {
    let safe = pictures.iter().filter(|one| !one.violating).count();
    let mut best: Option<(f64, Chosen)> = None;
    for points in subsets(all.len(), bounds.most.min(may_touch(safe, bounds).max(1))) {
        let Some((saved, chosen)) = lowest(pictures, all, bounds, points) else { continue };
        if saved > best.as_ref().map_or(0.0, |(best, _)| *best) {
            best = Some((saved, chosen));
        }
    }
    best.map(|(_, chosen)| chosen)
}

/// How many of so many safe pictures may touch a threshold or be given up, so that the next one is given up with a
/// probability within the bound: at most their number in the number of pictures, itself included.
fn may_touch(safe: usize, bounds: &Bounds) -> usize {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Not below 0, and below the count.
    let touched = (bounds.false_aborts * (safe + 1) as f64).floor() as usize;
    touched
}

/// The lowest thresholds at `points` that keep to the bounds, and what they save.
///
/// Each is the largest score of the safe pictures there, of those that may not be given up. Those are chosen one by one, each
/// time that which saves most.
fn lowest(
    pictures: &[&Watched],
    all: &[Point],
    bounds: &Bounds,
    points: Vec<usize>,
) -> Option<(f64, Chosen)> {
    let (violating, mut safe): (Vec<&Watched>, Vec<&Watched>) =
        pictures.iter().copied().partition(|one| one.violating);
    let mut given_up = may_touch(safe.len(), bounds).saturating_sub(points.len());
    let tried = |safe: &[&Watched]| {
        let above = points.iter().map(|point| highest(safe, *point)).collect();
        let chosen = Chosen { points: points.clone(), above };
        (mean(violating.iter().map(|one| saved(one, all, &chosen))), chosen)
    };
    if safe.is_empty() || violating.is_empty() {
        return None;
    }
    let mut best = tried(&safe);
    while given_up > 0 {
        let touching = (0..safe.len()).filter(|index| {
            points.iter().zip(&best.1.above).any(|(point, above)| {
                *above > 0.0 && safe[*index].scores.get(*point).copied().flatten() == Some(*above)
            })
        });
        let without = |index: usize| {
            let mut rest = safe.clone();
            rest.remove(index);
            let (saved, chosen) = tried(&rest);
            (saved, chosen, rest)
        };
        let next = touching.map(without).max_by(|one, two| one.0.total_cmp(&two.0));
        let Some((saved, chosen, rest)) = next else { break };
        (best, safe) = ((saved, chosen), rest);
        given_up -= 1;
    }
    Some(best)
}

/// The largest score at a point, at least 0.
fn highest(pictures: &[&Watched], point: usize) -> f64 {
    pictures.iter().filter_map(|one| one.scores.get(point).copied().flatten()).fold(0.0, f64::max)
}

/// Which of the chosen points gives a picture up, if one does.
pub fn stops(one: &Watched, chosen: &Chosen) -> Option<usize> {
    chosen.points.iter().zip(&chosen.above).position(|(point, above)| {
        one.scores.get(*point).copied().flatten().is_some_and(|score| score > *above)
    })
}

/// The share of its drawing that a picture's previews cost.
fn spent(one: &Watched, points: &[Point], chosen: &Chosen) -> f64 {
    let judged = stops(one, chosen).map_or(chosen.points.len(), |place| place + 1);
    chosen.points.iter().take(judged).map(|point| points[*point].cost).sum()
}

/// The share of its drawing that a picture is spared, less its previews'.
fn saved(one: &Watched, points: &[Point], chosen: &Chosen) -> f64 {
    let left = stops(one, chosen).map_or(0.0, |place| 1.0 - points[chosen.points[place]].at);
    left - spent(one, points, chosen)
}

/// Counts what choices do to pictures, each with the one that was made without it; none gives nothing up.
fn count(pictures: &[(&Watched, Option<&Chosen>)], points: &[Point], bounds: &Bounds) -> PreviewFigures {
    let (violating, safe): (Vec<_>, Vec<_>) = pictures.iter().copied().partition(|(one, _)| one.violating);
    let stop = |(one, chosen): &(&Watched, Option<&Chosen>)| {
        chosen.and_then(|chosen| Some(points[chosen.points[stops(one, chosen)?]].at))
    };
    let stopped: Vec<f64> = violating.iter().filter_map(stop).collect();
    let false_aborts = safe.iter().filter_map(stop).count() as u64;
    let added =
        mean(safe.iter().map(|(one, chosen)| chosen.map_or(0.0, |chosen| spent(one, points, chosen))));
    let safe = safe.len() as u64;
    let share = |part: u64, of: u64| if of == 0 { 0.0 } else { part as f64 / of as f64 };
    PreviewFigures {
        pictures: pictures.len() as u64,
        violating: violating.len() as u64,
        stopped: stopped.len() as u64,
        recall: share(stopped.len() as u64, violating.len() as u64),
        false_aborts,
        false_abort_rate: share(false_aborts, safe),
        // What is kept of the safe pictures is what is recalled of them.
        false_abort_rate_at_most: 1.0 - recall_lower_bound(false_aborts, safe, bounds.confidence),
        confidence: bounds.confidence,
        saved: mean(
            violating.iter().map(|(one, chosen)| chosen.map_or(0.0, |chosen| saved(one, points, chosen))),
        ),
        stopped_at: mean(stopped),
        added,
    }
}

/// What a file of thresholds holds of a choice.
pub fn thresholds(chosen: &Chosen, points: &[Point]) -> Vec<PreviewThreshold> {
    let chosen = chosen.points.iter().zip(&chosen.above);
    chosen.map(|(point, above)| PreviewThreshold { at: points[*point].at, above: *above }).collect()
}

/// The mean; 0 for none.
fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (count, sum) = values.into_iter().fold((0_u32, 0.0), |(count, sum), value| (count + 1, sum + value));
    if count == 0 { 0.0 } else { sum / f64::from(count) }
}

/// Every choice of one to `most` of `count` points, ascending.
fn subsets(count: usize, most: usize) -> impl Iterator<Item = Vec<usize>> {
    let mut open: Vec<Vec<usize>> = (0..count).rev().map(|point| vec![point]).collect();
    std::iter::from_fn(move || {
        let next = open.pop()?;
        if next.len() < most {
            let last = next.last().copied().unwrap_or_default();
            open.extend((last + 1..count).rev().map(|point| [next.clone(), vec![point]].concat()));
        }
        Some(next)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    const AT: [f64; 4] = [0.2, 0.4, 0.6, 0.8];

    fn bounds(false_aborts: f64, most: usize) -> Bounds {
        Bounds { false_aborts, confidence: 0.95, most }
    }

    fn points(costs: [f64; 4]) -> Vec<Point> {
        AT.into_iter().zip(costs).map(|(at, cost)| Point { at, cost }).collect()
    }

    fn watched(violating: bool, scores: [f64; 4]) -> Watched {
        Watched { violating, scores: scores.map(Some).to_vec() }
    }

    #[test]
    fn every_choice_of_points_is_tried_once() {
        let all: Vec<Vec<usize>> = subsets(9, 3).collect();
        assert_eq!(all.len(), 9 + 36 + 84);
        assert!(all.iter().all(|points| points.is_sorted_by(|a, b| a < b)));
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert_eq!(subsets(2, 5).collect::<Vec<_>>(), [vec![0], vec![0, 1], vec![1]]);
    }

    #[test]
    fn what_is_saved_is_what_is_left_less_what_the_previews_cost() {
        let chosen = Chosen { points: vec![0, 2], above: vec![0.3, 0.1] };
        let early = watched(true, [0.31, 0.0, 0.0, 0.0]);
        let late = watched(true, [0.3, 0.9, 0.11, 0.0]);
        let never = watched(true, [0.3, 0.9, 0.1, 0.9]);
        let safe = watched(false, [0.0, 0.0, 0.2, 0.0]);
        let counted = [&early, &late, &never, &safe].map(|one| (one, Some(&chosen)));
        let figures = count(&counted, &points([0.05, 1.0, 0.07, 1.0]), &bounds(0.01, 2));
        assert_eq!((figures.stopped, figures.violating, figures.false_aborts), (2, 3, 1));
        assert_eq!(figures.pictures, 4);
        assert!((figures.stopped_at - 0.4).abs() < 1e-12);
        assert!((figures.saved - (0.8 - 0.05 + 0.4 - 0.12 - 0.12) / 3.0).abs() < 1e-12);
        assert!((figures.added - 0.12).abs() < 1e-12);
        assert!(figures.false_abort_rate == 1.0 && figures.false_abort_rate_at_most == 1.0);
        assert_eq!(thresholds(&chosen, &points([0.0; 4]))[1], PreviewThreshold { at: 0.6, above: 0.1 });
    }

    #[test]
    fn an_outlier_is_given_up_only_where_there_are_enough_pictures() {
        let pictures = |safe: usize| {
            let mut pictures = vec![watched(false, [0.49, 0.49, 0.49, 0.49])];
            pictures.extend((1..safe).map(|_| watched(false, [0.1, 0.05, 0.0, -0.2])));
            pictures.extend((0..20).map(|_| watched(true, [0.05, 0.2, 0.4, 0.45])));
            pictures
        };
        let few = pictures(100);
        assert_eq!(choose(&few.iter().collect::<Vec<_>>(), &points([0.0; 4]), &bounds(0.01, 1)), None);
        let many = pictures(200);
        let chosen = choose(&many.iter().collect::<Vec<_>>(), &points([0.0; 4]), &bounds(0.01, 1)).unwrap();
        assert_eq!(chosen, Chosen { points: vec![1], above: vec![0.05] });
    }

    #[test]
    fn what_could_not_be_judged_gives_nothing_up() {
        let chosen = Chosen { points: vec![0, 1], above: vec![0.0, 0.0] };
        let mut one = watched(true, [0.5, NOTHING, 0.0, 0.0]);
        one.scores[0] = None;
        assert_eq!(stops(&one, &chosen), None);
        assert_eq!(stops(&Watched { violating: true, scores: Vec::new() }, &chosen), None);
    }

    fn scores() -> impl Strategy<Value = Watched> {
        // Coarse, so that there are ties.
        (any::<bool>(), prop::collection::vec(prop::option::weighted(0.9, -5_i32..10), 4)).prop_map(
            |(violating, scores)| Watched {
                violating,
                scores: scores.into_iter().map(|score| Some(f64::from(score?) / 20.0)).collect(),
            },
        )
    }

    proptest! {
        #[test]
        fn the_pictures_that_it_was_chosen_on_keep_to_the_bound(
            pictures in prop::collection::vec(scores(), 0..120), share in 0.0f64..0.3, most in 1_usize..4, cost in 0.0f64..0.2,
        ) {
            let all: Vec<&Watched> = pictures.iter().collect();
            let (points, bounds) = (points([cost; 4]), bounds(share, most));
            if let Some(chosen) = choose(&all, &points, &bounds) {
                let count = |chosen: &Chosen, bounds: &Bounds| {
                    count(&all.iter().map(|one| (*one, Some(chosen))).collect::<Vec<_>>(), &points, bounds)
                };
                let figures = count(&chosen, &bounds);
                // Where not even one may be touched, one threshold is, and gives none up.
                prop_assert!(figures.false_abort_rate <= share + 1e-12);
                prop_assert!(figures.saved > 0.0);
                prop_assert!(chosen.points.len() <= most && chosen.above.iter().all(|above| *above >= 0.0));
                // More leave to be wrong never saves less.
                let looser = Bounds { false_aborts: 2.0 * share, ..bounds.clone() };
                let saved = |bounds: &Bounds| {
                    choose(&all, &points, bounds).map_or(0.0, |chosen| count(&chosen, bounds).saved)
                };
                prop_assert!(saved(&looser) >= saved(&bounds) - 1e-12);
            }
        }

        #[test]
        fn parts_share_both_kinds(pictures in prop::collection::vec(scores(), 0..60)) {
            let parts = parts(&pictures);
            for kind in [true, false] {
                let of = |part: usize| {
                    pictures.iter().zip(&parts).filter(|(one, own)| one.violating == kind && **own == part).count()
                };
                let counts: Vec<usize> = (0..PARTS).map(of).collect();
                prop_assert!(counts[0] - counts[PARTS - 1] <= 1 && counts.is_sorted_by(|a, b| a >= b));
            }
        }
    }

    #[test]
    fn a_picture_is_counted_by_a_choice_that_was_made_without_it() {
        // One safe picture stands out. Chosen with it, nothing gives it up; chosen without it, it is.
        let mut pictures = vec![watched(false, [0.3, 0.0, 0.0, 0.0])];
        pictures.extend((0..40).map(|_| watched(false, [0.1, 0.0, 0.0, 0.0])));
        pictures.extend((0..40).map(|_| watched(true, [0.4, 0.4, 0.4, 0.4])));
        let (chosen, figures) = measure(&pictures, &points([0.0; 4]), &bounds(0.01, 1)).unwrap();
        assert_eq!(chosen, Chosen { points: vec![0], above: vec![0.3] });
        assert_eq!((figures.stopped, figures.violating, figures.false_aborts), (40, 40, 1));
        assert_eq!(figures.pictures, 81);
        assert!(measure(&[], &points([0.0; 4]), &bounds(0.01, 1)).is_none());
    }

    #[test]
    fn there_are_no_more_thresholds_than_pictures_may_be_given_up() {
        // Each point sees violating pictures that no other does.
        let pictures = |safe: usize| -> Vec<Watched> {
            let safe = (0..safe).map(|_| watched(false, [0.1; 4]));
            let violating = (0..4).map(|point| {
                let mut scores = [0.0; 4];
                scores[point] = 0.5;
                watched(true, scores)
            });
            safe.chain(violating).collect()
        };
        for (safe, most) in [(50, 1), (150, 1), (250, 2), (350, 3)] {
            let (chosen, _) = measure(&pictures(safe), &points([0.0; 4]), &bounds(0.01, 4)).unwrap();
            assert_eq!(chosen.points.len(), most, "{safe}");
        }
    }
}
