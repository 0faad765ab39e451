"""Golden tensors for the diffusion loop, computed by Hugging Face diffusers and transformers.

Made with torch 2.11.0, diffusers 0.42.1, transformers 5.17.0, tokenizers 0.23.3, safetensors 0.8.0 (CPU).

    python plugins/candle-diffusion/goldens/make_goldens.py

Writes `data/` beside this file: small random models in the folder layout of diffusers, and `*.safetensors` with
inputs and expected outputs. Weights are rounded to float16 (to keep the folder small) and computed with in float32.
The seed is fixed, so that a second run writes the same tensors.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
import diffusers.schedulers.scheduling_euler_ancestral_discrete as euler_module
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

OUT = Path(__file__).resolve().parent / "data"
SCALED_LINEAR = dict(
    num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
)
CORPUS = [
    "a man on a beach at night",
    "a woman holding a cup in a room",
    "a dog and a cat on the grass",
    "an old man lying on a bed in the street",
    "the girl's horse isn't on the beach",
    "a boy drinking beer, a baby and 3 flowers",
]
START, END = "<|startoftext|>", "<|endoftext|>"


def randomise(model, seed):
    """Every parameter random and of a size that keeps activations near 1, rounded to float16."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim >= 2:
                fan_in = parameter[0].numel()
                value = noise * (0.5 if "embedding" in name and "time" not in name else fan_in**-0.5)
            elif "norm" in name and name.endswith("weight"):
                value = 1.0 + 0.2 * noise
            else:
                value = 0.1 * noise
            parameter.copy_(value.half().float())
    return model.eval()


def save_half(model, folder, **kwargs):
    model.half().save_pretrained(folder, safe_serialization=True, **kwargs)
    model.float()


