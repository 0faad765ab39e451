//! A relevance encoder on other machines: CLIP or SigLIP behind `POST /v1/embeddings` (vLLM with `--runner pooling`).

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use cluegate_perception::{Call, Embedding, Fingerprint, Picture, RelevanceEncoder, Result};
use image::{Rgb, RgbImage};
use serde::Deserialize;
use serde_json::json;

use crate::body::Body;
use crate::client::{Answer, Client, Link, Request};
use crate::error::{RemoteError, RemoteErrorKind};
use crate::handshake::listed_model;
use crate::options::RemoteOptions;
use crate::picture::DataUrls;

const PATH: &str = "/v1/embeddings";
/// Texts of one request.
const TEXTS: usize = 64;
/// Cosine between embeddings of one thing at two endpoints with the same weights, at least.
const ALIKE: f32 = 0.999;
/// Cosine between the embeddings of two pictures that differ, at most; one that was computed twice in bf16 has more.
const BLIND: f32 = 0.9999;

/// Encoders of pictures and texts into one space, behind one or several endpoints.
#[derive(Debug)]
pub struct RemoteRelevance {
    client: Client,
    threshold: f32,
    reader: Reader,
    urls: DataUrls,
    fingerprint: Fingerprint,
}

impl RemoteRelevance {
    /// Asks every endpoint for the embeddings of two pictures and a text. `threshold` is the cosine from which a rule is
    /// relevant: an engine does not say which family it serves. Endpoints that are not what is needed are left out until
    /// they are; one that fails later is asked again before it gets another picture.
    ///
    /// # Errors
    /// Options that cannot be used; endpoints with different weights; or no endpoint that is there, serves the model, and
    /// gives embeddings of pictures and texts in one space: then what the first one lacks.
    pub fn open(options: &RemoteOptions, threshold: f32) -> std::result::Result<Self, RemoteError> {
        let known: Arc<OnceLock<Found>> = Arc::default();
        let (model, first) = (options.model.clone(), Arc::clone(&known));
        let check = move |link: &Link, endpoint: usize| {
            let root = listed_model(link, endpoint, &model)?;
            let (named, probe) = probe(link, endpoint, &model)?;
            let expected = first.get_or_init(|| Found { root, named, probe: probe.clone() });
            if expected.probe.iter().zip(&probe).all(|(a, b)| a.cosine(b) >= ALIKE) {
                return Ok(());
            }
            let message = "expected the same weights as at the first endpoint, its embeddings of the probe differ; serve \
                           the same model and revision everywhere";
            Err(RemoteError::new(RemoteErrorKind::Mixed, link.address(endpoint), message))
        };
        let client = Client::open(options, check)?;
        let Some(Found { root, named, probe }) = known.get() else {
            return Err(RemoteError::new(RemoteErrorKind::Options, "urls", "expected at least one address"));
        };
        let mut hasher = blake3::Hasher::new();
        for part in [&options.model, root] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        // Other weights under the same name see otherwise; the same ones alike to two digits.
        for value in probe.iter().flat_map(Embedding::values) {
            hasher.update(format!("{value:.2} ").as_bytes());
        }
        let fingerprint = format!("remote:{}", hasher.finalize().to_hex());
        let width = probe.first().map_or(0, |one| one.values().len());
        let reader = Reader { model: options.model.clone(), named: *named, width: Some(width) };
        Ok(Self { client, threshold, reader, urls: DataUrls::new(), fingerprint })
    }
}

/// What the first endpoint has answered.
#[derive(Debug)]
struct Found {
    root: String,
    named: bool,
    probe: Vec<Embedding>,
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
            let url = self.urls.of(picture)?;
            Ok(Request { picture: Some(picture.hash()), ..of_picture(&self.reader.model, &url)? })
        });
        let requests = requests.collect::<std::result::Result<_, RemoteError>>()?;
        let reader = self.reader.clone();
        let embeddings = self.client.all(requests, call, move |_, answer| reader.read(answer, 1))?;
        Ok(embeddings.into_iter().flatten().collect())
    }

    fn embed_texts(&self, texts: &[&str], call: &Call) -> Result<Vec<Embedding>> {
        let counts: Vec<usize> = texts.chunks(TEXTS).map(<[_]>::len).collect();
        let requests = texts.chunks(TEXTS).map(|texts| of_texts(&self.reader.model, texts));
        let requests = requests.collect::<std::result::Result<_, RemoteError>>()?;
        let reader = self.reader.clone();
        let embeddings =
            self.client.all(requests, call, move |index, answer| reader.read(answer, counts[index]))?;
        Ok(embeddings.into_iter().flatten().collect())
    }
}

