//! The same map in all forms of its weight, and with all that precedes and follows it.

use super::super::blocks::Format;
use super::super::{FeedForward, Inner};
use super::*;

const PLACES: usize = 7;

fn random(shape: &[usize]) -> Result<Tensor> {
    Tensor::randn(0f32, 0.3, shape, &Device::Cpu)
}

/// The same map in f32 and with its weight stored shorter, which has the same values.
fn pairs(inputs: usize, outputs: usize, bias: &Tensor) -> Result<Vec<(Linear, Linear)>> {
    let weight = random(&[outputs, inputs])?;
    let mut pairs = Vec::new();
    for dtype in [DType::F16, DType::BF16] {
        let short = weight.to_dtype(dtype)?;
        let long = Linear::new(&short.to_dtype(DType::F32)?, Some(bias))?;
        pairs.push((long, Linear::new(&short, Some(bias))?));
    }
    for format in [Format::Q8_0, Format::Q4_0, Format::Q4_1, Format::Q4K] {
        let blocks = Blocks::quantise(&weight, format)?;
        let long = Linear::new(&blocks.dequantise()?, Some(bias))?;
        let short = Matrix::Quantised(blocks, Device::Cpu);
        pairs.push((long, Linear::of(vec![(short, Some(bias.clone()))])?));
    }
    Ok(pairs)
}

fn assert_close(got: &Tensor, expected: &Tensor, most: f32) -> Result<()> {
    assert_eq!(got.dims(), expected.dims());
    let gap = (got.to_dtype(DType::F32)? - expected)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
    let scale = expected.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
    assert!(gap <= most * scale, "off by {gap} of {scale}");
    Ok(())
}

#[test]
fn shorter_weights_are_multiplied_as_the_numbers_that_they_are() -> Result<()> {
    let (inputs, outputs) = (768, 72);
    let bias = random(&[outputs])?;
    let norm = Norm::new(random(&[inputs])?, None, 1e-6)?;
    let angles = Angles::new((0..PLACES * 4).map(|i| i as f32).collect(), 4, &Device::Cpu, DType::F32)?;
    let turn = Turn { angles: &angles, heads: 5 };
    for (long, short) in pairs(inputs, outputs, &bias)? {
        assert!(short.bytes() * 19 / 10 < long.bytes(), "{} of {} bytes", short.bytes(), long.bytes());
        for rows in [PLACES, 40 * PLACES] {
            let (x, other) = (random(&[rows, inputs])?, random(&[rows, outputs])?);
            let all = |map: &Linear, x: &Tensor, other: &Tensor| -> Result<[Tensor; 5]> {
                Ok([
                    map.forward(x)?,
                    map.forward_normed(x, &norm)?,
                    map.forward_activate(x, Activation::Gelu)?,
                    map.forward_add(x, other)?,
                    map.forward_turned(x, Some(&norm), turn)?,
                ])
            };
            let expected = all(&long, &x, &other)?;
            for (got, expected) in all(&short, &x, &other)?.iter().zip(&expected) {
                assert_close(got, expected, 1e-5)?;
            }
            // Shorter inputs are widened, and results are as short.
            for dtype in [DType::BF16, DType::F16] {
                let (x, other) = (x.to_dtype(dtype)?, other.to_dtype(dtype)?);
                for (got, expected) in all(&short, &x, &other)?.iter().zip(&expected) {
                    assert_eq!(got.dtype(), dtype);
                    assert_close(got, expected, 2e-2)?;
                }
            }
        }
    }
    Ok(())
}