def tokenizer_files(folder):
    """A byte-level BPE in the form of CLIP's, as vocab.json and merges.txt."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=END))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=90, end_of_word_suffix="</w>", initial_alphabet=[], show_progress=False),
    )
    merges = [tuple(m) for m in json.loads(tokenizer.to_str())["model"]["merges"]]
    vocab = letters + [letter + "</w>" for letter in letters] + ["".join(m) for m in merges] + [START, END]
    ids = {token: i for i, token in enumerate(dict.fromkeys(vocab))}
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    return ids, merges


def make_tokenizer(max_length):
    ids, merges = tokenizer_files(OUT / "tokenizer-files")
    (OUT / "tokenizer-files/tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": max_length, "pad_token": "!"})
    )
    tokenizer = CLIPTokenizer(vocab=ids, merges=merges, model_max_length=max_length)
    tokenizer.save_pretrained(OUT / "pipeline/tokenizer")
    padded_otherwise = CLIPTokenizer(vocab=ids, merges=merges, model_max_length=max_length, pad_token="!")
    texts = ["", "A man, on a  Beach!", "the girl's 3 dogs aren't \u00fcber at night \u2764", " ".join(CORPUS)]
    cases = []
    for text in texts:
        options = dict(padding="max_length", max_length=max_length, truncation=True)
        cases.append(
            {
                "text": text,
                "ids": tokenizer(text, **options).input_ids,
                "ids_padded_otherwise": padded_otherwise(text, **options).input_ids,
                "tokens": len(tokenizer(text).input_ids),
            }
        )
    (OUT / "tokenizer.json").write_text(json.dumps(cases, indent=1))
    return tokenizer


def text_encoder(vocab, act, width, layers, heads, positions, seed):
    config = CLIPTextConfig(
        vocab_size=vocab,
        hidden_size=width,
        intermediate_size=width * 2,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=positions,
        hidden_act=act,
        bos_token_id=vocab - 2,
        eos_token_id=vocab - 1,
        pad_token_id=vocab - 1,
    )
    return randomise(CLIPTextModel(config), seed)


def golden_text(first, vocab, positions):
    second = text_encoder(vocab, "gelu", 12, 2, 2, positions, 2)
    save_half(second, OUT / "text-gelu")
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, vocab, (2, positions), generator=generator)
    save_file(
        {
            "ids": ids,
            "quick_gelu": first(ids).last_hidden_state.contiguous(),
            "gelu": second(ids).last_hidden_state.contiguous(),
        },
        OUT / "text.safetensors",
    )


def golden_unet(first, second, cross_first, cross_second, positions):
    generator = torch.Generator().manual_seed(5)
    tensors = {}
    for name, unet, cross, size in [("first", first, cross_first, (8, 8)), ("second", second, cross_second, (8, 12))]:
        x = torch.randn(2, 4, *size, generator=generator)
        text = torch.randn(2, positions, cross, generator=generator)
        tensors[name + ".sample"], tensors[name + ".text"] = x, text
        for t in (1, 500, 981):
            tensors[f"{name}.out.{t}"] = unet(x, t, encoder_hidden_states=text).sample
    # A size that the downsampling does not divide: the way up resizes to the sizes of the way down.
    x = torch.randn(2, 4, 7, 6, generator=generator)
    tensors["second.odd.sample"] = x
    tensors["second.odd.out.500"] = second(x, 500, encoder_hidden_states=tensors["second.text"]).sample
    save_file({k: v.contiguous() for k, v in tensors.items()}, OUT / "unet.safetensors")


def golden_vae(vae):
    generator = torch.Generator().manual_seed(7)
    z = torch.randn(2, 4, 8, 6, generator=generator)
    x = torch.rand(1, 3, 16, 12, generator=generator) * 2 - 1
    save_file(
        {
            "latents": z,
            "decoded": vae.decode(z).sample.contiguous(),
            "picture": x,
            "mean": vae.encode(x).latent_dist.mean.contiguous(),
        },
        OUT / "vae.safetensors",
    )


def golden_tiny():
    tiny = randomise(
        AutoencoderTiny(
            encoder_block_out_channels=(4, 4), num_encoder_blocks=(1, 1), decoder_block_out_channels=(8, 8),
            num_decoder_blocks=(2, 1),
        ),
        9,
    )
    save_half(tiny, OUT / "vae_approx")
    # Some latents are large enough to be bent.
    z = torch.randn(2, 4, 8, 6, generator=torch.Generator().manual_seed(10)) * 2
    save_file({"latents": z, "decoded": tiny.decode(z).sample.contiguous()}, OUT / "tiny.safetensors")


SCHEDULERS = {
    "ddim-sd": (DDIMScheduler, dict(SCALED_LINEAR, clip_sample=False, set_alpha_to_one=False, steps_offset=1), 7),
    "ddim-clip": (DDIMScheduler, dict(SCALED_LINEAR, clip_sample=True, set_alpha_to_one=True, steps_offset=0), 6),
    "ddim-trailing-v": (
        DDIMScheduler,
        dict(
            SCALED_LINEAR, clip_sample=False, set_alpha_to_one=False, prediction_type="v_prediction",
            timestep_spacing="trailing",
        ),
        7,
    ),
    "ddim-linear-linspace": (
        DDIMScheduler,
        dict(beta_schedule="linear", clip_sample=False, timestep_spacing="linspace"),
        5,
    ),
    "euler-a-linspace": (EulerAncestralDiscreteScheduler, dict(SCALED_LINEAR), 7),
    "euler-a-leading": (
        EulerAncestralDiscreteScheduler,
        dict(SCALED_LINEAR, timestep_spacing="leading", steps_offset=1),
        6,
    ),
    "euler-a-trailing-v": (
        EulerAncestralDiscreteScheduler,
        dict(SCALED_LINEAR, timestep_spacing="trailing", prediction_type="v_prediction"),
        7,
    ),
    "euler-linspace": (EulerDiscreteScheduler, dict(SCALED_LINEAR), 7),
    "euler-leading": (EulerDiscreteScheduler, dict(SCALED_LINEAR, timestep_spacing="leading", steps_offset=1), 6),
    "euler-trailing-v": (
        EulerDiscreteScheduler,
        dict(SCALED_LINEAR, timestep_spacing="trailing", prediction_type="v_prediction"),
        7,
    ),
    "ddim-squaredcos": (
        DDIMScheduler,
        dict(beta_schedule="squaredcos_cap_v2", clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        6,
    ),
}


def golden_schedulers():
    generator = torch.Generator().manual_seed(11)
    tensors, configs = {}, {}
    for name, (kind, options, steps) in SCHEDULERS.items():
        scheduler = kind(**options)
        configs[name] = {"steps": steps, "config": json.loads(scheduler.to_json_string())}
        scheduler.set_timesteps(steps)
        initial = torch.randn(1, 2, 4, 4, generator=generator)
        x = initial * scheduler.init_noise_sigma
        outputs, noises, inputs, samples, origins = [], [], [], [x], []
        for t in scheduler.timesteps:
            inputs.append(scheduler.scale_model_input(x, t))
            outputs.append(torch.randn(x.shape, generator=generator))
            noises.append(torch.randn(x.shape, generator=generator))
            euler_module.randn_tensor = lambda *_, noise=noises[-1], **__: noise
            result = scheduler.step(outputs[-1], t, x)
            x = result.prev_sample
            samples.append(x)
            origins.append(result.pred_original_sample)
        tensors[name + ".initial"] = initial
        tensors[name + ".timesteps"] = scheduler.timesteps.float()
        for key, values in [
            ("inputs", inputs), ("outputs", outputs), ("noises", noises), ("samples", samples), ("origins", origins),
        ]:
            tensors[f"{name}.{key}"] = torch.cat(values).contiguous()
    save_file(tensors, OUT / "schedulers.safetensors")
    (OUT / "schedulers.json").write_text(json.dumps(configs, indent=1))


def golden_pipeline(tokenizer, encoder, unet, vae):
    scheduler = DDIMScheduler(**SCALED_LINEAR, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    pipe = StableDiffusionPipeline(
        vae=vae, text_encoder=encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    for model in (vae, encoder, unet):
        model.half()
    pipe.save_pretrained(OUT / "pipeline", safe_serialization=True)
    for model in (vae, encoder, unet):
        model.float()
    generator = torch.Generator().manual_seed(13)
    steps, size = 5, (8, 12)
    noise = torch.randn(1 + steps, 4, *size, generator=generator)
    request = dict(
        prompt="a dog and a cat on the grass", negative_prompt="a man at night", num_inference_steps=steps,
        guidance_scale=4.0, height=size[0] * 2, width=size[1] * 2, output_type="np",
    )
    tensors = {"noise": noise}
    # As a user switches schedulers: from the file, in which every option is explicit. The object in memory still
    # knows which options it was not given, and would leave those to the other scheduler's defaults.
    saved = DDIMScheduler.from_pretrained(OUT / "pipeline/scheduler")
    for name, kind in [("ddim", DDIMScheduler), ("euler-a", EulerAncestralDiscreteScheduler)]:
        pipe.scheduler = kind.from_config(saved.config)
        left, latents = list(noise[1:].split(1)), []
        euler_module.randn_tensor = lambda *_, **__: left.pop(0)

        def keep(_pipe, _step, _t, kwargs):
            latents.append(kwargs["latents"])
            return kwargs

        picture = pipe(**request, latents=noise[:1].clone(), callback_on_step_end=keep).images[0]
        tensors[name + ".latents"] = torch.cat(latents).contiguous()
        tensors[name + ".picture"] = torch.from_numpy(np.ascontiguousarray(picture))
    save_file(tensors, OUT / "pipeline.safetensors")


@torch.no_grad()
def main():
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    if OUT.exists():
        shutil.rmtree(OUT)
    OUT.mkdir()
    positions = 20
    tokenizer = make_tokenizer(positions)
    vocab = len(tokenizer)
    encoder = text_encoder(vocab, "quick_gelu", 16, 2, 4, positions, 1)
    # As Stable Diffusion 1.x: one number of heads, projections as convolutions.
    first = randomise(
        UNet2DConditionModel(
            sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=16, attention_head_dim=2,
        ),
        4,
    )
    # As Stable Diffusion 2.x: a list of head counts, linear projections; and three levels of unequal depth, shards.
    second = randomise(
        UNet2DConditionModel(
            sample_size=8, block_out_channels=(4, 8, 12), layers_per_block=[1, 2, 1], norm_num_groups=2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=12,
            attention_head_dim=[1, 2, 3], use_linear_projection=True, flip_sin_to_cos=False, freq_shift=1,
        ),
        6,
    )
    save_half(second, OUT / "unet-second", max_shard_size="90KB")
    vae = randomise(
        AutoencoderKL(
            block_out_channels=(8, 12), layers_per_block=1, norm_num_groups=4, latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
            sample_size=16, scaling_factor=0.7,
        ),
        8,
    )
    golden_text(encoder, vocab, positions)
    golden_unet(first, second, 16, 12, positions)
    golden_vae(vae)
    golden_tiny()
    golden_schedulers()
    golden_pipeline(tokenizer, encoder, first, vae)
    for path in OUT.rglob("*"):
        if path.name.endswith(".index.json"):
            path.write_text(json.dumps(json.loads(path.read_text()), separators=(",", ":")))
        path.chmod(0o755 if path.is_dir() else 0o644)
    total = sum(f.stat().st_size for f in OUT.rglob("*") if f.is_file())
    print(f"{total / 1000:.0f} kB in {OUT.name}")


if __name__ == "__main__":
    main()
