//! A relevance encoder on other machines: CLIP or SigLIP behind `POST /v1/embeddings` (vLLM with `--runner pooling`).

use cluegate_perception::{Call, Embedding, Fingerprint, Picture, RelevanceEncoder, Result};
use image::{Rgb, RgbImage};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{Answer, Client, Request};
use crate::error::{RemoteError, RemoteErrorKind};
use crate::handshake::listed_model;
use crate::options::RemoteOptions;
use crate::picture::DataUrls;

const PATH: &str = "/v1/embeddings";
/// Texts of one request.
const TEXTS: usize = 64;
/// Cosine between embeddings of one thing at two endpoints with the same weights, at least.
const ALIKE: f32 = 0.999;

/// Encoders of pictures and texts into one space, behind one or several endpoints.
#[derive(Debug)]
pub struct RemoteRelevance {
    client: Client,
    model: String,
    threshold: f32,
    /// Numbers of an embedding.
    width: usize,
    urls: DataUrls,
    fingerprint: Fingerprint,
}

impl RemoteRelevance {
    /// Asks every endpoint for the embeddings of two pictures and a text. `threshold` is the cosine from which a rule is
    /// relevant: an engine does not say which family it serves.
    ///
    /// # Errors
    /// Options that cannot be used; an engine that is not there, does not serve the model, or gives no embeddings of
    /// pictures and texts in one space.
    pub fn open(options: &RemoteOptions, threshold: f32) -> std::result::Result<Self, RemoteError> {
        let client = Client::new(options)?;
        let mut first: Option<Vec<Embedding>> = None;
        let mut root = String::new();
        for (endpoint, address) in client.addresses().iter().enumerate() {
            root = listed_model(&client, endpoint, &options.model)?;
            let probe = probe(&client, endpoint, &options.model)?;
            match &first {
                None => first = Some(probe),
                Some(expected) => {
                    let alike = expected.iter().zip(&probe).all(|(a, b)| a.cosine(b) >= ALIKE);
                    if !alike {
                        let message = "expected the same weights as at the first endpoint, its embeddings of the probe \
                                       differ; serve the same model and revision everywhere";
                        return Err(RemoteError::new(RemoteErrorKind::Mixed, address, message));
                    }
                }
            }
        }
        let mut hasher = blake3::Hasher::new();
        for part in [options.model.as_str(), &root] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        // Other weights under the same name see otherwise; the same ones alike to two digits.
        for value in first.iter().flatten().flat_map(Embedding::values) {
            hasher.update(format!("{value:.2} ").as_bytes());
        }
        let fingerprint = format!("remote:{}", hasher.finalize().to_hex());
        let width = first.iter().flatten().next().map_or(0, |one| one.values().len());
        let (model, urls) = (options.model.clone(), DataUrls::new());
        Ok(Self { client, model, threshold, width, urls, fingerprint })
    }
}

impl RelevanceEncoder for RemoteRelevance {
    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn default_threshold(&self) -> f32 {
        self.threshold
    }

    fn embed_pictures(&self, pictures: &[Picture], call: &Call) -> Result<Vec<Embedding>> {
        let requests = pictures.iter().map(|picture| {
            let body = of_picture(&self.model, &self.urls.of(picture)?);
            Ok(Request { path: PATH, body: Some(body), picture: Some(picture.hash()) })
        });
        let requests = requests.collect::<std::result::Result<_, RemoteError>>()?;
        let width = self.width;
        let embeddings = self.client.all(requests, call, move |_, answer| read(answer, 1, Some(width)))?;
        Ok(embeddings.into_iter().flatten().collect())
    }

    fn embed_texts(&self, texts: &[&str], call: &Call) -> Result<Vec<Embedding>> {
        let counts: Vec<usize> = texts.chunks(TEXTS).map(<[_]>::len).collect();
        let request =
            |texts: &[&str]| Request { path: PATH, body: Some(of_texts(&self.model, texts)), picture: None };
        let requests = texts.chunks(TEXTS).map(request).collect();
        let width = self.width;
        let embeddings =
            self.client.all(requests, call, move |index, answer| read(answer, counts[index], Some(width)))?;
        Ok(embeddings.into_iter().flatten().collect())
    }
}

