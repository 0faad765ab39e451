//! From an order to the prompts that are sent: which workflow, and which of its pictures the order gets.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::comfyui::graph::{Graph, Output, texts};
use crate::comfyui::{LOADERS, OUTPUTS};
use crate::upstream::Order;

/// A prompt to send.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    /// The workflow.
    pub(super) workflow: Graph,
    /// Where the order's pictures come out, in the order's order.
    pub(super) shown: Vec<Shown>,
}

/// Pictures of the order that come out of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    /// The node.
    pub(super) node: String,
    /// Index of the first of them among the node's pictures.
    pub(super) skip: u32,
    /// Index of the first of them in the order.
    pub(super) first: u32,
    /// How many.
    pub(super) count: u32,
}

impl Plan {
    /// One picture of a filled workflow.
    pub(super) fn single(mut workflow: Graph, output: &str, index: u32) -> Self {
        keep_no_files(&mut workflow);
        Self { workflow, shown: vec![Shown { node: output.to_owned(), skip: 0, first: index, count: 1 }] }
    }

    /// A client's own workflow. At the first attempt as it is, all of its pictures together. After that only what the
    /// pictures that are drawn again need, with another seed, with what is to be avoided and with the prompt if it was written
    /// anew; `None` if the workflow has no seed, so that it would give the same picture.
    pub(super) fn native(mut workflow: Graph, outputs: &[Output], order: &Order) -> Option<Self> {
        let end = order.first.saturating_add(order.count);
        let mut shown = Vec::new();
        for output in outputs {
            let (from, to) = (order.first.max(output.first), end.min(output.first + output.count));
            if from < to {
                let (skip, first) = (from - output.first, from - order.first);
                shown.push(Shown { node: output.node.clone(), skip, first, count: to - from });
            }
        }
        if order.attempt > 1 {
            // Compared before nodes are left out: the request's prompt is the whole workflow's.
            let prompted = workflow.prompted();
            let written = workflow.words(&prompted);
            let needed = shown.iter().flat_map(|shown| workflow.behind(&shown.node)).collect();
            workflow.keep(&needed);
            reseed(&mut workflow, order)?;
            if written != order.request.prompt {
                rewrite(&mut workflow, &prompted, &order.request.prompt, written.is_empty());
            }
            avoid(&mut workflow, &order.avoid);
            if let [only] = shown.as_mut_slice()
                && only.count == 1
                && draw_one(&mut workflow)
            {
                only.skip = 0;
            }
        }
        keep_no_files(&mut workflow);
        Some(Self { workflow, shown })
    }

    /// Index in the order of the picture that a preview of `node` shows: the first that comes out behind it, since the
    /// server previews the first picture of a batch (ComfyUI `latent_preview.py`).
    pub(super) fn previewed(&self, node: &str) -> Option<u32> {
        let behind = |shown: &&Shown| shown.skip == 0 && self.workflow.behind(&shown.node).contains(node);
        self.shown.iter().find(behind).map(|shown| shown.first)
    }

    /// Number of nodes that sample, at least 1.
    pub(super) fn samplers(&self) -> usize {
        let samples = |class: &str| class.contains("KSampler") || class.starts_with("SamplerCustom");
        self.workflow
            .nodes()
            .iter()
            .filter(|node| samples(&node.class) && node.class != "KSamplerSelect")
            .count()
            .max(1)
    }

    /// Puts the names of files on the server in the place of those that the client used.
    pub(super) fn rename(&mut self, names: &BTreeMap<String, String>) {
        for node in self.workflow.nodes_mut().iter_mut().filter(|node| LOADERS.contains(&node.class.as_str()))
        {
            if let Some(value) = node.inputs.get_mut("image")
                && let Some(name) = value.as_str().and_then(|name| names.get(name))
            {
                *value = json!(name);
            }
        }
    }
}

/// Pictures go to the server's folder for what is temporary and not to its output folder: nobody has judged them yet. Where a
/// client would have them is of no meaning here.
fn keep_no_files(workflow: &mut Graph) {
    for node in workflow.nodes_mut().iter_mut().filter(|node| OUTPUTS.contains(&node.class.as_str())) {
        let images = node.inputs.get("images").cloned().unwrap_or_default();
        node.class = "PreviewImage".to_owned();
        node.inputs = Map::from_iter([("images".to_owned(), images)]);
    }
}

/// Moves all seeds by the same amount, so that the first becomes the order's.
fn reseed(workflow: &mut Graph, order: &Order) -> Option<()> {
    let seeds = workflow.seeds();
    let shift = order.seed.wrapping_sub(seeds.first()?.1);
    for ((id, input), seed) in seeds {
        for node in workflow.nodes_mut().iter_mut().filter(|node| node.id == id) {
            node.inputs.insert(input.clone(), json!(seed.wrapping_add(shift)));
        }
    }
    Some(())
}

