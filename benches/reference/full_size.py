"""Checkpoints in the published shapes, with random weights: what `cluegate probe` and transformers make of them.

    python full_size.py CLUEGATE GOLDENS WORK OUTPUT [--only NAME ...] [--device cuda] [--quantised FORM ...] [--as-they-are]

CLUEGATE is the program (for a GPU a build with the feature `cuda`), GOLDENS the folder of the small checkpoints whose
tokenizers, chat templates and processors are taken over, WORK a folder with room for one checkpoint of 8 billion
parameters at a time, OUTPUT the JSON file that is written: for each family the parameters, the prompt's tokens, the
largest difference between the logits of the twenty most probable tokens relative to the largest logit (from
transformers in the same type, and of both from transformers in float32), seconds and the most memory of the GPU.
`--as-they-are` leaves the small checkpoints small, to try this program without a GPU.

The token ids that `probe` prints are what transformers reads: that they are right is the golden tests' business.
"""

import argparse
import gc
import inspect
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import common
import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText

SIDE = 1024
QUESTION = "Look only at what this image shows. Is the following statement true of it? Statement: a dog is visible."
STD = 0.02

QWEN2_7B = dict(
    hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4,
    vocab_size=152064, max_position_embeddings=32768, rms_norm_eps=1e-6,
)
LLAMA_7B = dict(
    hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=32,
    vocab_size=32064, max_position_embeddings=4096, rms_norm_eps=1e-5, head_dim=128,
)
MISTRAL_7B = LLAMA_7B | dict(intermediate_size=14336, num_key_value_heads=8, max_position_embeddings=32768)
LLAMA3_8B = MISTRAL_7B | dict(vocab_size=128259, max_position_embeddings=131072)
QWEN3_8B = dict(
    hidden_size=4096, intermediate_size=12288, num_hidden_layers=36, num_attention_heads=32, num_key_value_heads=8,
    head_dim=128, vocab_size=151936, max_position_embeddings=262144, rms_norm_eps=1e-6,
)
CLIP_L_336 = dict(
    hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=336,
    patch_size=14,
)
ROPE_1E6 = dict(rope_type="default", rope_theta=1e6)
MROPE = ROPE_1E6 | dict(mrope_section=[16, 24, 24])
# Of each family: the small checkpoint, what of its configuration is replaced, and the same of its processor's.
FAMILIES = {
    "Qwen2-VL-7B": dict(
        golden="qwen2_vl",
        text=QWEN2_7B | dict(rope_parameters=MROPE),
        vision=dict(depth=32, embed_dim=1280, num_heads=16, mlp_ratio=4, hidden_size=3584, patch_size=14),
        processor=dict(
            patch_size=14, min_pixels=56 * 56, max_pixels=28 * 28 * 16384,
            size=dict(shortest_edge=56 * 56, longest_edge=28 * 28 * 16384)),
        prompt="<|vision_start|><|image_pad|><|vision_end|>",
    ),
    "Qwen2.5-VL-7B": dict(
        golden="qwen2_5_vl",
        text=QWEN2_7B | dict(rope_parameters=MROPE, max_position_embeddings=128000),
        vision=dict(
            depth=32, hidden_size=1280, intermediate_size=3420, num_heads=16, out_hidden_size=3584, patch_size=14,
            window_size=112, fullatt_block_indexes=[7, 15, 23, 31]),
        processor=dict(
            patch_size=14, min_pixels=56 * 56, max_pixels=28 * 28 * 16384,
            size=dict(shortest_edge=56 * 56, longest_edge=28 * 28 * 16384)),
        prompt="<|vision_start|><|image_pad|><|vision_end|>",
    ),
    "Qwen3-VL-8B": dict(
        golden="qwen3_vl",
        text=QWEN3_8B | dict(rope_parameters=dict(
            rope_type="default", rope_theta=5e6, mrope_section=[24, 20, 20], mrope_interleaved=True)),
        vision=dict(
            depth=27, hidden_size=1152, intermediate_size=4304, num_heads=16, out_hidden_size=4096, patch_size=16,
            num_position_embeddings=2304, deepstack_visual_indexes=[8, 16, 24]),
        processor=dict(patch_size=16, size=dict(shortest_edge=65536, longest_edge=16777216)),
        prompt="<|vision_start|><|image_pad|><|vision_end|>",
    ),
    "InternVL3-8B": dict(
        golden="internvl",
        text=QWEN2_7B | dict(vocab_size=151674, rope_parameters=ROPE_1E6),
        vision=dict(
            hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16,
            image_size=[448, 448], patch_size=[14, 14]),
        top=dict(downsample_ratio=0.5, image_seq_length=256), processor_top=dict(image_seq_length=256),
        processor=dict(size=dict(height=448, width=448), crop_to_patches=True, min_patches=1, max_patches=12),
        prompt="<IMG_CONTEXT>\n",
    ),
    "LLaVA-1.5-7B": dict(
        golden="llava", text=LLAMA_7B, vision=CLIP_L_336,
        processor=dict(size=dict(shortest_edge=336), crop_size=dict(height=336, width=336)),
        prompt="<image>\n",
    ),
    "LLaVA-v1.6-Mistral-7B": dict(
        golden="llava_next", text=MISTRAL_7B | dict(rope_parameters=ROPE_1E6, sliding_window=None), vision=CLIP_L_336,
        top=dict(image_grid_pinpoints=[[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]),
        processor=dict(
            size=dict(shortest_edge=336), crop_size=dict(height=336, width=336),
            image_grid_pinpoints=[[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]),
        prompt="<image>\n",
    ),
    "Idefics3-8B": dict(
        golden="idefics3",
        text=LLAMA3_8B | dict(rope_parameters=dict(rope_type="default", rope_theta=500000.0)),
        vision=dict(
            hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16, image_size=364,
            patch_size=14),
        top=dict(scale_factor=2), processor_top=dict(image_seq_len=169),
        processor=dict(size=dict(longest_edge=4 * 364), max_image_size=dict(longest_edge=364)),
        prompt="<image>",
    ),
}


def grow(golden, family, folder, keep):
    """A copy of the small checkpoint with the published shape's configuration; weights come later."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(golden, folder, ignore=shutil.ignore_patterns("*.safetensors*"))
    if keep:
        return
    config = json.loads((folder / "config.json").read_text())
    for part in ("text_config", "vision_config"):
        config[part].pop("layer_types", None)
    config["text_config"] |= family["text"]
    config["vision_config"] |= family["vision"]
    config |= family.get("top", {}) | {"tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("preprocessor_config.json", "processor_config.json"):
        path = folder / name
        if path.exists():
            processor = json.loads(path.read_text())
            place = processor.get("image_processor", processor) if name == "processor_config.json" else processor
            if place is not processor or name == "preprocessor_config.json":
                place |= family["processor"]
            if name == "processor_config.json":
                processor |= family.get("processor_top", {})
            path.write_text(json.dumps(processor))


@torch.no_grad()
def fill(folder, device):
    """Random weights in bfloat16, small enough for every value to stay finite; how many there are."""
    config = AutoConfig.from_pretrained(folder)
    torch.manual_seed(7)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config)
    torch.set_default_dtype(torch.float32)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            parameter.normal_(0, STD)
        elif name.endswith("bias"):
            parameter.normal_(0, STD)
        else:
            parameter.normal_(1, 0.1)
    model.save_pretrained(folder, max_shard_size="5GB")
    count = sum(parameter.numel() for parameter in model.parameters())
    del model
    free()
    return count


def free():
    """Gives memory back."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def picture(path):
    """A picture that looks like nothing and is the same on every machine."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    noise = torch.randint(0, 40, (SIDE, SIDE), generator=torch.Generator().manual_seed(3))
    pixels = torch.stack([x / 5 + noise, y / 5 + noise, (x * y) / 8192 + noise], -1).clamp(0, 255)
    Image.fromarray(pixels.to(torch.uint8).numpy()).save(path)


def ours(program, folder, image, prompt, form, device):
    """What `probe` prints with weights of that form, and its seconds."""
    dtype, _, quantisation = form.partition(" ")
    start = time.perf_counter()
    command = [
        program, "probe", "--mllm", folder, "--image", image, "--raw-prompt", prompt, "--answers", "Yes,No", "--dtype",
        dtype, "--format", "json", "--top", "20", *(["--device", "cuda"] if device == "cuda" else []),
        *(["--quantize", quantisation] if quantisation else []),
    ]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr}")
    return json.loads(done.stdout), time.perf_counter() - start


@torch.no_grad()
def theirs(folder, image, tokens, dtype, device):
    """Logits after these tokens by transformers, seconds of loading and of the pass, and the most memory."""
    free()
    start = time.perf_counter()
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype).to(device).eval()
    loaded = time.perf_counter() - start
    processor = AutoImageProcessor.from_pretrained(folder)
    inputs = {
        name: value.to(device, dtype if value.is_floating_point() else None)
        for name, value in processor(images=[Image.open(image)], return_tensors="pt").items()
        if torch.is_tensor(value)
    }
    ids = torch.tensor([tokens], device=device)
    image_token = getattr(model.config, "image_token_id", None)
    if "mm_token_type_ids" in inspect.signature(model.forward).parameters:
        inputs["mm_token_type_ids"] = (ids == image_token).int()
    start = time.perf_counter()
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **inputs).logits[0, -1].float().cpu()
    passed = time.perf_counter() - start
    memory = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None
    del model, inputs
    free()
    return logits, loaded, passed, memory


def gap(ids, values, reference):
    """Largest difference from `reference` at `ids`, relative to its largest logit."""
    return ((values - reference[ids]).abs().max() / reference.abs().max()).item()


def compare(name, arguments):
    """One family."""
    family, folder = FAMILIES[name], arguments.work / "checkpoint"
    image = arguments.work / "picture.png"
    picture(image)
    grow(arguments.goldens / family["golden"] / "model", family, folder, arguments.as_they_are)
    common.progress(name, "weights")
    row = {"family": name, "parameters": fill(folder, arguments.device)}
    prompt = f"{family['prompt']}{QUESTION}"
    common.progress(name, "cluegate")
    forms = ["f32"] if arguments.as_they_are else ["bf16", "f32", *arguments.quantised]
    probes = {form: ours(arguments.cluegate, folder, image, prompt, form, arguments.device) for form in forms}
    tokens = probes["f32"][0]["token_ids"]
    row["tokens"] = len(tokens)
    common.progress(name, "transformers", len(tokens), "tokens")
    exact = theirs(folder, image, tokens, torch.float32, arguments.device)[0]
    for form, (probe, seconds) in probes.items():
        ids = torch.tensor([one["id"] for one in probe["top"]])
        values = torch.tensor([one["logit"] for one in probe["top"]])
        row[f"{form}_seconds"] = round(seconds, 1)
        row[f"{form}_from_f32"] = gap(ids, values, exact)
        row[f"{form}_first_token"] = int(ids[0]) == int(exact.argmax())
        if form == "bf16":
            rough, _, _, row["transformers_gib"] = theirs(folder, image, tokens, torch.bfloat16, arguments.device)
            row["bf16_from_transformers"] = gap(ids, values, rough)
            row["transformers_bf16_from_f32"] = gap(ids, rough[ids], exact)
    shutil.rmtree(folder)
    common.progress(json.dumps(row))
    return row


def main():
    """All families."""
    parser = argparse.ArgumentParser()
    for name in ("cluegate", "goldens", "work", "output"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--only", nargs="*", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--quantised", nargs="*", default=[], metavar="FORM", help='such as "bf16 q4_k"')
    parser.add_argument("--as-they-are", action="store_true")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in arguments.only:
        rows.append(compare(name, arguments))
        versions = common.versions("torch", "transformers")
        common.write_output(arguments.output, {"families": rows, "versions": versions})


if __name__ == "__main__":
    main()
