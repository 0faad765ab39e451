//! The language model's part of `config.json`, in the layouts of transformers before 5 (flat rotary fields) and since
//! (`rope_parameters`), read and checked.
//!
//! Published files leave out what equals the defaults of their family, so each family brings its own:
//! `configuration_{llama,mistral,qwen2,qwen2_vl,qwen3,qwen3_vl}.py` in transformers 5.17, `configuration_internlm2.py`
//! of OpenGVLab/InternVL.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::config::{Axes, Biases, DecoderConfig, Naming, Rope, Scaling};
use crate::error::{ModelError, Result};

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    model_type: String,
    vocab_size: Option<usize>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    rms_norm_eps: Option<f64>,
    max_position_embeddings: Option<usize>,
    hidden_act: Option<String>,
    rope_theta: Option<f32>,
    rope_scaling: Option<RawRope>,
    rope_parameters: Option<RawRope>,
    use_sliding_window: Option<bool>,
    /// Absent and `null` differ: the default of Mistral is a window.
    #[serde(default, deserialize_with = "present")]
    sliding_window: Option<Option<usize>>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    /// InternLM2's name for `attention_bias`.
    bias: Option<bool>,
    tie_word_embeddings: Option<bool>,
    /// What kind of attention each layer has.
    layer_types: Option<Vec<String>>,
    /// What part of a head is turned.
    partial_rotary_factor: Option<f64>,
}

/// A field that is there, be it `null`.
fn present<'de, D: serde::Deserializer<'de>>(
    value: D,
) -> std::result::Result<Option<Option<usize>>, D::Error> {
    Option::deserialize(value).map(Some)
}

#[derive(Deserialize, Default)]
struct RawRope {
    rope_theta: Option<f32>,
    rope_type: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    factor: Option<f32>,
    low_freq_factor: Option<f32>,
    high_freq_factor: Option<f32>,
    original_max_position_embeddings: Option<f32>,
    mrope_section: Option<Vec<usize>>,
    mrope_interleaved: Option<bool>,
    partial_rotary_factor: Option<f64>,
    /// Parameters of one kind of layer only, by its name, and what is of no interest.
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

impl RawRope {
    fn scheme(&self) -> &str {
        self.rope_type.as_deref().or(self.kind.as_deref()).unwrap_or("default")
    }
}

/// What a file that does not say otherwise means.
struct Family {
    vocabulary: usize,
    hidden: usize,
    intermediate: usize,
    layers: usize,
    heads: usize,
    kv_heads: Option<usize>,
    /// `None`: the hidden width divided by the heads.
    head_dim: Option<usize>,
    epsilon: f64,
    max_positions: usize,
    theta: f32,
    /// Queries, keys and values have a bias whatever the file says.
    input_biases: bool,
    attention_bias: bool,
    head_norms: bool,
    naming: Naming,
    sliding_window: Option<usize>,
    /// Sections of the rotary frequencies, for families whose pictures have rows and columns.
    sections: Option<[usize; 3]>,
}

/// Llama's.
const LLAMA: Family = Family {
    vocabulary: 32_000,
    hidden: 4096,
    intermediate: 11_008,
    layers: 32,
    heads: 32,
    kv_heads: None,
    head_dim: None,
    epsilon: 1e-6,
    max_positions: 2048,
    theta: 10_000.0,
    input_biases: false,
    attention_bias: false,
    head_norms: false,
    naming: Naming::Llama,
    sliding_window: None,
    sections: None,
};
const MISTRAL: Family = Family {
    intermediate: 14_336,
    kv_heads: Some(8),
    max_positions: 131_072,
    sliding_window: Some(4096),
    ..LLAMA
};
const QWEN2: Family = Family {
    vocabulary: 151_936,
    intermediate: 22_016,
    kv_heads: Some(32),
    max_positions: 32_768,
    input_biases: true,
    ..LLAMA
};
const QWEN2_VL: Family = Family {
    vocabulary: 152_064,
    hidden: 8192,
    intermediate: 29_568,
    layers: 80,
    heads: 64,
    kv_heads: Some(8),
    epsilon: 1e-5,
    theta: 1e6,
    sections: Some([16, 24, 24]),
    ..QWEN2
};
const QWEN3: Family = Family { head_dim: Some(128), input_biases: false, head_norms: true, ..QWEN2 };
const QWEN3_VL: Family =
    Family { max_positions: 128_000, theta: 500_000.0, sections: Some([24, 20, 20]), ..QWEN3 };
const INTERNLM2: Family =
    Family { vocabulary: 103_168, attention_bias: true, naming: Naming::InternLm2, ..LLAMA };

impl DecoderConfig {
    /// Reads and checks the language model's configuration (`config.json` of a text model, `text_config` or
    /// `llm_config` of others); messages call the file `path`. The family is that of its `model_type`.
    ///
    /// # Errors
    /// `Unsupported` for another family, activation, rotary scheme; `Malformed` for dimensions that do not fit each
    /// other.
    pub fn read(path: &str, config: &Value) -> Result<Self> {
        let raw = Raw::deserialize(config).map_err(|e| ModelError::malformed(path, e.to_string()))?;
        let family = match raw.model_type.as_str() {
            "llama" => LLAMA,
            "mistral" => MISTRAL,
            "qwen2" => QWEN2,
            "qwen2_vl" | "qwen2_vl_text" | "qwen2_5_vl" | "qwen2_5_vl_text" => QWEN2_VL,
            "qwen3" => QWEN3,
            "qwen3_vl_text" => QWEN3_VL,
            "internlm2" => INTERNLM2,
            other => {
                return Err(ModelError::unsupported(
                    path,
                    "`model_type` of the language model",
                    other,
                    "llama, mistral, qwen2, qwen2_vl, qwen2_5_vl, qwen3, qwen3_vl_text, internlm2",
                ));
            }
        };
        build(path, raw, &family)
    }
}

fn ensure(path: &str, holds: bool, message: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(ModelError::malformed(path, message())) }
}

