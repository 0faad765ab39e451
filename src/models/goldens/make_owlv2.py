"""Writes small OWLv2 models with random weights and what the reference computes with them.

    pip install torch==2.11.0 torchvision==0.26.0 transformers==5.17.0 tokenizers==0.23.3 pillow==13.0.0
    python make_pixels.py && python make_owlv2.py

Written to owlv2/ and owlv2_large/: folders in Hugging Face layout, each with expected.safetensors. The picture processor
is the default, torchvision-backed `Owlv2ImageProcessor`. The batch holds six pictures with three queries each.
- `owlv2`: files as version 5.17 saves them. `padded_*` are the logits when the last query is padding (all ids 0).
- `owlv2_large`: the proportions of owlv2-large-patch14-ensemble (patches of 14 pixels, a wider picture tower, heads of
  another width) in the published layout: config.json without what equals a default, vocab.json and merges.txt instead
  of tokenizer.json with "!" as the padding (expected.json has the ids of TEXTS), weights with the buffers that older versions saved. `found_*` is what
  `post_process_grounded_object_detection` makes of each picture at a threshold of THRESHOLD.
Tolerances of the tests: pixel values within 1/255 before normalisation; logits and boxes within 1e-4 relative, f32.
"""

import json
from pathlib import Path

import torch
from make_clip import NAMES, pictures, randomise, tokenizer
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessor, Owlv2Processor

HERE = Path(__file__).parent
QUERIES = ["fire", "a dog", "person who holds a weapon and stands"]
# With the mark that pads: it has its own id wherever it stands.
MARKED = ["fire!", "a dog", "Person who holds a weapon and stands"]
THRESHOLD = 0.3
# Marks, digits, contractions and unknown letters.
TEXTS = ["fire!", "a dog", "! ?", "FIRE 12's \u00e9", "A <|startoftext|> dog", "<|endoftext|>x"]


def compute(model, images, words, queries):
    """Inputs, outputs and what post-processing makes of them."""
    processor = Owlv2Processor(image_processor=images, tokenizer=words)
    batch = pictures()
    inputs = processor(text=[queries] * len(batch), images=batch, return_tensors="pt")
    assert inputs.input_ids.shape == (len(batch) * len(queries), 16), inputs.input_ids.shape
    with torch.no_grad():
        out = model(**inputs)
    sizes = torch.tensor([(picture.height, picture.width) for picture in batch])
    every = processor.post_process_grounded_object_detection(out, threshold=0.0, target_sizes=sizes)
    found = processor.post_process_grounded_object_detection(out, threshold=THRESHOLD, target_sizes=sizes)
    expected = {
        "pixel_values": inputs.pixel_values.contiguous(),
        "input_ids": inputs.input_ids[: len(queries)].to(torch.int64).contiguous(),
        "lengths": inputs.attention_mask[: len(queries)].sum(1).to(torch.int64),
        "logits": out.logits.contiguous(),
        "pred_boxes": out.pred_boxes.contiguous(),
        "objectness_logits": out.objectness_logits.contiguous(),
        "text_embeds": out.text_embeds[0].contiguous(),
        "corners": torch.stack([f["boxes"] for f in every]),
    }
    print("pictures", NAMES, "highest score", torch.sigmoid(out.logits).max().item(), [len(f["boxes"]) for f in found])
    return inputs, expected, found


def current() -> None:
    folder, side = HERE / "owlv2", 48
    folder.mkdir(exist_ok=True)
    words = tokenizer(folder, 16, extra=False)
    config = Owlv2Config(
        projection_dim=24,
        text_config={
            "vocab_size": len(words), "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
            "num_attention_heads": 3, "max_position_embeddings": 16, "hidden_act": "quick_gelu",
            "bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": 0,
        },
        vision_config={
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": side, "patch_size": 8, "hidden_act": "quick_gelu",
        },
    )
    model = Owlv2ForObjectDetection(config).eval()
    randomise(model, 3)
    model.save_pretrained(folder)
    images = Owlv2ImageProcessor(size={"height": side, "width": side})
    images.save_pretrained(folder)
    inputs, expected, _ = compute(model, images, words, QUERIES)
    with torch.no_grad():
        padded = inputs.input_ids.clone()
        padded[len(QUERIES) - 1 :: len(QUERIES)] = 0
        out = model(input_ids=padded, pixel_values=inputs.pixel_values, attention_mask=inputs.attention_mask)
    expected["padded_logits"] = out.logits.contiguous()
    save_file(expected, folder / "expected.safetensors")


