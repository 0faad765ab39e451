use std::sync::Mutex;

use cluegate_perception::{
    Call, Detection, DetectionRequest, Embedding, Fingerprint, Picture, Region, RegionDetector,
    RelevanceEncoder, Result,
};

use super::{Gate, act, number};

/// Embeddings that depend on the item only. Texts are acted on by [`act`]; one that begins with `nan` has a NaN, and
/// with `short` the whole call lacks an answer.
#[derive(Default)]
pub(crate) struct ScriptedEncoder {
    fingerprint: Fingerprint,
    pub(crate) gate: Gate,
    /// The items of each call: texts, or grey values of pictures.
    pub(crate) calls: Mutex<Vec<Vec<String>>>,
    /// The call of the latest one.
    pub(crate) call: Mutex<Call>,
}

impl ScriptedEncoder {
    pub(crate) fn fixed(item: &str) -> Embedding {
        let hash = number(item);
        let nan = if item.starts_with("nan") { f32::NAN } else { 1.0 };
        Embedding::normalised(vec![nan, (hash % 97) as f32, (hash % 89) as f32])
    }

    fn embed(&self, items: Vec<String>, call: &Call) -> Result<Vec<Embedding>> {
        *self.call.lock().unwrap() = call.clone();
        self.calls.lock().unwrap().push(items.clone());
        self.gate.pass();
        items.iter().try_for_each(|item| act(item))?;
        let short = items.iter().any(|item| item.starts_with("short"));
        Ok(items.iter().skip(usize::from(short)).map(|item| Self::fixed(item)).collect())
    }
}

impl RelevanceEncoder for ScriptedEncoder {
    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn default_threshold(&self) -> f32 {
        0.25
    }

    fn embed_pictures(&self, pictures: &[Picture], call: &Call) -> Result<Vec<Embedding>> {
        let grey = |picture: &Picture| format!("picture {}", picture.pixels().as_raw()[0]);
        self.embed(pictures.iter().map(grey).collect(), call)
    }

    fn embed_texts(&self, texts: &[&str], call: &Call) -> Result<Vec<Embedding>> {
        self.embed(texts.iter().map(|text| (*text).to_owned()).collect(), call)
    }
}

/// The words of one request, under its picture's grey value.
pub(crate) type Asked = (u8, Vec<String>);

/// Up to three detections for each picture and word, which depend on these two only, with many equal confidences. Words
/// are acted on by [`act`]; `stray` finds something nobody asked for, and `short` makes an answer missing.
#[derive(Default)]
pub(crate) struct ScriptedDetector {
    fingerprint: Fingerprint,
    pub(crate) gate: Gate,
    /// The requests of each call.
    pub(crate) calls: Mutex<Vec<Vec<Asked>>>,
}

impl ScriptedDetector {
    pub(crate) fn fixed(request: &DetectionRequest<'_>, min_confidence: f32) -> Vec<Detection> {
        let mut found = Vec::new();
        for (query, word) in request.queries.iter().enumerate() {
            let hash = number((request.picture.hash(), word));
            for index in 0..hash % 4 {
                let confidence = ((hash >> (8 * index)) % 8) as f32 / 8.0;
                let region =
                    Region { left: index as f32, top: 0.0, right: 9.0, bottom: (hash % 7 + 1) as f32 };
                if confidence >= min_confidence {
                    found.push(Detection { query, confidence, region });
                }
            }
            if word.starts_with("stray") {
                let region = Region { left: 0.0, top: 0.0, right: 1.0, bottom: 1.0 };
                found.push(Detection { query: request.queries.len(), confidence: 1.0, region });
            }
        }
        found.sort_by(|a, b| b.confidence.total_cmp(&a.confidence).then(a.query.cmp(&b.query)));
        found
    }
}

impl RegionDetector for ScriptedDetector {
    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn detect(
        &self,
        requests: &[DetectionRequest<'_>],
        min_confidence: f32,
        _: &Call,
    ) -> Result<Vec<Vec<Detection>>> {
        let own = |request: &DetectionRequest<'_>| {
            let words = request.queries.iter().map(|word| (*word).to_owned()).collect();
            (request.picture.pixels().as_raw()[0], words)
        };
        self.calls.lock().unwrap().push(requests.iter().map(own).collect());
        self.gate.pass();
        let words = || requests.iter().flat_map(|request| request.queries);
        words().try_for_each(|word| act(word))?;
        let short = words().any(|word| word.starts_with("short"));
        let answers = requests.iter().skip(usize::from(short));
        Ok(answers.map(|request| Self::fixed(request, min_confidence)).collect())
    }
}
