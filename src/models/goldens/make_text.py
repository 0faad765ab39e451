"""Makes the golden files of the text models in the folders `llama`, `mistral`, `qwen2` and `qwen3` beside this script.

Small random models in Hugging Face layout, a few conversations, and what Hugging Face transformers makes of them: the
logits at the last position, greedy answers. Everything follows from fixed seeds.

    python make_text.py

Made with Python 3.11, torch 2.11.0 (CPU, f32, eager attention), transformers 5.17.0, tokenizers 0.23.3.
"""

import pathlib

import language
import make_templates as templates
from tokenizers import processors
from transformers import (
    LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config,
    Qwen3ForCausalLM,
)

HERE = pathlib.Path(__file__).resolve().parent
# How the Llama 3 tokenizer cuts text into words: up to three digits at a time.
LLAMA_WORDS = language.QWEN_WORDS.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
SIZES = dict(
    hidden_size=32, intermediate_size=40, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=512, rms_norm_eps=1e-6,
)
# What this project settles for every template, said to the reference.
SETTLED = "{% set enable_thinking = false %}{% set date_string = '1 May 2024' %}"


def llama():
    """As 3.1 and 3.2: scaled rotary positions, an output layer that is the embedding table, heads of their own width.

    Unlike in them every map has a bias, as the family may have it; in mistral's below none has. All questions are longer
    than the context of the training, 16 tokens.
    """
    marks = {"bos_token": "<|first|>", "eos_token": "<|turn|>"}
    raw = language.byte_level_tokenizer(["<|first|>", "<|header|>", "<|/header|>", "<|turn|>"], LLAMA_WORDS, None)
    first = raw.token_to_id("<|first|>")
    # Added to every text, and not to a conversation, which begins with it already.
    raw.post_processor = processors.TemplateProcessing(
        single="<|first|> $A", pair="<|first|> $A <|first|> $B", special_tokens=[("<|first|>", first)])
    rope = dict(
        rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=16)
    make("llama", raw, templates.LLAMA3, marks, LlamaConfig, LlamaForCausalLM, head_dim=12, rope_parameters=rope,
         tie_word_embeddings=True, attention_bias=True, mlp_bias=True, bos_token_id=first,
         eos_token_id=raw.token_to_id("<|turn|>"))


def mistral():
    """As 7B v0.3: no sliding window, heads narrower than the hidden width divided by their number."""
    raw = language.sentencepiece_tokenizer([])
    make("mistral", raw, templates.MISTRAL, templates.TOKENS, MistralConfig, MistralForCausalLM, head_dim=6,
         sliding_window=None, rope_parameters=dict(rope_type="default", rope_theta=1000000.0), bos_token_id=1,
         eos_token_id=2)


def qwen(name, template, config, model, **more):
    special = ["<|endoftext|>", "<|begin|>", "<|end|>"]
    # Qwen3's are no special tokens, so that thoughts are decoded.
    thoughts = ["<think>", "</think>"] if name == "qwen3" else []
    raw = language.byte_level_tokenizer(special)
    raw.add_tokens(thoughts)
    marks = {"eos_token": "<|end|>", "pad_token": "<|endoftext|>"}
    make(name, raw, template, marks, config, model, eos_token_id=raw.token_to_id("<|end|>"), bos_token_id=None,
         rope_parameters=dict(rope_type="default", rope_theta=1000000.0), use_sliding_window=False, **more)


def make(name, raw, template, marks, config, model, **more):
    folder = HERE / name
    checkpoint = language.begin(folder, raw, template, marks)
    size = raw.get_vocab_size(with_added_tokens=True)
    made = language.randomised(
        lambda: model._from_config(config(vocab_size=size, **SIZES, **more), attn_implementation="eager"))
    made.save_pretrained(checkpoint)
    # The template takes only strings, and there is no picture to be written into them.
    language.write(folder, made, SETTLED + template, marks, mark="", strings=True)


if __name__ == "__main__":
    llama()
    mistral()
    qwen("qwen2", templates.QWEN25, Qwen2Config, Qwen2ForCausalLM)
    qwen("qwen3", templates.QWEN3, Qwen3Config, Qwen3ForCausalLM, head_dim=10, tie_word_embeddings=True)
