//! A workflow in API form: nodes by id, each with a class and inputs. An input is a literal, or a link `[id, slot]` to
//! another node's output. ComfyUI `execution.py`, `validate_prompt` and `validate_inputs`.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value, json};

use super::OUTPUTS;

/// Longest id of a node and longest name of a class, in bytes.
const LONGEST_NAME: usize = 128;

/// The inputs of samplers that lead to the prompt and to the negative prompt.
const PROMPTS: [&str; 2] = ["positive", "negative"];

/// A node.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    /// Its id.
    pub(crate) id: String,
    /// Its class.
    pub(crate) class: String,
    /// Its inputs by name.
    pub(crate) inputs: Map<String, Value>,
}

/// A workflow: links lead to nodes that exist, and never in a circle.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Graph {
    nodes: Vec<Node>,
}

/// What is wrong with a workflow, in ComfyUI's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The node, and its class, if it is one node's fault.
    pub(crate) node: Option<Box<(String, String)>>,
    /// The input, if it is one input's fault.
    pub(crate) input: Option<String>,
    /// Code, such as `missing_node_type`.
    pub(crate) kind: &'static str,
    /// What is wrong.
    pub(crate) message: &'static str,
    /// Details.
    pub(crate) details: String,
}

impl Fault {
    /// A fault of the workflow as a whole.
    pub(crate) fn whole(kind: &'static str, message: &'static str, details: impl Into<String>) -> Self {
        Self { node: None, input: None, kind, message, details: details.into() }
    }

    /// A fault of `node`.
    pub(crate) fn of(
        node: &Node,
        kind: &'static str,
        message: &'static str,
        details: impl Into<String>,
    ) -> Self {
        let named = Some(Box::new((node.id.clone(), node.class.clone())));
        Self { node: named, ..Self::whole(kind, message, details) }
    }

    /// A fault of the input `input` of `node`.
    pub(crate) fn input(
        node: &Node,
        input: &str,
        kind: &'static str,
        message: &'static str,
        details: impl Into<String>,
    ) -> Self {
        Self { input: Some(input.to_owned()), ..Self::of(node, kind, message, details) }
    }
}

/// A node that gives pictures out, and how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Output {
    /// The node.
    pub(crate) node: String,
    /// Its class.
    pub(crate) class: String,
    /// Index of its first picture among all pictures of the workflow.
    pub(crate) first: u32,
    /// Number of its pictures, at least 1.
    pub(crate) count: u32,
}

/// Where a seed stands: a node and an input.
pub(crate) type Place = (String, String);

/// The node and the slot that an input is linked to; `None` for literals.
pub(crate) fn link(value: &Value) -> Option<(&str, u64)> {
    match value.as_array()?.as_slice() {
        [node, slot] => Some((node.as_str()?, slot.as_u64()?)),
        _ => None,
    }
}

impl Graph {
    /// Reads a workflow of at most `most` nodes. What is no part of it for the server, such as titles, is dropped.
    ///
    /// # Errors
    /// Its faults.
    pub(crate) fn parse(workflow: &Value, most: usize) -> Result<Self, Vec<Fault>> {
        let whole = |details: String| vec![Fault::whole("invalid_prompt", "Cannot execute prompt", details)];
        let Some(map) = workflow.as_object() else {
            return Err(whole("expected a workflow in API form: an object of nodes by id".to_owned()));
        };
        if map.is_empty() || map.len() > most {
            return Err(whole(format!("expected from 1 to {most} nodes, got {}", map.len())));
        }
        let mut nodes = Vec::with_capacity(map.len());
        for (id, node) in map {
            nodes.push(read_node(id, node).map_err(|fault| vec![fault])?);
        }
        let graph = Self { nodes };
        let faults: Vec<Fault> = graph.nodes.iter().flat_map(|node| graph.bad_inputs(node)).collect();
        if !faults.is_empty() {
            return Err(faults);
        }
        match graph.circle() {
            Some(node) => {
                let message = "Dependency cycle detected";
                Err(vec![Fault::of(node, "dependency_cycle", message, format!("through node {}", node.id))])
            }
            None => Ok(graph),
        }
    }

