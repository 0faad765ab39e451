//! What a checkpoint says of weights that were quantised before they were published.

use serde_json::Value;

use crate::error::{ModelError, Result};
use crate::files::FileTree;

const FILE: &str = "config.json";
const SUPPORTED: &str = "awq with 4 bits, zero points and version gemm; or take the checkpoint that was not quantised \
                         and let it be quantised while it is loaded (q8_0, q4_0, q4_k)";
/// Where the language model's part of a configuration is.
const PARTS: [&str; 3] = ["text_config", "llm_config", "language_config"];

/// Refuses weights in a form that is not read here. Whatever this accepts, each tensor's type and shape are checked
/// when it is read.
///
/// # Errors
/// `Unsupported` for a method or a variant of it; `MissingFile`, `Malformed`.
pub(crate) fn check(tree: &FileTree) -> Result<()> {
    let config: Value = tree.read_json(FILE)?;
    let parts = PARTS.into_iter().filter_map(|part| config.get(part));
    for part in parts.chain([&config]) {
        for name in ["quantization_config", "compression_config"] {
            if let Some(found) = part.get(name).filter(|found| !found.is_null()) {
                check_one(found, name).map_err(|(what, found)| {
                    ModelError::unsupported(tree.path_of(FILE), what, found, SUPPORTED)
                })?;
            }
        }
    }
    Ok(())
}

/// Which property is not supported, and what it is.
fn check_one(config: &Value, name: &str) -> std::result::Result<(), (String, String)> {
    let text = |field: &str| match config.get(field) {
        Some(Value::String(text)) => Some(text.to_lowercase()),
        Some(Value::Null) | None => None,
        Some(other) => Some(other.to_string()),
    };
    // Defaults are those of `AwqConfig` in transformers 5.17.
    let wanted: [(&[&str], &str, &str); 4] = [
        (&["quant_method"], "awq", "none"),
        (&["bits", "w_bit"], "4", "4"),
        (&["version"], "gemm", "gemm"),
        (&["zero_point"], "true", "true"),
    ];
    for (fields, wanted, default) in wanted {
        let found = fields.iter().find_map(|field| text(field)).unwrap_or_else(|| default.to_owned());
        if found != wanted {
            return Err((format!("`{name}.{}`", fields[0]), found));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;
    use crate::error::ModelErrorKind;

    fn check_config(config: &Value) -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), config.to_string()).unwrap();
        check(&FileTree::open(folder.path()).unwrap())
    }

    #[test]
    fn awq_as_published_is_read_and_other_methods_are_refused_by_name() {
        let awq = json!({"quant_method": "awq", "version": "GEMM", "bits": 4, "group_size": 128, "zero_point": true});
        check_config(&json!({"model_type": "x"})).unwrap();
        check_config(&json!({"quantization_config": null})).unwrap();
        check_config(&json!({"quantization_config": awq})).unwrap();
        check_config(&json!({"llm_config": {"quantization_config": awq}})).unwrap();
        for (field, value) in [
            ("quant_method", json!("gptq")),
            ("quant_method", json!("bitsandbytes")),
            ("quant_method", json!("fp8")),
            ("quant_method", json!("compressed-tensors")),
            ("version", json!("gemv")),
            ("bits", json!(8)),
            ("zero_point", json!(false)),
        ] {
            let mut config = awq.clone();
            config[field] = value.clone();
            for whole in [
                json!({"quantization_config": config}),
                json!({"text_config": {"quantization_config": config}}),
                json!({"compression_config": config}),
            ] {
                let error = check_config(&whole).unwrap_err();
                assert_eq!(error.kind(), ModelErrorKind::Unsupported);
                let text = error.to_string();
                let value = value.to_string().replace('"', "");
                assert!(text.contains(field) && text.contains(&value) && text.contains("q8_0"), "{text}");
            }
        }
    }
}
