//! What comes of a judge or a log that fails.

use cluegate_gate::fakes::{FailingLog, Fault};

use super::*;

fn draws(order: &Order) -> Vec<Event> {
    (0..order.count).map(|index| finished(index, &clean(index))).collect()
}

#[tokio::test]
async fn a_judge_that_fails_is_no_violation() {
    for (fault, reason, kind) in [
        (Fault::Error, Reason::JudgeError, ProblemKind::JudgeFailed),
        (Fault::Panic, Reason::JudgeError, ProblemKind::JudgeFailed),
        (Fault::OtherPicture, Reason::JudgeError, ProblemKind::JudgeFailed),
        (Fault::Partial, Reason::JudgeError, ProblemKind::JudgeFailed),
        (Fault::OutOfTime, Reason::JudgeTimeout, ProblemKind::DeadlineExceeded),
        (Fault::Hang, Reason::JudgeTimeout, ProblemKind::DeadlineExceeded),
    ] {
        // A judge that hangs does so for 400 ms.
        let policy = if fault == Fault::Hang { "[tenant.t.limits]\njudge_deadline_ms = 100" } else { "" };
        let bench = Bench::new(policy, &World::new([fault]), sends(draws));
        let finished = bench.draw(1).await.finish().await.unwrap();
        assert_eq!(
            (reasons(&finished), finished.problem().unwrap().kind()),
            (vec![reason], kind),
            "{fault:?}"
        );
        let outcome = &finished.outcomes[0];
        assert!(!outcome.is_released() && outcome.decision().violated.is_empty());
        assert!(seen(outcome.shown().unwrap()).pixels() != clean(0).pixels());
        if fault == Fault::Hang {
            // On a busy machine the next verdict may be late too.
            continue;
        }
        // One of two costs only itself.
        let bench = Bench::new(policy, &World::new([fault]), sends(draws));
        let finished = bench.draw(2).await.finish().await.unwrap();
        assert_eq!(reasons(&finished), [reason, Reason::Safe], "{fault:?}");
        assert!(finished.problem().is_none());
    }
}

#[tokio::test]
async fn without_its_decision_in_the_log_nothing_is_released() {
    for panics in [false, true] {
        let log = Arc::new(FailingLog { lines: Mutex::new(0), from: 2, panics });
        let memory = Arc::new(MemoryLog::new(1));
        let bench = Bench::with_log("", &World::new([]), sends(draws), log, memory);
        let finished = bench.draw(3).await.finish().await.unwrap();
        assert_eq!(reasons(&finished), [Reason::Safe, Reason::LogFailure, Reason::LogFailure]);
        assert!(finished.outcomes.iter().skip(1).all(|outcome| !outcome.is_released()));
        assert!(
            finished
                .outcomes
                .iter()
                .skip(1)
                .all(|o| seen(o.shown().unwrap()).pixels() != clean(o.member() as u32).pixels())
        );
    }
}

#[tokio::test]
async fn a_held_picture_goes_to_the_review_folder_and_nowhere_else() {
    let held = picture(&[2], 9);
    let copy = held.clone();
    let policy = "placeholder = \"none\"\n[tenant.t.action]\ndefault = \"hold\"";
    let bench = Bench::new(policy, &World::new([]), sends(move |_| vec![finished(0, &copy)]));
    let finished = bench.draw(1).await.finish().await.unwrap();
    let outcome = &finished.outcomes[0];
    assert_eq!((outcome.reason(), outcome.is_released()), (Reason::HeldForReview, false));
    assert!(outcome.shown().is_none() && finished.problem().is_none());
    let folder = bench.folder.path().join("review");
    let file = folder.join(format!("{}.png", outcome.decision_id()));
    let kept = decode(&std::fs::read(&file).unwrap(), &DecodeOptions::default()).unwrap();
    assert!(kept.pixels() == held.pixels());
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o077, 0);
    }
    // Where it cannot be kept, the requester gets no more than before.
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::write(&folder, "no folder").unwrap();
    assert_eq!(bench.reasons(1).await, [Reason::HeldForReview]);
}

#[tokio::test]
async fn redaction_hides_before_it_shows() {
    let policy = "[tenant.t.action]\ndefault = \"redact\"";
    let bench = Bench::new(policy, &World::new([]), sends(|_| vec![finished(0, &picture(&[2], 0))]));
    let finished = bench.draw(1).await.finish().await.unwrap();
    assert_eq!(reasons(&finished), [Reason::Redacted]);
    assert!(cluegate_gate::fakes::violated(seen(finished.outcomes[0].shown().unwrap()).pixels()).is_empty());
}
