//! From a decision's record to its entry, and back.

use std::collections::BTreeMap;

use cluegate_gate::DecisionRecord;
use serde_json::{Map, Value};

use crate::entry::{Bundle, DECISION, Entry, KeptPicture, PROMPT, SUBJECT, unplaced};
use crate::error::{AuditError, Result};

/// Members of attempts that hold free text: they may repeat what the prompt says or tell what the picture shows.
const TEXT_KEYS: [&str; 6] = ["thought", "rationale", "projection", "failure", "refused", "message"];
/// Members of a decision's record that say what was asked; the others say what came of it.
const INPUT_KEYS: [&str; 7] = ["request", "member", "model", "models", "subject", "mode", "attempts"];

impl Entry {
    /// An entry about a decision. `masked_subject` stands for the subject of the record; without one, the subject is
    /// erased.
    pub(crate) fn decision(
        record: &DecisionRecord,
        masked_subject: Option<String>,
        pictures: &[KeptPicture],
        labels: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let unwritten = |source: serde_json::Error| AuditError::Entry(source.to_string());
        let Value::Object(mut members) = serde_json::to_value(record).map_err(unwritten)? else {
            return Err(AuditError::Entry("a record is no object".to_owned()));
        };
        let (mut erased, mut masked) = (Vec::new(), Vec::new());
        if record.request.prompt.is_none() {
            erased.push(PROMPT.to_owned());
        }
        if record.subject.is_some() {
            members.shift_remove("subject");
            match masked_subject {
                Some(subject) => {
                    members.insert("subject".to_owned(), subject.into());
                    masked.push(SUBJECT.to_owned());
                }
                None => erased.push(SUBJECT.to_owned()),
            }
        }
        for key in ["decision_id", "timestamp", "tenant", "requested_by"] {
            members.shift_remove(key);
        }
        let mut input = Map::new();
        for key in INPUT_KEYS {
            if let Some(value) = members.shift_remove(key) {
                input.insert(key.to_owned(), value);
            }
        }
        let mut texts = Map::new();
        if let Some(attempts) = input.get_mut("attempts") {
            lift_texts(attempts, &mut "/attempts".to_owned(), &mut texts);
        }
        if !texts.is_empty() {
            input.insert("texts".to_owned(), Value::Object(texts));
        }
        if !pictures.is_empty() {
            input.insert("pictures".to_owned(), serde_json::to_value(pictures).map_err(unwritten)?);
        }
        let mut labels = labels.clone();
        labels.insert("tenant".to_owned(), record.tenant.clone());
        Ok(Self {
            decision_id: record.decision_id.clone(),
            labels,
            bundles: bundles(record),
            path: DECISION.to_owned(),
            input: Value::Object(input),
            result: Value::Object(members),
            requested_by: record.requested_by.clone(),
            timestamp: record.timestamp.clone(),
            erased,
            masked,
            commitments: BTreeMap::new(),
            salts: BTreeMap::new(),
            chain: unplaced(),
        })
    }

    /// The decision that it is about; texts that were erased are empty, and a subject is what stands for it in the log.
    ///
    /// # Errors
    /// If it is about no decision, or was written by a version whose records differ.
    pub fn record(&self) -> Result<DecisionRecord> {
        if self.path != DECISION {
            return Err(AuditError::Entry(format!(
                "{} is about {}, not a decision",
                self.decision_id, self.path
            )));
        }
        let objects = (self.input.clone(), self.result.clone());
        let (Value::Object(mut members), Value::Object(result)) = objects else {
            return Err(AuditError::Entry(format!("{} has no input or no result", self.decision_id)));
        };
        let texts = members.shift_remove("texts");
        members.shift_remove("pictures");
        members.extend(result);
        members.insert("decision_id".to_owned(), self.decision_id.clone().into());
        members.insert("timestamp".to_owned(), self.timestamp.clone().into());
        members.insert("tenant".to_owned(), self.tenant().unwrap_or_default().into());
        members.insert("requested_by".to_owned(), self.requested_by.clone().into());
        members.entry("message").or_insert_with(|| "".into());
        if let Some(request) = members.get_mut("request").and_then(Value::as_object_mut) {
            request.entry("prompt_hash").or_insert_with(|| "".into());
        }
        let mut whole = Value::Object(members);
        if let Some(Value::Object(texts)) = texts {
            for (pointer, text) in texts {
                if let Some(place) = whole.pointer_mut(&pointer) {
                    *place = text;
                }
            }
        }
        serde_json::from_value(whole)
            .map_err(|source| AuditError::Entry(format!("{}: its record: {source}", self.decision_id)))
    }
}

fn bundles(record: &DecisionRecord) -> BTreeMap<String, Bundle> {
    let compared = record.canary.iter().flat_map(|canary| [&canary.stable, &canary.canary]);
    let named = compared.map(|constitution| {
        (format!("{}@{}", constitution.name, short(&constitution.revision)), constitution)
    });
    // A canary often has the name of the constitution that it is to replace.
    let same_name = record.canary.as_ref().is_some_and(|canary| canary.stable.name == canary.canary.name);
    let mut bundles: BTreeMap<String, Bundle> = named
        .map(|(unique, constitution)| {
            let name = if same_name { unique } else { constitution.name.clone() };
            (name, Bundle { revision: constitution.revision.clone() })
        })
        .collect();
    if bundles.is_empty() {
        let constitution = &record.constitution;
        bundles.insert(constitution.name.clone(), Bundle { revision: constitution.revision.clone() });
    }
    bundles
}

fn short(revision: &str) -> &str {
    revision.get(..12).unwrap_or(revision)
}

/// Moves the free texts under `value` to `texts`, by JSON pointer, and leaves empty ones.
fn lift_texts(value: &mut Value, pointer: &mut String, texts: &mut Map<String, Value>) {
    let length = pointer.len();
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                pointer.push('/');
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
                if TEXT_KEYS.contains(&key.as_str()) && member.as_str().is_some_and(|text| !text.is_empty()) {
                    texts.insert(pointer.clone(), std::mem::replace(member, "".into()));
                } else {
                    lift_texts(member, pointer, texts);
                }
                pointer.truncate(length);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                pointer.push_str(&format!("/{index}"));
                lift_texts(item, pointer, texts);
                pointer.truncate(length);
            }
        }
        _ => {}
    }
}
