//! The workflow of plain text-to-image, or of a picture from a picture, in words that every upstream understands:
//! `CheckpointLoaderSimple`, `CLIPTextEncode` twice, `EmptyLatentImage` or `LoadImage` and `VAEEncode`, `KSampler`,
//! `VAEDecode`, `SaveImage` or `PreviewImage` (ComfyUI `nodes.py`).

use std::collections::BTreeSet;

use serde_json::Value;

use super::Desk;
use super::prompt::{Understood, uploads};
use crate::client::Client;
use crate::comfyui::graph::{Fault, Graph, Node, link};
use crate::request::{PictureRequest, Source};

const MESSAGE: &str = "This server draws the standard workflow only";
const SHAPE: &str = "expected CheckpointLoaderSimple, two CLIPTextEncode, EmptyLatentImage or LoadImage and VAEEncode, \
    KSampler, VAEDecode and one SaveImage or PreviewImage, and no other node";
/// Inputs that a `KSampler` has beside its links.
const SAMPLING: [&str; 6] = ["seed", "steps", "cfg", "sampler_name", "scheduler", "denoise"];

struct Reader<'a> {
    graph: &'a Graph,
    used: BTreeSet<&'a str>,
    faults: Vec<Fault>,
}

/// Reads a workflow.
///
/// # Errors
/// What of it is not the standard workflow.
pub(super) fn read(desk: &Desk, client: &Client, graph: &Graph) -> Result<Understood, Vec<Fault>> {
    let outputs = graph.outputs().map_err(|fault| vec![fault])?;
    let [output] = outputs.as_slice() else {
        return Err(vec![Fault::whole("prompt_not_supported", MESSAGE, SHAPE)]);
    };
    let mut reader = Reader { graph, used: BTreeSet::new(), faults: Vec::new() };
    let parts = reader.chain(&output.node);
    let Some((checkpoint, sampler, positive, negative, latent)) = parts else {
        return Err(reader.faults);
    };
    let mut request = PictureRequest { count: output.count, ..PictureRequest::default() };
    request.prompt = reader.text(positive);
    request.negative_prompt = Some(reader.text(negative)).filter(|text| !text.is_empty());
    // Who has no checkpoints of this server's to choose from leaves the name empty.
    request.model = reader.word(checkpoint, "ckpt_name").filter(|name| !name.is_empty());
    reader.sampling(sampler, &mut request);
    let denoise = reader.number(sampler, "denoise");
    if latent.class == "EmptyLatentImage" {
        reader.only(latent, &["width", "height", "batch_size"]);
        request.size = reader.side(latent, "width").zip(reader.side(latent, "height"));
        if denoise.is_some_and(|denoise| denoise != 1.0) {
            let details = "denoise: expected 1 where there is no picture to start from";
            reader.faults.push(Fault::input(sampler, "denoise", "value_not_supported", MESSAGE, details));
        }
    } else {
        match uploads(desk, client, graph) {
            Ok(found) => {
                let pictures = found.into_iter().map(|(_, bytes)| bytes).collect();
                request.source = Some(Source { pictures, mask: None, strength: denoise });
            }
            Err(faults) => reader.faults.extend(faults),
        }
    }
    for node in graph.nodes().iter().filter(|node| !reader.used.contains(node.id.as_str())) {
        reader.faults.push(Fault::of(
            node,
            "prompt_not_supported",
            MESSAGE,
            format!("{}: {SHAPE}", node.class),
        ));
    }
    if !reader.faults.is_empty() {
        return Err(reader.faults);
    }
    let sampler = (sampler.id.clone(), sampler.class.clone());
    Ok(Understood { request, outputs, sampler, batch_seed: None })
}

type Parts<'a> = (&'a Node, &'a Node, &'a Node, &'a Node, &'a Node);

