"""Writes small CLIP models with random weights and what the reference computes with them.

    pip install torch==2.11.0 torchvision==0.26.0 transformers==5.17.0 tokenizers==0.23.3 pillow==13.0.0
    python make_pixels.py && python make_clip.py

Written below clip/: two folders in Hugging Face layout, each with expected.safetensors.
- `legacy`: quick_gelu; `eos_token_id` 2 (the end token is the one of the highest id); old forms of the configuration
  files (`text_config_dict`, sizes as plain numbers).
- `current`: gelu; the end token by its id, with a token of a higher id in the texts; files as version 5.17 saves them.
Tolerances of the tests: pixel values within 1/255 before normalisation; features within 1e-4 relative, f32.
"""

import json
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextConfig, CLIPTokenizer, CLIPVisionConfig

HERE = Path(__file__).parent / "clip"
PICTURES = Path(__file__).parent / "pixels"
NAMES = ["square", "wide", "tall", "strip", "small", "large"]
TEXTS = [
    "a person on fire",
    "",
    "A Dog,  and a cat's toy!",
    "a person who holds a weapon and stands near a house beside a tree with a dog and a cat and a car",
    "fire",
]
EXTRA = "<|extra|>"


def tokenizer(folder: Path, length: int, extra: bool) -> CLIPTokenizer:
    """A byte-level BPE of CLIP's kind, trained on a few lines."""
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"'s|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    lines = [*TEXTS, "abcdefghijklmnopqrstuvwxyz 0123456789 , . ! ? ' - x"] * 2
    bpe.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=160, end_of_word_suffix="</w>", show_progress=False))
    learned = json.loads(bpe.to_str())["model"]
    vocab = {"!pad": 0} | {token: index + 1 for index, token in enumerate(sorted(learned["vocab"], key=learned["vocab"].get))}
    for mark in ["<|startoftext|>", "<|endoftext|>"]:
        vocab[mark] = len(vocab)
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in learned["merges"]]
    made = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=length)
    if extra:
        made.add_tokens([EXTRA])
    made.save_pretrained(folder)
    return made


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Weights far from their initial values, so that every path matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            noise = torch.randn(weight.shape, generator=generator)
            norm = "norm" in name or "layrnorm" in name
            if norm and name.endswith("weight"):
                weight.copy_(1 + 0.2 * noise)
            elif weight.dim() < 2:
                weight.copy_(0.2 * noise)
            else:
                weight.copy_(noise / weight[0].numel() ** 0.5)


def pictures() -> list[Image.Image]:
    return [Image.open(PICTURES / f"{name}.png").convert("RGB") for name in NAMES]


def write(name: str, act: str, legacy: bool, processor: CLIPImageProcessor, seed: int) -> None:
    folder = HERE / name
    folder.mkdir(parents=True, exist_ok=True)
    words = tokenizer(folder, 14, extra=not legacy)
    texts = TEXTS if legacy else [*TEXTS, f"a {EXTRA} dog"]
    config = CLIPConfig(
        projection_dim=20,
        text_config=CLIPTextConfig(
            vocab_size=len(words), hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3,
            max_position_embeddings=14, hidden_act=act, bos_token_id=words.bos_token_id,
            eos_token_id=2 if legacy else words.eos_token_id, pad_token_id=words.pad_token_id,
        ).to_dict(),
        vision_config=CLIPVisionConfig(
            hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=32,
            patch_size=8, hidden_act=act,
        ).to_dict(),
    )
    model = CLIPModel(config).eval()
    randomise(model, seed)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    tokens = words(texts, padding=True, truncation=True, max_length=14, return_tensors="pt")
    pixels = processor(pictures(), return_tensors="pt").pixel_values
    with torch.no_grad():
        out = model(**tokens, pixel_values=pixels)
        raw_texts = model.get_text_features(**tokens)
        raw_pictures = model.get_image_features(pixel_values=pixels)
    save_file(
        {
            "pixel_values": pixels.contiguous(),
            "input_ids": tokens.input_ids.to(torch.int64),
            "lengths": tokens.attention_mask.sum(1).to(torch.int64),
            "text_features": getattr(raw_texts, "pooler_output", raw_texts).contiguous(),
            "picture_features": getattr(raw_pictures, "pooler_output", raw_pictures).contiguous(),
            "text_embeds": out.text_embeds.contiguous(),
            "picture_embeds": out.image_embeds.contiguous(),
        },
        folder / "expected.safetensors",
    )
    if legacy:
        age(folder)


def age(folder: Path) -> None:
    """Rewrites the configuration as checkpoints of 2021 have it."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for tower in ["text_config", "vision_config"]:
        config[f"{tower}_dict"] = config[tower]
        # Where the older form is present, the newer one does not count.
        config[tower] = {"hidden_act": "gelu", "num_hidden_layers": 7}
    path.write_text(json.dumps(config, indent=2))
    old = {
        "crop_size": 32, "do_center_crop": True, "do_normalize": True, "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": CLIPImageProcessor.image_mean,
        "image_std": CLIPImageProcessor.image_std, "resample": 3, "size": 36,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(old, indent=2))


def main() -> None:
    torch.set_num_threads(1)
    write("legacy", "quick_gelu", True, CLIPImageProcessor(size={"shortest_edge": 36}, crop_size=32), 1)
    exact = CLIPImageProcessor(
        size={"height": 32, "width": 32}, do_center_crop=False, resample=2, image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.3, 0.4]
    )
    write("current", "gelu", False, exact, 2)


if __name__ == "__main__":
    main()
