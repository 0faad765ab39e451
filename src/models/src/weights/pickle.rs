//! Tensors in the files of `torch.save`: `pytorch_model.bin` and its shards.
//!
//! Such a file is a zip of a pickle, which says what tensors there are, and of their numbers. A pickle is a program for a
//! stack machine that may call any function of Python. Nothing is called here: of the instructions, those are followed of
//! which a dictionary of tensors consists, every name of a function beyond a few is refused, and a tensor is
//! a description of where its numbers lie. Candle reads such files too (`candle_core::pickle` 0.11.1) and is not used: it
//! leaves out tensors that it does not know, among them those of 32-bit integers, which AWQ packs its codes into; it
//! panics on short argument lists; and it copies what a pickle refers to twice, which lets a small file fill the memory.
//! Here a value is made once and referred to by its number, so that memory grows with the length of the pickle alone.
//!
//! Sources: `torch/serialization.py` and `torch/_utils.py` of torch 2.11.

use std::ops::Range;

use candle_core::DType;

use super::machine::{Machine, View};
use super::{Entry, archive};
use crate::error::{ModelError, Result};

/// The tensors of a file.
///
/// # Errors
/// `Malformed` for a file that is truncated or damaged; `Unsupported` for one that torch before 1.6 wrote, one that
/// holds more than tensors, and types that are not read; each names the tensor or the function.
pub(super) fn tensors(path: &str, bytes: &[u8], file: usize) -> Result<Vec<(String, Entry)>> {
    check_format(path, bytes)?;
    let members = archive::members(path, bytes)?;
    let top = members
        .keys()
        .find_map(|name| name.strip_suffix("data.pkl").filter(|top| top.matches('/').count() == 1));
    let Some(top) = top else {
        return Err(ModelError::malformed(
            path,
            "a zip file without `data.pkl`: not one that torch.save wrote",
        ));
    };
    let member = |name: &str| members.get(format!("{top}{name}").as_str()).map(|at| &bytes[at.clone()]);
    if let Some(order) = member("byteorder").filter(|order| *order != b"little") {
        let order = String::from_utf8_lossy(order);
        return Err(ModelError::unsupported(path, "byte order", order, "little"));
    }
    let pickle = member("data.pkl").unwrap_or_default();
    let mut machine = Machine::new(pickle);
    let entries = machine.run().map_err(|stop| stop.named(path))?;
    let storage = |key: &str| {
        let member = format!("{top}data/{key}");
        let at = members.get(member.as_str()).cloned();
        at.ok_or_else(|| {
            ModelError::malformed(path, format!("no `{member}` in the file: damaged, fetch it again"))
        })
    };
    let described = |(name, view): (&str, &View<'_>)| {
        let bytes = storage(view.storage.key)?;
        Ok((name.to_owned(), describe(path, name, view, &bytes, file)?))
    };
    entries.into_iter().map(described).collect()
}

/// Refuses what is no zip file, by its name.
fn check_format(path: &str, bytes: &[u8]) -> Result<()> {
    // torch's magic number as protocol 2 writes it: a number of ten bytes.
    const LEGACY: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
    if bytes.starts_with(archive::MEMBER) {
        Ok(())
    } else if bytes.starts_with(LEGACY) {
        Err(ModelError::unsupported(
            path,
            "the format of the weights",
            "that of torch before 1.6",
            "safetensors, or the zip files that torch.save writes since 1.6: load it with a current torch and save it \
             again, or take a conversion to safetensors (the hub keeps many in a revision refs/pr/N)",
        ))
    } else if bytes.starts_with(b"version https://git-lfs") {
        Err(ModelError::malformed(path, "a Git LFS pointer, not the file itself: fetch it"))
    } else {
        let detail =
            format!("{} bytes long and no file of torch.save: truncated or another format", bytes.len());
        Err(ModelError::malformed(path, detail))
    }
}

