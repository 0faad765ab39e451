//! The figures of a run: of each method, and of each beside the whole method. Holds no times, so that the same answers
//! give the same bytes.

use std::path::Path;

use cluegate_judge::Models;
use serde::Serialize;

use crate::ablation::{Ablation, Agreement, Reported};
use crate::metrics::{Bootstrap, Difference, Differences, Judged, NamedPolicy, differences, measure};
use crate::record::{Kept, MethodRecord, RecordError, replace};
use crate::run::MethodReport;
use crate::scenes::POLICIES;

/// Name of the report in the folder of a run.
pub const REPORT_FILE: &str = "report.json";

/// The name of the whole method, which others are compared with.
const WHOLE: &str = "clue";

/// All figures of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunReport {
    /// The data set.
    pub data: DataReport,
    /// The rules.
    pub constitution: ConstitutionReport,
    /// Fingerprints of the models.
    pub models: Models,
    /// How intervals were drawn.
    pub bootstrap: Bootstrap,
    /// The figures of each method.
    pub methods: Vec<MethodReport>,
    /// Each other method beside the whole one, or beside the first where the whole one was not asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<MethodDifference>,
    /// What each part is worth here, and in the paper.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ablations: Vec<AblationReport>,
}

/// A data set, in a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DataReport {
    /// How tables call it.
    pub name: String,
    /// Hash over its rows.
    pub revision: String,
    /// Its rows.
    pub rows: usize,
    /// How many of them were looked at.
    pub looked_at: usize,
}

/// A constitution, in a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConstitutionReport {
    /// Its name.
    pub name: String,
    /// Its revision.
    pub revision: String,
}

/// One method's figures less another's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MethodDifference {
    /// The method.
    pub method: String,
    /// Whose figures are taken off.
    pub against: String,
    /// The differences.
    #[serde(flatten)]
    pub differences: Differences,
}

/// The method without one of its parts, less the whole one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AblationReport {
    /// The ablation.
    pub method: String,
    /// What the paper reports, where it does.
    pub paper: Option<Reported>,
    /// The same figure here; F1 where the paper gives none.
    pub ours: Option<Difference>,
    /// Whether both go the same way; none where the paper gives no figure.
    pub agreement: Option<Agreement>,
}

impl RunReport {
    /// Counts the answers of a run.
    pub fn of(kept: &Kept) -> Self {
        let record = &kept.record;
        let judged: Vec<Vec<Judged<'_>>> = record.methods.iter().map(|method| kept.judged(method)).collect();
        let against = record.methods.iter().position(|method| method.name == WHOLE).unwrap_or(0);
        let policies = policies(&record.data.name);
        let methods = record.methods.iter().zip(&judged);
        let differences: Vec<MethodDifference> = record
            .methods
            .iter()
            .zip(&judged)
            .enumerate()
            .filter(|(at, _)| *at != against)
            .map(|(_, (method, said))| MethodDifference {
                method: method.name.clone(),
                against: record.methods[against].name.clone(),
                differences: differences(said, &judged[against], &record.rules, record.bootstrap),
            })
            .collect();
        Self {
            data: DataReport {
                name: record.data.name.clone(),
                revision: record.data.revision.clone(),
                rows: record.data.rows,
                looked_at: record.data.looked_at,
            },
            constitution: ConstitutionReport {
                name: record.constitution.name.clone(),
                revision: record.constitution.revision.clone(),
            },
            models: record.models.clone(),
            bootstrap: record.bootstrap,
            methods: methods.map(|(method, said)| figures(method, said, kept, policies)).collect(),
            ablations: differences.iter().filter_map(ablation).collect(),
            differences,
        }
    }

    /// Writes the report into `folder`.
    ///
    /// # Errors
    /// The system refused.
    pub fn write(&self, folder: &Path) -> Result<(), RecordError> {
        let path = folder.join(REPORT_FILE);
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| RecordError::File { path: path.clone(), source: error.into() })?;
        replace(&path, (text + "\n").as_bytes())
    }
}

/// The policies under which pairs of the set of this name are looked at.
fn policies(set: &str) -> &'static [NamedPolicy] {
    if matches!(set, "mini-osbench" | "mini-pairs") { &POLICIES } else { &[] }
}

fn figures(
    method: &MethodRecord,
    judged: &[Judged<'_>],
    kept: &Kept,
    policies: &[NamedPolicy],
) -> MethodReport {
    MethodReport {
        method: method.name.clone(),
        revision: method.revision.clone(),
        measures: measure(judged, &kept.record.rules, policies, kept.record.bootstrap),
        failures: method.failures.clone(),
    }
}

fn ablation(difference: &MethodDifference) -> Option<AblationReport> {
    if difference.against != WHOLE {
        return None;
    }
    let ablation = Ablation::ALL.into_iter().find(|ablation| ablation.as_str() == difference.method)?;
    let paper = ablation.reported();
    let figure = paper.map_or("f1", |paper| paper.figure);
    let ours = difference.differences.image_level.get(figure).copied();
    let agreement = paper.zip(ours).map(|(paper, ours)| paper.agrees(&ours));
    Some(AblationReport { method: difference.method.clone(), paper, ours, agreement })
}
