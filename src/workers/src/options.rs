//! Limits, and what they are unless somebody says otherwise.

/// How many may be let in at once. Values are brought into their ranges silently: they are the limits of a machine, and
/// the nearest possible one serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionOptions {
    /// Most places taken at once, by all tenants together; at least 1. Default 64.
    pub limit: usize,
    /// Most places that a tenant takes while no other takes any, 1 to `limit`. Default 48.
    ///
    /// The others' places shrink it: a tenant may always hold `per_tenant / (limit - per_tenant)` times as many places
    /// as are free. So with the default, one busy tenant leaves 16 places, two leave 10, five leave 4, and one who
    /// comes anew finds a place. This is the dynamic threshold of shared-memory switches (Choudhury and Hahne, IEEE/ACM
    /// Transactions on Networking 6(2), 1998). With `per_tenant` equal to `limit` tenants are not told apart.
    pub per_tenant: usize,
}

impl AdmissionOptions {
    /// `limit` places, three quarters of them for a tenant that is alone.
    pub fn new(limit: usize) -> Self {
        Self { limit, per_tenant: (limit - limit / 4).max(1) }
    }

    /// The same within their ranges.
    pub(crate) fn valid(self) -> Self {
        let limit = self.limit.max(1);
        Self { limit, per_tenant: self.per_tenant.clamp(1, limit) }
    }
}

impl Default for AdmissionOptions {
    fn default() -> Self {
        Self::new(64)
    }
}

/// The queue and the batches of one kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerOptions {
    /// How many requests may wait; a request is one call of a trait's method. At most 65,536 places. Default 256, 192
    /// of them for a tenant that is alone.
    pub queue: AdmissionOptions,
    /// Most items that are computed together: pictures or texts of an encoder, pictures of a detector, questions of a
    /// score, answers being decoded; at least 1. A request of more items is computed alone. The model divides a call
    /// further if its memory asks for it. Default 64.
    pub largest_batch: usize,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self { queue: AdmissionOptions::new(256), largest_batch: 64 }
    }
}

/// The queues and batches of a language model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LanguageOptions {
    /// Requests for scores. Default 256 places and 512 questions in a call, which are those of about twelve pictures.
    pub scores: WorkerOptions,
    /// Requests for free answers. Default 256 places and 64 answers decoded side by side.
    pub answers: WorkerOptions,
}

impl Default for LanguageOptions {
    fn default() -> Self {
        let scores = WorkerOptions { largest_batch: 512, ..WorkerOptions::default() };
        Self { scores, answers: WorkerOptions::default() }
    }
}
