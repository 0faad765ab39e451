//! What a signed file states, in the words of the C2PA specification
//! (<https://spec.c2pa.org/specifications/specifications/2.3/specs/C2PA_Specification.html>).

use std::sync::Arc;

use c2pa::{Builder, Context, Settings};
use cluegate_gate::{Origin, Statement};
use cluegate_perception::FileFormat;
use serde_json::{Value, json};

/// Name of the gate, as the claim's generator.
const GATE: &str = "cluegate";
/// Label of the assertion about the decision: as the specification has it for assertions of one's own, a reversed domain name and
/// a version.
pub const DECISION_LABEL: &str = "org.cluegate.decision";
/// Version of what stands in that assertion.
pub const DECISION_SCHEMA: u32 = 1;
/// A model drew the picture.
const DRAWN: &str = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia";
/// A model drew it from another picture.
const REWORKED: &str = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia";
/// By what name the picture that somebody brought is referred to within its manifest.
const BROUGHT: &str = "brought";

/// Settings under which manifests are made: nothing is fetched, nothing is pictured, and nothing is added that is not stated
/// here. What was written is read again and its hashes are compared.
pub(crate) fn context() -> Result<Arc<Context>, c2pa::Error> {
    let settings = json!({
        "core": { "allowed_network_hosts": [] },
        "verify": {
            "remote_manifest_fetch": false, "ocsp_fetch": false, "verify_after_sign": true, "verify_after_sign_hash": true,
            "verify_trust": false, "verify_timestamp_trust": false,
        },
        "builder": { "thumbnail": { "enabled": false }, "auto_timestamp_assertion": { "enabled": false } },
    });
    Ok(Arc::new(Context::new().with_settings(Settings::new().with_json(&settings.to_string())?)?))
}

/// A manifest for a file that states `statement`.
pub(crate) fn builder(
    context: &Arc<Context>,
    statement: &Statement,
    format: FileFormat,
) -> Result<Builder, c2pa::Error> {
    Builder::from_shared_context(context).with_definition(definition(statement, format).to_string())
}

/// The definition of a manifest: who claims, what was done to the picture, and the decision.
fn definition(statement: &Statement, format: FileFormat) -> Value {
    let brought = statement.origin == Origin::Brought;
    let ingredient = json!({ "label": BROUGHT, "format": format.media_type(), "relationship": "parentOf" });
    json!({
        "claim_generator_info": [{ "name": GATE, "version": statement.version }],
        "ingredients": if brought { vec![ingredient] } else { Vec::new() },
        "assertions": [
            { "label": "c2pa.actions.v2", "created": true, "data": { "actions": actions(statement) } },
            { "label": DECISION_LABEL, "created": true, "data": decision(statement) },
        ],
    })
}

/// Where the picture comes from, and whether regions were hidden. `c2pa.redacted` would be the wrong word for that: it is about
/// assertions that were taken out of a manifest.
fn actions(statement: &Statement) -> Vec<Value> {
    let begin = match statement.origin {
        Origin::Drawn => json!({ "action": "c2pa.created", "digitalSourceType": DRAWN }),
        Origin::Reworked => json!({ "action": "c2pa.created", "digitalSourceType": REWORKED }),
        Origin::Brought => json!({ "action": "c2pa.opened", "parameters": { "ingredientIds": [BROUGHT] } }),
    };
    let edited = json!({ "action": "c2pa.edited", "description": "regions were hidden before the release" });
    if statement.redacted { vec![begin, edited] } else { vec![begin] }
}

fn decision(statement: &Statement) -> Value {
    json!({
        "schema": DECISION_SCHEMA,
        "gate": format!("{GATE} {}", statement.version),
        "constitution": { "name": statement.constitution.name, "revision": statement.constitution.revision },
        "decision": statement.decision_id,
        "decided_at": statement.decided_at,
        "outcome": if statement.redacted { "released-redacted" } else { "released" },
    })
}
