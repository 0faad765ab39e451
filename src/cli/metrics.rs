//! What the models' threads have done, as metrics.

use cluegate::EngineStatistics;
use cluegate_telemetry::catalogue as metric;
use cluegate_workers::Statistics;

/// Records a snapshot. The judge's scores and its free answers are two queues of one model.
pub(super) fn record(engine: &EngineStatistics) {
    metric::PICTURES_IN_WORK.set(engine.pictures_in_work as f64, &[]);
    model("relevance", &engine.relevance);
    model("detector", &engine.detector);
    model("judge", &engine.judge.scores);
    model("judge-answers", &engine.judge.answers);
    let found =
        [("memory", engine.cache.memory), ("disk", engine.cache.disk), ("missed", engine.cache.missed)];
    for (result, count) in found {
        metric::TEXT_CACHE.absolute(count, &[result]);
    }
}

fn model(name: &str, statistics: &Statistics) {
    let ends = [
        ("served", statistics.served),
        ("abandoned", statistics.abandoned),
        ("rejected", statistics.rejected),
    ];
    for (end, count) in ends {
        metric::MODEL_REQUESTS.absolute(count, &[name, end]);
    }
    metric::MODEL_BATCHES.absolute(statistics.batches, &[name]);
    metric::MODEL_PANICS.absolute(statistics.panics, &[name]);
    metric::MODEL_LARGEST_BATCH.set(statistics.largest_batch as f64, &[name]);
    metric::MODEL_QUEUE.set(statistics.queued as f64, &[name]);
}
