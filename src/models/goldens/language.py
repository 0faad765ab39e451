"""What the golden files of every language model and vision-language model are made with.

A family's script (`make_FAMILY.py`) builds a small random model with Hugging Face transformers and its own
preprocessing; here are the tokenizers, the pictures, the questions, and what is written down of the answers:

    FOLDER/model/               the checkpoint in Hugging Face layout
    FOLDER/NAME.png             the pictures
    FOLDER/expected.json        the cases: conversation, rendered text before and after the picture's tokens are put
                                in, token ids, greedy answer
    FOLDER/expected.safetensors `pixels.NAME`, `features.NAME` for each picture, `logits.CASE` for each case

The tests read them by `tests/language/harness.rs`. Everything follows from fixed seeds. See make_qwen2_vl.py for a
family with pictures; without `see` the model has none.
"""

import dataclasses
import json
import shutil

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

# How the Qwen2 tokenizer cuts text into words.
QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CORPUS = [
    "Look only at what this image shows. Is the following statement true of it? Answer Yes or No. Statement: a cat.",
    "user assistant system You look at pictures. Yes No yes no",
    "the body of a person is on fire. a person is holding a knife. a dog is visible.",
] * 4
# Width and height of each picture. All of them shrink more in width than in height. Where that is the other way round,
# Pillow from 13 on resizes columns before rows, torchvision never does, and the intermediate rounding and clipping
# differ.
SIZES = {"wide": (61, 23), "tall": (29, 70), "large": (90, 84)}
# Tokens of each answer.
ANSWER = 12

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


def text_cases():
    """The cases of a model that sees nothing: the same questions, each of them once."""
    cases, asked = [], set()
    for case in ({**case, "picture": None} for case in CASES if case["name"] != "no picture"):
        case["name"] = case["name"].replace(" without a picture", "").replace(" picture", " question")
        if case["name"] not in asked:
            asked.add(case["name"])
            cases.append(case)
    return cases


def byte_level_tokenizer(special, words=QWEN_WORDS, normalizer=normalizers.NFC):
    """Byte pairs over bytes, as Qwen, Llama 3 and GPT-2 have it; `special` tokens follow the ordinary ones."""
    tok = Tokenizer(models.BPE())
    if normalizer:
        tok.normalizer = normalizer()
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(words), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tok.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tok.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=256 + 96, initial_alphabet=alphabet))
    tok.add_special_tokens(special)
    return tok


def sentencepiece_tokenizer(special, first=("<unk>", "<s>", "</s>")):
    """Byte pairs over characters with bytes for unknown ones, as Llama 2, Vicuna, Mistral and InternLM2 have it.

    `first` are the special tokens before the bytes, `special` those after the ordinary tokens.
    """
    space = "\u2581"
    tok = Tokenizer(models.BPE(unk_token=first[0], byte_fallback=True, fuse_unk=True))
    tok.normalizer = normalizers.Sequence([normalizers.Prepend(space), normalizers.Replace(" ", space)])
    tok.decoder = decoders.Sequence([
        decoders.Replace(space, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0),
    ])
    known = [*first, *(f"<0x{byte:02X}>" for byte in range(256))]
    # The trainer has no spaces at which to cut unless it is told.
    learner = Tokenizer(models.BPE(unk_token=first[0]))
    learner.normalizer = tok.normalizer
    learner.pre_tokenizer = pre_tokenizers.Metaspace(replacement=space, prepend_scheme="never")
    learner.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=len(known) + 120, special_tokens=known))
    learned = json.loads(learner.to_str())["model"]
    whole = json.loads(tok.to_str())
    whole["model"].update(vocab=learned["vocab"], merges=learned["merges"])
    tok = Tokenizer.from_str(json.dumps(whole))
    tok.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in (*first, *special)])
    return tok


