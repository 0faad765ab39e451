"""Makes the golden files of Idefics3 and SmolVLM in the folders `idefics3` and `smolvlm` beside this script.

    pip install num2words
    python make_idefics3.py

- `idefics3`: marks of rows and columns are text, two line ends are one token, an output layer of its own, Llama 3.1's
  rotary scheme, up to 3 x 3 tiles.
- `smolvlm`: marks of rows and columns are tokens, the output layer is the embedding table, tiles whose edge is no
  multiple of the patch (384 and 14 in the checkpoint of 2.2 billion parameters). `whole.*` in expected.safetensors is
  what becomes of the first case when pictures are not cut.

Made with Python 3.11, torch 2.11.0 (CPU, f32, eager attention), torchvision 0.26.0, transformers 5.17.0,
tokenizers 0.23.3, pillow 13.0.0, numpy 2.4.6, safetensors 0.8.0, num2words 0.5.14.
"""

import json
import pathlib

import language
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import (
    Idefics3Config, Idefics3ForConditionalGeneration, Idefics3Processor, PreTrainedTokenizerFast, SmolVLMConfig,
    SmolVLMForConditionalGeneration, SmolVLMProcessor,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil
from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor

HERE = pathlib.Path(__file__).resolve().parent
MARKS = {"bos_token": "<|im_start|>", "eos_token": "<end_of_utterance>", "pad_token": "<|im_end|>"}
SPECIAL = ["<|im_start|>", "<|im_end|>", "<fake_token_around_image>", "<image>", "<end_of_utterance>"]
# The same turns as the published templates: names with a capital letter, a space after the colon unless a picture comes.
TEMPLATE = """\
{{- '<|im_start|>' }}
{%- for message in messages %}
    {{- message['role'] | capitalize + ':' }}
    {%- if message['content'][0]['type'] != 'image' %}
        {{- ' ' }}
    {%- endif %}
    {%- for part in message['content'] %}
        {%- if part['type'] == 'image' %}
            {{- '<image>' }}
        {%- elif part['type'] == 'text' %}
            {{- part['text'] }}
        {%- endif %}
    {%- endfor %}
    {{- '<end_of_utterance>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- 'Assistant:' }}
{%- endif %}
"""


def tokenizer(more):
    """A byte-level one in which two line ends are a token."""
    raw = json.loads(language.byte_level_tokenizer([]).to_str())
    vocab, merges = raw["model"]["vocab"], raw["model"]["merges"]
    vocab["\u010a\u010a"] = len(vocab)
    merges.append(["\u010a", "\u010a"])
    raw = Tokenizer.from_str(json.dumps(raw))
    raw.add_special_tokens([*SPECIAL, *more])
    return raw


def add(folder, tensors):
    """More tensors for expected.safetensors."""
    path = folder / "expected.safetensors"
    whole = {**load_file(path), **tensors}
    save_file({name: tensor.contiguous() for name, tensor in whole.items()}, path)


def make(name, raw, build, processor, seed):
    folder = HERE / name
    saved = language.begin(folder, raw, TEMPLATE, MARKS)
    model = language.randomised(build, seed)
    model.save_pretrained(saved)
    fast = PreTrainedTokenizerFast(tokenizer_file=str(saved / "tokenizer.json"), **MARKS)
    processor = processor(fast)
    processor.image_processor.save_pretrained(saved)
    (saved / "processor_config.json").write_text(json.dumps({"image_seq_len": processor.image_seq_len}) + "\n")

    def see(name, image):
        found = processor.image_processor(images=[[image]], return_row_col_info=True, return_tensors="pt")
        text = processor.replace_image_token({"rows": found["rows"], "cols": found["cols"]}, 0)
        whole = processor(text="<image>", images=[[image]], return_tensors="pt")
        assert whole["input_ids"][0].tolist() == fast(text, add_special_tokens=False)["input_ids"], name
        arguments = {key: whole[key] for key in ("pixel_values", "pixel_attention_mask")}
        assert arguments["pixel_attention_mask"].all()
        with torch.no_grad():
            features = model.get_image_features(**arguments).pooler_output.flatten(0, 1)
        print(name, tuple(arguments["pixel_values"].shape), tuple(features.shape))
        return language.Seen(arguments["pixel_values"][0], features, text, arguments)

    language.write(folder, model, TEMPLATE, MARKS, see=see, mark="<image>")
    # Pillow resizes its height first.
    [(_, narrow)] = language.pictures(folder, {"narrow": (40, 160)})
    look = see("narrow", narrow)
    add(folder, {"pixels.narrow": look.pixels, "features.narrow": look.features})
    return folder, model, processor, see


def idefics3(ids):
    return Idefics3Config(
        text_config=dict(
            model_type="llama", vocab_size=len(ids), hidden_size=32, intermediate_size=40, num_hidden_layers=3,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, rms_norm_eps=1e-5,
            bos_token_id=ids["<|im_start|>"], eos_token_id=ids["<end_of_utterance>"],
            rope_parameters={
                "rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
            },
        ),
        vision_config=dict(
            hidden_size=24, intermediate_size=36, num_hidden_layers=2, num_attention_heads=2, image_size=24,
            patch_size=6,
        ),
        scale_factor=2, tie_word_embeddings=False, image_token_id=ids["<image>"], pad_token_id=ids["<|im_end|>"],
    )


def smolvlm(ids):
    return SmolVLMConfig(
        text_config=dict(
            model_type="llama", vocab_size=len(ids), hidden_size=24, intermediate_size=40, num_hidden_layers=3,
            num_attention_heads=3, num_key_value_heads=1, max_position_embeddings=512, rms_norm_eps=1e-5,
            bos_token_id=ids["<|im_start|>"], eos_token_id=ids["<end_of_utterance>"],
            rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
        ),
        vision_config=dict(
            hidden_size=16, intermediate_size=36, num_hidden_layers=2, num_attention_heads=2, image_size=38,
            patch_size=6,
        ),
        scale_factor=3, tie_word_embeddings=True, image_token_id=ids["<image>"], pad_token_id=ids["<|im_end|>"],
    )


def main():
    raw = tokenizer([])
    config = idefics3(raw.get_vocab())

    def build():
        return Idefics3ForConditionalGeneration._from_config(config, attn_implementation="eager")

    pil = Idefics3ImageProcessorPil(size={"longest_edge": 72}, max_image_size={"longest_edge": 24})
    make("idefics3", raw, build, lambda fast: Idefics3Processor(pil, fast, image_seq_len=4), 11)

    raw = tokenizer(["<global-img>", *(f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2))])
    config = smolvlm(raw.get_vocab())

    def build():
        return SmolVLMForConditionalGeneration._from_config(config, attn_implementation="eager")

    pil = SmolVLMImageProcessorPil(size={"longest_edge": 76}, max_image_size={"longest_edge": 38})
    folder, model, processor, see = make(
        "smolvlm", raw, build,
        lambda fast: SmolVLMProcessor(pil, fast, video_processor=SmolVLMVideoProcessor(), image_seq_len=4), 12,
    )
    processor.image_processor.do_image_splitting = False
    case = json.loads((folder / "expected.json").read_text())[0]
    look = see("whole", Image.open(folder / f"{case['picture']}.png"))
    tokens = processor.tokenizer(case["prompt"].replace("<image>", look.text), return_tensors="pt").input_ids
    with torch.no_grad():
        logits = model(input_ids=tokens, **look.arguments).logits[0, -1]
    add(folder, {
        "whole.pixels": look.pixels, "whole.features": look.features, "whole.logits": logits,
        "whole.tokens": tokens[0],
    })


if __name__ == "__main__":
    main()
