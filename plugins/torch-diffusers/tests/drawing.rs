//! Pictures that the built library draws: against those of the built-in generator, and what steers and stops them.

#![allow(clippy::unwrap_used, clippy::panic, unsafe_code, dead_code)]

mod support;

use cluegate_abi::ErrorCode;
use support::{Instance, LOG, Order, altered, difference, fill, generator, golden};

/// Seed, prompt and weights are the same, and so is the noise; candle and libtorch add in another order. Tolerance: one of
/// 255 levels anywhere, and 0.01 in the mean.
#[test]
fn pictures_equal_those_of_the_built_in_generator() {
    let instance = Instance::new();
    let cat = Order { steps: 12, ..Order::default() };
    let house = Order { prompt: "a red house in the snow", negative: "a tree", seed: 11, ..cat.clone() };
    for (name, order) in [("cat-and-tree-7.png", cat), ("red-house-11.png", house)] {
        let (largest, mean) = difference(&instance.picture(&order), &golden(name));
        eprintln!("{name}: off by {largest} levels at most, {mean:.4} in the mean");
        assert!(largest <= 1 && mean <= 0.01, "{name}: off by {largest} levels at most, {mean} in the mean");
    }
}

#[test]
fn previews_come_where_they_are_wanted_and_become_the_picture() {
    let instance = Instance::new();
    let order = Order { steps: 8, previews: vec![2, 5, 8], ..Order::default() };
    let told = instance.draw(&order).unwrap();
    let numbers: Vec<(u32, bool)> =
        told.steps.iter().map(|(step, preview)| (*step, preview.is_some())).collect();
    assert_eq!(numbers, (1..=8).map(|step| (step, [2, 5, 8].contains(&step))).collect::<Vec<_>>());
    let picture = told.picture.unwrap();
    let off: Vec<f64> = told
        .steps
        .iter()
        .filter_map(|(_, preview)| Some(difference(preview.as_ref()?, &picture).1))
        .collect();
    assert!(off[0] > off[1] && off[1] > off[2] && off[2] < 2.0, "{off:?}");
    // Watching changes nothing.
    assert_eq!(picture, instance.picture(&Order { previews: Vec::new(), ..order }));
}

const VAE: &str = "vae/diffusion_pytorch_model.safetensors";
const NAN: u16 = 0x7e00;

#[test]
fn after_an_abort_nothing_is_computed_or_decoded() {
    // Whatever this decoder makes is an error, so that what was not one was not decoded.
    let broken = altered(VAE, |tensors| fill(tensors, "decoder.conv_out.bias", NAN));
    let instance = Instance::of(broken.path()).unwrap();
    for abort_at in [1, 3] {
        let told = instance.draw(&Order { abort_at, steps: 4, ..Order::default() }).unwrap();
        assert!(told.aborted && told.picture.is_none());
        assert_eq!(told.steps.len(), abort_at as usize);
    }
    let (code, said) = instance.draw(&Order::default()).unwrap_err();
    assert!(code == ErrorCode::Failed && said.contains("pixels") && said.contains("at the end"), "{said}");
    let (_, said) = instance.draw(&Order { previews: vec![2], ..Order::default() }).unwrap_err();
    assert!(said.contains("preview of step 2"), "{said}");
}

#[test]
fn seed_guidance_and_what_is_not_wanted_decide_the_picture() {
    let instance = Instance::new();
    let order = Order { guidance: 3.0, ..Order::default() };
    let picture = instance.picture(&order);
    assert_eq!(instance.picture(&order), picture);
    let negative = Order { negative: "a dog, fog", ..order.clone() };
    let avoid = Order { negative: "a dog", avoid: vec!["fog"], ..order.clone() };
    assert_eq!(instance.picture(&negative), instance.picture(&avoid));
    let plain = Order { guidance: 1.0, ..order.clone() };
    for other in [
        Order { seed: 8, ..order.clone() },
        Order { prompt: "a red house", ..order.clone() },
        negative.clone(),
        plain.clone(),
    ] {
        assert_ne!(instance.picture(&other), picture, "{other:?}");
    }
    // Without guidance there is nothing to stay away from.
    assert_eq!(instance.picture(&Order { guidance: 1.0, ..negative }), instance.picture(&plain));
    let config = serde_json::json!({ "model": generator(), "guidance": 3, "steps": 3, "threads": 1 });
    let configured = Instance::create(&config, std::path::Path::new("")).unwrap();
    assert_eq!(difference(&configured.picture(&Order { guidance: f64::NAN, ..order }), &picture).0, 0);
}