impl<'a> Reader<'a> {
    /// Follows the links from the output: checkpoint, sampler, positive and negative text, latent.
    fn chain(&mut self, output: &str) -> Option<Parts<'a>> {
        let graph = self.graph;
        let output = graph.node(output)?;
        self.used.insert(&output.id);
        let decode = self.step(output, "images", 0, &["VAEDecode"])?;
        let sampler = self.step(decode, "samples", 0, &["KSampler"])?;
        let checkpoint = self.step(sampler, "model", 0, &["CheckpointLoaderSimple"])?;
        let positive = self.step(sampler, "positive", 0, &["CLIPTextEncode"])?;
        let negative = self.step(sampler, "negative", 0, &["CLIPTextEncode"])?;
        let latent = self.step(sampler, "latent_image", 0, &["EmptyLatentImage", "VAEEncode"])?;
        let mut same = vec![(decode, "vae", 2), (positive, "clip", 1), (negative, "clip", 1)];
        if latent.class == "VAEEncode" {
            self.step(latent, "pixels", 0, &["LoadImage"])?;
            self.only(latent, &["pixels", "vae"]);
            same.push((latent, "vae", 2));
        }
        for (node, input, slot) in same {
            if self.step(node, input, slot, &["CheckpointLoaderSimple"])?.id != checkpoint.id {
                self.refuse(node, input, "expected the checkpoint of the sampler's model");
            }
        }
        self.only(decode, &["samples", "vae"]);
        self.only(checkpoint, &["ckpt_name"]);
        self.only(positive, &["text", "clip"]);
        self.only(negative, &["text", "clip"]);
        let links = ["model", "positive", "negative", "latent_image"];
        self.only(sampler, &[&SAMPLING[..], &links[..]].concat());
        Some((checkpoint, sampler, positive, negative, latent))
    }

    /// The node of one of `classes` that the input is linked to.
    fn step(&mut self, node: &'a Node, input: &str, slot: u64, classes: &[&str]) -> Option<&'a Node> {
        let linked = node.inputs.get(input).and_then(link).filter(|(_, found)| *found == slot);
        let found = linked.and_then(|(id, _)| self.graph.node(id));
        let found = found.filter(|found| classes.contains(&found.class.as_str()));
        match found {
            Some(found) => self.used.extend([found.id.as_str()]),
            None => self.refuse(
                node,
                input,
                &format!("expected a link to slot {slot} of {}", classes.join(" or ")),
            ),
        }
        found
    }

    fn refuse(&mut self, node: &Node, input: &str, details: &str) {
        let details = format!("{input}: {details}");
        self.faults.push(Fault::input(node, input, "value_not_supported", MESSAGE, details));
    }

    /// Refuses inputs that would have no effect.
    fn only(&mut self, node: &Node, known: &[&str]) {
        for name in node.inputs.keys().filter(|name| !known.contains(&name.as_str())) {
            self.refuse(node, name, &format!("expected none but {}", known.join(", ")));
        }
    }

    fn text(&mut self, node: &Node) -> String {
        let text = node.inputs.get("text").and_then(Value::as_str);
        if text.is_none() {
            self.refuse(node, "text", "expected a text");
        }
        text.unwrap_or_default().to_owned()
    }

    /// An input that may be left out; `None` is also told for one of another type, which is a fault.
    fn read<T>(
        &mut self,
        node: &Node,
        name: &str,
        expected: &str,
        take: impl Fn(&Value) -> Option<T>,
    ) -> Option<T> {
        let value = node.inputs.get(name)?;
        let taken = take(value);
        if taken.is_none() {
            self.refuse(node, name, &format!("expected {expected}"));
        }
        taken
    }

    fn word(&mut self, node: &Node, name: &str) -> Option<String> {
        self.read(node, name, "a text", |value| value.as_str().map(str::to_owned))
    }

    fn number(&mut self, node: &Node, name: &str) -> Option<f64> {
        self.read(node, name, "a number", Value::as_f64)
    }

    fn side(&mut self, node: &Node, name: &str) -> Option<u32> {
        self.read(node, name, "a number of pixels", |value| {
            u32::try_from(value.as_u64()?).ok().filter(|side| *side > 0)
        })
    }

    fn sampling(&mut self, sampler: &Node, request: &mut PictureRequest) {
        request.seed = self.read(sampler, "seed", "a whole number from 0", Value::as_u64);
        request.steps = self.read(sampler, "steps", "a whole number from 1", |value| {
            u32::try_from(value.as_u64()?).ok().filter(|steps| *steps > 0)
        });
        request.guidance = self.number(sampler, "cfg");
        request.sampler = self.word(sampler, "sampler_name");
        request.scheduler = self.word(sampler, "scheduler");
    }
}