    /// The workflow as JSON.
    pub(crate) fn to_json(&self) -> Value {
        let nodes = self
            .nodes
            .iter()
            .map(|node| (node.id.clone(), json!({ "class_type": node.class, "inputs": node.inputs })));
        Value::Object(nodes.collect())
    }

    /// All nodes, in the workflow's order.
    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// All nodes, to be changed: inputs and classes only, and no link.
    pub(crate) fn nodes_mut(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    /// A node by its id.
    pub(crate) fn node(&self, id: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// The node that the input `input` of `node` is linked to.
    pub(crate) fn linked(&self, node: &Node, input: &str) -> Option<&Node> {
        self.node(link(node.inputs.get(input)?)?.0)
    }

    /// The node `id` and all that it depends on.
    pub(crate) fn behind(&self, id: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut open = vec![id.to_owned()];
        while let Some(id) = open.pop() {
            if let Some(node) = self.node(&id)
                && found.insert(id)
            {
                open.extend(node.inputs.values().filter_map(link).map(|(id, _)| id.to_owned()));
            }
        }
        found
    }

    /// Keeps the nodes `ids` only. They must not depend on others.
    pub(crate) fn keep(&mut self, ids: &BTreeSet<String>) {
        self.nodes.retain(|node| ids.contains(&node.id));
    }

    /// The nodes that give pictures out, and how many each.
    ///
    /// # Errors
    /// If there is none, or the number of its pictures cannot be told.
    pub(crate) fn outputs(&self) -> Result<Vec<Output>, Fault> {
        let mut known = HashMap::new();
        let (mut outputs, mut first) = (Vec::new(), 0_u32);
        for node in self.nodes.iter().filter(|node| OUTPUTS.contains(&node.class.as_str())) {
            let count = self.batch(node, &mut known)?;
            let message = "The number of pictures cannot be told";
            if count == 0 {
                let details = "no latent or loaded picture leads here";
                return Err(Fault::input(node, "images", "unknown_batch", message, details));
            }
            outputs.push(Output { node: node.id.clone(), class: node.class.clone(), first, count });
            first = first
                .checked_add(count)
                .ok_or_else(|| Fault::of(node, "unknown_batch", message, "there are far too many"))?;
        }
        if outputs.is_empty() {
            let details = "expected a SaveImage or PreviewImage node";
            return Err(Fault::whole("prompt_no_outputs", "Prompt has no outputs", details));
        }
        Ok(outputs)
    }

    /// Number of pictures in what `node` gives: nodes pass on what they get, except those that make, join or cut a batch
    /// (ComfyUI `nodes.py`).
    fn batch<'a>(&'a self, node: &'a Node, known: &mut HashMap<&'a str, u32>) -> Result<u32, Fault> {
        if let Some(count) = known.get(node.id.as_str()) {
            return Ok(*count);
        }
        let mut linked = Vec::new();
        for source in node.inputs.values().filter_map(link).filter_map(|(id, _)| self.node(id)) {
            linked.push(self.batch(source, known)?);
        }
        let most = linked.iter().copied().max().unwrap_or(0);
        let own = |input: &str| self.count_input(node, input);
        let count = match node.class.as_str() {
            "LoadImage" | "LoadImageMask" => 1,
            "RepeatLatentBatch" => most.saturating_mul(own("amount")?),
            "ImageBatch" | "LatentBatch" => {
                linked.iter().fold(0_u32, |sum, count| sum.saturating_add(*count))
            }
            "LatentFromBatch" | "ImageFromBatch" => most.min(own("length")?),
            _ if node.inputs.contains_key("batch_size") => own("batch_size")?,
            _ => most,
        };
        known.insert(&node.id, count);
        Ok(count)
    }

    fn count_input(&self, node: &Node, input: &str) -> Result<u32, Fault> {
        let value = self.literal(node, input).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
        value.filter(|count| *count > 0).ok_or_else(|| {
            let details = format!("{input}: expected a whole number of 1 or more, written out");
            Fault::input(node, input, "invalid_input_type", "Failed to convert an input value", details)
        })
    }

    /// The literal that the input `input` of `node` has, also through a `Primitive` node.
    pub(crate) fn literal<'a>(&'a self, node: &'a Node, input: &'a str) -> Option<&'a Value> {
        let (node, input) = self.origin(node, input)?;
        node.inputs.get(input).filter(|value| !value.is_array())
    }

    /// Where the literal of the input `input` of `node` stands.
    fn origin<'a>(&'a self, node: &'a Node, input: &'a str) -> Option<(&'a Node, &'a str)> {
        let value = node.inputs.get(input)?;
        let Some((id, _)) = link(value) else { return Some((node, input)) };
        self.node(id).filter(|source| source.class.starts_with("Primitive")).map(|source| (source, "value"))
    }

    /// The seeds of the workflow's samplers: the inputs `seed` and `noise_seed` (ComfyUI `nodes.py`, `KSampler`,
    /// `KSamplerAdvanced`; `comfy_extras/nodes_custom_sampler.py`, `RandomNoise`), with their places.
    pub(crate) fn seeds(&self) -> Vec<(Place, u64)> {
        let mut seeds: Vec<(Place, u64)> = Vec::new();
        for node in &self.nodes {
            for input in ["seed", "noise_seed"] {
                let Some((place, input)) = self.origin(node, input) else { continue };
                let Some(seed) = place.inputs.get(input).and_then(Value::as_u64) else { continue };
                let place = (place.id.clone(), input.to_owned());
                if !seeds.iter().any(|(known, _)| *known == place) {
                    seeds.push((place, seed));
                }
            }
        }
        seeds
    }

    /// The nodes with texts that lead to an input named `input`, such as `positive`, of any node.
    pub(crate) fn texts_behind(&self, input: &str) -> BTreeSet<String> {
        let mut open: Vec<&Node> = self.nodes.iter().filter_map(|node| self.linked(node, input)).collect();
        let (mut seen, mut found) = (BTreeSet::new(), BTreeSet::new());
        while let Some(node) = open.pop() {
            if !seen.insert(node.id.as_str()) {
                continue;
            }
            if texts(node).next().is_some() {
                found.insert(node.id.clone());
            }
            // What takes both prompts and gives both, such as ControlNetApplyAdvanced, does not mix them.
            let both = PROMPTS.iter().all(|name| node.inputs.contains_key(*name));
            let ours = |name: &&String| !both || *name == input || !PROMPTS.contains(&name.as_str());
            open.extend(node.inputs.keys().filter(ours).filter_map(|name| self.linked(node, name)));
        }
        found
    }

    /// The nodes whose texts are the prompt: those that lead to an input `positive`, or all where there is none, since guiders
    /// and the like name theirs otherwise.
    pub(crate) fn prompted(&self) -> BTreeSet<String> {
        let positive = self.texts_behind("positive");
        if positive.is_empty() { self.nodes.iter().map(|node| node.id.clone()).collect() } else { positive }
    }

    /// The texts of the nodes `ids`, each once, in the workflow's order.
    pub(crate) fn words(&self, ids: &BTreeSet<String>) -> String {
        let mut seen = BTreeSet::new();
        let texts = self.nodes.iter().filter(|node| ids.contains(&node.id)).flat_map(texts);
        let words = texts.map(|(_, text)| text).filter(|text| !text.is_empty() && seen.insert(*text));
        words.collect::<Vec<_>>().join("\n")
    }

    fn bad_inputs(&self, node: &Node) -> Vec<Fault> {
        let bad = |(name, value): (&String, &Value)| {
            let message = "Bad linked input, must be a length-2 list of [node_id, slot_index]";
            let refuse = |details: &str| {
                Some(Fault::input(node, name, "bad_linked_input", message, format!("{name}: {details}")))
            };
            match value {
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
                Value::Object(_) => refuse("expected a literal or a link, got an object"),
                Value::Array(_) => match link(value) {
                    Some((id, _)) if self.node(id).is_some() => None,
                    Some(_) => refuse("the workflow has no such node"),
                    None => refuse("got another list"),
                },
            }
        };
        node.inputs.iter().filter_map(bad).collect()
    }

    /// A node of a circle, if there is one: what is left when nodes without open links are taken away again and again.
    fn circle(&self) -> Option<&Node> {
        let mut done: BTreeSet<&str> = BTreeSet::new();
        loop {
            let free = self
                .nodes
                .iter()
                .filter(|node| !done.contains(node.id.as_str()))
                .filter(|node| node.inputs.values().filter_map(link).all(|(id, _)| done.contains(id)));
            let free: Vec<&str> = free.map(|node| node.id.as_str()).collect();
            if free.is_empty() {
                return self.nodes.iter().find(|node| !done.contains(node.id.as_str()));
            }
            done.extend(free);
        }
    }
}

