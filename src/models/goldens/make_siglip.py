"""Writes small SigLIP models with random weights and what the reference computes with them.

    pip install torch==2.11.0 torchvision==0.26.0 transformers==5.17.0 tokenizers==0.23.3 pillow==13.0.0 \
        sentencepiece==0.2.1 protobuf
    python make_pixels.py && python make_siglip.py

Written below siglip/: two folders in Hugging Face layout, each with expected.safetensors.
- `first`: as SigLIP is published: a SentencePiece tokenizer and the tokenizer.json that stands for it, a side that is
  no multiple of the patch (384 and 14 there), configuration files that omit what is the reference's default.
- `second`: as SigLIP 2 of a fixed resolution is published: Gemma's tokenizer, a text tower that is narrower than the
  common space, bilinear resizing.
Tolerances of the tests: pixel values within 1/255 before normalisation; features within 1e-4 relative, f32.
"""

import io
import json
import math
import shutil
import string
import tempfile
from pathlib import Path

import sentencepiece
import torch
from language import CORPUS
from make_clip import pictures, randomise
from safetensors.torch import save_file
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    GemmaTokenizer, Siglip2Tokenizer, SiglipConfig, SiglipImageProcessor, SiglipModel, SiglipTextConfig,
    SiglipTokenizer, SiglipVisionConfig,
)

HERE = Path(__file__).parent / "siglip"
LENGTH = 16
TEXTS = [
    "a person on fire",
    "",
    "A Dog,  and a cat's toy!",
    "a person who holds a weapon and stands near a house beside a tree with a dog and a cat and a car and a knife",
    "  - A KNIFE \u96ea\u96ea is \uff21 CAF\u00c9\tof \ufb01re? ",
    "?!",
]
LINES = [*CORPUS, *TEXTS, "abcdefghijklmnopqrstuvwxyz 0123456789"]


def sentencepiece_tokenizer(folder: Path) -> SiglipTokenizer:
    """A unigram model with the special tokens of SigLIP's, and its tokenizer.json."""
    out = io.BytesIO()
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
        # Two of the rules that the published model has, so that the file stays small.
        rules.write("FB01\t66 69\nFF21\t41\n")
        rules.flush()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([line.lower() for line in LINES]), model_writer=out, vocab_size=120,
            model_type="unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, normalization_rule_tsv=rules.name,
            hard_vocab_limit=False, num_threads=1, minloglevel=2, character_coverage=0.99,
        )
    (folder / "spiece.model").write_bytes(out.getvalue())
    made = SiglipTokenizer(str(folder / "spiece.model"), model_max_length=LENGTH, model_input_names=["input_ids"])
    made.save_pretrained(folder)
    proto = sentencepiece_model_pb2.ModelProto.FromString(out.getvalue())
    fast = Tokenizer(models.Unigram([(piece.piece, piece.score) for piece in proto.pieces], unk_id=2))
    fast.normalizer = normalizers.Sequence([
        normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap), normalizers.Lowercase(),
        normalizers.Replace(Regex("[" + "".join("\\" + c for c in string.punctuation) + "]"), ""),
        normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip(),
    ])
    fast.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always")
    fast.post_processor = processors.TemplateProcessing(single=["$A", "</s>"], special_tokens=[("</s>", 1)])
    fast.add_special_tokens([
        AddedToken(token, lstrip=True, rstrip=True, normalized=False, special=True) for token in ("</s>", "<unk>")
    ])
    fast.save(str(folder / "tokenizer.json"))
    return made


