"""Pipelines of every family that the guard names, with random weights of a few kilobytes: SD 1, SD XL, SD 3 and Flux.

What they draw is noise, so the gate here is one that says what the test wants; the loop, the callback, the latents' layout
and the way to a picture are diffusers' own.
"""

import numpy as np
import pytest
import torch
from cluegate_client import Abort, Continue, DrawAgain, Outcome, Release, Withhold
from cluegate_diffusers import UngatedDecode, guard
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    EulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)

SIDE = 32


class Gate:
    """Judges by script: the first finished picture of each session is to be drawn again, previews are fine or are not."""

    def __init__(self, abort=False):
        self.abort, self.sizes, self.previews = abort, [], []

    def open(self, request):
        self.request, self.tries_left = request, {member: 1 for member in range(request.count)}
        self.request_id, self.seeds, self.tries = "r", tuple(range(request.count)), 2
        self.preview_steps = frozenset({2})
        return self

    def preview(self, member, step, total, image):
        self.previews.append((member, step, total, image.size))
        if self.abort:
            return Abort(Withhold(Outcome("withheld", "violation", "no", member, "d")))
        return Continue()

    def finished(self, member, image):
        self.sizes.append(image.size)
        if self.tries_left[member]:
            self.tries_left[member] -= 1
            return DrawAgain(2, 77)
        return Release(image, Outcome("released", "safe", "fine", member, "d"))

    def failed(self, member, why):
        return Withhold(Outcome("withheld", "generator-failure", why, member, "d"))

    def close(self):
        return []


def vae(channels, **more):
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(4, 4), norm_num_groups=1, latent_channels=channels,
        down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2, **more,
    )  # fmt: skip


def xl():
    unet = UNet2DConditionModel(
        block_out_channels=(4, 8), layers_per_block=1, sample_size=SIDE // 2, norm_num_groups=1, attention_head_dim=(2, 4),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 1), projection_class_embeddings_input_dim=16 + 6 * 8, cross_attention_dim=16,
    )  # fmt: skip
    pipe = StableDiffusionXLPipeline(
        vae=vae(4), text_encoder=None, text_encoder_2=None, tokenizer=None, tokenizer_2=None, unet=unet,
        scheduler=EulerDiscreteScheduler(), force_zeros_for_empty_prompt=True, add_watermarker=False,
    )  # fmt: skip
    # What the pipeline asks of an encoder that is not there.
    words = {"prompt_embeds": torch.randn(1, 4, 16), "pooled_prompt_embeds": torch.randn(1, 16)}
    return pipe, {**words, "guidance_scale": 1.0}


def three():
    transformer = SD3Transformer2DModel(
        sample_size=SIDE // 2, patch_size=1, in_channels=8, num_layers=1, attention_head_dim=4, num_attention_heads=2,
        joint_attention_dim=16, caption_projection_dim=8, pooled_projection_dim=16, out_channels=8,
    )  # fmt: skip
    pipe = StableDiffusion3Pipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(), vae=vae(8, shift_factor=0.06, scaling_factor=1.5),
        text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None, text_encoder_3=None, tokenizer_3=None,
    )  # fmt: skip
    words = {"prompt_embeds": torch.randn(1, 4, 16), "pooled_prompt_embeds": torch.randn(1, 16)}
    return pipe, {**words, "guidance_scale": 1.0}


def flux():
    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=16, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    pipe = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(), vae=vae(4, shift_factor=0.06, scaling_factor=1.5), text_encoder=None,
        tokenizer=None, text_encoder_2=None, tokenizer_2=None, transformer=transformer,
    )  # fmt: skip
    return pipe, {"prompt_embeds": torch.randn(1, 4, 16), "pooled_prompt_embeds": torch.randn(1, 16)}


@pytest.fixture(params=[xl, three, flux], ids=["xl", "sd3", "flux"])
def made(request):
    torch.set_grad_enabled(False)
    torch.manual_seed(1)
    pipe, words = request.param()
    pipe.set_progress_bar_config(disable=True)
    return pipe, {**words, "width": SIDE, "height": SIDE, "num_inference_steps": 4}


def test_a_pipeline_without_a_checkers_slot_is_guarded(made):
    pipe, asked = made
    assert not hasattr(pipe, "safety_checker")
    bare = pipe(**asked, generator=torch.Generator().manual_seed(77)).images[0]
    gate = Gate()
    guard(pipe, gate)
    out = pipe(**asked, num_images_per_prompt=2, generator=torch.Generator().manual_seed(3))
    assert [one.reason for one in out.outcomes] == ["safe", "safe"] and gate.sizes == [bare.size] * 4
    # Drawn again by itself with the gate's seed: what the bare pipeline draws with it.
    assert all(np.array_equal(np.asarray(image), np.asarray(bare)) for image in out.images)
    # Twice for both together, and once for each that was drawn again.
    assert gate.previews == [(member, 2, 4, bare.size) for member in (0, 1, 0, 1)]
    with pytest.raises(UngatedDecode):
        pipe.vae.decode(torch.zeros(1, pipe.vae.config.latent_channels, 4, 4))


def test_a_preview_ends_every_familys_loop(made):
    pipe, asked = made
    decoded, bare = [], pipe.vae.decode
    pipe.vae.decode = lambda z, *args, **kwargs: decoded.append(len(z)) or bare(z, *args, **kwargs)
    gate = Gate(abort=True)
    out = guard(pipe, gate)(**asked, num_images_per_prompt=2)
    assert [one.reason for one in out.outcomes] == ["violation"] * 2 and out.images == [None, None]
    assert decoded == [1, 1] and gate.sizes == []
