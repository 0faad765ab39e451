//! Weights in safetensors files, or in those of `torch.save`, read strictly.

mod archive;
mod machine;
mod pickle;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::VarBuilder;
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorInfo};
use serde::Deserialize;

use crate::error::{ModelError, Result};
use crate::files::{FileBytes, FileTree};

/// The tensors of a model: one file `STEM.safetensors`, or the shards that `STEM.safetensors.index.json` lists. Where
/// there is neither, those of PyTorch's own format: `pytorch_model.bin` (for the stem `model`; else `STEM.bin`), or the
/// shards of its index. That is a pickle, which is read as data: nothing in it is executed.
///
/// Nothing is invented: [`Self::builder`] answers a missing or misshapen tensor with an error that names it, and
/// [`Self::refuse_unused`] refuses what no layer asked for. A tensor of integers where floats are expected is refused
/// by name, and so is one that does not fit into f16. Files stay mapped until the last builder is dropped; every tensor
/// is copied out and converted once, when it is asked for.
#[derive(Debug, Clone)]
pub struct Weights {
    store: Arc<Store>,
    dtype: DType,
    device: Device,
}

impl Weights {
    /// Opens the files and checks their headers. `stem` is `model` for transformers and
    /// `diffusion_pytorch_model` for diffusers; `dtype` is what the tensors are converted to.
    ///
    /// # Errors
    /// `MissingFile`; `Unsupported` for what torch before 1.6 wrote, and for a pickle that asks for more than tensors;
    /// `Malformed` for a truncated file, a bad header, a tensor in two shards, or an index that does not fit its shards.
    pub fn load(tree: &FileTree, stem: &str, dtype: DType, device: &Device) -> Result<Self> {
        let safe = format!("{stem}.safetensors");
        let pickled = if stem == "model" { "pytorch_model.bin".to_owned() } else { format!("{stem}.bin") };
        let index = |single: &str| format!("{single}.index.json");
        let found = [(&safe, Format::Safetensors), (&pickled, Format::Pickle)]
            .into_iter()
            .find(|(single, _)| tree.exists(single) || tree.exists(&index(single)));
        let (single, format) = found.unwrap_or((&safe, Format::Safetensors));
        let index = index(single);
        let mut store = Store::default();
        if tree.exists(&index) {
            store.path = tree.path_of(&index);
            store.add_shards(tree, &index, format)?;
        } else {
            store.path = tree.path_of(single);
            store.add_file(tree, single, format)?;
        }
        Ok(Self { store: Arc::new(store), dtype, device: device.clone() })
    }

    /// Opens one file by its name: safetensors if it ends so, else one of `torch.save` (`.pth`, `.pt`, `.bin`).
    ///
    /// # Errors
    /// As [`Self::load`].
    pub(crate) fn load_file(tree: &FileTree, name: &str, dtype: DType, device: &Device) -> Result<Self> {
        let format = if name.ends_with(".safetensors") { Format::Safetensors } else { Format::Pickle };
        let mut store = Store { path: tree.path_of(name), ..Store::default() };
        store.add_file(tree, name, format)?;
        Ok(Self { store: Arc::new(store), dtype, device: device.clone() })
    }

    /// A builder over all tensors, for candle's layers. Its errors turn back into the [`ModelError`] that names
    /// the tensor when they are converted with `?`.
    pub fn builder(&self) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(Strict(self.store.clone())), self.dtype, self.device.clone())
    }

    /// Whether there is a tensor of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.store.entries.contains_key(name)
    }

    /// Whether the name of any tensor begins with `prefix`.
    pub fn contains_prefix(&self, prefix: &str) -> bool {
        self.store.entries.range(prefix.to_owned()..).next().is_some_and(|(name, _)| name.starts_with(prefix))
    }

    /// Shape of a tensor, as stored.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.store.entries.get(name).map(|entry| entry.shape.as_slice())
    }

    /// Names that no builder has been asked for yet, sorted; without second names of what was asked for.
    pub fn unused(&self) -> Vec<String> {
        let used = self.store.used.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = |name: &String| used.contains(name);
        let places: HashSet<_> =
            used.iter().filter_map(|name| Some(self.store.entries.get(name)?.place())).collect();
        let unknown = |(name, entry): &(&String, &Entry)| !asked(name) && !places.contains(&entry.place());
        self.store.entries.iter().filter(unknown).map(|(name, _)| name.clone()).collect()
    }

    /// Refuses tensors that no layer asked for, except those whose name ends with one of `allowed` (buffers that
    /// older versions of a library saved, such as `position_ids`). Call it after the model is built.
    ///
    /// # Errors
    /// `UnknownTensor` with all their names.
    pub fn refuse_unused(&self, allowed: &[&str]) -> Result<()> {
        let mut names = self.unused();
        names.retain(|name| !allowed.iter().any(|end| name.ends_with(end)));
        if names.is_empty() {
            Ok(())
        } else {
            Err(ModelError::UnknownTensor { path: self.store.path.clone(), names })
        }
    }

    /// BLAKE3 over the weight files and over those of `others` (configuration, tokenizer) that exist in `tree`, and
    /// over the type in which is computed if it is not f32, as lower-case hexadecimal.
    ///
    /// # Errors
    /// `Unreadable` if one of `others` cannot be read.
    pub fn fingerprint(&self, tree: &FileTree, others: &[&str]) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(crate::files::fingerprint(tree, others)?.as_bytes());
        for file in &self.store.files {
            hasher.update(&(file.len() as u64).to_le_bytes());
            hasher.update(file);
        }
        // The same weights answer otherwise when they are rounded.
        if self.dtype != DType::F32 {
            hasher.update(self.dtype.as_str().as_bytes());
        }
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// How messages call these weights.
    pub fn path(&self) -> &str {
        &self.store.path
    }
}

