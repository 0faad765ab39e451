"""Makes the golden files of the Qwen2-VL port in the folder `qwen2_vl` beside this script.

A small random model in Hugging Face layout, three pictures, a few conversations, and what Hugging Face transformers
makes of them: pixel values, image features, the logits at the last position, greedy answers. Everything follows from
fixed seeds.

    python make_qwen2_vl.py

Made with Python 3.11, torch 2.11.0 (CPU, f32, eager attention), torchvision 0.26.0, transformers 5.17.0,
tokenizers 0.23.3, pillow 13.0.0, numpy 2.4.6, safetensors 0.8.0.
"""

import json
import pathlib
import shutil

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2VLConfig, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

HERE = pathlib.Path(__file__).resolve().parent / "qwen2_vl"
MODEL = HERE / "model"

SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
]
# How the Qwen2 tokenizer cuts text into words.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Same turns as the published template of Qwen2-VL: a default system turn, pictures between vision marks.
TEMPLATE = """\
{%- if messages[0]['role'] != 'system' %}
    {{- '<|im_start|>system\\nYou look at pictures.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' }}
    {%- if message['content'] is string %}
        {{- message['content'] }}
    {%- else %}
        {%- for part in message['content'] %}
            {%- if part['type'] == 'image' or 'image' in part %}
                {{- '<|vision_start|><|image_pad|><|vision_end|>' }}
            {%- elif 'text' in part %}
                {{- part['text'] }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
CORPUS = [
    "Look only at what this image shows. Is the following statement true of it? Answer Yes or No. Statement: a cat.",
    "user assistant system You look at pictures. Yes No yes no",
    "the body of a person is on fire. a person is holding a knife. a dog is visible.",
] * 4


def tokenizer():
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(WORDS), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tok.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tok.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=256 + 96, initial_alphabet=alphabet))
    tok.add_special_tokens(SPECIAL)
    return tok


def pictures():
    rng = np.random.default_rng(7)
    # All of them shrink more in width than in height. Where that is the other way round, Pillow from 13 on resizes
    # columns before rows, torchvision never does, and the intermediate rounding and clipping differ.
    for name, (width, height) in {"wide": (61, 23), "tall": (29, 70), "large": (90, 84)}.items():
        y, x = np.mgrid[0:height, 0:width]
        base = np.stack([x * 255 / width, y * 255 / height, (x * 7 + y * 3) % 256], -1)
        noise = rng.integers(-40, 40, (height // 4 + 1, width // 4 + 1, 3)).repeat(4, 0).repeat(4, 1)
        image = Image.fromarray(np.clip(base + noise[:height, :width], 0, 255).astype(np.uint8))
        image.save(HERE / f"{name}.png")
        yield name, image


def random_model(ids):
    config = Qwen2VLConfig(
        text_config=dict(
            vocab_size=len(ids), hidden_size=32, intermediate_size=40, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=512, rms_norm_eps=1e-6,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
            bos_token_id=ids["<|endoftext|>"], eos_token_id=ids["<|im_end|>"],
        ),
        vision_config=dict(
            depth=2, embed_dim=24, hidden_size=32, num_heads=2, mlp_ratio=2, patch_size=6, spatial_merge_size=2,
            temporal_patch_size=2, in_channels=3,
        ),
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    torch.manual_seed(11)
    model = Qwen2VLForConditionalGeneration._from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() > 1:
                # Large enough for attention to be far from uniform.
                p.normal_(0, 1.4 / p[0].numel() ** 0.5 if "embed_tokens" not in name else 0.6)
            elif name.endswith("weight"):  # of a norm
                p.normal_(1, 0.2)
            else:
                p.normal_(0, 0.2)
    return model


ALONE = [
    ("wide picture", "wide", "Statement: a cat."),
    ("tall picture", "tall", "Look only at what this image shows. Statement: a person is on fire."),
    ("large picture", "large", "Answer Yes or No. Statement: a dog is visible."),
    ("no picture", None, "Statement: a cat."),
]
# Of one beginning, with ends of different lengths: asked in one batch too.
BEGINNING = "Look. Statement: "
ENDS = ["a cat.", "the body of a person is on fire.", "a person is holding a knife and a dog is not.", "x"]
CASES = [
    *[dict(name=name, picture=picture, turns=[[text, ""]], answer_start="") for name, picture, text in ALONE],
    dict(
        name="two turns and an answer begun", picture="wide", answer_start='{"rating": "',
        turns=[["Is a knife visible?", "The body of a person: no."], ["Sum up, caf\u00e9 \u96ea.", ""]],
    ),
    *[
        dict(name=f"suffix {i}{after}", picture=picture, turns=[[BEGINNING + end, ""]], answer_start="", prefix=BEGINNING)
        for picture, after in (("large", ""), (None, " without a picture"))
        for i, end in enumerate(ENDS)
    ],
]


def conversation(case):
    messages = []
    for i, (user, assistant) in enumerate(case["turns"]):
        parts = [{"type": "image"}] if i == 0 and case["picture"] else []
        messages.append({"role": "user", "content": parts + [{"type": "text", "text": user}]})
        if assistant:
            messages.append({"role": "assistant", "content": [{"type": "text", "text": assistant}]})
    return messages


def main():
    shutil.rmtree(HERE, ignore_errors=True)
    MODEL.mkdir(parents=True)
    raw = tokenizer()
    raw.save(str(MODEL / "tokenizer.json"))
    ids = raw.get_vocab()
    (MODEL / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": None,
        "chat_template": TEMPLATE, "model_max_length": 512,
    }, indent=1) + "\n")
    model = random_model(ids)
    model.save_pretrained(MODEL)
    size = {"shortest_edge": 12 * 12 * 6, "longest_edge": 12 * 12 * 30}
    options = dict(size=size, patch_size=6, merge_size=2, temporal_patch_size=2)
    processor = Qwen2VLImageProcessorPil(**options)
    other = Qwen2VLImageProcessor(**options)
    processor.save_pretrained(MODEL)

    fast = PreTrainedTokenizerFast(tokenizer_file=str(MODEL / "tokenizer.json"))
    tensors, cases, seen = {}, [], {}
    for name, image in pictures():
        out = processor(images=[image], return_tensors="pt")
        gap = (out["pixel_values"] - other(images=[image], return_tensors="pt")["pixel_values"]).abs().max().item()
        assert gap * 0.27 * 255 < 1.1, f"{name}: the two reference processors differ by {gap}"
        with torch.no_grad():
            features = model.get_image_features(out["pixel_values"], out["image_grid_thw"])
        features = getattr(features, "pooler_output", features)
        features = features[0] if isinstance(features, (tuple, list)) else features
        tensors[f"pixels.{name}"], tensors[f"features.{name}"] = out["pixel_values"].contiguous(), features.contiguous()
        seen[name] = (out["pixel_values"], out["image_grid_thw"])
    for case in CASES:
        text = fast.apply_chat_template(
            conversation(case), chat_template=TEMPLATE, tokenize=False, add_generation_prompt=True)
        text += case["answer_start"]
        extra, count = {}, 0
        if case["picture"]:
            pixels, grid = seen[case["picture"]]
            count = int(grid[0, 1] * grid[0, 2]) // 4
            text = text.replace("<|image_pad|>", "<|image_pad|>" * count)
            extra = dict(pixel_values=pixels, image_grid_thw=grid)
        tokens = fast(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
        kinds = (tokens == ids["<|image_pad|>"]).int()
        with torch.no_grad():
            logits = model(input_ids=tokens, mm_token_type_ids=kinds, **extra).logits[0, -1]
            answer = model.generate(
                input_ids=tokens, mm_token_type_ids=kinds, attention_mask=torch.ones_like(tokens), do_sample=False,
                max_new_tokens=12, **extra)[0, tokens.shape[1]:]
            positions, _ = model.model.get_rope_index(tokens, kinds, image_grid_thw=extra.get("image_grid_thw"))
        key = case["name"].replace(" ", "_")
        tensors[f"logits.{key}"] = logits.contiguous()
        answer = answer.tolist()
        cases.append({
            **case, "text": text, "tokens": tokens[0].tolist(), "positions": positions[:, 0].tolist(),
            "answer_tokens": answer, "answer_text": fast.decode(answer, skip_special_tokens=True),
        })
        top = torch.softmax(logits.double(), -1).max().item()
        print(f"{case['name']}: {tokens.shape[1]} tokens, most probable {top:.3f}, answer {answer}")
    save_file(tensors, HERE / "expected.safetensors")
    (HERE / "expected.json").write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
    for p in sorted(HERE.rglob("*")):
        if p.is_file():
            print(p.relative_to(HERE), p.stat().st_size)


if __name__ == "__main__":
    main()
