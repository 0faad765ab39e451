"""A custom node of ComfyUI that lets its own nodes draw with the embedded generator: the loader, the encoder of texts, the
sampler and the decoder keep their inputs and hand diffusers' pipeline through. ComfyUI itself loads no checkpoint as small
as this one. All else is ComfyUI's: queue, validation, execution, progress, previews, interruption, files, events.

Put into the folder `custom_nodes`; CLUEGATE_SUITE names the folder of the generator. Needs diffusers.
"""

import os

import comfy.model_management
import comfy.utils
import nodes
import torch
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained(os.environ["CLUEGATE_SUITE"], dtype=torch.float32, local_files_only=True)
pipe.set_progress_bar_config(disable=True)


def decoded(latents):
    with torch.no_grad():
        return pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample


class Loader(nodes.CheckpointLoaderSimple):
    def load_checkpoint(self, ckpt_name):
        return pipe, pipe, pipe


class Texts(nodes.CLIPTextEncode):
    def encode(self, clip, text):
        return (text,)


class Sampler(nodes.KSampler):
    def sample(self, model, seed, steps, cfg, sampler_name, scheduler, positive, negative, latent_image, denoise=1.0):
        count, _, height, width = latent_image["samples"].shape
        bar = comfy.utils.ProgressBar(steps)

        def step_ended(_, step, __, tensors):
            comfy.model_management.throw_exception_if_processing_interrupted()
            preview = pipe.image_processor.postprocess(decoded(tensors["latents"][:1]))[0] if step % 4 == 3 else None
            bar.update_absolute(step + 1, steps, preview and ("JPEG", preview, 512))
            return tensors

        latents = pipe(
            positive, negative_prompt=negative, num_images_per_prompt=count, num_inference_steps=steps, guidance_scale=cfg,
            height=8 * height, width=8 * width, output_type="latent", callback_on_step_end=step_ended,
            generator=[torch.Generator().manual_seed(seed + index) for index in range(count)],
        ).images
        return ({"samples": latents},)


class Decoder(nodes.VAEDecode):
    def decode(self, vae, samples):
        return ((decoded(samples["samples"]) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1),)


# ComfyUI passes over custom nodes that have the name of one of its own, so these take their places.
NODE_CLASS_MAPPINGS = {}
nodes.NODE_CLASS_MAPPINGS.update(
    CheckpointLoaderSimple=Loader, CLIPTextEncode=Texts, KSampler=Sampler, VAEDecode=Decoder
)