fn of_picture(model: &str, url: &Bytes) -> std::result::Result<Request, RemoteError> {
    let body = Body::new(Some(url), |url| {
        let content = json!([{"type": "image_url", "image_url": {"url": url}}]);
        let messages = json!([{"role": "user", "content": content}]);
        json!({"model": model, "messages": messages, "encoding_format": "float"})
    })?;
    Ok(Request { path: PATH, body: Some(body), picture: None })
}

fn of_texts(model: &str, texts: &[&str]) -> std::result::Result<Request, RemoteError> {
    // Texts that are longer than the encoder holds are cut, as the trait promises.
    let json =
        json!({"model": model, "input": texts, "encoding_format": "float", "truncate_prompt_tokens": -1});
    Request::new(PATH, json)
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

/// What an answer has to be.
#[derive(Debug, Clone)]
struct Reader {
    model: String,
    /// Whether answers carry the name of their request.
    named: bool,
    /// Numbers of an embedding, once they are known.
    width: Option<usize>,
}

impl Reader {
    /// The embeddings of an answer, in the order of what was asked, as wide as those at the start.
    fn read(&self, answer: &Answer, count: usize) -> std::result::Result<Vec<Embedding>, RemoteError> {
        answer.refuse_mixed(&self.model, self.named)?;
        let malformed = |message| RemoteError::new(RemoteErrorKind::Malformed, &answer.endpoint, message);
        let mut reply = Reply::deserialize(&answer.json)
            .map_err(|e| malformed(format!("expected embeddings, got another JSON: {e}")))?;
        reply.data.sort_by_key(|item| item.index);
        let indices: Vec<usize> = reply.data.iter().map(|item| item.index).collect();
        if indices != (0..count).collect::<Vec<_>>() {
            return Err(malformed(format!("expected {count} embeddings, got those of {indices:?}")));
        }
        let width = self.width.or_else(|| Some(reply.data.first()?.embedding.len())).unwrap_or(0);
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
}

/// Embeddings of a dark picture, a light one and a text, and whether answers are named; the pictures differ, and all are in
/// one space.
fn probe(
    link: &Link,
    endpoint: usize,
    model: &str,
) -> std::result::Result<(bool, Vec<Embedding>), RemoteError> {
    let urls = DataUrls::new();
    let picture = |light: u8| {
        let pixels = RgbImage::from_fn(224, 224, |x, y| Rgb([light, (x / 2) as u8, (y / 2) as u8]));
        of_picture(model, &urls.of(&Picture::new(pixels))?)
    };
    let (mut named, mut embeddings) = (true, Vec::with_capacity(3));
    for request in [picture(40)?, picture(200)?, of_texts(model, &["a photo of a cat"])?] {
        let reader = Reader { model: model.to_owned(), named: false, width: None };
        let (is_named, one) =
            link.ask(endpoint, request, move |answer| Ok((answer.is_named(), reader.read(answer, 1)?)))?;
        named &= is_named;
        embeddings.extend(one);
    }
    let widths: Vec<usize> = embeddings.iter().map(|one| one.values().len()).collect();
    let refuse = |kind, message: String| Err(RemoteError::new(kind, model, message));
    if widths.iter().any(|width| *width != widths[0]) {
        let message =
            format!("expected pictures and texts in one space, got embeddings of {widths:?} numbers");
        return refuse(RemoteErrorKind::Malformed, message);
    }
    if embeddings[0].cosine(&embeddings[1]) > BLIND {
        let message = "two different pictures have the same embedding: the engine drops the picture; serve CLIP or SigLIP \
                       with --runner pooling";
        return refuse(RemoteErrorKind::Blind, message.to_owned());
    }
    Ok((named, embeddings))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_no_embedding_of_this_model_or_request_is_refused() {
        let json = json!({
            "id": "embd-1", "model": "clip", "data": [{"index": 0, "embedding": [3.0, 4.0]}],
        });
        let answer = Answer { json, request_id: "1".to_owned(), endpoint: "http://h".to_owned() };
        let reader = |model: &str, width| Reader { model: model.to_owned(), named: true, width: Some(width) };
        let read = |reader: Reader, answer: &Answer, count| reader.read(answer, count);
        assert_eq!(read(reader("clip", 2), &answer, 1).unwrap()[0].values(), [0.6, 0.8]);
        assert!(read(reader("clip", 3), &answer, 1).unwrap_err().to_string().contains("3 numbers"));
        assert!(read(reader("clip", 2), &answer, 2).is_err());
        let error = read(reader("siglip", 2), &answer, 1).unwrap_err();
        assert_eq!(error.kind(), RemoteErrorKind::Mixed);
        assert!(error.to_string().contains("siglip"), "{error}");
        let other = Answer { request_id: "2".to_owned(), ..answer };
        assert_eq!(read(reader("clip", 2), &other, 1).unwrap_err().kind(), RemoteErrorKind::Mixed);
    }
}
