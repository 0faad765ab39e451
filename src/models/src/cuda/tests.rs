//! The kernels against candle's operations in f32. They need a GPU: run them there with
//! `cargo test --release -p cluegate-models --features cuda -- --ignored cuda`.
#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device, Tensor};
use candle_nn::ops::softmax_last_dim;

use super::*;
use crate::rope::Angles;

fn random(device: &Device, shape: impl Into<candle_core::Shape>) -> Tensor {
    Tensor::randn(0f32, 1.0, shape, device).unwrap().to_dtype(DType::BF16).unwrap()
}

fn wide(xs: &Tensor) -> Tensor {
    xs.to_dtype(DType::F32).unwrap()
}

/// Norm of the difference over the norm of what is expected; not a number if anything is not.
fn gap(found: &Tensor, expected: &Tensor) -> f32 {
    let norm = |xs: Tensor| xs.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
    norm((wide(found) - expected).unwrap()) / norm(expected.clone())
}

/// Attention as it is defined, one row and one head at a time, keys and values `[kv heads * rows, tokens, head]`: over a
/// past and those tokens `first..last` of the own
/// row, of which causal queries see what does not come after them.
fn reference(
    queries: &Tensor,
    kv: usize,
    (past, own): (Option<(&Tensor, &Tensor)>, (&Tensor, &Tensor)),
    (causal, spans): (bool, &[(usize, usize)]),
    scale: f64,
) -> Tensor {
    let (rows, tokens, heads, head) = queries.dims4().unwrap();
    let before = past.map_or(0, |(keys, _)| keys.dim(1).unwrap());
    let length = own.0.dim(1).unwrap();
    let mut out = Vec::new();
    for row in 0..rows {
        let (first, last) = spans[row];
        for h in 0..heads {
            let pick = |xs: &Tensor| {
                let stored = xs.dim(0).unwrap() / kv;
                let at = h / (heads / kv) * stored + row.min(stored - 1);
                wide(&xs.get(at).unwrap().contiguous().unwrap())
            };
            let together = |past: Option<&Tensor>, own: &Tensor| {
                let parts: Vec<Tensor> = past.into_iter().chain([own]).map(pick).collect();
                Tensor::cat(&parts, 0).unwrap()
            };
            let q = queries.narrow(0, row, 1).unwrap().narrow(2, h, 1).unwrap().contiguous().unwrap();
            let q = (wide(&q).reshape((tokens, head)).unwrap() * scale).unwrap();
            let scores = q.matmul(&together(past.map(|p| p.0), own.0).t().unwrap()).unwrap();
            let seen = |i: usize, j: usize| {
                let inside = j >= first && j < last && !(causal && j + tokens > length + i);
                if inside { 0f32 } else { f32::NEG_INFINITY }
            };
            let mask = (0..tokens)
                .flat_map(|i| (0..before).map(|_| 0f32).chain((0..length).map(move |j| seen(i, j))))
                .collect::<Vec<_>>();
            let mask = Tensor::from_vec(mask, (tokens, before + length), queries.device()).unwrap();
            let weights = softmax_last_dim(&(scores + mask).unwrap()).unwrap();
            out.push(weights.matmul(&together(past.map(|p| p.1), own.1)).unwrap());
        }
    }
    let out = Tensor::stack(&out, 0).unwrap().reshape((rows, heads, tokens, head)).unwrap();
    out.transpose(1, 2).unwrap().reshape((rows, tokens, heads * head)).unwrap()
}