#[test]
fn attention_head_by_head_and_sizes_that_halve_unevenly_draw_alike() {
    let config = serde_json::json!({ "model": generator(), "sliced_attention": true });
    let sliced = Instance::create(&config, std::path::Path::new("")).unwrap();
    let order = Order { width: 124, height: 92, ..Order::default() };
    let (a, b) = (Instance::new().picture(&order), sliced.picture(&order));
    assert_eq!((a.width(), a.height()), (124, 92));
    assert!(difference(&a, &b).0 <= 1);
}

#[test]
fn whoever_does_not_wait_gets_no_picture() {
    let instance = Instance::new();
    let (code, _) = instance.draw(&Order { cancel_at: Some(0), ..Order::default() }).unwrap_err();
    assert_eq!(code, ErrorCode::Cancelled);
    // Also after the last step: decoding is work.
    let (code, _) = instance.draw(&Order { cancel_at: Some(3), ..Order::default() }).unwrap_err();
    assert_eq!(code, ErrorCode::Cancelled);
    let (code, said) = instance.draw(&Order { deadline_ms: 0, ..Order::default() }).unwrap_err();
    assert!(code == ErrorCode::Timeout && said.contains("0 ms"), "{said}");
}

#[test]
fn what_cannot_be_drawn_is_refused_before_and_at_the_drawing() {
    let instance = Instance::new();
    for (field, bad) in [
        ("width", Order { width: 126, ..Order::default() }),
        ("height", Order { height: 2048, ..Order::default() }),
        ("steps", Order { steps: 151, ..Order::default() }),
        ("guidance", Order { guidance: 0.0, ..Order::default() }),
        ("sampler", Order { sampler: "euler-ancestral", ..Order::default() }),
    ] {
        for refused in [instance.check(&bad).unwrap_err(), instance.draw(&bad).unwrap_err()] {
            assert_eq!(refused.0, ErrorCode::Request);
            assert!(refused.1.starts_with(field) && refused.1.contains("expected"), "{}", refused.1);
        }
    }
    instance.check(&Order { sampler: "ddim", ..Order::default() }).unwrap();
}

#[test]
fn a_prompt_that_is_cut_is_told() {
    let instance = Instance::new();
    let prompt = "a cat and a dog and a house and a tree and a cat and a dog and a house and a tree \
                  and a car and a red cup";
    instance.picture(&Order { prompt, steps: 1, guidance: 1.0, ..Order::default() });
    let log = LOG.lock().unwrap().clone();
    assert!(
        log.iter()
            .any(|line| line.starts_with("torch-diffusers 2 the prompt is longer") && line.contains("cup")),
        "{log:?}"
    );
}

#[test]
fn a_generator_that_makes_no_picture_fails() {
    let unet = "unet/diffusion_pytorch_model-00001-of-00002.safetensors";
    let broken = altered(unet, |tensors| fill(tensors, "conv_in.bias", NAN));
    let (code, said) = Instance::of(broken.path()).unwrap().draw(&Order::default()).unwrap_err();
    assert!(code == ErrorCode::Failed && said.contains("latents") && said.contains("step 1"), "{said}");
    // -50 in 16 bits.
    let black = altered(VAE, |tensors| fill(tensors, "decoder.conv_out.bias", 0xd240));
    let (code, said) = Instance::of(black.path()).unwrap().draw(&Order::default()).unwrap_err();
    assert!(code == ErrorCode::Failed && said.contains("black"), "{said}");
}

/// What libtorch refuses in the middle of a model is a panic of diffusers-rs. It must not pass the boundary, and the next
/// drawing goes well. Memory is limited for a process of its own.
#[test]
fn a_panic_inside_is_an_error_outside() {
    let limited = "ulimit -v 12000000; exec \"$0\" --exact in_little_memory --ignored --nocapture";
    let test = std::env::current_exe().unwrap();
    let output = std::process::Command::new("sh").arg("-c").arg(limited).arg(test).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
#[ignore = "run by a_panic_inside_is_an_error_outside, in 12 GB of address space"]
fn in_little_memory() {
    let config = serde_json::json!({ "model": generator(), "max_side": 2048 });
    let instance = Instance::create(&config, std::path::Path::new("")).unwrap();
    // The attention of 65,536 latents takes 64 GiB.
    let large = Order { width: 2048, height: 2048, steps: 1, guidance: 1.0, ..Order::default() };
    let (code, said) = instance.draw(&large).unwrap_err();
    assert!(code == ErrorCode::Panic && said.contains("memory"), "{code:?} {said}");
    instance.picture(&Order { steps: 1, guidance: 1.0, ..Order::default() });
}