/// Puts the prompt in the place of the texts of the nodes `prompted`, each of them: an encoder of two texts, or two stages, have
/// the same one as a rule. An empty text stays so unless all of them are.
fn rewrite(workflow: &mut Graph, prompted: &BTreeSet<String>, prompt: &str, all: bool) {
    for node in workflow.nodes_mut().iter_mut().filter(|node| prompted.contains(&node.id)) {
        let places: Vec<String> = texts(node)
            .filter(|(_, text)| all || !text.is_empty())
            .map(|(input, _)| input.to_owned())
            .collect();
        node.inputs.extend(places.into_iter().map(|input| (input, json!(prompt))));
    }
}

/// Adds words to the texts that are negative prompts and nothing else.
fn avoid(workflow: &mut Graph, words: &[String]) {
    let (negative, positive) = (workflow.texts_behind("negative"), workflow.texts_behind("positive"));
    let words = words.join(", ");
    for node in workflow.nodes_mut() {
        if words.is_empty() || !negative.contains(&node.id) || positive.contains(&node.id) {
            continue;
        }
        let changed: Vec<(String, Value)> = texts(node)
            .map(|(input, text)| {
                let text = if text.is_empty() { words.clone() } else { format!("{text}, {words}") };
                (input.to_owned(), json!(text))
            })
            .collect();
        node.inputs.extend(changed);
    }
}