def begin(folder, raw, template, marks, **more):
    """Empties `folder` and writes the tokenizer with the chat template; the folder of the checkpoint.

    `marks` are its special tokens by role (`eos_token`, ...), `more` goes into tokenizer_config.json as well.
    """
    shutil.rmtree(folder, ignore_errors=True)
    model = folder / "model"
    model.mkdir(parents=True)
    raw.save(str(model / "tokenizer.json"))
    config = {**more, **marks, "chat_template": template, "model_max_length": 512}
    (model / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    return model


def pictures(folder, sizes=SIZES):
    """Gradients under coarse noise, saved as NAME.png: name and picture."""
    rng = np.random.default_rng(7)
    for name, (width, height) in sizes.items():
        y, x = np.mgrid[0:height, 0:width]
        base = np.stack([x * 255 / width, y * 255 / height, (x * 7 + y * 3) % 256], -1)
        noise = rng.integers(-40, 40, (height // 4 + 1, width // 4 + 1, 3)).repeat(4, 0).repeat(4, 1)
        image = Image.fromarray(np.clip(base + noise[:height, :width], 0, 255).astype(np.uint8))
        image.save(folder / f"{name}.png")
        yield name, image


def randomised(build, seed=11):
    """The model that `build` makes, with weights large enough for attention to be far from uniform."""
    torch.manual_seed(seed)
    model = build().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() > 1:
                p.normal_(0, 1.4 / p[0].numel() ** 0.5 if "embed_tokens" not in name else 0.6)
            elif name.endswith("weight"):  # of a norm
                p.normal_(1, 0.2)
            else:
                p.normal_(0, 0.2)
    return model


@dataclasses.dataclass
class Seen:
    """What a family makes of a picture."""

    # What the vision tower reads, and what the language model reads: [tokens, hidden].
    pixels: torch.Tensor
    features: torch.Tensor
    # What stands in the place of the template's placeholder.
    text: str
    # What `forward` is given.
    arguments: dict


def conversation(case, strings=None):
    """The messages of a case. Templates that take only strings have `strings`, the placeholder, before the words."""
    messages = []
    for i, (user, assistant) in enumerate(case["turns"]):
        shown = i == 0 and case["picture"]
        for role, text in (("user", user), ("assistant", assistant)):
            if role == "assistant" and not text:
                continue
            parts = [{"type": "image"}] if shown and role == "user" else []
            if strings is None:
                content = parts + [{"type": "text", "text": text}]
            else:
                content = f"{strings}\n{text}" if parts else text
            messages.append({"role": role, "content": content})
    return messages


def write(folder, model, template, marks, *, see=None, mark=None, strings=False, start="", cases=None, arguments=None,
          notes=None, sizes=SIZES, tokenizer=None):
    """Asks the model all cases and writes what it answers.

    see: of a picture, a Seen; None for a model without pictures
    mark: the placeholder that the template writes for a picture
    strings: whether the template takes only strings, in which the placeholder is written
    start: what the tokenizer writes before every text, which the template leaves to it
    arguments: of the token ids [1, tokens], what `forward` is given beside them
    notes: of the ids and the picture's arguments, more entries for the case in expected.json
    sizes: of the pictures
    tokenizer: the reference's own, of a checkpoint without tokenizer.json
    """
    fast = tokenizer or PreTrainedTokenizerFast(tokenizer_file=str(folder / "model/tokenizer.json"), **marks)
    tensors, written, seen = {}, [], {}
    for name, image in pictures(folder, sizes) if see else ():
        seen[name] = look = see(name, image)
        tensors[f"pixels.{name}"], tensors[f"features.{name}"] = look.pixels.contiguous(), look.features.contiguous()
    for case in cases or (CASES if see else text_cases()):
        text = fast.apply_chat_template(
            conversation(case, mark if strings else None), chat_template=template, tokenize=False,
            add_generation_prompt=True)
        prompt = text + case["answer_start"]
        text = start + prompt
        of_picture = {}
        if case["picture"]:
            assert text.count(mark) == 1, f"{case['name']}: {text}"
            text = text.replace(mark, seen[case["picture"]].text)
            of_picture = seen[case["picture"]].arguments
        tokens = fast(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
        extra = {**(arguments(tokens) if arguments else {}), **of_picture}
        with torch.no_grad():
            logits = model(input_ids=tokens, **extra).logits[0, -1]
            answer = model.generate(
                input_ids=tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=ANSWER,
                **extra)[0, tokens.shape[1]:].tolist()
        tensors[f"logits.{case['name'].replace(' ', '_')}"] = logits.contiguous()
        written.append({
            **case, "prompt": prompt, "text": text, "tokens": tokens[0].tolist(), **(notes(tokens, of_picture) if notes else {}),
            "answer_tokens": answer, "answer_text": fast.decode(answer, skip_special_tokens=True),
        })
        top = torch.softmax(logits.double(), -1).max().item()
        print(f"{case['name']}: {tokens.shape[1]} tokens, most probable {top:.3f}, answer {answer}")
    save_file(tensors, folder / "expected.safetensors")
    (folder / "expected.json").write_text("[\n" + ",\n".join(json.dumps(c) for c in written) + "\n]\n")
    for p in sorted(folder.rglob("*")):
        if p.is_file():
            print(p.relative_to(folder), p.stat().st_size)
