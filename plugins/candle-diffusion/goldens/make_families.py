"""Golden tensors for the families of models beside Stable Diffusion 1.x, computed by Hugging Face diffusers.

Made with torch 2.11.0, diffusers 0.42.1, transformers 5.17.0, tokenizers 0.23.3, safetensors 0.8.0 (CPU).

    python plugins/candle-diffusion/goldens/make_families.py

Writes `families/` beside this file: for each case `NAME.json` with all files of a diffusers folder except weights and
tokenizers, and the name and shape of every tensor as `save_pretrained` stored it; and `NAME.safetensors` with inputs and
expected outputs. Weights are not stored: both sides compute them from the tensor's name (see `values`).

`flow.json` has the noise levels of flows. Expected are the text encoders' output, one call of the denoiser, the VAE's decoder and encoder, and the latents after each
step and the picture of four steps from text, from a picture, and from a picture with a mask. Noise is drawn once and handed
to diffusers in the order in which it asks. Of the VAE's distribution its mean is taken, as the Rust side does.
"""

import json
import shutil
import tempfile
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

HERE = Path(__file__).resolve().parent
OUT = HERE / "families"
STEPS, STRENGTH = 4, 0.6
PROMPT, NEGATIVE = "a dog and a cat on the grass", "a man at night"
SCALED_LINEAR = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def values(name, shape):
    """The numbers of a tensor: splitmix64 over a FNV-1a hash of its name, stretched and shifted by what kind it is."""
    hashed = 0xCBF29CE484222325
    for byte in name.encode():
        hashed = ((hashed ^ byte) * 0x100000001B3) & (2**64 - 1)
    count = int(np.prod(shape))
    with np.errstate(over="ignore"):
        z = np.uint64(hashed) + (np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    unit = (z >> np.uint64(11)).astype(np.float64) * 2.0**-53 * 2.0 - 1.0
    norm = "norm" in name and "linear" not in name and name.endswith("weight")
    table = "embeddings" in name or "pos_embed.pos" in name or name in ("shared.weight",)
    if norm:
        numbers = 1.0 + 0.3 * unit
    elif table:
        numbers = 0.8 * unit
    elif len(shape) >= 2:
        numbers = unit * (3.0 / np.prod(shape[1:])) ** 0.5
    else:
        numbers = 0.15 * unit
    return torch.from_numpy(numbers.astype(np.float32).reshape(shape))


def fill(model):
    """Fills a model and answers names and shapes of its tensors as they are stored."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, safe_serialization=True)
        (path,) = Path(folder).glob("*.safetensors")
        with safe_open(path, "pt") as stored:
            shapes = {name: list(stored.get_slice(name).get_shape()) for name in stored.keys()}
    state = model.state_dict()
    tied = {"encoder.embed_tokens.weight": "shared.weight"}
    prefixes = ["", "text_model."]
    filled = {}
    for name in state:
        stored = next(p + tied.get(name, name) for p in prefixes if p + tied.get(name, name) in shapes)
        filled[name] = values(stored, tuple(state[name].shape))
    model.load_state_dict(filled, strict=True)
    return shapes


def clip(kind, vocab, width, layers, projection, act, positions, eos):
    return kind(
        CLIPTextConfig(
            vocab_size=vocab, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
            num_attention_heads=2, max_position_embeddings=positions, hidden_act=act, projection_dim=projection,
            bos_token_id=vocab - 2, eos_token_id=eos, pad_token_id=vocab - 1,
        )
    ).eval()


def clip_tokenizer(pad=None):
    vocab = json.loads((HERE / "data/tokenizer-files/vocab.json").read_text())
    lines = (HERE / "data/tokenizer-files/merges.txt").read_text().splitlines()[1:]
    merges = [tuple(line.split(" ")) for line in lines]
    options = dict(pad_token=pad) if pad else {}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=20, **options), len(vocab)


def t5_tokenizer():
    """A SentencePiece-like tokenizer of unigrams with T5's marks, in the form of `tokenizer.json`."""
    words = sorted({word for word in (PROMPT + " " + NEGATIVE).split()})
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [("\u2581" + word, -2.0 - i / 10) for i, word in enumerate(words)]
    pieces += [(letter, -6.0 - i / 10) for i, letter in enumerate("\u2581abcdefghijklmnopqrstuvwxyz")]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return tokenizer, len(pieces)


def t5(vocab, width):
    config = T5Config(
        vocab_size=vocab, d_model=width, d_kv=6, d_ff=2 * width, num_layers=2, num_heads=3,
        relative_attention_num_buckets=8, relative_attention_max_distance=12, feed_forward_proj="gated-gelu",
    )
    return T5EncoderModel(config).eval()


def unet(cross, heads, channels=(8, 16), depth=1, **options):
    types = ("DownBlock2D", "CrossAttnDownBlock2D"), ("CrossAttnUpBlock2D", "UpBlock2D")
    return diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=channels, layers_per_block=1, norm_num_groups=4, down_block_types=types[0],
        up_block_types=types[1], cross_attention_dim=cross, attention_head_dim=heads, use_linear_projection=True,
        transformer_layers_per_block=depth, **options,
    ).eval()


