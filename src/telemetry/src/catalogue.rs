//! Every metric that the gateway exports. `docs/operations.md` has the same table, and a test compares the two with what the
//! program exports.

use crate::metric::{Kind, Metric};

macro_rules! catalogue {
    ($($constant:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: Metric =
                Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };
        )*

        /// All of them, by name of their constant.
        pub const ALL: &[Metric] = &[$($constant),*];
    };
}

catalogue! {
    DECISIONS: Counter "cluegate_decisions_total" ["tenant", "outcome", "reason", "mode", "stage"]
        "Decisions about pictures and previews; `stage` is what the last word was about: preview, picture, redaction or none.";
    VIOLATIONS: Counter "cluegate_violations_total" ["tenant", "rule"]
        "Violated rules of decisions, whatever followed from them.";
    JUDGMENTS: Counter "cluegate_judgments_total" ["stage", "verdict"]
        "Calls of the judge, by what they were about (preview, picture, canary, redaction) and what they said.";
    JUDGE_ERRORS: Counter "cluegate_judge_errors_total" ["kind"]
        "Judgments without a verdict, by kind of error.";
    CANARY: Counter "cluegate_canary_comparisons_total" ["agreement"]
        "Decisions with two constitutions, by whether they agree.";
    VERDICT_CACHE: Counter "cluegate_verdict_cache_lookups_total" ["result"]
        "Judgments whose report was known already (hit), or computed (miss).";
    PASSES: Counter "cluegate_forward_passes_total" ["model", "stage"]
        "Forward passes of the models in judgments that gave a verdict, as one at a time would need them.";
    JUDGE_SECONDS: Sum "cluegate_judge_seconds_total" ["tenant"]
        "Time in the judge.";
    COST: Sum "cluegate_cost_total" ["tenant"]
        "What judging has cost since the start, by the prices of the tenant's quota.";
    STAGE: Histogram "cluegate_stage_duration_seconds" ["stage"]
        "Time of one passage through a stage, from admission to the decision's line in the log; `total` is all of a decision.";

    HTTP_REQUESTS: Counter "cluegate_http_requests_total" ["status"]
        "Answered HTTP requests, by status.";
    ADMISSION_IN_WORK: Gauge "cluegate_admission_in_work" ["tenant"]
        "Requests in work.";
    ADMISSION_WAITING: Gauge "cluegate_admission_waiting" []
        "Requests that wait for a place.";
    ADMISSION_PLACES: Gauge "cluegate_admission_places" []
        "Most requests in work at a time (`limits.in_work`).";
    ADMISSION_QUEUE_PLACES: Gauge "cluegate_admission_queue_places" []
        "Most requests that may wait (`limits.queue`).";
    ADMISSION_REFUSED: Counter "cluegate_admission_refused_total" ["reason"]
        "Requests that got no place.";
    QUOTA_REFUSED: Counter "cluegate_quota_refused_total" ["tenant", "quota"]
        "Requests refused because a quota of their tenant was spent.";
    UPSTREAM_ORDERS: Counter "cluegate_upstream_orders_total" []
        "Orders sent to the text-to-image server.";
    UPSTREAM_ERRORS: Counter "cluegate_upstream_errors_total" ["kind"]
        "Orders that the text-to-image server did not carry out.";
    UPSTREAM_UP: Gauge "cluegate_upstream_up" []
        "Whether the text-to-image server said that it would draw, when it was last asked (1 or 0).";

    PICTURES_IN_WORK: Gauge "cluegate_pictures_in_work" []
        "Pictures under judgment.";
    MODEL_QUEUE: Gauge "cluegate_model_queue_requests" ["model"]
        "Requests that wait for a model.";
    MODEL_REQUESTS: Counter "cluegate_model_requests_total" ["model", "end"]
        "Requests to a model, by how they ended: served, abandoned or rejected.";
    MODEL_BATCHES: Counter "cluegate_model_batches_total" ["model"]
        "Batched calls of a model; for free answers one for each token.";
    MODEL_LARGEST_BATCH: Gauge "cluegate_model_largest_batch" ["model"]
        "Most items of one batched call so far.";
    MODEL_PANICS: Counter "cluegate_model_panics_total" ["model"]
        "Panics of a model that were caught.";
    TEXT_CACHE: Counter "cluegate_text_cache_lookups_total" ["result"]
        "Look-ups of numbers that depend on texts alone: from memory, from disk, or missed.";

    POLICY_RELOADS: Counter "cluegate_policy_reloads_total" ["result"]
        "Attempts to take new policies, constitutions or keys: replaced or refused.";
    POLICY_LOADED: Gauge "cluegate_policy_loaded_timestamp_seconds" []
        "When the policies in force were taken, in seconds since 1970.";
    POLICY_STALE: Gauge "cluegate_policy_refused" []
        "Whether the newest policies were refused and older ones are in force (1 or 0).";
    TENANTS: Gauge "cluegate_tenants" []
        "Tenants with a policy.";
    DATABASE_UP: Gauge "cluegate_database_up" []
        "Whether the database answered when it was last asked (1 or 0).";
    LOG_ERRORS: Counter "cluegate_log_errors_total" []
        "Decisions that could not be logged; each withheld its picture.";
    LOG_ENTRIES: Counter "cluegate_log_entries_total" []
        "Entries of the decision log that are durable.";
    LOG_FAILURES: Counter "cluegate_log_failures_total" []
        "Entries of the decision log that could not be written.";
    LOG_SINK_FAILURES: Counter "cluegate_log_sink_failures_total" ["sink"]
        "Batches of entries that a place of the decision log (file or database) did not take.";
    LOG_QUEUE: Gauge "cluegate_log_queue" []
        "Decisions that waited to be written when the last one came.";
    LOG_APPEND: Histogram "cluegate_log_append_seconds" []
        "Time until a decision is durable.";
    LOG_WRITE: Histogram "cluegate_log_write_seconds" []
        "Time of one batch of entries.";
    LOG_BATCH: Histogram "cluegate_log_batch_entries" []
        "Entries that became durable together.";
    LOG_EXPIRED: Counter "cluegate_log_expired_total" ["what"]
        "Decisions and pictures that were removed because they were older than their tenant's retention allows.";
    LOG_SWEPT: Gauge "cluegate_log_swept_timestamp_seconds" []
        "When the last sweep for what is too old ended without a failure, in seconds since 1970.";
    LOG_SWEEP_FAILURES: Counter "cluegate_log_sweep_failures_total" []
        "Tenants of whom a sweep could not remove what is too old.";
    WEBHOOK_ENTRIES: Counter "cluegate_log_webhook_entries_total" []
        "Entries of the decision log that the webhook took.";
    WEBHOOK_RETRIES: Counter "cluegate_log_webhook_retries_total" []
        "Batches that were sent to the webhook once more.";
    WEBHOOK_FAILURES: Counter "cluegate_log_webhook_failures_total" []
        "Times that delivery to the webhook stopped for a failure of this machine, such as a full disk.";
    WEBHOOK_DEAD: Counter "cluegate_log_webhook_dead_total" []
        "Entries that the webhook would not take, and that lie among the dead letters.";
    WEBHOOK_MISSING: Counter "cluegate_log_webhook_missing_total" []
        "Entries that were gone from the decision log before the webhook had them.";
    WEBHOOK_LAG: Gauge "cluegate_log_webhook_lag_entries" []
        "Entries of the decision log that the webhook has not got yet.";
    TRACE_EXPORTS: Counter "cluegate_trace_exports_total" ["result"]
        "Batches of spans sent to the collector: exported or failed.";

    BUILD: Gauge "cluegate_build_info" ["version"]
        "Always 1; its label says which program runs.";
    PROCESS_CPU: Sum "process_cpu_seconds_total" []
        "CPU time of the process in seconds.";
    PROCESS_MEMORY: Gauge "process_resident_memory_bytes" []
        "Memory of the process that is in RAM.";
    PROCESS_VIRTUAL: Gauge "process_virtual_memory_bytes" []
        "Address space of the process.";
    PROCESS_FDS: Gauge "process_open_fds" []
        "Open file handles.";
    PROCESS_MAX_FDS: Gauge "process_max_fds" []
        "Most file handles that the system allows.";
    PROCESS_THREADS: Gauge "process_threads" []
        "Threads of the process.";
    PROCESS_START: Gauge "process_start_time_seconds" []
        "When the process began, in seconds since 1970.";
}
