//! Weights from safetensors files into the tensors that a model has made, every one of them and no other.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use safetensors::SafeTensors;
use serde::Deserialize;
use tch::{Kind, Tensor, nn};

use crate::error::{Result, TorchError};
use crate::files::Files;

/// `NAME.safetensors.index.json`: which file holds which tensor.
#[derive(Debug, Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Where a part's weights are, and what its tensors are called there.
pub(crate) struct Source<'a> {
    /// The part's folder in the model's.
    pub(crate) folder: &'a str,
    /// The file without `.safetensors`.
    pub(crate) stem: &'a str,
    /// From a name in diffusers-rs, or in a file of any age, to the name that is usual now; `None` for what is no weight.
    pub(crate) rename: fn(&str) -> Option<String>,
}

/// Fills all tensors of `store`, and lets none of them be trained.
///
/// # Errors
/// A missing or malformed file; a missing, misshapen, doubled or unknown tensor, by name.
pub(crate) fn load(store: &mut nn::VarStore, files: &mut Files, source: &Source<'_>) -> Result<()> {
    store.freeze();
    let variables = store.variables().into_iter();
    let mut missing =
        variables.filter_map(|(name, tensor)| Some(((source.rename)(&name)?, tensor))).collect();
    for name in names(files, source)? {
        let bytes = files.weights(&name)?;
        fill(&mut missing, &bytes, &files.path(&name), source.rename)?;
    }
    let names: BTreeSet<String> = HashMap::into_keys(missing).collect();
    match names.first() {
        None => Ok(()),
        Some(first) => Err(TorchError::MissingTensor {
            folder: files.path(source.folder),
            name: first.clone(),
            others: names.len() - 1,
        }),
    }
}

/// The files' names, relative to the model's folder.
fn names(files: &mut Files, source: &Source<'_>) -> Result<BTreeSet<String>> {
    let whole = format!("{}/{}.safetensors", source.folder, source.stem);
    let index = format!("{whole}.index.json");
    if files.exists(&whole) || !files.exists(&index) {
        return Ok(BTreeSet::from([whole]));
    }
    let parts: Index = files.json(&index)?;
    parts
        .weight_map
        .into_values()
        .map(|name| {
            // The index comes with the model, and names files beside it only.
            if Path::new(&name).file_name().is_some_and(|file| file == name.as_str()) {
                return Ok(format!("{}/{name}", source.folder));
            }
            let problem = format!("expected the name of a file in the same folder, found {name:?}");
            Err(TorchError::malformed(&files.path(&index), problem))
        })
        .collect()
}

/// Copies the tensors of one file, and takes them off `missing`.
fn fill(
    missing: &mut HashMap<String, Tensor>,
    bytes: &[u8],
    file: &Path,
    rename: fn(&str) -> Option<String>,
) -> Result<()> {
    let tensors =
        SafeTensors::deserialize(bytes).map_err(|error| TorchError::malformed(file, error.to_string()))?;
    let mut unknown = BTreeSet::new();
    for (name, view) in tensors.tensors() {
        let Some(target) = rename(&name) else { continue };
        let Some(mut variable) = missing.remove(&target) else {
            unknown.insert(name);
            continue;
        };
        let shape: Vec<i64> = view.shape().iter().map(|&size| size as i64).collect();
        let kind = Kind::try_from(view.dtype());
        let float = matches!(kind, Ok(Kind::Half | Kind::BFloat16 | Kind::Float | Kind::Double));
        if shape != variable.size() || !float {
            return Err(TorchError::Tensor {
                file: file.to_path_buf(),
                name,
                expected: format!("floating-point numbers of shape {:?}", variable.size()),
                found: format!("{:?} of shape {shape:?}", view.dtype()),
            });
        }
        let loaded = Tensor::try_from(view)?;
        tch::no_grad(|| variable.f_copy_(&loaded))?;
    }
    match unknown.first() {
        None => Ok(()),
        Some(first) => Err(TorchError::UnknownTensor {
            file: file.to_path_buf(),
            name: first.clone(),
            others: unknown.len() - 1,
        }),
    }
}
