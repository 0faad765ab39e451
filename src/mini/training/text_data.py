"""What the text model is asked, the tokens of it, and batches of that made by several processes.

Prompts are the model's own short templates (../suite/text/templates), with the answers of the constitution compiler's
grammars. Wordings that the measures use (../world/prose_rules.toml) are never trained on: `text.py` says how often the
grammar made one and it was dropped.
"""

import hashlib
import multiprocessing
import os
import queue
import random
import re
import tomllib
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

import text_prose
import text_rules as tr

MINI = Path(__file__).resolve().parents[1]
TEMPLATES = {name: (MINI / "suite" / "text" / "templates" / f"{name}.txt").read_text(encoding="utf-8").removesuffix("\n")
             for name in ("objectiveness", "revise", "preconditions", "central")}
WORDINGS = tomllib.loads((MINI / "world" / "prose_rules.toml").read_text(encoding="utf-8"))
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PAD, START, END = range(3)
# The pattern by which Qwen2's tokenizer cuts text; a fact of the format, since loaders build it in.
CUT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
CHAT = """{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if 'text' in part -%}
{{- part['text'] -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\n' -}}
{%- endif -%}"""
LENGTHS = (48, 72, 144)  # tokens of a row; longer examples are dropped
TOKENS = 65536            # of a batch


def asked(name, text):
    """The prompt of a template."""
    return re.sub(r"\{\{ \w+ \}\}", lambda _: text, TEMPLATES[name])


def chat(prompt):
    """A prompt as the chat template writes it."""
    return f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"


def normal(text):
    """A hash of a wording's letters, so that capitals and full stops make no difference."""
    return hashlib.sha256(re.sub(r"[^a-z]+", " ", text.lower()).strip().encode()).digest()[:12]


MEASURED = {normal(entry["wording"]) for part in WORDINGS.values() for entry in part}


def examples(rng):
    """Questions with their answers about one random wording."""
    draw = rng.random()
    if draw < 0.05:
        statement, words = tr.statements_with_words(rng)
        yield "central", statement, words
        return
    if draw < 0.19:
        rule = tr.sample(rng)
        plain = tr.plain(rule)
        yield "preconditions", plain, tr.chain(rule)
        if rng.random() < 0.4:
            yield "objectiveness", plain, tr.rated(rule, None)
        return
    wording = text_prose.word(rng)
    if normal(wording.text) in MEASURED:
        yield None, None, None
        return
    rule = wording.rule
    if wording.loose or rng.random() < 0.15:
        yield "revise", wording.text, f"Rule: {tr.plain(rule)}"
    if wording.loose is not True or rng.random() < 0.6:
        yield "preconditions", wording.text, tr.chain(rule)
    if rng.random() < 0.45:
        yield "objectiveness", wording.text, tr.rated(rule, wording.loose, wording.vague)


def train_tokenizer(size, seed=0, count=60_000):
    """Byte-level BPE on the model's own texts, cut as Qwen2 cuts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(CUT), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    rng = random.Random(seed)
    def texts():
        for _ in range(count):
            for name, text, answer in examples(rng):
                if name:
                    yield from (asked(name, text), answer, "user\nassistant\n")
        for _ in range(count // 20):  # loaders ask every language model for a token of each
            yield from ("Yes", "No")

    tokenizer.train_from_iterator(texts(), trainers.BpeTrainer(
        vocab_size=size, special_tokens=[AddedToken(t, special=True, normalized=False) for t in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    if any(len(tokenizer.encode(word).ids) != 1 for word in ("Yes", "No")):
        raise SystemExit("the tokenizer cuts Yes or No in pieces")
    return tokenizer


def _work(tokenizer, seed, tokens, out, dropped):
    """Makes batches for ever: ids [rows, length] and where each row's answer begins."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    rng, tokenizer = random.Random(seed), Tokenizer.from_str(tokenizer)
    waiting = {length: [] for length in LENGTHS}
    while True:
        made = []
        for _ in range(256):
            for name, text, answer in examples(rng):
                if name is None:
                    with dropped.get_lock():
                        dropped.value += 1
                else:
                    made.append((chat(asked(name, text)), answer))
        prompts = tokenizer.encode_batch_fast([p for p, _ in made])
        answers = tokenizer.encode_batch_fast([a for _, a in made])
        for prompt, answer in zip(prompts, answers):
            ids = prompt.ids + answer.ids + [END]
            length = next((n for n in LENGTHS if len(ids) <= n), None)
            if length is None:
                continue
            waiting[length].append((ids, len(prompt.ids)))
            if len(waiting[length]) == tokens // length:
                rows, waiting[length] = waiting[length], []
                batch = np.full((len(rows), length), PAD, np.int16)
                for row, (ids, _) in zip(batch, rows):
                    row[:len(ids)] = ids
                out.put((batch, np.array([start for _, start in rows], np.int16)))


class Batches:
    """Batches from `workers` processes, taken from each in turn, so that their order follows from the seed."""

    def __init__(self, tokenizer, seed, workers, tokens=TOKENS):
        context = multiprocessing.get_context("fork")
        self.dropped = context.Value("q", 0)
        self.queues = [context.Queue(8) for _ in range(workers)]
        self.processes = [context.Process(target=_work, daemon=True,
                                          args=(tokenizer.to_str(), seed * 1000 + i, tokens, q, self.dropped))
                          for i, q in enumerate(self.queues)]
        for process in self.processes:
            process.start()
        self.next = 0

    def get(self):
        """The next batch."""
        source = self.queues[self.next]
        self.next = (self.next + 1) % len(self.queues)
        while True:
            try:
                return source.get(timeout=60)
            except queue.Empty:
                if not all(p.is_alive() for p in self.processes):
                    raise SystemExit("a process that makes batches ended")

    def close(self):
        for process in self.processes:
            process.terminate()