fn build(path: &str, raw: Raw, family: &Family) -> Result<DecoderConfig> {
    let hidden = raw.hidden_size.unwrap_or(family.hidden);
    let heads = raw.num_attention_heads.unwrap_or(family.heads);
    let kv_heads = raw.num_key_value_heads.or(family.kv_heads).unwrap_or(heads);
    ensure(path, heads > 0 && kv_heads > 0 && heads.is_multiple_of(kv_heads), || {
        format!("`num_attention_heads` {heads} is no multiple of `num_key_value_heads` {kv_heads}")
    })?;
    let head_dim = raw.head_dim.or(family.head_dim);
    ensure(path, head_dim.is_some() || hidden.is_multiple_of(heads), || {
        format!(
            "`hidden_size` {hidden} is no multiple of `num_attention_heads` {heads}, and there is no `head_dim`"
        )
    })?;
    let head_dim = head_dim.unwrap_or(hidden / heads);
    ensure(path, head_dim > 0 && head_dim.is_multiple_of(2), || {
        format!("a head is {head_dim} wide, expected an even number")
    })?;
    let layers = raw.num_hidden_layers.unwrap_or(family.layers);
    let vocabulary = raw.vocab_size.unwrap_or(family.vocabulary);
    let intermediate = raw.intermediate_size.unwrap_or(family.intermediate);
    let max_positions = raw.max_position_embeddings.unwrap_or(family.max_positions);
    for (name, value) in [
        ("num_hidden_layers", layers),
        ("vocab_size", vocabulary),
        ("intermediate_size", intermediate),
        ("max_position_embeddings", max_positions),
    ] {
        ensure(path, value > 0, || format!("`{name}` is 0, expected a positive number"))?;
    }
    let epsilon = raw.rms_norm_eps.unwrap_or(family.epsilon);
    ensure(path, epsilon.is_finite() && epsilon >= 0.0, || {
        format!("`rms_norm_eps` is {epsilon}, expected 0 or a small positive number")
    })?;
    refuse_what_differs(path, &raw)?;
    let attention_bias = raw.attention_bias.or(raw.bias).unwrap_or(family.attention_bias);
    Ok(DecoderConfig {
        vocabulary,
        hidden,
        intermediate,
        layers,
        heads,
        kv_heads,
        head_dim,
        epsilon,
        max_positions: max_positions.min(window(&raw, family).unwrap_or(max_positions)),
        rope: rope(path, &raw, family, head_dim)?,
        biases: Biases {
            inputs: family.input_biases || attention_bias,
            output: attention_bias,
            feed_forward: raw.mlp_bias.unwrap_or(false),
        },
        head_norms: family.head_norms,
        naming: family.naming,
        tied: raw.tie_word_embeddings.unwrap_or(false),
    })
}

