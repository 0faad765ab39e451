//! Attention without stored scores.

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, LaunchConfig, PushKernelArg, sys};
use candle_core::{Result, Tensor, bail};
use half::bf16;

use super::{Input, cuda_device, room, tensor};

const PTX: &str = include_str!(concat!(env!("OUT_DIR"), "/attention.ptx"));
/// Widths of a head for which there are kernels.
pub(crate) const HEADS: [usize; 3] = [64, 80, 128];
/// Query rows of a block, and its threads.
const ROWS: usize = 128;
/// Up to so many query rows take the kernel for few.
const FEW: usize = 16;

/// Keys and values, `[kv heads * rows, tokens, head]` each, the rows of a head beside each other, with any strides but
/// the last; `[kv heads, tokens, head]` stands for every row.
pub(crate) type KeysValues<'a> = (&'a Tensor, &'a Tensor);

/// What a query sees of its own row. At least one token of row or past must be left to see.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Visible<'a> {
    /// Only what does not come after it; the last query is the last token of the row.
    pub(crate) causal: bool,
    /// First token that counts, by row: `[rows]`, u32, on the GPU.
    pub(crate) starts: Option<&'a Tensor>,
    /// The token after the last that counts, by row, likewise.
    pub(crate) ends: Option<&'a Tensor>,
}

/// `Segment` of attention.cu.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct RawStretch {
    keys: u64,
    values: u64,
    row: i64,
    token: i64,
    head: i64,
}

/// `Arguments` of attention.cu.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Arguments {
    queries: u64,
    query: [i64; 3],
    out: u64,
    out_strides: [i64; 3],
    past: RawStretch,
    own: RawStretch,
    own_starts: u64,
    own_ends: u64,
    past_length: i32,
    own_length: i32,
    tokens: i32,
    group: i32,
    causal: i32,
    scale: f32,
}

// SAFETY: plain numbers in C's layout, the same as the kernel's parameter.
#[allow(unsafe_code)]
unsafe impl DeviceRepr for Arguments {}

/// What queries (`[rows, tokens, heads, head]`, any strides but the last) gather from a past and from their own row: `[rows, tokens, heads *
/// head]`. Scores are multiplied by `scale`.
///
/// # Errors
/// Shapes that do not fit each other, a head of another width than [`HEADS`], and those of the driver.
pub(crate) fn attention(
    queries: &Tensor,
    kv_heads: usize,
    (past, own): (Option<KeysValues<'_>>, KeysValues<'_>),
    visible: Visible<'_>,
    scale: f32,
) -> Result<Tensor> {
    let (rows, tokens, heads, head) = queries.dims4()?;
    if !HEADS.contains(&head) {
        bail!("a head is {head} wide, there are kernels for {HEADS:?}")
    }
    if kv_heads == 0 || heads % kv_heads != 0 || rows == 0 || tokens == 0 {
        bail!("queries {:?} do not fit {kv_heads} key-value heads", queries.shape())
    }
    let device = cuda_device(queries)?;
    let (out, out_address) = room(device, rows * tokens * heads * head)?;
    let past = past.map(|past| Held::new(past, rows, kv_heads, head)).transpose()?;
    let own = Held::new(own, rows, kv_heads, head)?;
    let starts = visible.starts.map(|starts| numbers(starts, rows)).transpose()?;
    let ends = visible.ends.map(|ends| numbers(ends, rows)).transpose()?;
    let number_address = |held: Option<&Input<'_>>| held.map_or(Ok(0), Input::address::<u32>);
    let input = Input::new(queries);
    let strides = queries.stride();
    let arguments = Arguments {
        queries: input.address::<bf16>()?,
        query: strides_of(strides)?,
        out: out_address,
        out_strides: [(tokens * heads * head) as i64, (heads * head) as i64, head as i64],
        past: past.as_ref().map_or(Ok(RawStretch::default()), Held::raw)?,
        own: own.raw()?,
        own_starts: number_address(starts.as_ref())?,
        own_ends: number_address(ends.as_ref())?,
        past_length: past.as_ref().map_or(0, |past| past.length) as i32,
        own_length: own.length as i32,
        tokens: tokens as i32,
        group: (heads / kv_heads) as i32,
        causal: i32::from(visible.causal),
        scale: scale * std::f32::consts::LOG2_E,
    };
    let query_rows = tokens * heads / kv_heads;
    let few = query_rows <= FEW;
    // Rows in shared memory are padded by 16 bytes, which keeps them off each other's banks.
    let line = (head + 8) * 2;
    let (name, blocks, lines) = if few {
        ("attend_few", 1, FEW + 4 * 3 * 2 * FEW)
    } else {
        ("attend_many", query_rows.div_ceil(ROWS), ROWS + 4 * 64)
    };
    let function = device.get_or_load_custom_func(&format!("{name}_{head}"), "cluegate-attention", PTX)?;
    let bytes = (lines * line) as u32;
    let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    function.set_attribute(attribute, bytes as i32).w()?;
    let config = LaunchConfig {
        grid_dim: (blocks as u32, kv_heads as u32, rows as u32),
        block_dim: (ROWS as u32, 1, 1),
        shared_mem_bytes: bytes,
    };
    let mut builder = function.builder();
    builder.arg(&arguments);
    // SAFETY: the argument has the kernel's layout; every address comes from a tensor that this function holds, whose
    // shape and strides were checked against the grid; `out` is written whole.
    #[allow(unsafe_code)]
    unsafe { builder.launch(config) }.w()?;
    Ok(tensor(out, device, (rows, tokens, heads * head)))
}

/// All strides but the last, in elements: heads lie in one piece, at multiples of what a thread loads.
fn strides_of<const N: usize>(strides: &[usize]) -> Result<[i64; N]> {
    if let Some((1, outer)) = strides.split_last()
        && outer.iter().all(|stride| stride % 8 == 0)
        && let Ok(outer) = outer.iter().map(|&stride| stride as i64).collect::<Vec<_>>().try_into()
    {
        return Ok(outer);
    }
    bail!("heads in one piece, at multiples of 8 elements, are needed; the strides are {strides:?}")
}

/// A number for each row.
fn numbers(tensor: &Tensor, rows: usize) -> Result<Input<'_>> {
    if tensor.dims() == [rows] {
        Input::contiguous(tensor)
    } else {
        bail!("{rows} numbers are needed, one a row, this tensor has the shape {:?}", tensor.shape())
    }
}

/// Keys and values that are held while their addresses are in use.
struct Held<'a> {
    keys: Input<'a>,
    values: Input<'a>,
    length: usize,
    rows: usize,
}

impl<'a> Held<'a> {
    fn new((keys, values): KeysValues<'a>, rows: usize, kv_heads: usize, head: usize) -> Result<Self> {
        let (all, length, own_head) = keys.dims3()?;
        let fits = (all == kv_heads || all == kv_heads * rows) && own_head == head;
        if !fits || keys.dims() != values.dims() || keys.stride() != values.stride() {
            bail!(
                "keys {:?} and values {:?} do not fit each other or {rows} rows of {kv_heads} heads of {head}",
                keys.layout(),
                values.layout()
            )
        }
        Ok(Self { keys: Input::new(keys), values: Input::new(values), length, rows: all / kv_heads })
    }

    fn raw(&self) -> Result<RawStretch> {
        let [row, token] = strides_of(self.keys.layout.stride())?;
        Ok(RawStretch {
            keys: self.keys.address::<bf16>()?,
            values: self.values.address::<bf16>()?,
            row: if self.rows == 1 { 0 } else { row },
            token,
            head: row * self.rows as i64,
        })
    }
}
