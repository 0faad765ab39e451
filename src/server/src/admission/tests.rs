#![allow(clippy::unwrap_used)]

use std::task::{Context, Poll, Waker};

use futures_util::future::BoxFuture;
use proptest::prelude::*;

use super::*;

type Admitted<'a> = BoxFuture<'a, Result<Place, Problem>>;

fn in_seconds(seconds: u64) -> Deadline {
    Deadline(Instant::now() + Duration::from_secs(seconds))
}

fn tenant(name: &str) -> Arc<str> {
    Arc::from(name)
}

fn look<'a>(admitted: &mut Admitted<'a>) -> Poll<Result<Place, Problem>> {
    admitted.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

const PLAIN: Standing = Standing { priority: 5, in_work: None };

/// A request of `tenant` that has been asked for once, and its place if it got one at once.
fn ask<'a>(admission: &'a Admission, name: &str) -> (Admitted<'a>, Poll<Result<Place, Problem>>) {
    ask_as(admission, name, PLAIN)
}

fn ask_as<'a>(
    admission: &'a Admission,
    name: &str,
    standing: Standing,
) -> (Admitted<'a>, Poll<Result<Place, Problem>>) {
    let tenant = tenant(name);
    let mut admitted: Admitted<'a> =
        Box::pin(async move { admission.admit(&tenant, standing, in_seconds(60)).await });
    let first = look(&mut admitted);
    (admitted, first)
}

fn waiting(admission: &Admission) -> usize {
    admission.desk.lock().waiting
}

#[tokio::test]
async fn the_queue_is_bounded_and_waits_no_longer_than_the_client() {
    let (admission, kids) = (Admission::new(1, 1, Duration::from_secs(3)), tenant("kids"));
    let first = admission.admit(&kids, PLAIN, in_seconds(60)).await.unwrap();
    let late = admission.admit(&kids, PLAIN, in_seconds(0)).await.unwrap_err();
    assert_eq!((late.kind(), waiting(&admission)), (ProblemKind::DeadlineExceeded, 0));
    let (second, waits) = ask(&admission, "kids");
    assert!(waits.is_pending());
    let third = admission.admit(&kids, PLAIN, in_seconds(60)).await.unwrap_err();
    assert_eq!(third.kind(), ProblemKind::Overloaded);
    drop(first);
    let place = second.await.unwrap();
    assert_eq!((admission.in_work(), waiting(&admission)), (1, 0));
    // Whoever leaves with a place that it has not taken yet leaves it to the next.
    let (left, _) = ask(&admission, "kids");
    drop(place);
    assert_eq!(admission.in_work(), 1);
    drop(left);
    assert_eq!(admission.in_work(), 0);
    let place = admission.admit(&kids, PLAIN, in_seconds(60)).await.unwrap();
    admission.drain();
    let refused = admission.admit(&kids, PLAIN, in_seconds(60)).await.unwrap_err();
    assert_eq!(refused.kind(), ProblemKind::Draining);
    drop(place);
    admission.idle().await;
    assert_eq!(admission.in_work(), 0);
}

#[tokio::test]
async fn a_burst_of_one_tenant_keeps_no_other_out() {
    let admission = Admission::new(2, 4, Duration::from_secs(3));
    let mut places: Vec<Place> = Vec::new();
    for _ in 0..2 {
        places.push(admission.admit(&tenant("burst"), PLAIN, in_seconds(60)).await.unwrap());
    }
    let mut burst: Vec<_> = (0..4).map(|_| ask(&admission, "burst").0).collect();
    let (_, fifth) = ask(&admission, "burst");
    assert!(matches!(fifth, Poll::Ready(Err(_))));
    // Another tenant finds the queue full: the newest of those who wait the most gives way, down to a fair share.
    let (mut quiet, waits) = ask(&admission, "quiet");
    assert!(waits.is_pending());
    let Poll::Ready(Err(displaced)) = look(&mut burst[3]) else { panic!("it still waits") };
    assert_eq!(displaced.kind(), ProblemKind::Overloaded);
    assert!(look(&mut burst[2]).is_pending());
    let (_second, waits) = ask(&admission, "quiet");
    assert!(waits.is_pending());
    let (_, third) = ask(&admission, "quiet");
    assert!(matches!(third, Poll::Ready(Err(_))), "both wait as much now");
    // The first place is for whoever has nothing in work, though it came last.
    drop(places.pop());
    let Poll::Ready(Ok(_quiet)) = look(&mut quiet) else { panic!("it has no place") };
    assert!(look(&mut burst[0]).is_pending());
    drop(places.pop());
    assert!(matches!(look(&mut burst[0]), Poll::Ready(Ok(_))));
}

