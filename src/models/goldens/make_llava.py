"""Makes the golden files of the LLaVA port in the folders `llava`, `llava_next` and `llava_next_mistral` beside this
script.

Small random models in Hugging Face layout: LLaVA-1.5 over a Llama with a head for each query, LLaVA-NeXT over one with
shared keys and values, LLaVA-NeXT over a Mistral. See language.py for what is written, and `OTHER` for what else.

    python make_llava.py

Made with Python 3.11, torch 2.11.0 (CPU, f32, eager attention), torchvision 0.26.0, transformers 5.17.0,
tokenizers 0.23.3, pillow 13.0.0, numpy 2.4.6, safetensors 0.8.0.
"""

import json
import pathlib

import language
import torch
import transformers.image_processing_backends as backends
from PIL import Image
from safetensors.torch import save_file
from tokenizers import processors
from transformers import (
    CLIPImageProcessor, LlavaConfig, LlavaForConditionalGeneration, LlavaImageProcessor, LlavaNextConfig,
    LlavaNextForConditionalGeneration, LlavaNextImageProcessor, LlavaNextProcessor, LlavaProcessor,
    PreTrainedTokenizerFast)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

HERE = pathlib.Path(__file__).resolve().parent
MARKS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
IMAGE = "<image>"
SIDE, PATCH = 24, 4
GRID = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE], [3 * SIDE, SIDE], [SIDE, 3 * SIDE]]
# The constructs of the published templates: pictures first, roles in capitals, marks around what is trained on.
VICUNA = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{# pictures, then words #}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ part['text'] + ' ' }}{% endgeneration %}"
    "{% else %}{{ part['text'] + ' ' }}{% endif %}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
MISTRAL = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' }}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] }}{% endfor %}"
    "{{ ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'][0]['text'] + '</s>' }}"
    "{% else %}{{ raise_exception('another role') }}{% endif %}{% endfor %}"
)
VISION = dict(
    model_type="clip_vision_model", hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2,
    image_size=SIDE, patch_size=PATCH, projection_dim=16)
TEXT = dict(
    hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=3, max_position_embeddings=512,
    rms_norm_eps=1e-5, pad_token_id=None)
ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1000.0}}
# Other ways to read features, and to fit a picture, that a configuration may ask of LLaVA-1.5: in other.safetensors.
OTHER = {"full": (-1, "full"), "first": (1, "default"), "embedded": (0, "full")}

single_resize = backends.np_resize


def width_first(image, size, **options):
    """Pillow's resize with the width first whatever the ratio, as torchvision has it; see `language.SIZES`."""
    image = single_resize(image, size=(image.shape[1], size[1]), **options)
    return single_resize(image, size=size, **options)


backends.np_resize = width_first


def pixels(processor, other, image):
    """Of Pillow's processor, which agrees with torchvision's but for rounding: a level here and there, rarely two."""
    out = processor(images=[image], return_tensors="pt")
    gap = (out["pixel_values"] - other(images=[image], return_tensors="pt")["pixel_values"]).abs()
    levels = gap * min(processor.image_std) * 255
    assert levels.max() < 2.1 and (levels > 0.5).float().mean() < 0.01, f"the processors differ by {levels.max()}"
    return out


def make(name, template, text, kind, first, seed):
    folder = HERE / name
    tiled = kind is LlavaNextConfig
    raw = language.sentencepiece_tokenizer([IMAGE, "<pad>"])
    ids = raw.get_vocab()
    raw.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", ids["<s>"])])
    at = language.begin(folder, raw, template, MARKS, tokenizer_class="LlamaTokenizer", **first)
    more = {"image_grid_pinpoints": GRID} if tiled else {}
    config = kind(
        text_config=dict(**TEXT, **text, vocab_size=-(-len(ids) // 64) * 64), vision_config=dict(VISION),
        image_token_index=ids[IMAGE], **more)
    of = LlavaNextForConditionalGeneration if tiled else LlavaForConditionalGeneration
    model = language.randomised(lambda: of._from_config(config, attn_implementation="eager"), seed)
    model.save_pretrained(at)
    options = dict(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, **more)
    classes = (LlavaNextImageProcessorPil, LlavaNextImageProcessor) if tiled else \
        (CLIPImageProcessorPil, CLIPImageProcessor)
    processor, other = (of(**options) for of in classes)
    processor.save_pretrained(at)

    def see(name, image):
        out = pixels(processor, other, image)
        with torch.no_grad():
            features = model.get_image_features(**out, return_dict=True).pooler_output[0]
        values = out["pixel_values"][0] if tiled else out["pixel_values"]
        return language.Seen(values, features, IMAGE * len(features), dict(out))

    language.write(folder, model, template, MARKS, see=see, mark=IMAGE, start="<s>")
    check(folder, at, template, other, tiled)
    if not tiled:
        others(folder, model, options)


def check(folder, at, template, images, tiled):
    """The whole processor makes the same tokens of the same conversations."""
    fast = PreTrainedTokenizerFast(tokenizer_file=str(at / "tokenizer.json"), **MARKS)
    of = LlavaNextProcessor if tiled else LlavaProcessor
    whole = of(images, fast, patch_size=PATCH, vision_feature_select_strategy="default", num_additional_image_tokens=1)
    for case in json.loads((folder / "expected.json").read_text()):
        text = fast.apply_chat_template(
            language.conversation(case), chat_template=template, tokenize=False, add_generation_prompt=True)
        picture = {"images": Image.open(folder / f"{case['picture']}.png")} if case["picture"] else {}
        found = whole(text=text + case["answer_start"], **picture)["input_ids"]
        found = found[0] if isinstance(found[0], list) else found
        assert found == case["tokens"], f"{case['name']}: {found} and not {case['tokens']}"


def others(folder, model, options):
    tensors = {}
    padding, other = (of(**options, do_pad=True) for of in (LlavaImageProcessorPil, LlavaImageProcessor))
    for name in language.SIZES:
        image = Image.open(folder / f"{name}.png")
        tensors[f"padded.{name}"] = pixels(padding, other, image)["pixel_values"]
        values = cropped(options, image)
        for way, (layer, strategy) in OTHER.items():
            with torch.no_grad():
                out = model.get_image_features(
                    values, vision_feature_layer=layer, vision_feature_select_strategy=strategy, return_dict=True)
            tensors[f"{way}.{name}"] = out.pooler_output[0].contiguous()
    save_file(tensors, folder / "other.safetensors")


def cropped(options, image):
    return pixels(CLIPImageProcessorPil(**options), CLIPImageProcessor(**options), image)["pixel_values"]


if __name__ == "__main__":
    make("llava", VICUNA, {"model_type": "llama"}, LlavaConfig, {"add_bos_token": True, "add_eos_token": False}, 11)
    make("llava_next", VICUNA, {"model_type": "llama", "num_key_value_heads": 1, **ROPE}, LlavaNextConfig, {}, 17)
    make(
        "llava_next_mistral", MISTRAL,
        {"model_type": "mistral", "num_key_value_heads": 1, "sliding_window": None, **ROPE}, LlavaNextConfig, {}, 13)
