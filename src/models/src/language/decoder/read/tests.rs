#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use crate::error::ModelErrorKind;

/// The fields of a published `config.json` that matter, and how many parameters the checkpoint has by its card or
/// its index.
struct Published {
    name: &'static str,
    config: Value,
    parameters: usize,
    head_dim: usize,
    max_positions: usize,
}

/// `shape`: layers, hidden, intermediate, heads, key-value heads.
fn published(
    name: &'static str,
    family: Value,
    shape: [usize; 5],
    tied: bool,
    parameters: usize,
) -> Published {
    let mut config = family;
    let [layers, hidden, intermediate, heads, kv_heads] = shape;
    let own = json!({
        "num_hidden_layers": layers, "hidden_size": hidden, "intermediate_size": intermediate,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "tie_word_embeddings": tied,
    });
    config.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
    let head_dim = config["head_dim"].as_u64().map_or(hidden / heads, |width| width as usize);
    let max_positions = config["max_position_embeddings"].as_u64().unwrap() as usize;
    Published { name, config, parameters, head_dim, max_positions }
}

fn llama3(factor: f32) -> Value {
    json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 128_256, "hidden_act": "silu",
        "rms_norm_eps": 1e-5, "rope_theta": 500_000.0, "max_position_embeddings": 131_072, "attention_bias": false,
        "mlp_bias": false, "pretraining_tp": 1, "bos_token_id": 128_000, "eos_token_id": [128_001, 128_008, 128_009],
        "rope_scaling": {
            "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3",
        },
    })
}

fn llama32() -> Value {
    let mut config = llama3(32.0);
    config["head_dim"] = 64.into();
    config
}

fn qwen25(vocabulary: usize) -> Value {
    json!({
        "model_type": "qwen2", "vocab_size": vocabulary, "hidden_act": "silu", "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0, "max_position_embeddings": 32_768, "sliding_window": 32_768,
        "max_window_layers": 21, "use_sliding_window": false, "eos_token_id": 151_645,
    })
}

fn qwen3() -> Value {
    json!({
        "model_type": "qwen3", "vocab_size": 151_936, "hidden_act": "silu", "rms_norm_eps": 1e-6, "head_dim": 128,
        "rope_theta": 1_000_000, "rope_scaling": null, "max_position_embeddings": 40_960, "sliding_window": null,
        "max_window_layers": 28, "use_sliding_window": false, "attention_bias": false, "eos_token_id": 151_645,
    })
}

fn mistral(vocabulary: usize) -> Value {
    json!({
        "model_type": "mistral", "vocab_size": vocabulary, "hidden_act": "silu", "rms_norm_eps": 1e-5,
        "rope_theta": 1_000_000.0, "max_position_embeddings": 32_768, "sliding_window": null, "eos_token_id": 2,
    })
}

fn all_published() -> Vec<Published> {
    let head_dim = |mut config: Value, width: usize| {
        config["head_dim"] = width.into();
        config
    };
    vec![
        published("Llama-3.1-8B", llama3(8.0), [32, 4096, 14_336, 32, 8], false, 8_030_261_248),
        published("Llama-3.2-1B", llama32(), [16, 2048, 8192, 32, 8], true, 1_235_814_400),
        published("Llama-3.2-3B", head_dim(llama32(), 128), [28, 3072, 8192, 24, 8], true, 3_212_749_824),
        published(
            "Llama-3.3-70B",
            head_dim(llama3(8.0), 128),
            [80, 8192, 28_672, 64, 8],
            false,
            70_553_706_496,
        ),
        published("Qwen2.5-0.5B", qwen25(151_936), [24, 896, 4864, 14, 2], true, 494_032_768),
        published("Qwen2.5-1.5B", qwen25(151_936), [28, 1536, 8960, 12, 2], true, 1_543_714_304),
        published("Qwen2.5-3B", qwen25(151_936), [36, 2048, 11_008, 16, 2], true, 3_085_938_688),
        published("Qwen2.5-7B", qwen25(152_064), [28, 3584, 18_944, 28, 4], false, 7_615_616_512),
        published("Qwen2.5-14B", qwen25(152_064), [48, 5120, 13_824, 40, 8], false, 14_770_033_664),
        published("Qwen2.5-32B", qwen25(152_064), [64, 5120, 27_648, 40, 8], false, 32_763_876_352),
        published("Qwen2.5-72B", qwen25(152_064), [80, 8192, 29_568, 64, 8], false, 72_706_203_648),
        published("Qwen3-0.6B", qwen3(), [28, 1024, 3072, 16, 8], true, 596_049_920),
        published("Qwen3-1.7B", qwen3(), [28, 2048, 6144, 16, 8], true, 1_720_574_976),
        published("Qwen3-4B", qwen3(), [36, 2560, 9728, 32, 8], true, 4_022_468_096),
        published("Qwen3-8B", qwen3(), [36, 4096, 12_288, 32, 8], false, 8_190_735_360),
        published("Qwen3-14B", qwen3(), [40, 5120, 17_408, 40, 8], false, 14_768_307_200),
        published("Qwen3-32B", qwen3(), [64, 5120, 25_600, 64, 8], false, 32_762_123_264),
        published("Mistral-7B-v0.2", mistral(32_000), [32, 4096, 14_336, 32, 8], false, 7_241_732_096),
        published("Mistral-7B-v0.3", mistral(32_768), [32, 4096, 14_336, 32, 8], false, 7_248_023_552),
    ]
}

