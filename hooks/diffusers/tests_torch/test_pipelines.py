"""diffusers' own pipelines, guarded by a real gateway."""

import numpy as np
import pytest
import torch
from cluegate_diffusers import GuardOptions, HttpGate, SafetyChecker, UngatedDecode, guard
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline

from hook_support import Gateway

STEPS, GUIDANCE, SEED = 20, 5.0, 5


def seeded(seed=SEED):
    return torch.Generator().manual_seed(seed)


def draw(pipe, prompt, **more):
    return pipe(prompt, num_inference_steps=STEPS, guidance_scale=GUIDANCE, **{"generator": seeded(), **more})


class Decoded:
    """Notes what the bare autoencoder is given. To be made before the guard."""

    def __init__(self, pipe):
        self.shapes, bare = [], pipe.vae.decode

        def decode(z, *args, **kwargs):
            self.shapes.append(tuple(z.shape))
            return bare(z, *args, **kwargs)

        pipe.vae.decode = decode


def test_what_is_released_is_the_bare_pipelines_picture(pipe, gateway):
    bare = draw(pipe, "a cat").images[0]
    out = draw(guard(pipe, gateway.gate("open")), "a cat")
    assert [one.reason for one in out.outcomes] == ["safe"] and out.nsfw_content_detected == [False]
    assert np.array_equal(np.asarray(out.images[0]), np.asarray(bare))
    tensor = draw(pipe, "a cat", output_type="pt").images
    assert tensor.shape == (1, 3, *reversed(bare.size))
    assert np.array_equal((tensor[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8), np.asarray(bare))
    with pytest.raises(ValueError, match="latent"):
        draw(pipe, "a cat", output_type="latent")


def test_a_violating_prompt_is_refused_and_one_of_four_costs_only_itself(pipe, gateway):
    guard(pipe, gateway.gate("strict"))
    out = draw(pipe, "a cat")
    assert out.images == [None] and out.nsfw_content_detected == [True]
    assert (out.outcomes[0].reason, out.outcomes[0].violated) == ("violation", ("no-cats",))
    prompts = ["a car", "a cat", "a tree", "a house"]
    out = draw(pipe, prompts, generator=[seeded(seed) for seed in range(4)])
    assert [one.released for one in out.outcomes] == [True, False, True, True], out.outcomes
    assert [one.member for one in out.outcomes] == [0, 1, 2, 3]
    assert [image is None for image in out.images] == out.nsfw_content_detected == [False, True, False, False]


def test_a_placeholder_has_the_pictures_size(pipe, gateway):
    bare = draw(pipe, "a cat").images[0]
    out = draw(guard(pipe, gateway.gate("placeholder")), "a cat")
    assert out.images[0].size == bare.size and not out.outcomes[0].released
    assert not np.array_equal(np.asarray(out.images[0]), np.asarray(bare))


def test_what_fails_is_drawn_again_alone_and_with_other_seeds(pipe, gateway):
    decoded = Decoded(pipe)
    guard(pipe, gateway.gate("again"))
    out = draw(pipe, ["a car", "a cat"], generator=[seeded(1), seeded(2)])
    assert [one.reason for one in out.outcomes][1] == "tries-exhausted" and out.outcomes[0].released
    # Both at first, and the cat by itself twice.
    assert [shape[0] for shape in decoded.shapes] == [2, 1, 1]
    assert out.images[1] is None and out.outcomes[1].seed not in (1, 2)


def test_what_was_rewritten_is_what_is_drawn_next(pipe, gateway):
    prompts, encode = [], pipe.encode_prompt

    def encode_prompt(prompt, *args, **kwargs):
        prompts.append(prompt)
        return encode(prompt, *args, **kwargs)

    pipe.encode_prompt = encode_prompt
    out = draw(guard(pipe, gateway.gate("rewritten")), "a tree and a cat")
    assert prompts == ["a tree and a cat", "a tree"] and out.outcomes[0].reason == "safe", out.outcomes


def test_what_is_hidden_is_not_there(pipe, gateway):
    bare = draw(pipe, "a cat").images[0]
    out = draw(guard(pipe, gateway.gate("hidden")), "a cat")
    told = out.outcomes[0]
    assert told.reason in ("redacted", "redaction-failed") and out.nsfw_content_detected == [True]
    assert (out.images[0] is not None) == (told.reason == "redacted")
    if out.images[0] is not None:
        assert not np.array_equal(np.asarray(out.images[0]), np.asarray(bare))


def counted(pipe):
    """Grows by one with each step of the pipeline."""
    steps, unet = [], pipe.unet.forward

    def forward(*args, **kwargs):
        steps.append(1)
        return unet(*args, **kwargs)

    pipe.unet.forward = forward
    return steps


def test_a_preview_ends_the_loop_and_its_latents_are_never_decoded(pipe, gateway):
    steps = counted(pipe)
    decoded = Decoded(pipe)
    guard(pipe, gateway.gate("early"))
    out = draw(pipe, "a cat")
    assert out.outcomes[0].reason == "violation" and "preview after step 18 of 20" in out.outcomes[0].message
    # One decoding: the preview's. The loop draws on until the verdict is there.
    assert 18 <= len(steps) <= 20 and len(decoded.shapes) == 1 and out.images == [None]


def test_a_loop_that_waits_ends_at_the_previews_own_step(pipe, gateway):
    steps = counted(pipe)
    guard(pipe, gateway.gate("early"), options=GuardOptions(wait_for_previews=True))
    assert draw(pipe, "a cat").outcomes[0].reason == "violation" and len(steps) == 18


def test_a_preview_of_one_lets_the_other_go_on(pipe, gateway):
    out = draw(guard(pipe, gateway.gate("early")), ["a car", "a cat"], generator=[seeded(1), seeded(2)])
    assert [one.released for one in out.outcomes] == [True, False], out.outcomes
    assert "preview" in out.outcomes[1].message


def test_no_way_around(pipe, gateway):
    others = pipe
    guard(pipe, gateway.gate("strict"))
    assert isinstance(pipe, StableDiffusionPipeline) and others is pipe
    latents = torch.randn(1, 4, 32, 32)
    with pytest.raises(UngatedDecode):
        others.vae.decode(latents)
    sibling = StableDiffusionImg2ImgPipeline(**{**pipe.components}, requires_safety_checker=False)
    image = torch.rand(1, 3, 128, 128)
    with pytest.raises(UngatedDecode):
        sibling("a cat", image=image, num_inference_steps=4, strength=0.5)
    with pytest.raises(UngatedDecode):
        StableDiffusionImg2ImgPipeline.from_pipe(pipe)("a cat", image=image, num_inference_steps=4, strength=0.5)
    with pytest.raises(UngatedDecode):
        StableDiffusionPipeline.__call__(pipe, "a cat", num_inference_steps=2)


def test_a_pipeline_from_a_picture_is_guarded_too(pipe, gateway):
    made = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    start = draw(pipe, "a cat").images[0]
    guard(made, gateway.gate("early"))
    out = made("a cat", image=start, num_inference_steps=STEPS, strength=0.5, generator=seeded())
    assert out.outcomes[0].reason == "violation" and out.images == [None]


@pytest.mark.parametrize("tenant, reason", [("slow", "judge-timeout")])
def test_a_slow_judge_releases_nothing(pipe, gateway, tenant, reason):
    out = draw(guard(pipe, gateway.gate(tenant)), "a car")
    assert (out.outcomes[0].reason, out.images) == (reason, [None])


def test_a_gate_that_is_gone_or_too_slow_releases_nothing(pipe, gateway):
    out = draw(guard(pipe, gateway.gate("open", timeout=0.001)), "a car")
    assert (out.outcomes[0].reason, out.images) == ("gate-error", [None])
    pipe.cluegate.gate = HttpGate("http://127.0.0.1:9", "cg_key", timeout=5)
    out = draw(pipe, "a car", num_images_per_prompt=2)
    assert [one.reason for one in out.outcomes] == ["gate-error"] * 2 and out.images == [None, None]


@pytest.mark.parametrize("previews", [True, False])
def test_a_gateway_that_is_killed_in_the_middle_of_the_loop_releases_nothing(pipe, previews):
    steps = []
    with Gateway(f'[tenant.t]\naction.default = "allow"\npreviews = {[0.9] if previews else []}\n') as gateway:
        guard(pipe, gateway.gate("t", timeout=20))

        def kill(pipe, step, timestep, tensors):
            steps.append(step)
            if step == 3:
                gateway.kill()
            return tensors

        out = draw(pipe, ["a car", "a tree"], generator=[seeded(1), seeded(2)], callback_on_step_end=kill)
    assert [one.reason for one in out.outcomes] == ["gate-error"] * 2 and out.images == [None, None]
    # Without an answer to its previews nothing need be drawn to its end.
    assert 18 <= len(steps) <= 20 if previews else len(steps) == 20


def test_exceptions_inside_the_hook_release_nothing(pipe, gateway):
    def decoder(*_):
        raise RuntimeError("the decoder broke")

    guard(pipe, gateway.gate("early"), options=GuardOptions(decoder=decoder))
    with pytest.raises(RuntimeError, match="the decoder broke"):
        draw(pipe, "a car")
    assert [one.reason for one in pipe.cluegate.outcomes] == ["generator-failure"]


def test_the_drop_in_checker(pipe, gateway):
    bare = draw(pipe, "a car").images[0]
    checker = SafetyChecker(gateway.gate("strict"))
    checker.install(pipe)
    out = draw(pipe, ["a car", "a cat"], generator=[seeded(), seeded(2)])
    assert out.nsfw_content_detected == [False, True]
    assert np.array_equal(np.asarray(out.images[0]), np.asarray(bare)) or out.images[0].size == bare.size
    assert np.asarray(out.images[1]).max() == 0
    assert [one.reason for one in checker.outcomes] == ["safe", "violation"]