def vae(channels=4, scale=0.7, **options):
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 12), layers_per_block=1, norm_num_groups=4, latent_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, sample_size=16,
        scaling_factor=scale, **options,
    ).eval()


XL_ADDED = dict(addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=34)
FLOW = diffusers.FlowMatchEulerDiscreteScheduler


def stable_diffusion_2():
    tokenizer, vocab = clip_tokenizer("!")
    return diffusers.StableDiffusionPipeline(
        vae=vae(), text_encoder=clip(CLIPTextModel, vocab, 16, 3, 12, "gelu", 20, 2), tokenizer=tokenizer,
        unet=unet(16, [1, 2]), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        scheduler=diffusers.DDIMScheduler(
            **SCALED_LINEAR, clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type="v_prediction"
        ),
    )


def inpaint():
    tokenizer, vocab = clip_tokenizer()
    return diffusers.StableDiffusionInpaintPipeline(
        vae=vae(), text_encoder=clip(CLIPTextModel, vocab, 16, 2, 12, "quick_gelu", 20, vocab - 1), tokenizer=tokenizer,
        unet=unet(16, [1, 2], in_channels=9), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
        scheduler=diffusers.DDIMScheduler(**SCALED_LINEAR, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
    )


def xl(scheduler):
    (first, vocab), (second, _) = clip_tokenizer(), clip_tokenizer("!")
    return diffusers.StableDiffusionXLPipeline(
        vae=vae(), text_encoder=clip(CLIPTextModel, vocab, 8, 2, 12, "quick_gelu", 20, 2), tokenizer=first,
        text_encoder_2=clip(CLIPTextModelWithProjection, vocab, 12, 3, 10, "gelu", 20, 2), tokenizer_2=second,
        unet=unet(20, [1, 2], depth=[1, 2], **XL_ADDED), scheduler=scheduler, add_watermarker=False,
    )


def sdxl():
    return xl(diffusers.EulerDiscreteScheduler(**SCALED_LINEAR, timestep_spacing="leading", steps_offset=1))


def sdxl_turbo():
    return xl(diffusers.EulerAncestralDiscreteScheduler(**SCALED_LINEAR, timestep_spacing="trailing"))


def sd3(with_t5=True):
    (first, vocab), (second, _), (third, words) = clip_tokenizer(), clip_tokenizer("!"), t5_tokenizer()
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=16, num_layers=3, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=24, caption_projection_dim=16, pooled_projection_dim=18, out_channels=16,
        pos_embed_max_size=7, dual_attention_layers=(0,), qk_norm="rms_norm",
    ).eval()
    third = T5TokenizerFast(
        tokenizer_object=third, model_max_length=24, extra_ids=0, eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer, scheduler=FLOW(shift=3.0), vae=vae(16, 1.5, shift_factor=0.06, **NO_QUANT),
        text_encoder=clip(CLIPTextModelWithProjection, vocab, 8, 2, 8, "quick_gelu", 20, 2), tokenizer=first,
        text_encoder_2=clip(CLIPTextModelWithProjection, vocab, 12, 3, 10, "gelu", 20, vocab - 1), tokenizer_2=second,
        text_encoder_3=t5(words, 24), tokenizer_3=third,
    )


