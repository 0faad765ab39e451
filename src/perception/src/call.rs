//! On whose behalf a model is called, and for how long the answer is of use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::{PerceptionError, PerceptionErrorKind, Result};

/// The caller of a model: the tenant for whom it works, the moment after which nobody waits for the answer, and a flag
/// that calls it off. Clones share the flag, so that whoever opened the request ends all work that was begun for it.
///
/// The default caller is no tenant in particular, waits for ever and can be called off.
#[derive(Debug, Clone, Default)]
pub struct Call {
    tenant: Arc<str>,
    deadline: Option<Instant>,
    cancelled: Arc<AtomicBool>,
    /// Those for whom one piece of work is done at once; empty for a call of one caller.
    members: Arc<[Call]>,
}

impl Call {
    /// A call on behalf of `tenant`, between whom and others a shared model is divided fairly.
    pub fn new(tenant: impl Into<Arc<str>>) -> Self {
        Self { tenant: tenant.into(), ..Self::default() }
    }

    /// The same call with a moment after which its answer is of no use.
    #[must_use]
    pub fn until(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The call of one piece of work that is done for all of `members` at once: it is over when every one of them is,
    /// its tenant is theirs if they share one, and to call it off calls off none of them. Without members it is the
    /// default call.
    pub fn together(members: impl IntoIterator<Item = Self>) -> Self {
        let members: Vec<Self> = members.into_iter().collect();
        let Some(first) = members.first() else { return Self::default() };
        let shared = members.iter().all(|other| other.tenant == first.tenant);
        let deadlines = members.iter().map(|member| member.deadline);
        Self {
            tenant: if shared { Arc::clone(&first.tenant) } else { Arc::default() },
            // Whoever has no deadline waits for ever, and so does the work.
            deadline: deadlines.reduce(|latest, own| latest.zip(own).map(|(a, b)| a.max(b))).flatten(),
            cancelled: Arc::default(),
            members: members.into(),
        }
    }

    /// The tenant; empty for none in particular.
    pub fn tenant(&self) -> &Arc<str> {
        &self.tenant
    }

    /// The moment after which the answer is of no use.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Time until the deadline, zero if it has passed; `None` without one.
    pub fn time_left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Calls the work off: it ends at the next opportunity, and its answer is an error of kind `Cancelled`.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }

    /// Whether anybody still waits for the answer.
    ///
    /// # Errors
    /// `Cancelled` if the call was called off, `Timeout` if the deadline has passed.
    pub fn check(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Acquire) {
            let message = "the call was called off; nobody waits for its answer";
            return Err(PerceptionError::new(PerceptionErrorKind::Cancelled, message));
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            let message =
                "the deadline passed before the model answered; allow more time, or use faster models";
            return Err(PerceptionError::new(PerceptionErrorKind::Timeout, message));
        }
        let mut over = Ok(());
        for member in self.members.iter() {
            over = member.check();
            if over.is_ok() {
                break;
            }
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_ends_by_its_deadline_or_when_called_off() {
        let call = Call::new("news");
        assert!(call.check().is_ok());
        assert_eq!((&**call.tenant(), call.time_left()), ("news", None));
        let copy = call.clone().until(Instant::now() + Duration::from_secs(3600));
        assert!(copy.check().is_ok());
        assert!(copy.time_left().unwrap() > Duration::from_secs(3000));
        let late = call.clone().until(Instant::now());
        assert_eq!(late.check().unwrap_err().kind(), PerceptionErrorKind::Timeout);
        assert_eq!(late.time_left(), Some(Duration::ZERO));
        call.cancel();
        assert_eq!(copy.check().unwrap_err().kind(), PerceptionErrorKind::Cancelled);
        assert!(Call::default().check().is_ok());
    }

    #[test]
    fn work_for_several_is_over_when_it_is_over_for_all() {
        let now = Instant::now();
        let (hour, day) = (now + Duration::from_secs(3600), now + Duration::from_secs(86_400));
        let (news, shop) = (Call::new("news").until(hour), Call::new("shop").until(day));
        let both = Call::together([news.clone(), shop.clone()]);
        assert_eq!((&**both.tenant(), both.deadline()), ("", Some(day)));
        news.cancel();
        assert!(both.check().is_ok());
        shop.cancel();
        assert_eq!(both.check().unwrap_err().kind(), PerceptionErrorKind::Cancelled);

        let patient = Call::new("news");
        let mixed = Call::together([Call::new("news").until(now), patient.clone()]);
        assert_eq!((&**mixed.tenant(), mixed.deadline()), ("news", None));
        assert!(mixed.check().is_ok());
        mixed.cancel();
        assert!(mixed.check().is_err() && patient.check().is_ok());
        assert_eq!(Call::together([patient]).deadline(), None);
        assert!(Call::together([]).check().is_ok());
    }
}