fn read(config: &Value) -> Result<DecoderConfig> {
    DecoderConfig::read("config.json", config)
}

/// Of all tensors that the decoder asks for.
fn parameters(config: &DecoderConfig) -> usize {
    let DecoderConfig { vocabulary, hidden, intermediate, head_dim, .. } = *config;
    let (queries, keys) = (config.heads * head_dim, config.kv_heads * head_dim);
    let count = |with: bool, number: usize| if with { number } else { 0 };
    let attention = hidden * (queries + 2 * keys)
        + queries * hidden
        + count(config.biases.inputs, queries + 2 * keys)
        + count(config.biases.output, hidden)
        + count(config.head_norms, 2 * head_dim);
    let feed_forward =
        3 * hidden * intermediate + count(config.biases.feed_forward, 2 * intermediate + hidden);
    let tables = if config.tied { 1 } else { 2 };
    config.layers * (attention + feed_forward + 2 * hidden) + tables * vocabulary * hidden + hidden
}

#[test]
fn published_text_models_are_read() {
    for Published { name, config, parameters: expected, head_dim, max_positions } in all_published() {
        let found = read(&config).unwrap();
        assert_eq!(parameters(&found), expected, "{name}");
        assert_eq!((found.head_dim, found.max_positions), (head_dim, max_positions), "{name}");
        let llama = name.starts_with("Llama");
        assert_eq!(found.rope.theta, if llama { 500_000.0 } else { 1e6 }, "{name}");
        assert_eq!(found.rope.axes, Axes::One, "{name}");
        let factor = if name.starts_with("Llama-3.2") { 32.0 } else { 8.0 };
        let scaled = Scaling::Llama3 { factor, low: 1.0, high: 4.0, original: 8192.0 };
        assert_eq!(found.rope.scaling, if llama { scaled } else { Scaling::Unscaled }, "{name}");
    }
}

/// `rope_parameters` in the place of `rope_theta` and `rope_scaling`.
#[test]
fn both_layouts_mean_the_same() {
    for Published { name, config, .. } in all_published() {
        let mut nested = config.clone();
        let fields = nested.as_object_mut().unwrap();
        let mut rope = match fields.remove("rope_scaling") {
            Some(Value::Object(scaling)) => Value::Object(scaling),
            _ => json!({"rope_type": "default"}),
        };
        rope["rope_theta"] = fields.remove("rope_theta").unwrap();
        fields.insert("rope_parameters".to_owned(), rope);
        let layers = fields["num_hidden_layers"].as_u64().unwrap();
        fields.insert("layer_types".to_owned(), vec!["full_attention"; layers as usize].into());
        assert_eq!(read(&nested).unwrap(), read(&config).unwrap(), "{name}");
    }
}

/// The defaults of `configuration_*.py` in transformers 5.17, on which published files rely.
#[test]
fn what_a_file_leaves_out_is_the_family_s_default() {
    let of = |family: &str| read(&json!({"model_type": family})).unwrap();
    let shape = |c: &DecoderConfig| {
        [c.vocabulary, c.hidden, c.intermediate, c.layers, c.heads, c.kv_heads, c.head_dim, c.max_positions]
    };
    let plain = Biases::default();
    let qwen = Biases { inputs: true, ..plain };
    let (llama, mistral) = (of("llama"), of("mistral"));
    assert_eq!(shape(&llama), [32_000, 4096, 11_008, 32, 32, 32, 128, 2048]);
    // A window of 4096 tokens unless the file says otherwise: nothing longer would be computed rightly.
    assert_eq!(shape(&mistral), [32_000, 4096, 14_336, 32, 32, 8, 128, 4096]);
    let qwen2 = of("qwen2");
    assert_eq!(shape(&qwen2), [151_936, 4096, 22_016, 32, 32, 32, 128, 32_768]);
    let qwen3 = of("qwen3");
    assert_eq!(shape(&qwen3), [151_936, 4096, 22_016, 32, 32, 32, 128, 32_768]);
    for family in ["qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text"] {
        let found = of(family);
        assert_eq!(shape(&found), [152_064, 8192, 29_568, 80, 64, 8, 128, 32_768], "{family}");
        assert_eq!((found.biases, found.epsilon, found.rope.theta), (qwen, 1e-5, 1e6), "{family}");
        assert_eq!(found.rope.axes, Axes::Sections([16, 24, 24]), "{family}");
    }
    let seeing = of("qwen3_vl_text");
    assert_eq!(shape(&seeing), [151_936, 4096, 22_016, 32, 32, 32, 128, 128_000]);
    assert_eq!((seeing.rope.theta, seeing.rope.axes), (500_000.0, Axes::Interleaved([24, 20, 20])));
    let internlm = of("internlm2");
    assert_eq!(shape(&internlm), [103_168, 4096, 11_008, 32, 32, 32, 128, 2048]);
    assert_eq!(internlm.naming, Naming::InternLm2);
    assert_eq!(internlm.biases, Biases { inputs: true, output: true, feed_forward: false });
    for (found, biases, head_norms) in
        [(llama, plain, false), (mistral, plain, false), (qwen2, qwen, false), (qwen3, plain, true)]
    {
        assert_eq!((found.biases, found.head_norms, found.tied), (biases, head_norms, false));
        assert_eq!((found.epsilon, found.rope.theta), (1e-6, 10_000.0));
        assert_eq!((found.naming, found.rope.scaling), (Naming::Llama, Scaling::Unscaled));
    }
}