/// Makes a workflow that draws a batch draw one picture, if that can be done by the size of the batch alone.
fn draw_one(workflow: &mut Graph) -> bool {
    let mut small = workflow.clone();
    for node in small.nodes_mut() {
        if let Some(size) = node.inputs.get_mut("batch_size") {
            *size = json!(1);
        }
    }
    // A node that takes one picture out of a batch by its place would miss it.
    let by_place = small.nodes().iter().any(|node| node.inputs.contains_key("batch_index"));
    let one = small.outputs().is_ok_and(|outputs| outputs.iter().all(|output| output.count == 1));
    if one && !by_place {
        *workflow = small;
    }
    one && !by_place
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::request::PictureRequest;

    fn workflow(batch: u32) -> Graph {
        let workflow = json!({
            "1": { "class_type": "CheckpointLoaderSimple", "inputs": { "ckpt_name": "m" } },
            "2": { "class_type": "EmptyLatentImage", "inputs": { "width": 64, "height": 64, "batch_size": batch } },
            "3": { "class_type": "CLIPTextEncode", "inputs": { "text": "a cat", "clip": ["1", 1] } },
            "4": { "class_type": "CLIPTextEncode", "inputs": { "text": "", "clip": ["1", 1] } },
            "5": { "class_type": "KSampler", "inputs": {
                "seed": 7, "model": ["1", 0], "positive": ["3", 0], "negative": ["4", 0], "latent_image": ["2", 0] } },
            "6": { "class_type": "VAEDecode", "inputs": { "samples": ["5", 0], "vae": ["1", 2] } },
            "7": { "class_type": "SaveImage", "inputs": { "images": ["6", 0], "filename_prefix": "/etc/x" } },
            "8": { "class_type": "KSampler", "inputs": {
                "seed": 9, "model": ["1", 0], "positive": ["3", 0], "negative": ["4", 0], "latent_image": ["5", 0] } },
            "9": { "class_type": "VAEDecode", "inputs": { "samples": ["8", 0], "vae": ["1", 2] } },
            "10": { "class_type": "PreviewImage", "inputs": { "images": ["9", 0] } },
        });
        Graph::parse(&workflow, 20).unwrap()
    }

    fn order(attempt: u32, first: u32, count: u32, seed: u64) -> Order {
        Order {
            request: Arc::new(PictureRequest { prompt: "a cat".to_owned(), ..PictureRequest::default() }),
            first,
            count,
            seed,
            attempt,
            avoid: if attempt > 1 { vec!["a sword".to_owned()] } else { Vec::new() },
            safety: Default::default(),
            previews: Default::default(),
            show_previews: false,
            deadline: Instant::now(),
            cancel: Default::default(),
        }
    }

    fn shown(plan: &Plan) -> Vec<(&str, u32, u32, u32)> {
        plan.shown.iter().map(|s| (s.node.as_str(), s.skip, s.first, s.count)).collect()
    }

    #[test]
    fn the_first_attempt_draws_the_workflow_as_it_is_and_saves_nothing() {
        let graph = workflow(2);
        let plan = Plan::native(graph.clone(), &graph.outputs().unwrap(), &order(1, 0, 4, 7)).unwrap();
        assert_eq!(shown(&plan), [("7", 0, 0, 2), ("10", 0, 2, 2)]);
        let saved = plan.workflow.node("7").unwrap();
        assert_eq!(
            (saved.class.as_str(), Value::from(saved.inputs.clone())),
            ("PreviewImage", json!({ "images": ["6", 0] }))
        );
        assert_eq!(plan.workflow.node("5"), graph.node("5"));
        assert_eq!((plan.previewed("5"), plan.previewed("8"), plan.previewed("x")), (Some(0), Some(2), None));
        assert_eq!(plan.samplers(), 2);
    }

    #[test]
    fn another_attempt_draws_one_picture_with_another_seed_and_what_it_needs() {
        let graph = workflow(2);
        let outputs = graph.outputs().unwrap();
        let plan = Plan::native(graph.clone(), &outputs, &order(2, 1, 1, 100)).unwrap();
        assert_eq!(shown(&plan), [("7", 0, 0, 1)]);
        assert_eq!(plan.workflow.nodes().len(), 7);
        assert_eq!(plan.workflow.node("2").unwrap().inputs["batch_size"], json!(1));
        assert_eq!(plan.workflow.node("5").unwrap().inputs["seed"], json!(100));
        assert_eq!(plan.workflow.node("4").unwrap().inputs["text"], json!("a sword"));
        assert_eq!(plan.workflow.node("3").unwrap().inputs["text"], json!("a cat"));
        // The last picture comes out of the second stage; both samplers move.
        let plan = Plan::native(graph.clone(), &outputs, &order(2, 3, 1, 100)).unwrap();
        assert_eq!(shown(&plan), [("10", 0, 0, 1)]);
        let seeds: Vec<u64> = plan.workflow.seeds().into_iter().map(|(_, seed)| seed).collect();
        assert_eq!(seeds, [100, 102]);
    }

    #[test]
    fn a_prompt_that_was_written_anew_stands_where_the_prompt_stood() {
        let mut json = workflow(1).to_json();
        // Behind a node that takes both prompts, and in an encoder of two texts, of which one is empty.
        json["3"] = json!({ "class_type": "CLIPTextEncodeSDXL", "inputs": {
            "text_g": "a cat", "text_l": "", "width": 64, "clip": ["1", 1] } });
        json["4"]["inputs"]["text"] = json!("rain");
        json["11"] = json!({ "class_type": "ControlNetApplyAdvanced", "inputs": {
            "positive": ["3", 0], "negative": ["4", 0], "strength": 1.0 } });
        json["5"]["inputs"]["positive"] = json!(["11", 0]);
        json["5"]["inputs"]["negative"] = json!(["11", 1]);
        let graph = Graph::parse(&json, 20).unwrap();
        let outputs = graph.outputs().unwrap();
        let draw = |attempt, prompt: &str| {
            let request = PictureRequest { prompt: prompt.to_owned(), ..PictureRequest::default() };
            let order = Order { request: Arc::new(request), ..order(attempt, 0, 1, 100) };
            let plan = Plan::native(graph.clone(), &outputs, &order).unwrap();
            let text = |id: &str, input: &str| plan.workflow.node(id).unwrap().inputs[input].clone();
            [text("3", "text_g"), text("3", "text_l"), text("4", "text")]
                .map(|it| it.as_str().unwrap().to_owned())
        };
        assert_eq!(draw(2, "a dog"), ["a dog", "", "rain, a sword"]);
        assert_eq!(draw(2, "a cat"), ["a cat", "", "rain, a sword"]);
        // The first attempt is the client's own, whatever it is called.
        assert_eq!(draw(1, "a dog"), ["a cat", "", "rain"]);
    }

    #[test]
    fn a_batch_that_is_cut_by_place_is_drawn_whole_and_one_without_seed_not_at_all() {
        let mut json = workflow(3).to_json();
        json["11"] = json!({ "class_type": "LatentFromBatch", "inputs": { "samples": ["5", 0], "batch_index": 1, "length": 2 } });
        json["6"]["inputs"]["samples"] = json!(["11", 0]);
        let graph = Graph::parse(&json, 20).unwrap();
        let outputs = graph.outputs().unwrap();
        let plan = Plan::native(graph, &outputs, &order(2, 1, 1, 5)).unwrap();
        assert_eq!(shown(&plan), [("7", 1, 0, 1)]);
        assert_eq!(plan.workflow.node("2").unwrap().inputs["batch_size"], json!(3));
        let loaded = json!({
            "1": { "class_type": "LoadImage", "inputs": { "image": "mine.png" } },
            "2": { "class_type": "SaveImage", "inputs": { "images": ["1", 0] } },
        });
        let graph = Graph::parse(&loaded, 20).unwrap();
        let outputs = graph.outputs().unwrap();
        assert_eq!(Plan::native(graph.clone(), &outputs, &order(2, 0, 1, 5)), None);
        let mut plan = Plan::native(graph, &outputs, &order(1, 0, 1, 5)).unwrap();
        plan.rename(&BTreeMap::from([("mine.png".to_owned(), "theirs.png [temp]".to_owned())]));
        assert_eq!(plan.workflow.node("1").unwrap().inputs["image"], json!("theirs.png [temp]"));
    }
}