fn of_picture(model: &str, url: &str) -> Value {
    let content = json!([{"type": "image_url", "image_url": {"url": url}}]);
    json!({"model": model, "messages": [{"role": "user", "content": content}], "encoding_format": "float"})
}

fn of_texts(model: &str, texts: &[&str]) -> Value {
    // Texts that are longer than the encoder holds are cut, as the trait promises.
    json!({"model": model, "input": texts, "encoding_format": "float", "truncate_prompt_tokens": -1})
}

#[derive(Deserialize)]
struct Reply {
    data: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    index: usize,
    embedding: Vec<f32>,
}

/// The embeddings of an answer, in the order of what was asked, as wide as those at the start.
fn read(
    answer: &Answer,
    count: usize,
    width: Option<usize>,
) -> std::result::Result<Vec<Embedding>, RemoteError> {
    let malformed = |message| RemoteError::new(RemoteErrorKind::Malformed, &answer.endpoint, message);
    let mut reply = Reply::deserialize(&answer.json)
        .map_err(|e| malformed(format!("expected embeddings, got another JSON: {e}")))?;
    reply.data.sort_by_key(|item| item.index);
    let indices: Vec<usize> = reply.data.iter().map(|item| item.index).collect();
    if indices != (0..count).collect::<Vec<_>>() {
        return Err(malformed(format!("expected {count} embeddings, got those of {indices:?}")));
    }
    let width = width.or_else(|| Some(reply.data.first()?.embedding.len())).unwrap_or(0);
    for Item { embedding, .. } in &reply.data {
        let length: f32 = embedding.iter().map(|v| v * v).sum();
        if embedding.len() != width || !length.is_finite() || length == 0.0 {
            return Err(malformed(format!(
                "expected embeddings of {width} numbers with a length, got one of {} with {length}",
                embedding.len()
            )));
        }
    }
    Ok(reply.data.into_iter().map(|item| Embedding::normalised(item.embedding)).collect())
}

/// Embeddings of a dark picture, a light one and a text; the pictures differ, and all are in one space.
fn probe(client: &Client, endpoint: usize, model: &str) -> std::result::Result<Vec<Embedding>, RemoteError> {
    let urls = DataUrls::new();
    let mut embeddings = Vec::with_capacity(3);
    for light in [40, 200] {
        let picture =
            Picture::new(RgbImage::from_fn(224, 224, |x, y| Rgb([light, (x / 2) as u8, (y / 2) as u8])));
        let body = of_picture(model, &urls.of(&picture)?);
        let request = Request { path: PATH, body: Some(body), picture: None };
        embeddings.extend(client.one_at(endpoint, request, |_, answer| read(answer, 1, None))?);
    }
    let request = Request { path: PATH, body: Some(of_texts(model, &["a photo of a cat"])), picture: None };
    embeddings.extend(client.one_at(endpoint, request, |_, answer| read(answer, 1, None))?);
    let widths: Vec<usize> = embeddings.iter().map(|one| one.values().len()).collect();
    let refuse = |kind, message: String| Err(RemoteError::new(kind, model, message));
    if widths.iter().any(|width| *width != widths[0]) {
        let message =
            format!("expected pictures and texts in one space, got embeddings of {widths:?} numbers");
        return refuse(RemoteErrorKind::Malformed, message);
    }
    if embeddings[0] == embeddings[1] {
        let message = "two different pictures have the same embedding: the engine drops the picture; serve CLIP or SigLIP \
                       with --runner pooling";
        return refuse(RemoteErrorKind::Blind, message.to_owned());
    }
    Ok(embeddings)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_embedding_of_another_width_is_none_of_this_model() {
        let json = json!({"data": [{"index": 0, "embedding": [3.0, 4.0]}]});
        let answer = Answer { json, request_id: "1".to_owned(), endpoint: "http://h".to_owned() };
        assert_eq!(read(&answer, 1, Some(2)).unwrap()[0].values(), [0.6, 0.8]);
        assert!(read(&answer, 1, Some(3)).unwrap_err().to_string().contains("3 numbers"));
        assert!(read(&answer, 2, Some(2)).is_err());
    }
}