/// Refuses what would be computed wrongly.
fn refuse_what_differs(path: &str, raw: &Raw) -> Result<()> {
    if let Some(activation) = raw.hidden_act.as_deref().filter(|name| *name != "silu") {
        return Err(ModelError::unsupported(path, "hidden_act", activation, "silu"));
    }
    let known = |kind: &&String| !matches!(kind.as_str(), "full_attention" | "sliding_attention");
    if let Some(other) = raw.layer_types.iter().flatten().find(known) {
        return Err(ModelError::unsupported(path, "layer_types", other, "full_attention, sliding_attention"));
    }
    let ropes = [&raw.rope_parameters, &raw.rope_scaling].into_iter().flatten();
    for rope in ropes {
        if let Some((kind, _)) = rope.others.iter().find(|(_, value)| value.is_object()) {
            let supported = "the same rotary parameters for all layers";
            return Err(ModelError::unsupported(path, "rotary parameters by layer", kind, supported));
        }
    }
    let turned = |rope: &Option<RawRope>| rope.as_ref().and_then(|rope| rope.partial_rotary_factor);
    let parts = [raw.partial_rotary_factor, turned(&raw.rope_parameters), turned(&raw.rope_scaling)];
    match parts.into_iter().flatten().find(|&part| part != 1.0) {
        Some(part) => Err(ModelError::unsupported(path, "partial_rotary_factor", part, "1")),
        None => Ok(()),
    }
}

/// The sliding window in tokens, if attention has one.
fn window(raw: &Raw, family: &Family) -> Option<usize> {
    match (raw.use_sliding_window, family.sliding_window) {
        (Some(true), _) => raw.sliding_window.unwrap_or(Some(4096)),
        (_, Some(default)) => raw.sliding_window.unwrap_or(Some(default)),
        (_, None) => None,
    }
}

fn rope(path: &str, raw: &Raw, family: &Family, head_dim: usize) -> Result<Rope> {
    let none = RawRope::default();
    let rope = raw.rope_parameters.as_ref().or(raw.rope_scaling.as_ref()).unwrap_or(&none);
    let required = |name: &str, value: Option<f32>| {
        value.filter(|value| value.is_finite() && *value > 0.0).ok_or_else(|| {
            let scheme = rope.scheme();
            ModelError::malformed(path, format!("the rotary scheme {scheme} needs a positive `{name}`"))
        })
    };
    let scaling = match rope.scheme() {
        "default" | "mrope" => Scaling::Unscaled,
        // It changes nothing up to `max_position_embeddings`, and longer sequences are refused.
        "dynamic" => Scaling::Unscaled,
        "linear" => Scaling::Linear { factor: required("factor", rope.factor)? },
        "llama3" => Scaling::Llama3 {
            factor: required("factor", rope.factor)?,
            low: required("low_freq_factor", rope.low_freq_factor)?,
            high: required("high_freq_factor", rope.high_freq_factor)?,
            original: required("original_max_position_embeddings", rope.original_max_position_embeddings)?,
        },
        other => {
            return Err(ModelError::unsupported(
                path,
                "rotary scheme",
                other,
                "default, mrope, linear, llama3, dynamic",
            ));
        }
    };
    let theta = required("rope_theta", rope.rope_theta.or(raw.rope_theta).or(Some(family.theta)))?;
    Ok(Rope { theta, scaling, axes: axes(path, rope, family, head_dim)? })
}

fn axes(path: &str, rope: &RawRope, family: &Family, head_dim: usize) -> Result<Axes> {
    let Some(default) = family.sections else { return Ok(Axes::One) };
    let sections = rope.mrope_section.clone().unwrap_or_else(|| default.to_vec());
    let sections: [usize; 3] = sections.as_slice().try_into().map_err(|_| {
        ModelError::malformed(path, format!("`mrope_section` is {sections:?}, expected three numbers"))
    })?;
    ensure(path, sections.iter().sum::<usize>() * 2 == head_dim, || {
        format!("`mrope_section` {sections:?} must sum up to half of the head's width {head_dim}")
    })?;
    // Every family with norms of its heads takes turns, whatever the file says (`Qwen3VLTextRotaryEmbedding`).
    let interleaved = family.head_norms || rope.mrope_interleaved == Some(true);
    Ok(if interleaved { Axes::Interleaved(sections) } else { Axes::Sections(sections) })
}

#[cfg(test)]
mod tests;