#[tokio::test]
async fn the_higher_priority_goes_first_and_whoever_waits_rises() {
    let admission = Admission::new(1, 3, Duration::from_secs(3));
    let of = |priority| Standing { priority, in_work: None };
    let (_, Poll::Ready(Ok(place))) = ask(&admission, "first") else { panic!("a place was free") };
    let (mut low, _) = ask_as(&admission, "low", of(0));
    let (mut high, _) = ask_as(&admission, "high", of(2));
    drop(place);
    let Poll::Ready(Ok(place)) = look(&mut high) else { panic!("the higher priority has no place") };
    // A later one of higher priority does not pass one that has waited long enough, and passes a newer one.
    let (mut higher, _) = ask_as(&admission, "high", of(2));
    let later = Instant::now() + 3 * AGEING;
    let rank = |name: &str, now| admission.desk.lock().tenants[&tenant(name)].first(now).unwrap().1;
    assert_eq!((rank("low", Instant::now()), rank("low", later), rank("high", later)), (0, 3, 5));
    {
        let mut state = admission.desk.lock();
        let waiter = &mut state.tenants.get_mut(&tenant("low")).unwrap().waiting[0];
        waiter.since -= 3 * AGEING;
    }
    drop(place);
    let Poll::Ready(Ok(_place)) = look(&mut low) else { panic!("it starves") };
    assert!(look(&mut higher).is_pending());
    // In a full queue the lowest gives way, and nobody gives way to a lower one.
    let (mut lowest, _) = ask_as(&admission, "low", of(0));
    let (mut middle, _) = ask_as(&admission, "middle", of(1));
    assert!(matches!(ask_as(&admission, "low", of(0)).1, Poll::Ready(Err(_))));
    let (_highest, waits) = ask_as(&admission, "highest", of(9));
    assert!(waits.is_pending() && look(&mut middle).is_pending() && look(&mut higher).is_pending());
    assert!(matches!(look(&mut lowest), Poll::Ready(Err(_))));
}

#[tokio::test]
async fn a_tenant_at_its_limit_waits_while_others_find_a_place() {
    let admission = Admission::new(3, 4, Duration::from_secs(3));
    let limited = Standing { priority: 9, in_work: Some(1) };
    let (_, Poll::Ready(Ok(place))) = ask_as(&admission, "limited", limited) else {
        panic!("a place was free")
    };
    let (mut second, waits) = ask_as(&admission, "limited", limited);
    assert!(waits.is_pending());
    let (_, Poll::Ready(Ok(other))) = ask(&admission, "other") else { panic!("two places are free") };
    drop(other);
    assert!(look(&mut second).is_pending());
    drop(place);
    assert!(matches!(look(&mut second), Poll::Ready(Ok(_))));
}

#[derive(Debug, Clone)]
enum Act {
    Ask(u8),
    Leave(usize),
    Finish(usize),
}

/// Tenants of the property: two priorities, and one that may have one request in work.
fn standing(name: u8) -> Standing {
    Standing { priority: name % 2, in_work: (name == 3).then_some(1) }
}

proptest! {
    #[test]
    fn places_and_queue_are_never_exceeded_and_never_lost(
        acts in prop::collection::vec(prop_oneof![
            (0_u8..4).prop_map(Act::Ask),
            (0_usize..16).prop_map(Act::Leave),
            (0_usize..16).prop_map(Act::Finish),
        ], 0..120),
        size in 1_usize..4,
        queue in 0_usize..6,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _guard = runtime.enter();
        let admission = Admission::new(size, queue, Duration::from_secs(1));
        let (mut waits, mut places): (Vec<Admitted<'_>>, Vec<Place>) = (Vec::new(), Vec::new());
        for act in acts {
            match act {
                Act::Ask(name) => match ask_as(&admission, &name.to_string(), standing(name)) {
                    (admitted, Poll::Pending) => waits.push(admitted),
                    (_, Poll::Ready(Ok(place))) => places.push(place),
                    (_, Poll::Ready(Err(_))) => prop_assert_eq!(waiting(&admission), queue),
                },
                Act::Leave(index) if index < waits.len() => drop(waits.swap_remove(index)),
                Act::Finish(index) if index < places.len() => drop(places.swap_remove(index)),
                Act::Leave(_) | Act::Finish(_) => {}
            }
            let mut still = Vec::new();
            for mut admitted in waits {
                match look(&mut admitted) {
                    Poll::Pending => still.push(admitted),
                    Poll::Ready(Ok(place)) => places.push(place),
                    Poll::Ready(Err(_)) => {}
                }
            }
            waits = still;
            prop_assert_eq!(admission.in_work(), places.len());
            prop_assert_eq!(waiting(&admission), waits.len());
            prop_assert!(places.len() <= size && waits.len() <= queue);
            let at_its_limit = |(name, share): (&Arc<str>, &Share)| {
                share.waiting.is_empty() || share.in_work == standing(name.parse().unwrap()).in_work.unwrap_or(99)
            };
            let state = admission.desk.lock();
            let blocked = state.tenants.iter().all(at_its_limit);
            prop_assert!(blocked || places.len() == size, "a place is free for somebody who waits");
            let within = |(name, share): (&Arc<str>, &Share)| {
                share.in_work <= standing(name.parse().unwrap()).in_work.unwrap_or(99)
            };
            prop_assert!(state.tenants.iter().all(within));
            prop_assert_eq!(state.free + state.in_work(), size);
            prop_assert!(state.tenants.values().all(|share| share.in_work + share.waiting.len() > 0));
        }
    }
}
