"""The judge's network: a small Qwen2-VL of transformers, its tokenizer, its training-time forward passes, its folder.

The forward passes below run on the modules of transformers' Qwen2VLForConditionalGeneration (5.17) and compute what
they compute, but batch the pictures of the vision tower and let many questions share one picture: a *row* is a
sequence of segments, each of which sees itself and its parents (`Rows`). `compare_with_transformers` holds them
together.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

import questions
import world
from render import MEAN_COLOUR

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
           "<|video_pad|>"]
STD = (0.26862954, 0.26130258, 0.27577711)
PATCH, MERGE, TEMPORAL = 14, 2, 2
SIDE_PATCHES = world.SIDE // PATCH
IMAGE_TOKENS = (SIDE_PATCHES // MERGE) ** 2
# The pattern by which Qwen2's tokenizer cuts text; a fact of the format, since loaders build it in.
CUT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
TEMPLATE = """{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' or 'image' in part or 'image_url' in part -%}
{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif 'text' in part -%}
{{- part['text'] -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\n' -}}
{%- endif -%}"""


# ---- text ----

def _corpus():
    rng = random.Random(0)
    forms = [f for f, share in questions.FORMS.items() for _ in range(max(1, int(share * 60)))]
    for _ in range(6000):
        scene = world.sample(rng)
        for question, answer in questions.conversation(scene, rng, rng.choice(forms)):
            yield question
            yield answer
        yield questions.statement(scene, rng)
    for text in questions.CATALOGUE:
        yield text
    for _ in range(200):
        yield "Yes"
        yield "No"
        yield "user\nassistant\nsystem\n"


def train_tokenizer(size=1280):
    """Byte-level BPE on the judge's own texts, cut as Qwen2 cuts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(CUT), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(_corpus(), trainers.BpeTrainer(
        vocab_size=size, special_tokens=[AddedToken(t, special=True, normalized=False) for t in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return tokenizer


class Text:
    """Token ids of texts, remembered, and of the pieces of a conversation."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.ids = {t: tokenizer.token_to_id(t) for t in SPECIAL}
        self.memory = {}
        self.newline = self.encode("\n")
        start, end = [self.ids["<|im_start|>"]], [self.ids["<|im_end|>"]]
        self.end = end
        self.user = start + self.encode("user\n")
        self.reply = end + self.newline + start + self.encode("assistant\n")
        self.again = end + self.newline + self.user
        self.picture = [self.ids["<|vision_start|>"]] + [self.ids["<|image_pad|>"]] * IMAGE_TOKENS + [
            self.ids["<|vision_end|>"]]
        words = {i: tokenizer.decode([i]).strip().lower() for i in range(tokenizer.get_vocab_size())}
        self.yes, self.no = ([i for i, w in words.items() if w == word] for word in ("yes", "no"))
        self.answers = {self.encode(word)[0] for word in ("Yes", "No")}
        if any(len(self.encode(word)) != 1 for word in ("Yes", "No")):
            raise SystemExit("the tokenizer cuts Yes or No in pieces")

    def encode(self, text):
        found = self.memory.get(text)
        if found is None:
            found = self.tokenizer.encode(text).ids
            if len(self.memory) < 200_000:
                self.memory[text] = found
        return found


# ---- network ----

def build(vocabulary, ids):
    """The network, freshly initialised."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    config = Qwen2VLConfig(
        text_config=dict(vocab_size=vocabulary, hidden_size=256, intermediate_size=704, num_hidden_layers=6,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048,
                         rms_norm_eps=1e-6, tie_word_embeddings=True, bos_token_id=ids["<|endoftext|>"],
                         eos_token_id=ids["<|im_end|>"], pad_token_id=ids["<|endoftext|>"],
                         rope_parameters={"rope_type": "default", "rope_theta": 10000.0,
                                          "mrope_section": [8, 12, 12]}),
        vision_config=dict(depth=6, embed_dim=192, hidden_size=256, num_heads=3, mlp_ratio=4, patch_size=PATCH,
                           spatial_merge_size=MERGE, temporal_patch_size=TEMPORAL, in_channels=3),
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
        bos_token_id=ids["<|endoftext|>"], eos_token_id=ids["<|im_end|>"], pad_token_id=ids["<|endoftext|>"],
        tie_word_embeddings=True)
    return Qwen2VLForConditionalGeneration._from_config(config, attn_implementation="sdpa")


def patches(images):
    """Pictures (B, 3, 224, 224) in 0..1 to normalised patches (B, 256, 1176) in Qwen2-VL's order."""
    mean, std = (torch.tensor(v, device=images.device)[:, None, None] for v in (MEAN_COLOUR, STD))
    blocks, x = SIDE_PATCHES // MERGE, ((images - mean) / std)[:, None].expand(-1, TEMPORAL, -1, -1, -1)
    x = x.reshape(len(images), TEMPORAL, 3, blocks, MERGE, PATCH, blocks, MERGE, PATCH)
    return x.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(len(images), SIDE_PATCHES**2, -1)


def vision_angles(visual, device):
    """cos and sin (256, 64) of the tower's rotary embedding for one picture."""
    blocks = SIDE_PATCHES // MERGE
    grid = torch.stack(torch.meshgrid(torch.arange(SIDE_PATCHES), torch.arange(SIDE_PATCHES), indexing="ij"), -1)
    grid = grid.reshape(blocks, MERGE, blocks, MERGE, 2).permute(0, 2, 1, 3, 4).reshape(-1, 2).to(device)
    frequencies = visual.rotary_pos_emb.inv_freq.float()
    angles = (grid[..., None].float() * frequencies).flatten(1)
    angles = torch.cat([angles, angles], -1)
    return angles.cos(), angles.sin()


def _turn(x, cos, sin):
    low, high = x.chunk(2, -1)
    return x * cos + torch.cat([-high, low], -1) * sin


def see(visual, x, cos, sin):
    """The vision tower: patches (B, 256, 1176) to image tokens (B, 64, 256)."""
    count, cells = x.shape[:2]
    x = F.linear(x, visual.patch_embed.proj.weight.flatten(1))
    for block in visual.blocks:
        attention = block.attn
        q, k, v = attention.qkv(block.norm1(x)).reshape(count, cells, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k = _turn(q, cos, sin).to(v.dtype), _turn(k, cos, sin).to(v.dtype)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(count, cells, -1)
        x = x + attention.proj(y)
        x = x + block.mlp(block.norm2(x))
    merger = visual.merger
    return merger.mlp(merger.ln_q(x).reshape(count, IMAGE_TOKENS, -1))


def read(language, x, cos, sin, bias):
    """The language model without its head: embeddings (B, L, 256) and additive mask (B, 1, L, L) to states."""
    count, length, _ = x.shape
    for layer in language.layers:
        attention, h = layer.self_attn, layer.input_layernorm(x)
        q, k, v = [p(h).view(count, length, -1, attention.head_dim).transpose(1, 2)
                   for p in (attention.q_proj, attention.k_proj, attention.v_proj)]
        q, k = _turn(q, cos, sin).to(v.dtype), _turn(k, cos, sin).to(v.dtype)
        k, v = [t.repeat_interleave(attention.num_key_value_groups, 1) for t in (k, v)]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(v.dtype).expand(-1, q.shape[1], -1, -1))
        x = x + attention.o_proj(y.transpose(1, 2).reshape(count, length, -1))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return language.norm(x)


# ---- rows ----

HEADER, SHARED, SHARED_BLIND, FIRST_QUESTION = 0, 1, 2, 3


@dataclass
class Rows:
    """Batches of rows as arrays (B, L). A token sees earlier tokens of its own segment and of its parents.

    Segment 0 is the header with the picture, 1 the constant part of the judge's question, 2 the same without a
    picture, 3 and up are questions; parent is 0, 1, 2 or -1 (sees nothing else). Parents 0 and 1 see the picture.
    """

    ids: np.ndarray       # int16
    position: np.ndarray  # int16, of tokens that are no image tokens
    segment: np.ndarray   # int16
    parent: np.ndarray    # int16


class RowBuilder:
    """Fills one row of at most `length` tokens."""

    def __init__(self, text, length):
        self.text, self.length = text, length
        self.ids, self.position, self.segment, self.parent = [], [], [], []
        self.count, self.labels = FIRST_QUESTION, []  # labels: (position in the row, target, weight)
        self.ends = []
        self.blind_from = None
        self._put(text.user + text.picture, 0, HEADER, HEADER)
        pad = len(text.user) + 1
        after = pad + SIDE_PATCHES // MERGE  # the picture takes as many positions as it is wide
        self.position[pad + IMAGE_TOKENS:] = [after]
        self.seen_from = after + 1
        prefix = questions.TEMPLATES["statement"].split("{{ statement }}")[0].rstrip(" ")
        self.shared = text.encode(prefix)
        self.shared_text = prefix
        self._put(self.shared, self.seen_from, SHARED, HEADER)

    def _put(self, ids, start, segment, parent):
        at = len(self.ids)
        self.ids += ids
        self.position += range(start, start + len(ids))
        self.segment += [segment] * len(ids)
        self.parent += [parent] * len(ids)
        return at

    def room(self):
        return self.length - len(self.ids)

    def _ensure_blind(self):
        if self.blind_from is None:
            self._put(self.text.user + self.shared, 0, SHARED_BLIND, -1)
            self.blind_from = len(self.text.user) + len(self.shared)

    def _tokens(self, turns, first):
        """Ids of the turns and the places of the answers' tokens; `first` replaces the first question's ids."""
        ids, answers = list(first), []
        for number, (question, answer) in enumerate(turns):
            if number:
                ids += self.text.again + self.text.encode(question)
            ids += self.text.reply
            if answer is not None:
                tokens = self.text.encode(answer)
                answers += [(len(ids) + i, t) for i, t in enumerate(tokens + self.text.end)]
                ids += tokens
        return ids, answers

    def add(self, turns, weights=(1.0, 4.0, 0.3), blind=False):
        """Adds a conversation if it fits. weights: of the answer to a statement, another Yes or No, other tokens."""
        whole = turns[0][0]
        is_statement = whole.startswith(self.shared_text)
        first = self.text.encode(whole[len(self.shared_text):] if is_statement else whole)
        ids, answers = self._tokens(turns, first)
        if blind and not is_statement:  # sees nothing else: it brings its own beginning
            answers = [(place + len(self.text.user), target) for place, target in answers]
            ids = self.text.user + ids
        shares = blind and is_statement
        extra = len(self.text.user) + len(self.shared) if shares and self.blind_from is None else 0
        if len(ids) + extra > self.room():
            return False
        if shares:
            self._ensure_blind()
        if blind:
            start, parent = (self.blind_from, SHARED_BLIND) if shares else (0, -1)
        else:
            start = self.seen_from + (len(self.shared) if is_statement else 0)
            parent = SHARED if is_statement else HEADER
        at = self._put(ids, start, self.count, parent)
        self.count += 1
        self.ends.append(len(self.ids) - 1)
        for place, target in answers:
            if target in self.text.answers:
                weight = weights[0] if is_statement and len(turns) == 1 else weights[1]
            else:
                weight = weights[2]
            self.labels.append((at + place - 1, target, weight))
        return True


def stack(builders, length, pad):
    """Rows and labels of many builders: (Rows, flat positions, targets, weights)."""
    rows = Rows(*(np.zeros((len(builders), length), np.int16) for _ in range(4)))
    rows.ids[:] = pad
    rows.segment[:] = -2
    rows.parent[:] = -1
    labels = []
    for b, builder in enumerate(builders):
        used = len(builder.ids)
        for name in ("ids", "position", "segment", "parent"):
            getattr(rows, name)[b, :used] = getattr(builder, name)
        labels += [(b * length + at, target, weight) for at, target, weight in builder.labels]
    where, target, weight = zip(*labels) if labels else ((), (), ())
    return rows, np.array(where, np.int64), np.array(target, np.int64), np.array(weight, np.float32)


def positions(position, pad_start):
    """(B, L) text positions to the three of M-RoPE (3, B, L): image tokens get time, row and column."""
    out = position.long()[None].repeat(3, 1, 1)
    side = SIDE_PATCHES // MERGE
    axis = torch.arange(side, device=position.device)
    place = slice(pad_start, pad_start + IMAGE_TOKENS)
    out[0, :, place] = pad_start
    out[1, :, place] = pad_start + axis.repeat_interleave(side)
    out[2, :, place] = pad_start + axis.repeat(side)
    return out


def mask(segment, parent, dtype):
    """The additive attention mask (B, 1, L, L) of rows."""
    key, query, above = segment[:, None, :], segment[:, :, None], parent[:, :, None]
    seen = (key == query) | (key == above) | ((key == HEADER) & ((above == HEADER) | (above == SHARED)))
    length = segment.shape[1]
    order = torch.arange(length, device=segment.device)
    seen = seen & (order[None, :] <= order[:, None])
    return torch.zeros((), device=segment.device, dtype=dtype).expand_as(seen).masked_fill(~seen, float("-inf"))[:, None]


class Network:
    """The model with its forward passes on one device, compiled or not."""

    def __init__(self, model, text, device, compiled):
        self.model, self.text, self.device = model, text, device
        self.visual, self.language = model.model.visual, model.model.language_model
        self.angles = vision_angles(self.visual, device)
        self.pad_start = len(text.user) + 1
        self.see, self.read = see, read
        if compiled:
            self.see, self.read = torch.compile(see, dynamic=False), torch.compile(read, dynamic=False)

    def pictures(self, images):
        return self.see(self.visual, patches(images), *self.angles)

    def states(self, features, rows):
        """Image tokens (B, 64, 256) and rows (tensors on the device) to states (B, L, 256)."""
        ids, position, segment, parent = rows
        x = self.language.embed_tokens(ids.long())
        place = slice(self.pad_start, self.pad_start + IMAGE_TOKENS)
        x = torch.cat([x[:, :place.start], features.to(x.dtype), x[:, place.stop:]], 1)
        cos, sin = self.language.rotary_emb(x, positions(position, self.pad_start))
        return self.read(self.language, x, cos[:, None], sin[:, None], mask(segment, parent, torch.bfloat16))

    def logits(self, states):
        return F.linear(states, self.language.embed_tokens.weight)

    def rows(self, rows):
        """`Rows` as tensors on the device."""
        arrays = (rows.ids, rows.position, rows.segment, rows.parent)
        tensors = [torch.from_numpy(a) for a in arrays]
        if self.device.type == "cuda":
            tensors = [t.pin_memory() for t in tensors]
        return [t.to(self.device, non_blocking=True) for t in tensors]


# ---- folder ----

def export(model, tokenizer, folder):
    """Writes a Hugging Face folder: weights in bf16 in shards of at most 14 MB, tokenizer, processors."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    copy = build(model.config.text_config.vocab_size, {t: tokenizer.token_to_id(t) for t in SPECIAL})
    copy.load_state_dict(model.state_dict())
    copy.to(torch.bfloat16).save_pretrained(folder, max_shard_size="14MB")
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = {t: tokenizer.token_to_id(t) for t in SPECIAL}
    added = {str(i): {"content": t, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
                      "special": True} for t, i in ids.items()}
    picture = {"do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True,
               "image_mean": list(MEAN_COLOUR), "image_std": list(STD), "merge_size": MERGE, "patch_size": PATCH,
               "temporal_patch_size": TEMPORAL, "resample": 3, "rescale_factor": 1 / 255,
               "min_pixels": world.SIDE**2, "max_pixels": world.SIDE**2,
               "size": {"shortest_edge": world.SIDE**2, "longest_edge": world.SIDE**2}}
    files = {
        "tokenizer_config.json": {
            "add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": added,
            "additional_special_tokens": SPECIAL[1:], "bos_token": None, "chat_template": TEMPLATE,
            "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>", "errors": "replace",
            "image_token": "<|image_pad|>", "video_token": "<|video_pad|>",
            "vision_bos_token": "<|vision_start|>", "vision_eos_token": "<|vision_end|>",
            "model_max_length": 2048, "pad_token": "<|endoftext|>", "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer", "unk_token": None},
        "generation_config.json": {
            "bos_token_id": ids["<|endoftext|>"], "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
            "pad_token_id": ids["<|endoftext|>"], "do_sample": False, "max_new_tokens": 128},
        "preprocessor_config.json": {**picture, "image_processor_type": "Qwen2VLImageProcessor",
                                     "processor_class": "Qwen2VLProcessor"},
        "processor_config.json": {"processor_class": "Qwen2VLProcessor"},
        "video_preprocessor_config.json": {**picture, "video_processor_type": "Qwen2VLVideoProcessor",
                                           "processor_class": "Qwen2VLProcessor"},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for path in folder.iterdir():
        path.chmod(0o644)


@torch.no_grad()
def compare_with_transformers(folder, network, images):
    """Largest difference of Yes and No's logits between these forward passes and the folder loaded by transformers.

    Also checks that the folder's tokenizer and image processor give the ids and patches trained on.
    """
    from PIL import Image
    from transformers import AutoProcessor, AutoTokenizer, Qwen2VLForConditionalGeneration

    stored = Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer, processor = AutoTokenizer.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    text, asked = network.text, questions.asked("a person is smoking a cigarette")
    mine = Network(stored, text, torch.device("cpu"), False)
    worst = 0.0
    for image in images.cpu():
        picture = Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().numpy())
        exact = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None].float() / 255
        for blind in (False, True):
            content = ([] if blind else [{"type": "image"}]) + [{"type": "text", "text": asked}]
            prompt = tokenizer.apply_chat_template([{"role": "user", "content": content}], tokenize=False,
                                                   add_generation_prompt=True)
            batch = processor(text=[prompt], images=None if blind else [picture], return_tensors="pt")
            builder = RowBuilder(text, 512)
            builder.add([(asked, None)], blind=blind)
            kept = [i for i, s in enumerate(builder.segment)
                    if s in ((SHARED_BLIND, FIRST_QUESTION) if blind else (HEADER, SHARED, FIRST_QUESTION))]
            if batch["input_ids"][0].tolist() != [builder.ids[i] for i in kept]:
                raise SystemExit("the folder's tokenizer and template give other ids than training used")
            if not blind and (batch["pixel_values"] - patches(exact)[0]).abs().max() > 1e-4:
                raise SystemExit("the folder's image processor gives other patches than training used")
            theirs = stored(**batch).logits[0, -1]
            rows, *_ = stack([builder], 512, 0)
            state = mine.states(mine.pictures(exact), mine.rows(rows))[0, builder.ends[-1]]
            ours, ids = mine.logits(state), text.yes + text.no
            worst = max(worst, (ours[ids] - theirs[ids]).abs().max().item())
    return worst