/// The texts of a node: the inputs `text`, `text_g`, `text_l`, `clip_l`, `t5xxl` and the like of classes that encode text.
pub(crate) fn texts(node: &Node) -> impl Iterator<Item = (&str, &str)> {
    let encodes = node.class.starts_with("CLIPTextEncode");
    node.inputs
        .iter()
        .filter(move |_| encodes)
        .filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
}

fn read_node(id: &str, node: &Value) -> Result<Node, Fault> {
    let harmless = |name: &str| {
        (1..=LONGEST_NAME).contains(&name.len())
            && !name.chars().any(|c| c.is_control() || "\"\\/".contains(c))
    };
    let missing = |details: String| Fault::whole("missing_node_type", "Node has no class_type.", details);
    if !harmless(id) {
        let shown: String = id.chars().filter(|c| !c.is_control()).take(40).collect();
        return Err(missing(format!("Node ID '#{shown}' is no word of at most {LONGEST_NAME} bytes")));
    }
    let class = node.get("class_type").and_then(Value::as_str).filter(|class| harmless(class));
    let class = class.ok_or_else(|| missing(format!("Node ID '#{id}'")))?;
    let inputs = match node.get("inputs") {
        None => Map::new(),
        Some(Value::Object(inputs)) => inputs.clone(),
        Some(_) => return Err(missing(format!("Node ID '#{id}': expected `inputs` as an object"))),
    };
    Ok(Node { id: id.to_owned(), class: class.to_owned(), inputs })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn workflow() -> Value {
        json!({
            "1": { "class_type": "CheckpointLoaderSimple", "inputs": { "ckpt_name": "m" }, "_meta": { "title": "x" } },
            "2": { "class_type": "EmptyLatentImage", "inputs": { "width": 64, "height": 64, "batch_size": 3 } },
            "3": { "class_type": "CLIPTextEncode", "inputs": { "text": "a cat", "clip": ["1", 1] } },
            "4": { "class_type": "CLIPTextEncode", "inputs": { "text": "a dog", "clip": ["1", 1] } },
            "5": { "class_type": "KSampler", "inputs": {
                "seed": 7, "model": ["1", 0], "positive": ["3", 0], "negative": ["4", 0], "latent_image": ["2", 0] } },
            "6": { "class_type": "VAEDecode", "inputs": { "samples": ["5", 0], "vae": ["1", 2] } },
            "7": { "class_type": "SaveImage", "inputs": { "images": ["6", 0], "filename_prefix": "../x" } },
            "8": { "class_type": "RepeatLatentBatch", "inputs": { "samples": ["5", 0], "amount": 2 } },
            "9": { "class_type": "VAEDecode", "inputs": { "samples": ["8", 0], "vae": ["1", 2] } },
            "10": { "class_type": "PreviewImage", "inputs": { "images": ["9", 0] } },
        })
    }

    #[test]
    fn pictures_seeds_and_texts_are_found() {
        let graph = Graph::parse(&workflow(), 20).unwrap();
        let outputs = graph.outputs().unwrap();
        let found: Vec<_> = outputs.iter().map(|o| (o.node.as_str(), o.first, o.count)).collect();
        assert_eq!(found, [("7", 0, 3), ("10", 3, 6)]);
        assert_eq!(graph.seeds(), [(("5".to_owned(), "seed".to_owned()), 7)]);
        assert_eq!(graph.words(&graph.texts_behind("positive")), "a cat");
        assert_eq!(graph.words(&graph.texts_behind("negative")), "a dog");
        assert_eq!(graph.behind("7").len(), 7);
        assert!(graph.to_json()["1"].get("_meta").is_none());
        assert_eq!(Graph::parse(&graph.to_json(), 20).unwrap(), graph);
    }

    #[test]
    fn a_seed_behind_a_primitive_is_found_once() {
        let mut workflow = workflow();
        workflow["11"] = json!({ "class_type": "PrimitiveInt", "inputs": { "value": 9 } });
        workflow["5"]["inputs"]["seed"] = json!(["11", 0]);
        workflow["12"] = json!({ "class_type": "RandomNoise", "inputs": { "noise_seed": ["11", 0] } });
        let graph = Graph::parse(&workflow, 20).unwrap();
        assert_eq!(graph.seeds(), [(("11".to_owned(), "value".to_owned()), 9)]);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let kind = |change: &dyn Fn(&mut Value)| {
            let mut workflow = workflow();
            change(&mut workflow);
            let faults = Graph::parse(&workflow, 10);
            let fault = match faults {
                Err(faults) => faults.into_iter().next().unwrap(),
                Ok(graph) => graph.outputs().unwrap_err(),
            };
            (fault.kind, fault.node.map(|node| node.0))
        };
        let at = |id: &str| Some(id.to_owned());
        assert_eq!(kind(&|w| *w = json!([])), ("invalid_prompt", None));
        assert_eq!(kind(&|w| w["11"] = w["10"].clone()), ("invalid_prompt", None));
        assert_eq!(kind(&|w| w["5"]["class_type"] = json!(3)), ("missing_node_type", None));
        assert_eq!(kind(&|w| w["6"]["inputs"]["samples"] = json!(["x", 0])), ("bad_linked_input", at("6")));
        assert_eq!(kind(&|w| w["6"]["inputs"]["samples"] = json!([["5"], 0])), ("bad_linked_input", at("6")));
        assert_eq!(
            kind(&|w| w["6"]["inputs"]["samples"] = json!({ "__value__": [] })),
            ("bad_linked_input", at("6"))
        );
        assert_eq!(kind(&|w| w["2"]["inputs"]["batch_size"] = json!(0)), ("invalid_input_type", at("2")));
        assert_eq!(kind(&|w| w["7"]["inputs"]["images"] = json!(["1", 0])), ("unknown_batch", at("7")));
        assert_eq!(kind(&|w| w["2"]["inputs"]["width"] = json!(["6", 0])).0, "dependency_cycle");
        let none = json!({ "1": { "class_type": "KSampler" } });
        assert_eq!(Graph::parse(&none, 9).unwrap().outputs().unwrap_err().kind, "prompt_no_outputs");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            "[a-e]{0,2}".prop_map(Value::from),
            prop::sample::select(vec!["SaveImage", "RepeatLatentBatch", "LatentBatch", "PrimitiveInt"])
                .prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            let key = prop_oneof![
                "[a-e]",
                Just("inputs".to_owned()),
                Just("class_type".to_owned()),
                Just("images".to_owned())
            ];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::vec((key, inner), 0..5)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_json_is_read_or_refused(workflow in any_json()) {
            if let Ok(graph) = Graph::parse(&workflow, 8) {
                let _ = (graph.outputs(), graph.seeds());
                prop_assert!(graph.nodes().len() <= 8);
                prop_assert_eq!(Graph::parse(&graph.to_json(), 8).unwrap(), graph);
            }
        }
    }
}