def published_tokenizer(folder: Path):
    """The files of a published OWLv2 tokenizer: the vocabulary with "!" in the place of the padding."""
    made = json.loads(tokenizer(folder, 16, extra=False).backend_tokenizer.to_str())
    for name in ["tokenizer.json", "tokenizer_config.json"]:
        (folder / name).unlink()
    pad = {"!pad": "!", "!": "!!"}
    vocab = {pad.get(token, token): index for token, index in made["model"]["vocab"].items()}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    merges = [" ".join(pair) for pair in made["model"]["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    start, end = "<|startoftext|>", "<|endoftext|>"
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    added = {
        "0": {"content": "!", **flags, "special": True},
        str(vocab[start]): {"content": start, **flags, "normalized": True, "special": False},
        str(vocab[end]): {"content": end, **flags, "special": False},
    }
    roles = {"bos_token": start, "eos_token": end, "pad_token": "!", "unk_token": end}
    config = {
        "add_prefix_space": False, "added_tokens_decoder": added, "additional_special_tokens": [],
        "clean_up_tokenization_spaces": True, "do_lower_case": True, "errors": "replace", "model_max_length": 16,
        "processor_class": "Owlv2Processor", "tokenizer_class": "CLIPTokenizer", **roles,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
    (folder / "special_tokens_map.json").write_text(json.dumps(roles, indent=2))
    (folder / "added_tokens.json").write_text(json.dumps({t["content"]: int(i) for i, t in added.items()}, indent=2))
    return AutoTokenizer.from_pretrained(folder)


def large() -> None:
    folder, side = HERE / "owlv2_large", 70
    folder.mkdir(exist_ok=True)
    words = published_tokenizer(folder)
    vocabulary = len(json.loads((folder / "vocab.json").read_text()))
    text = {"hidden_size": 36, "intermediate_size": 56, "num_attention_heads": 3, "num_hidden_layers": 2}
    vision = {
        "hidden_size": 40, "image_size": side, "intermediate_size": 60, "num_attention_heads": 5, "num_hidden_layers": 3,
        "patch_size": 14,
    }
    written = {
        "architectures": ["Owlv2ForObjectDetection"], "initializer_factor": 1.0, "logit_scale_init_value": 2.6592,
        "model_type": "owlv2", "projection_dim": 36,
        "text_config": {**text, "model_type": "owlv2_text_model", "vocab_size": vocabulary}, "torch_dtype": "float32",
        "transformers_version": "4.35.0.dev0", "vision_config": {**vision, "model_type": "owlv2_vision_model"},
    }
    (folder / "config.json").write_text(json.dumps(written, indent=2))
    model = Owlv2ForObjectDetection(Owlv2Config.from_pretrained(folder)).eval()
    randomise(model, 23)
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(written, indent=2))
    path = folder / "model.safetensors"
    weights = load_file(path)
    for tower, tokens in [("text", 16), ("vision", (side // 14) ** 2 + 1)]:
        weights[f"owlv2.{tower}_model.embeddings.position_ids"] = torch.arange(tokens)[None]
    save_file(weights, path, metadata={"format": "pt"})
    images = Owlv2ImageProcessor(size={"height": side, "width": side})
    preprocessor = {
        "do_normalize": True, "do_pad": True, "do_rescale": True, "do_resize": True, "image_mean": images.image_mean,
        "image_processor_type": "Owlv2ImageProcessor", "image_std": images.image_std, "processor_class": "Owlv2Processor",
        "resample": 2, "rescale_factor": 1 / 255, "size": {"height": side, "width": side},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2))
    # What counts is what the reference reads from these files.
    read = Owlv2Processor.from_pretrained(folder)
    model = Owlv2ForObjectDetection.from_pretrained(folder).eval()
    _, expected, found = compute(model, read.image_processor, read.tokenizer, MARKED)
    for index, picture in enumerate(found):
        expected |= {f"found_{key}.{index}": picture[key].contiguous() for key in ["scores", "labels", "boxes"]}
    save_file(expected, folder / "expected.safetensors")
    tokens = {text: read.tokenizer(text).input_ids for text in TEXTS}
    (folder / "expected.json").write_text(json.dumps(tokens, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    current()
    large()