NO_QUANT = dict(use_quant_conv=False, use_post_quant_conv=False)


def flux(guidance, scheduler):
    (first, vocab), (second, words) = clip_tokenizer(), t5_tokenizer()
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=32, num_layers=2, num_single_layers=2, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=24, pooled_projection_dim=8, guidance_embeds=guidance, axes_dims_rope=(2, 2, 4),
    ).eval()
    second = T5TokenizerFast(
        tokenizer_object=second, model_max_length=24, extra_ids=0, eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    return diffusers.FluxPipeline(
        transformer=transformer, scheduler=scheduler, vae=vae(8, 0.36, shift_factor=0.11, **NO_QUANT),
        text_encoder=clip(CLIPTextModel, vocab, 8, 2, 8, "quick_gelu", 20, 2), tokenizer=first,
        text_encoder_2=t5(words, 24), tokenizer_2=second,
    )


def flux_schnell():
    return flux(False, FLOW(shift=1.0, base_shift=0.5, max_shift=1.15))


def flux_dev():
    dynamic = dict(base_shift=0.5, max_shift=1.15, base_image_seq_len=16, max_image_seq_len=64)
    return flux(True, FLOW(shift=3.0, use_dynamic_shifting=True, **dynamic))


def flow_schedules():
    """Noise levels and timesteps of flows: configuration, steps, tokens, and whether they are spread evenly as for Flux."""
    dynamic = dict(use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15)
    cases = [
        (dict(shift=1.0), 4, 4096, True), (dict(shift=3.0), 28, 4096, False), (dict(shift=3.0), 1, 256, False),
        (dict(shift=3.0, **dynamic), 28, 4096, True), (dict(shift=3.0, **dynamic), 7, 300, True),
        (dict(**dynamic), 9, 1024, False), (dict(time_shift_type="linear", **dynamic), 6, 2048, True),
    ]
    rows = []
    for options, steps, tokens, even in cases:
        scheduler = FLOW(**options)
        config = scheduler.config
        slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
        mu = tokens * slope + config.base_shift - slope * config.base_image_seq_len
        given = dict(sigmas=np.linspace(1.0, 1 / steps, steps)) if even else dict(num_inference_steps=steps)
        scheduler.set_timesteps(**given, mu=mu if config.use_dynamic_shifting else None)
        rows.append(
            dict(
                config=json.loads(scheduler.to_json_string()), steps=steps, tokens=tokens, even=even,
                sigmas=scheduler.sigmas.tolist(), timesteps=scheduler.timesteps.tolist(),
            )
        )
    (OUT / "flow.json").write_text(json.dumps(rows, separators=(",", ":")))


# Name, pipeline, class prefix, guidance scale of the calls.
CASES = [
    ("stable-diffusion-2", stable_diffusion_2, "StableDiffusion", 4.0),
    ("inpaint-9", inpaint, "StableDiffusion", 4.0),
    ("sdxl", sdxl, "StableDiffusionXL", 4.0),
    ("sdxl-turbo", sdxl_turbo, "StableDiffusionXL", 0.0),
    ("sd3", sd3, "StableDiffusion3", 4.0),
    ("flux-schnell", flux_schnell, "Flux", 0.0),
    ("flux-dev", flux_dev, "Flux", 3.5),
]


class Noise:
    """Hands out slices of one tensor, in order, to every pipeline and scheduler."""

    def __init__(self, tensor):
        self.tensor, self.next = tensor, 0

    def __call__(self, shape, *_, **__):
        drawn = self.tensor[self.next : self.next + 1]
        self.next += 1
        assert tuple(drawn.shape) == tuple(shape), (drawn.shape, shape)
        return drawn.clone()


def hand_out(noise):
    import sys

    for name, module in list(sys.modules.items()):
        if name.startswith("diffusers.") and hasattr(module, "randn_tensor"):
            module.randn_tensor = noise


def unpacked(latents, height, width):
    return diffusers.FluxPipeline._unpack_latents(latents, height, width, 2) if latents.ndim == 3 else latents


def folder_of(pipe, shapes, guidance):
    """All files of the pipeline's folder but weights and tokenizers."""
    with tempfile.TemporaryDirectory() as folder:
        pipe.save_pretrained(folder, safe_serialization=True)
        files = {}
        for path in sorted(Path(folder).rglob("*.json")):
            name = path.relative_to(folder).as_posix()
            if name.startswith("tokenizer"):
                (OUT / "tokenizers").mkdir(parents=True, exist_ok=True)
                kind = type(getattr(pipe, name.split("/")[0])).__name__
                if path.name == "tokenizer.json":
                    target = OUT / "tokenizers" / ("t5.json" if kind.startswith("T5") else "clip.json")
                    text = json.dumps(json.loads(path.read_text()), separators=(",", ":"), ensure_ascii=False)
                    # A padding token of its own is named in the other file.
                    if not target.exists():
                        target.write_text(text)
                    files[name] = {"same as": target.name}
                    continue
            files[name] = json.loads(path.read_text())
    return {"files": files, "tensors": shapes, "guidance": guidance}


def embeddings(pipe, name, guidance):
    """What the denoiser attends to, for the negative prompt and the prompt, or the prompt alone."""
    if name.startswith("flux"):
        states, pooled, _ = pipe.encode_prompt(prompt=PROMPT, max_sequence_length=24)
        return states, pooled
    if name == "sd3":
        states, negative, pooled, no_pooled = pipe.encode_prompt(
            prompt=PROMPT, prompt_2=None, prompt_3=None, negative_prompt=NEGATIVE, max_sequence_length=24
        )
        return torch.cat([negative, states]), torch.cat([no_pooled, pooled])
    if name.startswith("sdxl"):
        guided = guidance > 1
        states, negative, pooled, no_pooled = pipe.encode_prompt(
            prompt=PROMPT, negative_prompt=NEGATIVE, do_classifier_free_guidance=guided
        )
        return (torch.cat([negative, states]), torch.cat([no_pooled, pooled])) if guided else (states, pooled)
    states, negative = pipe.encode_prompt(PROMPT, "cpu", 1, True, negative_prompt=NEGATIVE)
    return torch.cat([negative, states]), None


def one_call(pipe, name, guidance, states, pooled, latents):
    rows = latents.repeat(states.shape[0], 1, 1, 1)
    height, width = latents.shape[2] * 2, latents.shape[3] * 2
    if name.startswith("flux"):
        packed = pipe._pack_latents(rows, 1, rows.shape[1], rows.shape[2], rows.shape[3])
        ids = pipe._prepare_latent_image_ids(1, rows.shape[2] // 2, rows.shape[3] // 2, "cpu", torch.float32)
        out = pipe.transformer(
            hidden_states=packed, timestep=torch.tensor([0.501]), encoder_hidden_states=states,
            pooled_projections=pooled, txt_ids=torch.zeros(states.shape[1], 3), img_ids=ids,
            guidance=torch.tensor([guidance]) if pipe.transformer.config.guidance_embeds else None,
        ).sample
        return unpacked(out, height, width)
    if name == "sd3":
        return pipe.transformer(rows, states, pooled, torch.full((2,), 501.0)).sample
    added = None
    if name.startswith("sdxl"):
        sizes = torch.tensor([[height, width, 0, 0, height, width]]).float().repeat(rows.shape[0], 1)
        added = dict(text_embeds=pooled, time_ids=sizes)
    if pipe.unet.config.in_channels == 9:
        rows = torch.cat([rows, rows[:, :1], rows], dim=1)
    return pipe.unet(rows, 501, encoder_hidden_states=states, added_cond_kwargs=added).sample


def whole(pipe, kind, tensors, noise, request, image, mask):
    hand_out(Noise(noise))
    latents = []

    def keep(_pipe, _step, _t, kwargs):
        latents.append(unpacked(kwargs["latents"], image.height, image.width))
        return kwargs

    given = {
        "text": dict(height=image.height, width=image.width),
        "image": dict(image=image, strength=STRENGTH),
        "mask": dict(image=image, mask_image=mask, strength=STRENGTH, height=image.height, width=image.width),
        "mask-all": dict(image=image, mask_image=mask, strength=1.0, height=image.height, width=image.width),
    }[kind]
    if kind == "image" and type(pipe).__name__.startswith(("Flux", "StableDiffusion3")):
        given.update(height=image.height, width=image.width)
    picture = pipe(**request, **given, output_type="np", callback_on_step_end=keep).images[0]
    if type(pipe).__name__ == "StableDiffusion3InpaintPipeline":
        # It decodes without the VAE's shift, unlike its two siblings and the model's paper.
        x = latents[-1] / pipe.vae.config.scaling_factor + pipe.vae.config.shift_factor
        picture = pipe.image_processor.postprocess(pipe.vae.decode(x).sample, output_type="np")[0]
    tensors[f"{kind}.latents"] = torch.cat(latents).contiguous()
    tensors[f"{kind}.picture"] = torch.from_numpy(np.ascontiguousarray(picture))


@torch.no_grad()
def make(name, build, prefix, guidance):
    pipe = build()
    pipe.set_progress_bar_config(disable=True)
    shapes = {
        part: fill(model)
        for part, model in pipe.components.items()
        if isinstance(model, torch.nn.Module)
    }
    (OUT / f"{name}.json").write_text(json.dumps(folder_of(pipe, shapes, guidance), separators=(",", ":"), ensure_ascii=False))
    generator = torch.Generator().manual_seed(sum(name.encode()))
    channels = pipe.vae.config.latent_channels
    height, width = 16, 24
    noise = torch.randn(1 + STEPS, channels, height // 2, width // 2, generator=generator)
    pixels = torch.rand(height, width, 3, generator=generator)
    image = Image.fromarray((pixels * 255).round().byte().numpy())
    marks = np.zeros((height, width), dtype=np.uint8)
    marks[3:11, 5:17] = 255
    marks[12:, :8] = 127
    mask = Image.fromarray(marks)
    states, pooled = embeddings(pipe, name, guidance)
    tensors = {"noise": noise, "states": states.contiguous()}
    if pooled is not None:
        tensors["pooled"] = pooled.contiguous()
    tensors["image"] = torch.from_numpy(np.array(image)).float()
    tensors["mask"] = torch.from_numpy(marks).float()
    tensors["call"] = one_call(pipe, name, guidance, states, pooled, noise[:1]).contiguous()
    tensors["decoded"] = pipe.vae.decode(noise[1:2]).sample.contiguous()
    x = (torch.from_numpy(np.array(image)).float() / 255 * 2 - 1).permute(2, 0, 1)[None]
    tensors["encoded"] = pipe.vae.encode(x).latent_dist.mean.contiguous()
    request = dict(prompt=PROMPT, num_inference_steps=STEPS, guidance_scale=guidance)
    if prefix != "Flux":
        request["negative_prompt"] = NEGATIVE
    if prefix in ("Flux", "StableDiffusion3"):
        request["max_sequence_length"] = 24
    kinds = {"text": "Pipeline", "image": "Img2ImgPipeline", "mask": "InpaintPipeline", "mask-all": "InpaintPipeline"}
    for kind, end in kinds.items():
        if name == "inpaint-9" and not kind.startswith("mask"):
            continue
        other = getattr(diffusers, prefix + end)
        options = dict(pipe.components)
        if prefix == "StableDiffusion":
            options["requires_safety_checker"] = False
        ready = other(**options) if type(pipe) is not other else pipe
        ready.set_progress_bar_config(disable=True)
        whole(ready, kind, tensors, noise, request, image, mask)
    save_file(tensors, OUT / f"{name}.safetensors")


def main():
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    DiagonalGaussianDistribution.sample = lambda self, *_, **__: self.mode()
    if OUT.exists():
        shutil.rmtree(OUT)
    OUT.mkdir()
    flow_schedules()
    for case in CASES:
        make(*case)
        print(case[0])
    total = 0
    for path in OUT.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
        total += path.stat().st_size if path.is_file() else 0
    print(f"{total / 1000:.0f} kB in {OUT.name}")


if __name__ == "__main__":
    main()