#[test]
#[ignore = "needs a GPU"]
fn cuda_attention_is_softmax_attention() {
    let device = device(0).unwrap();
    for head in HEADS {
        for (rows, tokens, kv, group, past) in
            [(1, 700, 16, 1, 0), (5, 45, 2, 7, 1403), (1, 333, 4, 7, 512), (3, 1, 4, 7, 77), (2, 2, 3, 1, 0)]
        {
            let heads = kv * group;
            let queries = random(&device, (rows, tokens, heads + 3, head)).narrow(2, 1, heads).unwrap();
            let stored = |rows: usize, length: usize| {
                let all = random(&device, (kv * rows, length + 9, head));
                all.narrow(1, 5, length.max(1)).unwrap()
            };
            let (k, v) = (stored(rows, tokens), stored(rows, tokens));
            let (past_keys, past_values) = (stored(1, past), stored(1, past));
            let shared = (past > 0).then_some((&past_keys, &past_values));
            for causal in [false, true] {
                let visible = Visible { causal, ..Visible::default() };
                let found = attention(&queries, kv, (shared, (&k, &v)), visible, 0.1).unwrap();
                let spans = vec![(0, tokens); rows];
                let expected = reference(&queries, kv, (shared, (&k, &v)), (causal, &spans), 0.1);
                let gap = gap(&found, &expected);
                assert!(gap < 1e-2, "head {head}, rows {rows}, tokens {tokens}, past {past}: off by {gap}");
            }
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn cuda_attention_counts_from_starts_to_ends() {
    let device = device(0).unwrap();
    let (rows, kv, group, head, capacity) = (6, 4, 7, 128, 900);
    let spans = [(0, 900), (899, 900), (450, 800), (30, 93), (64, 128), (1, 899)];
    let on_gpu = |numbers: Vec<u32>| Tensor::new(numbers, &device).unwrap();
    let starts = on_gpu(spans.iter().map(|span| span.0 as u32).collect());
    let ends = on_gpu(spans.iter().map(|span| span.1 as u32).collect());
    let keys = random(&device, (kv * rows, capacity, head));
    let values = random(&device, (kv * rows, capacity, head));
    for tokens in [1, 20] {
        let queries = random(&device, (rows, tokens, kv * group, head));
        let visible = Visible { causal: false, starts: Some(&starts), ends: Some(&ends) };
        let found = attention(&queries, kv, (None, (&keys, &values)), visible, 0.09).unwrap();
        let gap = gap(&found, &reference(&queries, kv, (None, (&keys, &values)), (false, &spans), 0.09));
        assert!(gap < 1e-2, "{tokens} tokens: off by {gap}");
    }
    let queries = random(&device, (rows, 20, kv * group, head));
    let spans = [0u32, 100, 879, 3, 64, 500].map(|start| (start as usize, capacity));
    let starts = on_gpu(spans.iter().map(|span| span.0 as u32).collect());
    let visible = Visible { causal: true, starts: Some(&starts), ends: None };
    let found = attention(&queries, kv, (None, (&keys, &values)), visible, 0.09).unwrap();
    let gap = gap(&found, &reference(&queries, kv, (None, (&keys, &values)), (true, &spans), 0.09));
    assert!(gap < 1e-2, "causal: off by {gap}");
}

#[test]
#[ignore = "needs a GPU"]
fn cuda_elementwise_operations_equal_candles() {
    let device = device(0).unwrap();
    let xs = random(&device, (45, 6 * 80));
    let bias = random(&device, 6 * 80);
    let biased = wide(&xs).broadcast_add(&wide(&bias)).unwrap();
    let expected = candle_nn::ops::swiglu(&wide(&xs)).unwrap();
    assert!(gap(&swiglu(&xs).unwrap(), &expected) < 5e-3);
    let expected = (&biased * candle_nn::ops::sigmoid(&(&biased * 1.702).unwrap()).unwrap()).unwrap();
    assert!(gap(&bias_quick_gelu(&xs, &bias).unwrap(), &expected) < 5e-3);
    let residual = random(&device, (45, 6 * 80));
    let expected = (&biased + wide(&residual)).unwrap();
    assert!(gap(&add_bias(&residual, &xs, &bias).unwrap(), &expected) < 5e-3);
    for width in [480, 1280, 3584] {
        let xs = random(&device, (45, width));
        let (weight, bias) = (random(&device, width), random(&device, width));
        let expected = candle_nn::ops::layer_norm(&wide(&xs), &wide(&weight), &wide(&bias), 1e-6).unwrap();
        assert!(gap(&normalise(&xs, &weight, Some(&bias), 1e-6).unwrap(), &expected) < 5e-3);
        let expected = candle_nn::ops::rms_norm(&wide(&xs), &wide(&weight), 1e-6).unwrap();
        assert!(gap(&normalise(&xs, &weight, None, 1e-6).unwrap(), &expected) < 5e-3);
    }
    let angles = Tensor::randn(0f32, 1.0, (15, 40), &device).unwrap();
    let (cos, sin) = (angles.cos().unwrap(), angles.sin().unwrap());
    let (cos, sin) = (cos.to_dtype(DType::BF16).unwrap(), sin.to_dtype(DType::BF16).unwrap());
    let angles = Angles { cos: cos.clone(), sin: sin.clone() };
    let found = bias_rotate(&xs, &bias, &angles, 4).unwrap();
    let shaped = biased.reshape((3, 15, 6, 80)).unwrap();
    let turned = shaped.narrow(2, 0, 4).unwrap().contiguous().unwrap();
    let turned = candle_nn::rotary_emb::rope_thd(&turned, &wide(&cos), &wide(&sin)).unwrap();
    let expected = Tensor::cat(&[turned, shaped.narrow(2, 4, 2).unwrap()], 2).unwrap();
    assert!(gap(&found, &expected.reshape((45, 480)).unwrap()) < 5e-3);
}

#[test]
#[ignore = "needs a GPU"]
fn cuda_feed_forward_blocks_of_any_width_are_computed() {
    use crate::layers::{FeedForward, Inner, Linear, Norm};
    let device = device(0).unwrap();
    let (width, inner) = (64, 20);
    let ones = Tensor::ones(width, DType::BF16, &device).unwrap();
    let weights = [("weight".to_owned(), ones)].into_iter().collect();
    let vb = candle_nn::VarBuilder::from_tensors(weights, DType::BF16, &device);
    let (expand, contract) = (random(&device, (2 * inner, width)), random(&device, (width, inner)));
    let bias = random(&device, 2 * inner);
    let block = FeedForward {
        norm: Norm::rms(width, 1e-6, &vb).unwrap(),
        expand: Linear::new(&expand, Some(&bias)).unwrap(),
        inner: Inner::Gated,
        contract: Linear::new(&contract, None).unwrap(),
    };
    let x = random(&device, (7, width));
    let xs = wide(&x);
    let mean = xs.sqr().unwrap().mean_keepdim(1).unwrap();
    let normed = xs.broadcast_div(&(mean + 1e-6).unwrap().sqrt().unwrap()).unwrap();
    let middle = normed.matmul(&wide(&expand).t().unwrap()).unwrap().broadcast_add(&wide(&bias)).unwrap();
    let gated = candle_nn::ops::swiglu(&middle).unwrap();
    let expected = (gated.matmul(&wide(&contract).t().unwrap()).unwrap() + xs).unwrap();
    let gap = gap(&block.forward(&x).unwrap(), &expected);
    assert!(gap < 0.02, "{gap}");
}