def gemma_tokenizer(folder: Path) -> GemmaTokenizer:
    """Byte pairs over characters, with bytes for unknown ones."""
    first = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    learner = Tokenizer(models.BPE(unk_token="<unk>"))
    learner.normalizer = normalizers.Replace(" ", "\u2581")
    learner.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="never")
    # Upper and lower case are different words.
    learner.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=len(first) + 140, special_tokens=first))
    learned = json.loads(learner.to_str())["model"]
    made = GemmaTokenizer(
        vocab=learned["vocab"], merges=[tuple(pair) for pair in learned["merges"]], add_bos_token=False,
        add_eos_token=True, padding_side="right", model_max_length=LENGTH, model_input_names=["input_ids"],
    )
    made.save_pretrained(folder)
    return made


def write(name: str, words, text: dict, vision: dict, processor: SiglipImageProcessor, seed: int) -> None:
    folder = HERE / name
    config = SiglipConfig(
        text_config=SiglipTextConfig(vocab_size=len(words), max_position_embeddings=LENGTH, **text).to_dict(),
        vision_config=SiglipVisionConfig(**vision).to_dict(),
    )
    model = SiglipModel(config).eval()
    randomise(model, seed)
    with torch.no_grad():
        model.logit_scale.fill_(math.log(10))
        model.logit_bias.fill_(-10)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    if name == "first":
        sparse = {"text_config": SiglipTextConfig(), "vision_config": SiglipVisionConfig()}
        path = folder / "config.json"
        saved = json.loads(path.read_text())
        for tower, default in sparse.items():
            default = default.to_dict()
            kept = {key: value for key, value in saved[tower].items() if default.get(key, ...) != value}
            saved[tower] = {**kept, "model_type": default["model_type"]}
        path.write_text(json.dumps(saved, indent=1) + "\n")
    ids = torch.tensor(words(TEXTS, padding="max_length", truncation=True, max_length=LENGTH).input_ids)
    pixels = processor(pictures(), return_tensors="pt").pixel_values
    with torch.no_grad():
        out = model(input_ids=ids, pixel_values=pixels)
        raw_texts, raw_pictures = model.get_text_features(ids), model.get_image_features(pixels)
    tensors = {
        "pixel_values": pixels.contiguous(),
        "input_ids": ids.to(torch.int64),
        "lengths": torch.full((len(TEXTS),), LENGTH),
        "text_features": getattr(raw_texts, "pooler_output", raw_texts).contiguous(),
        "picture_features": getattr(raw_pictures, "pooler_output", raw_pictures).contiguous(),
        "text_embeds": out.text_embeds.contiguous(),
        "picture_embeds": out.image_embeds.contiguous(),
        "logits": out.logits_per_image.contiguous(),
    }
    if name == "second":
        # The same file read by the class that version 5 made for SigLIP 2, which pads at the left unless told.
        lower = Siglip2Tokenizer.from_pretrained(folder, padding_side="left")
        ids = lower(TEXTS, padding="max_length", truncation=True, max_length=LENGTH).input_ids
        tensors["lower_case_ids"] = torch.tensor(ids)
    save_file(tensors, folder / "expected.safetensors")
    for line in ids if isinstance(ids, list) else ids.tolist():
        print(name, line)
    for path in sorted(folder.iterdir()):
        print(path.relative_to(HERE), path.stat().st_size)


def main() -> None:
    torch.set_num_threads(1)
    shutil.rmtree(HERE, ignore_errors=True)
    (HERE / "first").mkdir(parents=True)
    (HERE / "second").mkdir()
    write(
        "first", sentencepiece_tokenizer(HERE / "first"),
        dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2),
        dict(hidden_size=24, intermediate_size=36, num_hidden_layers=2, num_attention_heads=2, image_size=30, patch_size=8),
        SiglipImageProcessor(size={"height": 30, "width": 30}), 3,
    )
    write(
        "second", gemma_tokenizer(HERE / "second"),
        dict(hidden_size=16, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2, projection_size=24),
        dict(hidden_size=24, intermediate_size=36, num_hidden_layers=2, num_attention_heads=3, image_size=32, patch_size=8),
        SiglipImageProcessor(size={"height": 32, "width": 32}, resample=2), 4,
    )


if __name__ == "__main__":
    main()