/// Within its window a model computes what it would without one, so the window is the longest question.
#[test]
fn a_sliding_window_bounds_the_question() {
    let longest = |config: Value| read(&config).unwrap().max_positions;
    let mut config = qwen25(151_936);
    config["sliding_window"] = 1000.into();
    assert_eq!(longest(config.clone()), 32_768);
    config["use_sliding_window"] = true.into();
    assert_eq!(longest(config.clone()), 1000);
    config["sliding_window"] = Value::Null;
    assert_eq!(longest(config), 32_768);
    let mut config = mistral(32_000);
    assert_eq!(longest(config.clone()), 32_768);
    config["sliding_window"] = 4096.into();
    assert_eq!(longest(config), 4096);
}

#[test]
fn what_would_be_computed_wrongly_is_refused_by_name() {
    let kinds = [ModelErrorKind::Unsupported, ModelErrorKind::Malformed];
    let [unsupported, malformed] = kinds;
    let scheme = |name: &str| json!({"rope_type": name, "factor": 4.0});
    let cases = [
        ("model_type", json!("qwen3_moe"), unsupported, "qwen3_moe"),
        ("model_type", json!("mixtral"), unsupported, "mixtral"),
        ("model_type", json!("llama4"), unsupported, "llama4"),
        ("model_type", json!(null), malformed, "invalid type"),
        ("hidden_act", json!("gelu"), unsupported, "gelu"),
        ("rope_scaling", scheme("yarn"), unsupported, "yarn"),
        ("rope_scaling", scheme("longrope"), unsupported, "longrope"),
        ("rope_parameters", scheme("ntk"), unsupported, "ntk"),
        ("rope_scaling", json!({"type": "su"}), unsupported, "su"),
        ("rope_scaling", scheme("llama3"), malformed, "low_freq_factor"),
        ("rope_scaling", json!({"type": "linear"}), malformed, "factor"),
        ("rope_scaling", json!({"type": "linear", "factor": 0.0}), malformed, "factor"),
        ("rope_theta", json!(-1.0), malformed, "rope_theta"),
        ("rope_parameters", json!({"full_attention": scheme("default")}), unsupported, "full_attention"),
        ("rope_parameters", json!({"partial_rotary_factor": 0.5}), unsupported, "partial_rotary_factor"),
        ("partial_rotary_factor", json!(0.25), unsupported, "partial_rotary_factor"),
        ("layer_types", json!(["chunked_attention"]), unsupported, "chunked_attention"),
        ("layer_types", json!(["full_attention", "linear_attention"]), unsupported, "linear_attention"),
        ("num_attention_heads", json!(0), malformed, "num_attention_heads"),
        ("num_attention_heads", json!(30), malformed, "num_key_value_heads"),
        ("num_key_value_heads", json!(3), malformed, "num_key_value_heads"),
        ("hidden_size", json!(4100), malformed, "hidden_size"),
        ("hidden_size", json!(32 * 5), malformed, "5 wide"),
        ("head_dim", json!(63), malformed, "63 wide"),
        ("head_dim", json!(0), malformed, "0 wide"),
        ("num_hidden_layers", json!(0), malformed, "num_hidden_layers"),
        ("num_hidden_layers", json!("many"), malformed, "many"),
        ("vocab_size", json!(0), malformed, "vocab_size"),
        ("intermediate_size", json!(0), malformed, "intermediate_size"),
        ("max_position_embeddings", json!(0), malformed, "max_position_embeddings"),
        ("rms_norm_eps", json!(-1e-6), malformed, "rms_norm_eps"),
    ];
    for (field, value, kind, named) in cases {
        let mut config = all_published().remove(0).config;
        config[field] = value.clone();
        let error = read(&config).unwrap_err();
        assert_eq!(error.kind(), kind, "{field} {value}: {error}");
        assert!(error.to_string().contains(named), "{field} {value}: {error}");
    }
    for (sections, named) in [(json!([16, 24]), "three numbers"), (json!([16, 24, 23]), "half of the head")] {
        let config =
            json!({"model_type": "qwen2_vl", "rope_scaling": {"type": "mrope", "mrope_section": sections}});
        let error = read(&config).unwrap_err();
        assert_eq!(error.kind(), malformed);
        assert!(error.to_string().contains(named), "{error}");
    }
}
