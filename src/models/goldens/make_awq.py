"""Makes the golden files of AWQ checkpoints in the folder `awq` beside this script.

A small random Qwen2-VL whose language model is packed as AutoAWQ's `gemm` version packs it (`WQLinear_GEMM` in
AutoAWQ 0.2.9): `qweight` [in, out / 8] and `qzeros` [in / group, out / 8] hold eight values of 4 bits in each int32, in
the order 0 2 4 6 1 3 5 7; `scales` [in / group, out] are f16; a weight is (value - zero) * scale, computed in f16. The
answers are those of Hugging Face transformers with the weights unpacked again, in f32. One map is left as it was, as
`modules_to_not_convert` allows.

    python make_awq.py

Made with Python 3.11, torch 2.11.0 (CPU, f32, eager attention), torchvision 0.26.0, transformers 5.17.0,
tokenizers 0.23.3, pillow 13.0.0, numpy 2.4.6, safetensors 0.8.0.
"""

import copy
import json
import pathlib

import language
import qwen
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

HERE = pathlib.Path(__file__).resolve().parent / "awq"
GROUP = 128
ORDER = [0, 2, 4, 6, 1, 3, 5, 7]
# Beside the vision tower.
KEPT = "layers.1.self_attn.v_proj"
QUANTISATION = {
    "quant_method": "awq", "version": "gemm", "bits": 4, "group_size": GROUP, "zero_point": True,
    "modules_to_not_convert": ["visual", KEPT],
}


def random_model(ids):
    config = Qwen2VLConfig(
        text_config=dict(
            vocab_size=len(ids), hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=512, rms_norm_eps=1e-6,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 4, 4]},
            bos_token_id=ids["<|endoftext|>"], eos_token_id=ids["<|im_end|>"],
        ),
        vision_config=dict(
            depth=2, embed_dim=24, hidden_size=128, num_heads=2, mlp_ratio=2, patch_size=6, spatial_merge_size=2,
            temporal_patch_size=2, in_channels=3,
        ),
        tie_word_embeddings=True, **qwen.token_ids(ids),
    )
    return Qwen2VLForConditionalGeneration._from_config(config, attn_implementation="eager")


def quantise(weight):
    """Codes [in, out], zeros and scales [in / group, out] of a weight [out, in]."""
    groups = weight.t().reshape(-1, GROUP, weight.shape[0])
    low, high = groups.amin(1).clamp(max=0), groups.amax(1).clamp(min=0)
    scales = ((high - low) / 15).clamp(min=1e-5).half()
    zeros = (-low / scales.float()).round().clamp(0, 15)
    codes = (groups / scales.float()[:, None] + zeros[:, None]).round().clamp(0, 15)
    return codes.reshape(-1, weight.shape[0]).int(), zeros.int(), scales


def dequantise(codes, zeros, scales):
    spread = lambda groups: groups.repeat_interleave(GROUP, 0)
    return ((codes - spread(zeros)).half() * spread(scales)).t().float()


def pack(values):
    """Eight columns in one int32."""
    packed = torch.zeros(values.shape[0], values.shape[1] // 8, dtype=torch.int64)
    for place, column in enumerate(ORDER):
        packed |= values[:, column::8].long() << 4 * place
    return torch.where(packed >= 2**31, packed - 2**32, packed).int()


def packed_model(build):
    """A random model in f16 values, its matrices as AWQ would have them, which are also put into PACKED."""
    model = make_random(build)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(p.half().float())
            if ".layers." in name and p.dim() == 2 and KEPT not in name:
                codes, zeros, scales = quantise(p)
                p.copy_(dequantise(codes, zeros, scales))
                PACKED[".layers." + name.split(".layers.")[1].removesuffix("weight")] = {
                    "qweight": pack(codes), "qzeros": pack(zeros), "scales": scales,
                }
    return model


def write(folder, model, *rest, see, arguments, **more):
    """Notes as well how far the reference's own answers in 16 bits are from those in f32: `halves.json` holds the root
    of the mean square of all logits' differences, in parts of that of the logits."""
    write_all(folder, model, *rest, see=see, arguments=arguments, **more)
    expected, halves = load_file(folder / "expected.safetensors"), {}
    seen = {name: see(name, image).arguments for name, image in language.pictures(folder)}
    for name, dtype in (("bf16", torch.bfloat16), ("f16", torch.float16)):
        for attention in ("eager", "sdpa"):
            short = copy.deepcopy(model).to(dtype)
            short.set_attn_implementation(attention)
            gaps, logits = [], []
            for case in json.loads((folder / "expected.json").read_text()):
                tokens = torch.tensor([case["tokens"]])
                given = {**arguments(tokens), **seen.get(case["picture"], {})}
                if "pixel_values" in given:
                    given["pixel_values"] = given["pixel_values"].to(dtype)
                with torch.no_grad():
                    found = short(input_ids=tokens, **given).logits[0, -1].float()
                logits.append(expected[f"logits.{case['name'].replace(' ', '_')}"])
                gaps.append(found - logits[-1])
            size = lambda all: torch.cat(all).double().square().mean().sqrt().item()
            halves[f"{name}.{attention}"] = size(gaps) / size(logits)
    (folder / "halves.json").write_text(json.dumps(halves, indent=1) + "\n")
    print(halves)


PACKED = {}
make_random, language.randomised = language.randomised, packed_model
write_all, language.write = language.write, write

if __name__ == "__main__":
    qwen.make(HERE, random_model, patch=6, tokens=(6, 30))
    at = HERE / "model/model.safetensors"
    tensors = {}
    for name, tensor in load_file(at).items():
        place = name.removesuffix("weight")
        place, key = place.split(".layers.")[0], ".layers." + place.split(".layers.")[-1]
        if key in PACKED:
            tensors |= {f"{place}{key}{part}": value.contiguous() for part, value in PACKED.pop(key).items()}
        else:
            tensors[name] = tensor.half()
    assert not PACKED, PACKED.keys()
    save_file(tensors, at, metadata={"format": "pt"})
    config = HERE / "model/config.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps({**content, "dtype": "float16", "quantization_config": QUANTISATION}, indent=2) + "\n")
    print(at, at.stat().st_size)
