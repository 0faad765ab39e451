"""The text model's network: a small Llama with the names of transformers' LlamaForCausalLM, and its folder."""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from text_data import CHAT, END, PAD, SPECIAL, chat

WIDTH, INNER, LAYERS, HEADS, KEYS = 192, 288, 6, 4, 2
HEAD, THETA, EPSILON = WIDTH // HEADS, 10000.0, 1e-6


class Norm(nn.Module):
    """RMS normalisation."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), EPSILON)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj = nn.Linear(WIDTH, HEADS * HEAD, bias=False)
        self.k_proj = nn.Linear(WIDTH, KEYS * HEAD, bias=False)
        self.v_proj = nn.Linear(WIDTH, KEYS * HEAD, bias=False)
        self.o_proj = nn.Linear(HEADS * HEAD, WIDTH, bias=False)

    def forward(self, x, turn):
        rows, length, _ = x.shape
        split = lambda y, n: y.view(rows, length, n, HEAD).transpose(1, 2)  # noqa: E731
        q, k, v = split(self.q_proj(x), HEADS), split(self.k_proj(x), KEYS), split(self.v_proj(x), KEYS)
        k, v = (y.repeat_interleave(HEADS // KEYS, 1) for y in (turned(k, turn), v))
        y = F.scaled_dot_product_attention(turned(q, turn), k, v, is_causal=True)
        return self.o_proj(y.transpose(1, 2).reshape(rows, length, HEADS * HEAD))


def turned(x, turn):
    """Rotary positions, halves apart as in transformers."""
    cos, sin = turn
    first, second = x.chunk(2, -1)
    return x * cos.to(x.dtype) + torch.cat([-second, first], -1) * sin.to(x.dtype)


class FeedForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate_proj = nn.Linear(WIDTH, INNER, bias=False)
        self.up_proj = nn.Linear(WIDTH, INNER, bias=False)
        self.down_proj = nn.Linear(INNER, WIDTH, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attn, self.mlp = Attention(), FeedForward()
        self.input_layernorm, self.post_attention_layernorm = Norm(WIDTH), Norm(WIDTH)

    def forward(self, x, turn):
        x = x + self.self_attn(self.input_layernorm(x), turn)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = Norm(WIDTH)


class Network(nn.Module):
    """The whole model; the embedding table is the output layer too."""

    def __init__(self, vocabulary):
        super().__init__()
        self.model = Decoder(vocabulary)
        for name, weight in self.named_parameters():
            if weight.ndim > 1:
                out = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(weight, std=0.05 / (2 * LAYERS) ** 0.5 if out else 0.05)

    def forward(self, ids):
        """Logits [rows, length, vocabulary]. Rows are padded behind their end, where nothing looks."""
        x = self.model.embed_tokens(ids)
        at = torch.arange(ids.shape[1], device=ids.device, dtype=torch.float32)
        rate = THETA ** (-torch.arange(0, HEAD, 2, device=ids.device, dtype=torch.float32) / HEAD)
        angle = torch.outer(at, rate).repeat(1, 2)
        turn = angle.cos(), angle.sin()
        for layer in self.model.layers:
            x = layer(x, turn)
        return F.linear(self.model.norm(x), self.model.embed_tokens.weight)

    def loss(self, ids, begin):
        """Mean cross-entropy of the answers, and the share of their tokens that are the likeliest."""
        logits = self(ids[:, :-1]).float()
        target = ids[:, 1:]
        at = torch.arange(target.shape[1], device=ids.device)
        asked = (at[None] >= begin[:, None] - 1) & (target != PAD)
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view_as(target)
        right = (logits.argmax(-1) == target) & asked
        count = asked.sum()
        return (loss * asked).sum() / count, right.sum() / count


@torch.no_grad()
def answers(network, tokenizer, prompts, most=112, batch=512):
    """Greedy answers, computed anew for each token: slow on a CPU, and simple."""
    device = next(network.parameters()).device
    out = [None] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for first in range(0, len(order), batch):
        chosen = order[first:first + batch]
        ids = [tokenizer.encode(chat(prompts[i])).ids for i in chosen]
        begin = torch.tensor([len(x) for x in ids], device=device)
        rows = torch.full((len(ids), max(map(len, ids)) + most), PAD, device=device)
        for row, x in zip(rows, ids):
            row[:len(x)] = torch.tensor(x, device=device)
        at, done = begin.clone(), torch.zeros(len(ids), dtype=torch.bool, device=device)
        every = torch.arange(len(ids), device=device)
        for _ in range(most):
            logits = network(rows[:, :int(at.max())])
            token = logits[every, at - 1].argmax(-1)
            token = torch.where(done, PAD, token)
            rows[every, at] = token
            done |= token == END
            at += ~done
            if bool(done.all()):
                break
        for i, row, start, stop in zip(chosen, rows.tolist(), begin.tolist(), at.tolist()):
            out[i] = tokenizer.decode(row[start:stop], skip_special_tokens=True)
    return out


def export(network, tokenizer, folder):
    """Writes a Hugging Face folder with weights in bf16, and stops if transformers computes anything else with it."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    size = tokenizer.get_vocab_size()
    copy = LlamaForCausalLM(LlamaConfig(
        vocab_size=size, hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=KEYS, max_position_embeddings=1024, rms_norm_eps=EPSILON, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=END, pad_token_id=PAD,
        rope_parameters={"rope_type": "default", "rope_theta": THETA}))
    missing, unknown = copy.load_state_dict({k: v.float().cpu() for k, v in network.state_dict().items()}, strict=False)
    if unknown or set(missing) - {"lm_head.weight"}:
        raise SystemExit(f"the names of weights differ from transformers': {missing}, {unknown}")
    copy.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    added = {str(i): {"content": t, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
                      "special": True} for i, t in enumerate(SPECIAL)}
    files = {
        "tokenizer_config.json": {
            "add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": added,
            "additional_special_tokens": SPECIAL[1:], "bos_token": None, "chat_template": CHAT,
            "clean_up_tokenization_spaces": False, "eos_token": SPECIAL[END], "errors": "replace",
            "model_max_length": 1024, "pad_token": SPECIAL[PAD], "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer", "unk_token": None},
        "generation_config.json": {"eos_token_id": [END, PAD], "pad_token_id": PAD, "do_sample": False,
                                   "max_new_tokens": 128},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for path in folder.iterdir():
        if path.is_file():
            path.chmod(0o644)
    stored = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    theirs = AutoTokenizer.from_pretrained(folder)
    prompt = "Take this rule apart: No kids near GUNS, please; 12 é!"
    ids = theirs.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True,
                                     return_tensors="pt", return_dict=True)["input_ids"]
    if ids[0].tolist() != tokenizer.encode(chat(prompt)).ids:
        raise SystemExit("the folder's tokenizer and template give other ids than training used")
    mine = Network(size)
    mine.load_state_dict({k: v for k, v in stored.state_dict().items() if k != "lm_head.weight"})
    with torch.no_grad():
        gap = (mine(ids) - stored(ids).logits).abs().max().item()
    if gap > 1e-3:
        raise SystemExit(f"transformers computes other logits with the folder, {gap} apart")
    return gap


def load(folder):
    """The network and the tokenizer of a folder, on the CPU in f32."""
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    network = Network(tokenizer.get_vocab_size())
    weights = load_file(Path(folder) / "model.safetensors")
    network.load_state_dict({k: v.float() for k, v in weights.items() if k != "lm_head.weight"})
    return network.eval(), tokenizer