/// Candle's kernels there round inputs to 8 bits.
#[cfg(feature = "cuda")]
#[test]
#[ignore = "needs a GPU"]
fn cuda_quantised_maps_are_those_of_the_cpu() -> Result<()> {
    let gpu = cuda::device(0)?;
    for (inputs, outputs) in [(768, 72), (3584, 512), (256, 1000)] {
        let (weight, bias) = (random(&[outputs, inputs])?, random(&[outputs])?);
        for format in [Format::Q8_0, Format::Q4_0, Format::Q4_1, Format::Q4K] {
            let blocks = Blocks::quantise(&weight, format)?;
            let matrix = Matrix::Quantised(blocks.clone(), Device::Cpu);
            let here = Linear::of(vec![(matrix, Some(bias.clone()))])?;
            for dtype in [DType::F32, DType::BF16, DType::F16] {
                let bias = bias.to_device(&gpu)?.to_dtype(dtype)?;
                let matrix = Matrix::Quantised(blocks.clone(), gpu.clone());
                let there = Linear::of(vec![(matrix, Some(bias))])?;
                for rows in [1, 3, 8, 9, 130, 1000] {
                    let x = random(&[rows, inputs])?;
                    let (expected, x) = (here.forward(&x)?, x.to_device(&gpu)?.to_dtype(dtype)?);
                    let other = random(&[rows, outputs])?.to_device(&gpu)?.to_dtype(dtype)?;
                    let added = there.forward_add(&x, &other)?;
                    for (found, minus) in [(there.forward(&x)?, None), (added, Some(other))] {
                        assert_eq!((found.dtype(), found.dims()), (dtype, &[rows, outputs][..]));
                        let found = found.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
                        let minus = minus.map(|other| other.to_dtype(DType::F32)?.to_device(&Device::Cpu));
                        let found = match minus.transpose()? {
                            Some(other) => (found - other)?,
                            None => found,
                        };
                        let norm = |x: &Tensor| x.sqr()?.sum_all()?.to_scalar::<f32>().map(f32::sqrt);
                        let gap = norm(&(found - &expected)?)? / norm(&expected)?;
                        assert!(gap < 0.03, "{format:?} {dtype:?} [{rows}, {inputs}]: off by {gap}");
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_feed_forward_block_takes_weights_of_any_length() -> Result<()> {
    let (width, inner) = (256, 512);
    let first = pairs(width, 2 * inner, &random(&[2 * inner])?)?;
    let second = pairs(inner, width, &random(&[width])?)?;
    for ((long, short), (long_second, short_second)) in first.into_iter().zip(second) {
        let norm = Norm::new(random(&[width])?, None, 1e-6)?;
        let block =
            |expand, contract| FeedForward { norm: norm.clone(), expand, inner: Inner::Gated, contract };
        let (long, short) = (block(long, long_second), block(short, short_second));
        for rows in [1, 5, 200] {
            let x = random(&[rows, width])?;
            let expected = long.forward(&x)?;
            assert_close(&short.forward(&x)?, &expected, 1e-5)?;
            let got = short.forward(&x.to_dtype(DType::BF16)?)?;
            assert_eq!(got.dtype(), DType::BF16);
            assert_close(&got, &expected, 3e-2)?;
        }
    }
    Ok(())
}

#[test]
fn parts_of_several_kinds_become_one_map() -> Result<()> {
    let of = |rows: usize, format: Format| -> Result<Matrix> {
        Ok(Matrix::Quantised(Blocks::quantise(&random(&[rows, 64])?, format)?, Device::Cpu))
    };
    let quantised = |rows: usize| of(rows, Format::Q8_0);
    let x = random(&[3, 64])?;
    let dense = Matrix::Dense(random(&[6, 64])?);
    for parts in [vec![quantised(40)?, quantised(8)?], vec![quantised(40)?, dense.clone()]] {
        let alone = parts.iter().map(|part| Linear::of(vec![(part.clone(), None)])?.forward(&x));
        let expected = Tensor::cat(&alone.collect::<Result<Vec<_>>>()?, 1)?;
        let whole = Linear::of(parts.into_iter().map(|part| (part, None)).collect())?;
        assert_close(&whole.forward(&x)?, &expected, 1e-6)?;
    }
    let mixed = [quantised(40)?, of(8, Format::Q4_1)?];
    let alone = mixed.iter().map(|part| Linear::of(vec![(part.clone(), None)])?.forward(&x));
    let expected = Tensor::cat(&alone.collect::<Result<Vec<_>>>()?, 1)?;
    let whole = Linear::of(mixed.into_iter().map(|part| (part, None)).collect())?;
    assert_close(&whole.forward(&x)?, &expected, 1e-2)?;
    let picked = Linear::of(vec![(dense.select(&[5, 1])?, None)])?.forward(&x)?;
    let all = Linear::of(vec![(dense, None)])?.forward(&x)?;
    assert_close(&picked, &all.index_select(&Tensor::new(&[5u32, 1], &Device::Cpu)?, 1)?, 1e-6)?;
    assert!(Linear::of(vec![(quantised(4)?, Some(random(&[5])?))]).is_err());
    assert!(Linear::of(vec![(quantised(4)?, Some(random(&[4])?)), (quantised(4)?, None)]).is_err());
    Ok(())
}
