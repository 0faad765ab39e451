//! The numbers of a student as safetensors.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::error::{Result, StudentError, StudentErrorKind};
use crate::head::{Head, Member};
use crate::looks::{Band, Closer, Looks};

/// Most members of a head.
const MAX_MEMBERS: usize = 64;

/// Names of the heads' tensors begin with this.
const FIRST: &str = "first";
const WHOLE: &str = "closer.whole";
const PARTS: &str = "closer.parts";

/// The weights as safetensors.
pub(crate) fn weights(looks: &Looks) -> Result<Vec<u8>> {
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    let closer = looks.closer.iter().flat_map(|closer| [(WHOLE, &closer.whole), (PARTS, &closer.parts)]);
    for (name, head) in [(FIRST, &looks.first)].into_iter().chain(closer) {
        add_head(name, head, &mut |name, shape, values| {
            tensors.push((name, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect()));
        });
    }
    let failed = |error: String| {
        StudentError::new(StudentErrorKind::Malformed, format!("the weights cannot be written: {error}"))
    };
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect::<std::result::Result<Vec<_>, safetensors::SafeTensorError>>();
    let views = views.map_err(|error| failed(error.to_string()))?;
    safetensors::serialize(views, None::<HashMap<String, String>>).map_err(|error| failed(error.to_string()))
}

/// The tensors of one head: name, shape, values.
fn add_head(head_name: &str, head: &Head, add: &mut impl FnMut(String, Vec<usize>, &[f32])) {
    let (width, outputs) = (head.width(), head.outputs());
    add(format!("{head_name}.mean"), vec![width], &head.mean);
    add(format!("{head_name}.deviation"), vec![width], &head.deviation);
    for (index, member) in head.members.iter().enumerate() {
        let name = |part: &str| format!("{head_name}.members.{index}.{part}");
        let inner = if let Some((weight, bias)) = &member.hidden {
            add(name("hidden.weight"), vec![bias.len(), width], weight);
            add(name("hidden.bias"), vec![bias.len()], bias);
            bias.len()
        } else {
            width
        };
        add(name("output.weight"), vec![outputs, inner], &member.output);
        add(name("output.bias"), vec![outputs], &member.bias);
    }
}

/// A file of weights whose tensors are taken out one by one.
struct Tensors<'a> {
    path: &'a Path,
    file: SafeTensors<'a>,
    left: BTreeSet<String>,
}

impl Tensors<'_> {
    fn malformed(&self, detail: String) -> StudentError {
        StudentError::malformed(self.path, detail)
    }

    fn has(&self, name: &str) -> bool {
        self.left.contains(name)
    }

    /// A tensor of this shape, where it matters, and of finite numbers: its shape and its values.
    fn take(&mut self, name: &str, shape: &[Option<usize>]) -> Result<(Vec<usize>, Vec<f32>)> {
        let tensor = self.file.tensor(name).map_err(|_| self.malformed(format!("no tensor `{name}`")))?;
        let fits = tensor.shape().len() == shape.len()
            && tensor
                .shape()
                .iter()
                .zip(shape)
                .all(|(own, wanted)| wanted.is_none_or(|wanted| wanted == *own));
        if !fits || tensor.dtype() != Dtype::F32 {
            let (dtype, own) = (tensor.dtype(), tensor.shape());
            return Err(self.malformed(format!(
                "tensor `{name}` is {dtype:?} of shape {own:?}, expected F32 of {shape:?}"
            )));
        }
        let values: Vec<f32> =
            tensor.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        if values.iter().any(|value| !value.is_finite()) {
            return Err(self.malformed(format!("tensor `{name}` holds what is no number")));
        }
        let shape = tensor.shape().to_vec();
        self.left.remove(name);
        Ok((shape, values))
    }

    fn head(&mut self, head_name: &str) -> Result<Head> {
        let (shape, mean) = self.take(&format!("{head_name}.mean"), &[None])?;
        let width = shape[0];
        let (_, deviation) = self.take(&format!("{head_name}.deviation"), &[Some(width)])?;
        let mut members: Vec<Member> = Vec::new();
        let mut outputs = None;
        while members.len() < MAX_MEMBERS {
            let index = members.len();
            let name = |part: &str| format!("{head_name}.members.{index}.{part}");
            if !self.has(&name("output.weight")) {
                break;
            }
            let hidden = if self.has(&name("hidden.weight")) {
                let (shape, weight) = self.take(&name("hidden.weight"), &[None, Some(width)])?;
                Some((weight, self.take(&name("hidden.bias"), &[Some(shape[0])])?.1))
            } else {
                None
            };
            let inner = hidden.as_ref().map_or(width, |(_, bias)| bias.len());
            let (shape, output) = self.take(&name("output.weight"), &[outputs, Some(inner)])?;
            outputs = Some(shape[0]);
            members.push(Member { hidden, output, bias: self.take(&name("output.bias"), &[outputs])?.1 });
        }
        let positive = deviation.iter().all(|value| *value > 0.0);
        if members.is_empty() || width == 0 || outputs == Some(0) || !positive {
            return Err(self.malformed(format!(
                "{head_name}: no member, no feature, no output, or a deviation that is not positive"
            )));
        }
        Ok(Head { mean, deviation, members })
    }
}

/// Reads weights strictly: every tensor there, of its shape, of finite numbers, and no other. `band` is the card's.
pub(crate) fn parse(path: &Path, bytes: &[u8], band: Option<Band>) -> Result<Looks> {
    let file =
        SafeTensors::deserialize(bytes).map_err(|error| StudentError::malformed(path, error.to_string()))?;
    let left = file.names().into_iter().map(str::to_owned).collect();
    let mut tensors = Tensors { path, file, left };
    let first = tensors.head(FIRST)?;
    let closer = match band {
        Some(band) => Some(Closer { whole: tensors.head(WHOLE)?, parts: tensors.head(PARTS)?, band }),
        None => None,
    };
    match tensors.left.first() {
        Some(unknown) => {
            Err(tensors.malformed(format!("a tensor `{unknown}` that this student has no place for")))
        }
        None => Ok(Looks { first, closer }),
    }
}