/// How a file keeps its tensors.
#[derive(Debug, Clone, Copy)]
enum Format {
    Safetensors,
    /// A file of `torch.save`.
    Pickle,
}

/// Where a tensor lies.
#[derive(Debug)]
struct Entry {
    file: usize,
    dtype: DType,
    shape: Vec<usize>,
    /// Distance of neighbours in each dimension, in numbers; `None` if the numbers follow one another.
    stride: Option<Vec<usize>>,
    start: usize,
    end: usize,
}

impl Entry {
    /// Which numbers it is: a pickle writes a matrix that two layers share under both names.
    fn place(&self) -> (usize, usize, usize, &[usize], Option<&[usize]>) {
        (self.file, self.start, self.end, &self.shape, self.stride.as_deref())
    }
}

#[derive(Debug, Default)]
struct Store {
    path: String,
    files: Vec<FileBytes>,
    entries: BTreeMap<String, Entry>,
    used: Mutex<BTreeSet<String>>,
}

/// `STEM.safetensors.index.json` or `STEM.bin.index.json`; its `metadata` holds totals that are not needed.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Store {
    fn add_shards(&mut self, tree: &FileTree, index_name: &str, format: Format) -> Result<()> {
        let index: Index = tree.read_json(index_name)?;
        let shards: BTreeSet<&String> = index.weight_map.values().collect();
        if shards.is_empty() {
            return Err(ModelError::malformed(tree.path_of(index_name), "`weight_map` lists no tensor"));
        }
        let mut file_of = HashMap::new();
        for shard in shards {
            if shard.contains(['/', '\\']) {
                return Err(ModelError::malformed(
                    tree.path_of(index_name),
                    format!("shard `{shard}` is outside the folder; expected a plain file name"),
                ));
            }
            file_of.insert(shard.clone(), self.files.len());
            self.add_file(tree, shard, format)?;
        }
        for (name, shard) in &index.weight_map {
            let listed = file_of.get(shard).copied();
            if self.entries.get(name).map(|entry| entry.file) != listed {
                return Err(ModelError::malformed(
                    tree.path_of(index_name),
                    format!("tensor `{name}` is listed in {shard} and is not there"),
                ));
            }
        }
        Ok(())
    }

    fn add_file(&mut self, tree: &FileTree, name: &str, format: Format) -> Result<()> {
        let path = tree.path_of(name);
        let bytes = tree.map(name)?;
        let file = self.files.len();
        let described = match format {
            Format::Safetensors => safetensors(&path, &bytes, file)?,
            Format::Pickle => pickle::tensors(&path, &bytes, file)?,
        };
        for (tensor, entry) in described {
            if self.entries.contains_key(&tensor) {
                let detail = format!("tensor `{tensor}` is there twice, or in another shard too");
                return Err(ModelError::malformed(&path, detail));
            }
            self.entries.insert(tensor, entry);
        }
        self.files.push(bytes);
        Ok(())
    }

    /// The tensor in `dtype`, marked as used. Floats are converted into each other; nothing else is.
    fn tensor(
        &self,
        name: &str,
        expected: Option<&Shape>,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let Some(entry) = self.entries.get(name) else {
            let expected = expected.map(|s| s.dims().to_vec()).unwrap_or_default();
            let (path, name) = (self.path.clone(), name.to_owned());
            return Err(ModelError::MissingTensor { path, name, expected }.into());
        };
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        if let Some(expected) = expected.filter(|shape| shape.dims() != entry.shape) {
            return Err(ModelError::ShapeMismatch {
                path: self.path.clone(),
                name: name.to_owned(),
                expected: expected.dims().to_vec(),
                found: entry.shape.clone(),
            }
            .into());
        }
        if entry.dtype != dtype && !(entry.dtype.is_float() && dtype.is_float()) {
            let expected =
                if dtype.is_float() { "F32, F16, BF16, F64".to_owned() } else { format!("{dtype:?}") };
            let what = format!("data type of tensor `{name}`");
            return Err(
                ModelError::unsupported(&self.path, what, format!("{:?}", entry.dtype), expected).into()
            );
        }
        let bytes = &self.files[entry.file][entry.start..entry.end];
        let tensor = match &entry.stride {
            None => Tensor::from_raw_buffer(bytes, entry.dtype, &entry.shape, device)?,
            Some(stride) => {
                let row = pickle::gather(bytes, entry.dtype.size_in_bytes(), &entry.shape, stride);
                Tensor::from_raw_buffer(&row, entry.dtype, &entry.shape, device)?
            }
        };
        let converted = tensor.to_dtype(dtype)?;
        if dtype == DType::F16 && entry.dtype != DType::F16 && overflows(&converted)? {
            return Err(
                ModelError::NotANumber(format!("{}: tensor `{name}`, converted to f16,", self.path)).into()
            );
        }
        Ok(converted)
    }
}

