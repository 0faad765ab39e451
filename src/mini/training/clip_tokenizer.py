"""CLIP's lower-casing byte-pair tokenizer, trained on the texts of the scene world.

Relevance encoder and detector share it. The pipeline (clean-up, word splitting, bytes, end-of-word suffix, post-
processor) and the order of the vocabulary (256 bytes, the same bytes at a word's end, merges, the two special tokens)
are those of the published CLIP checkpoints, as transformers 5.17 builds them in `CLIPTokenizer`. Two consequences that
models rely on: '!' has id 0, with which OWLv2 pads, and <|endoftext|> has the highest id, where both models pool.
"""

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

START, END = "<|startoftext|>", "<|endoftext|>"
SUFFIX = "</w>"
WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


def byte_alphabet():
    """The 256 printable stand-ins of byte-level BPE, in CLIP's order: printable bytes first, so that '!' leads."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(b) for b in printable] + [chr(256 + n) for n in range(256 - len(printable))]


def pipeline(model):
    """A tokenizer around `model` with CLIP's clean-up and word splitting, without post-processor."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def train(texts, merges=900):
    """Learns at most `merges` merges from `texts` (an iterable of strings). Returns a `tokenizers.Tokenizer`."""
    learner = pipeline(models.BPE(end_of_word_suffix=SUFFIX))
    alphabet = byte_alphabet()
    learner.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=len(alphabet) * 2 + merges,
            initial_alphabet=alphabet,
            end_of_word_suffix=SUFFIX,
            show_progress=False,
        ),
    )
    learned = [tuple(m) for m in json.loads(learner.to_str())["model"]["merges"]][:merges]
    tokens = alphabet + [c + SUFFIX for c in alphabet] + [a + b for a, b in learned]
    vocabulary = {t: i for i, t in enumerate(dict.fromkeys(tokens))}
    vocabulary[START], vocabulary[END] = len(vocabulary), len(vocabulary) + 1
    tokenizer = pipeline(
        models.BPE(
            vocab=vocabulary,
            merges=learned,
            continuing_subword_prefix="",
            end_of_word_suffix=SUFFIX,
            unk_token=END,
            fuse_unk=False,
        )
    )
    tokenizer.add_special_tokens([START, END])
    tokenizer.post_processor = processors.RobertaProcessing(
        (END, vocabulary[END]), (START, vocabulary[START]), trim_offsets=False, add_prefix_space=False
    )
    return tokenizer


def save(tokenizer, folder, max_length, pad_token):
    """Writes tokenizer.json, tokenizer_config.json, special_tokens_map.json, vocab.json and merges.txt to `folder`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.no_padding()
    plain.no_truncation()
    plain.save(str(folder / "tokenizer.json"))
    model = json.loads(plain.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(m) for m in model["merges"])]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad_token}
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": max_length,
        "do_lower_case": True,
        "add_prefix_space": False,
        **special,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n", encoding="utf-8")


def load(folder):
    """The tokenizer of a model folder, as the plain `tokenizers` library reads it."""
    return Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))


def encode(tokenizer, texts, length, pad):
    """Token ids [texts, length] as a list of lists: cut to `length` with the end token kept, padded with id `pad`."""
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(pad_id=pad, length=length)
    rows = [e.ids for e in tokenizer.encode_batch(list(texts))]
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return rows