/// Finds the numbers of a tensor in `bytes`, the place of its storage in the file.
fn describe(path: &str, name: &str, view: &View<'_>, bytes: &Range<usize>, file: usize) -> Result<Entry> {
    let malformed = |detail: String| ModelError::malformed(path, format!("tensor `{name}`: {detail}"));
    let storage = &view.storage;
    let dtype = stored_dtype(storage.kind).ok_or_else(|| {
        let supported = "torch.{Half,BFloat16,Float,Double,Long,Int,Byte}Storage";
        ModelError::unsupported(path, format!("data type of tensor `{name}`"), storage.kind, supported)
    })?;
    let size = dtype.size_in_bytes();
    if storage.count.checked_mul(size) != Some(bytes.len()) {
        return Err(malformed(format!(
            "{} bytes in the file, expected {} numbers of {size}: truncated or damaged, fetch it again",
            bytes.len(),
            storage.count
        )));
    }
    let outside = || {
        malformed(format!(
            "its shape {:?} reaches beyond the {} numbers in the file",
            view.shape, storage.count
        ))
    };
    let count =
        view.shape.iter().try_fold(1_usize, |count, side| count.checked_mul(*side)).ok_or_else(outside)?;
    let strides = view.shape.iter().zip(&view.stride);
    // The last number's place.
    let reach = strides.clone().try_fold(view.offset, |at, (side, stride)| {
        at.checked_add(side.saturating_sub(1).checked_mul(*stride)?)
    });
    let end = if count == 0 { Some(view.offset) } else { reach.and_then(|last| last.checked_add(1)) };
    let end = end.filter(|end| *end <= storage.count).ok_or_else(outside)?;
    if count > storage.count {
        let what = format!("layout of tensor `{name}`");
        return Err(ModelError::unsupported(path, what, "one that repeats numbers", "each number once"));
    }
    let mut expected = 1;
    let in_row = count == 0
        || strides.clone().rev().all(|(side, stride)| {
            let fits = *side == 1 || *stride == expected;
            expected *= side;
            fits
        });
    // Where there is nothing to go to, a stride may be any number.
    let stride = strides.map(|(side, stride)| if *side > 1 { *stride } else { 0 });
    Ok(Entry {
        file,
        dtype,
        shape: view.shape.clone(),
        stride: (!in_row).then(|| stride.collect()),
        start: bytes.start + view.offset * size,
        end: bytes.start + end * size,
    })
}

/// Data types that occur in checkpoints and that candle converts, as safetensors are read.
fn stored_dtype(kind: &str) -> Option<DType> {
    match kind {
        "HalfStorage" => Some(DType::F16),
        "BFloat16Storage" => Some(DType::BF16),
        "FloatStorage" => Some(DType::F32),
        "DoubleStorage" => Some(DType::F64),
        "LongStorage" => Some(DType::I64),
        "IntStorage" => Some(DType::I32),
        "ByteStorage" => Some(DType::U8),
        _ => None,
    }
}

/// The numbers of a tensor in one row, gathered from where their strides put them. `bytes` begins at the first of them
/// and ends with the last; [`describe`] has seen to that.
pub(super) fn gather(bytes: &[u8], size: usize, shape: &[usize], stride: &[usize]) -> Vec<u8> {
    let mut row = Vec::with_capacity(bytes.len());
    let mut place = vec![0; shape.len()];
    let mut at = 0;
    'numbers: loop {
        row.extend_from_slice(&bytes[at * size..(at + 1) * size]);
        for axis in (0..shape.len()).rev() {
            place[axis] += 1;
            at += stride[axis];
            if place[axis] < shape[axis] {
                continue 'numbers;
            }
            at -= stride[axis] * shape[axis];
            place[axis] = 0;
        }
        return row;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::machine::Storage;
    use super::*;

    proptest! {
        #[test]
        fn any_view_is_inside_its_storage_or_refused(
            sides in prop::collection::vec(prop_oneof![0_usize..5, any::<usize>()], 0..4),
            strides in prop::collection::vec(prop_oneof![0_usize..9, any::<usize>()], 4),
            offset in prop_oneof![0_usize..9, any::<usize>()],
            count in prop_oneof![0_usize..60, any::<usize>()],
        ) {
            let stride = strides[..sides.len()].to_vec();
            let storage = Storage { kind: "FloatStorage", key: "0", count };
            let view = View { storage, offset, shape: sides, stride };
            let bytes = vec![0; count.min(60) * 4];
            if let Ok(entry) = describe("a", "b", &view, &(0..bytes.len()), 0) {
                let part = &bytes[entry.start..entry.end];
                let numbers: usize = entry.shape.iter().product();
                let length = match &entry.stride {
                    Some(stride) => gather(part, 4, &entry.shape, stride).len(),
                    None => part.len(),
                };
                prop_assert_eq!(length, numbers * 4);
            }
        }
    }
}