/// The tensors of a safetensors file.
fn safetensors(path: &str, bytes: &[u8], file: usize) -> Result<Vec<(String, Entry)>> {
    let (header, metadata) = SafeTensors::read_metadata(bytes)
        .map_err(|e| ModelError::malformed(path, describe(&e, bytes.len())))?;
    // Eight bytes hold the header's length; tensors follow the header.
    let data = header + 8;
    if data + metadata.data_len() != bytes.len() {
        return Err(ModelError::malformed(
            path,
            format!(
                "{} bytes long, its header describes {}: truncated or damaged, fetch it again",
                bytes.len(),
                data + metadata.data_len()
            ),
        ));
    }
    let entry = |(tensor, info): (String, &TensorInfo)| {
        let dtype = stored_dtype(info.dtype).ok_or_else(|| {
            let supported = "F16, BF16, F32, F64, I64, I32, U8";
            let what = format!("data type of tensor `{tensor}`");
            ModelError::unsupported(path, what, format!("{:?}", info.dtype), supported)
        })?;
        let (start, end) = (data + info.data_offsets.0, data + info.data_offsets.1);
        Ok((tensor, Entry { file, dtype, shape: info.shape.clone(), stride: None, start, end }))
    };
    metadata.tensors().into_iter().map(entry).collect()
}

/// Whether a value is infinite.
fn overflows(tensor: &Tensor) -> candle_core::Result<bool> {
    if tensor.elem_count() == 0 {
        return Ok(false);
    }
    let largest = tensor.abs()?.flatten_all()?.max(0)?.to_dtype(DType::F32)?.to_scalar::<f32>()?;
    Ok(largest.is_infinite())
}

/// Data types that occur in checkpoints and that candle converts.
fn stored_dtype(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        Dtype::F32 => Some(DType::F32),
        Dtype::F64 => Some(DType::F64),
        Dtype::I64 => Some(DType::I64),
        Dtype::I32 => Some(DType::I32),
        Dtype::U8 => Some(DType::U8),
        _ => None,
    }
}

/// What a bad header means for the user.
fn describe(error: &SafeTensorError, length: usize) -> String {
    match error {
        SafeTensorError::HeaderTooSmall => {
            format!("{length} bytes long, a safetensors file has at least 8: truncated, fetch it again")
        }
        SafeTensorError::InvalidHeaderLength => {
            format!("its header is longer than the file ({length} bytes): truncated, fetch it again")
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            format!("{length} bytes long, its header describes another length: truncated, fetch it again")
        }
        SafeTensorError::HeaderTooLarge => {
            "its header claims over 100 MB: not a safetensors file (a Git LFS pointer, or another format)"
                .to_owned()
        }
        other => format!("not a safetensors file: {other}"),
    }
}

/// The strict backend of candle's builder.
struct Strict(Arc<Store>);

impl candle_nn::var_builder::SimpleBackend for Strict {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        // How to invent the tensor when it is missing: never done here.
        _init: candle_nn::Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        self.0.tensor(name, Some(&shape), dtype, device)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        self.0.tensor(name, None, dtype, device)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.entries.contains_key(name)
    }
}
