"""Makes the golden files of the InternVL port in the layout in which OpenGVLab published it, in the folders
`internvl_chat_internlm2` and `internvl_chat_qwen2` beside this script.

Small random models with the tokenizer files of the published ones, pictures of one and of several tiles, and what
OpenGVLab's own code makes of them. See language.py. Of the first the vision tower is of the 6B kind (RMS norms, also of
queries and keys, no bias), of the second of the 300M kind. The file `tokenized.json` of each holds texts and their
tokens by the slow tokenizer, the first one's being SentencePiece's; `tokenizer.json` is the fast one.

    python make_internvl_chat.py INTERNVL

INTERNVL is a checkout of github.com/OpenGVLab/InternVL, at 2410d1dbf208f0e799459aff9376e5747dbf41a2 here.

Made with Python 3.11, torch 2.11.0 (CPU, f32, eager attention), torchvision 0.26.0, transformers 4.49.0,
tokenizers 0.21.4, sentencepiece 0.2.3, einops, timm 1.0.31, pillow 12.3.0 (which resizes the width first), numpy 2.4.6,
safetensors 0.8.0.
"""

import importlib.machinery
import json
import pathlib
import shutil
import sys
import types

import language
import make_tokenizers
import tiles
import torch
import transformers.trainer_pt_utils  # Looks for peft, before it is stood in for.
from tokenizers import decoders
from transformers import AddedToken, Qwen2Tokenizer, Qwen2TokenizerFast

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(pathlib.Path(sys.argv[1]) / "internvl_chat"))
# What training and videos need.
for name in ("peft", "cv2", "imageio", "decord"):
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.LoraConfig = module.get_peft_model = module.VideoReader = None
    sys.modules.setdefault(name, module)

from internvl.model.internlm2.tokenization_internlm2 import InternLM2Tokenizer  # noqa: E402
from internvl.model.internlm2.tokenization_internlm2_fast import InternLM2TokenizerFast  # noqa: E402
from internvl.model.internvl_chat import InternVLChatConfig, InternVLChatModel  # noqa: E402
from internvl.train.constants import IMAGENET_MEAN, IMAGENET_STD  # noqa: E402
from internvl.train.dataset import build_transform, dynamic_preprocess  # noqa: E402

# Same turns as the published templates, which take strings.
TURNS = """\
{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}\
{{ message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
SYSTEM = """\
{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou look at pictures.<|im_end|>\\n' }}{% endif %}"""
IMAGE = "<image>"


class Reference:
    """OpenGVLab's model, called as language.py calls models."""

    def __init__(self, model, ids):
        self.model, self.end = model, ids["<|im_end|>"]
        model.img_context_token_id = ids["<IMG_CONTEXT>"]

    def __call__(self, input_ids, pixel_values=None):
        if pixel_values is None:
            return self.model.language_model(input_ids=input_ids)
        flags = torch.ones(len(pixel_values), 1)
        return self.model(pixel_values=pixel_values, input_ids=input_ids, image_flags=flags)

    def generate(self, input_ids, attention_mask, do_sample, max_new_tokens, pixel_values=None):
        new = self.model.generate(
            pixel_values=pixel_values, input_ids=input_ids, attention_mask=attention_mask, do_sample=do_sample,
            max_new_tokens=max_new_tokens, eos_token_id=self.end, pad_token_id=self.end)
        return torch.cat([input_ids, new], 1)


def internlm2_tokenizer(folder):
    """A SentencePiece model as that of InternLM2: pieces at its end are given their meaning by the configuration."""
    file = folder / "tokenizer.model"
    user_defined = ("\u2014\u2014", "\u2026\u2026", *(f"[UNUSED_TOKEN_{i}]" for i in range(3)))
    size = make_tokenizers.sentencepiece_model(
        file, prefix=False, more=[("\0", -1000, 1), *((text, 0, 4) for text in user_defined)])
    named = {0: "<unk>", 1: "<s>", 2: "</s>", size - 2: "<|im_end|>", size - 1: "<|im_start|>"}
    named.update(enumerate(["<img>", "</img>", "<IMG_CONTEXT>", "<quad>"], size))
    options = dict(
        additional_special_tokens=[named[i] for i in sorted(named) if i > 2],
        added_tokens_decoder={i: AddedToken(token, special=True, normalized=False) for i, token in named.items()})
    fast = InternLM2TokenizerFast(str(file), **options)
    # Its own takes a space from the beginning, which SentencePiece does only where it put one there.
    space = "\u2581"
    fast.backend_tokenizer.decoder = decoders.Sequence([
        decoders.Replace(space, " "), decoders.ByteFallback(), decoders.Fuse()])
    return InternLM2Tokenizer(str(file), **options), fast


def decode_as(slow, fast):
    """Has the slow tokenizer decode as the fast one does, which differs for bytes that are no text."""
    decode = slow.decode

    def same(ids, **options):
        text = fast.decode(ids, **options)
        assert "\ufffd" in text or text == decode(ids, **options), f"{text!r} and {decode(ids, **options)!r}"
        return text

    slow.decode = same


def qwen2_tokenizer(folder):
    """The files of Qwen2's slow tokenizer."""
    model = json.loads(language.byte_level_tokenizer([]).to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(pairs) + "\n")
    special = [token for token in tiles.SPECIAL if token != "<|endoftext|>"]
    files = str(folder / "vocab.json"), str(folder / "merges.txt")
    return tuple(
        kind(*files, eos_token="<|im_end|>", additional_special_tokens=special)
        for kind in (Qwen2Tokenizer, Qwen2TokenizerFast))


def random_model(ids, text, vision):
    config = InternVLChatConfig(
        vision_config=dict(
            architectures=["InternVisionModel"], hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=24, image_size=tiles.TILE, patch_size=tiles.PATCH, **vision),
        llm_config=dict(text), force_image_size=tiles.TILE, downsample_ratio=0.5, template="internlm2-chat",
        dynamic_image_size=True, use_thumbnail=True, ps_version="v2", min_dynamic_patch=1,
        max_dynamic_patch=tiles.MOST)
    return InternVLChatModel(config, use_flash_attn=False)


def make(folder, template, make_tokenizer, text, vision):
    shutil.rmtree(folder, ignore_errors=True)
    at = folder / "model"
    at.mkdir(parents=True)
    tokenizer, fast = make_tokenizer(at)
    decode_as(tokenizer, fast)
    # Beside the checkpoint, which is published without it.
    fast.backend_tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.chat_template = template
    tokenizer.save_pretrained(at)
    # Not data.
    (at / "tokenization_internlm2.py").unlink(missing_ok=True)
    # As published beside most of the models; only the tests look into it.
    (at / "preprocessor_config.json").write_text(json.dumps({
        "crop_size": tiles.TILE, "do_center_crop": True, "do_normalize": True, "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD,
        "resample": 3, "size": tiles.TILE}) + "\n")
    ids = tokenizer.get_vocab()
    # Published with the end of a text, not of a turn.
    end = tokenizer.convert_tokens_to_ids(tokenizer.pad_token)
    sizes = {**tiles.text_sizes(len(ids), end, end), **text}
    model = language.randomised(lambda: random_model(ids, sizes, vision))
    model.save_pretrained(at)
    transform = build_transform(False, tiles.TILE)
    make_tokenizers.write_tokenized(folder, tokenizer)

    def see(name, image):
        cut = dynamic_preprocess(image, 1, tiles.MOST, tiles.TILE, use_thumbnail=True)
        pixels = torch.stack([transform(tile) for tile in cut])
        with torch.no_grad():
            features = model.extract_feature(pixels)
        text = tiles.text_of(len(cut))
        return language.Seen(pixels, features.flatten(0, 1), text, dict(pixel_values=pixels))

    language.write(
        folder, Reference(model, ids), template, {}, see=see, mark=IMAGE, strings=True, cases=tiles.CASES,
        sizes=tiles.SIZES, tokenizer=tokenizer)
    return at, ids


def main():
    at, ids = make(
        HERE / "internvl_chat_internlm2", "{{ bos_token }}" + TURNS, internlm2_tokenizer,
        dict(architectures=["InternLM2ForCausalLM"], model_type="internlm2", bias=False, rms_norm_eps=1e-5,
             rope_theta=1000000, rope_scaling={"type": "dynamic", "factor": 2.0}),
        dict(norm_type="rms_norm", qk_normalization=True, qkv_bias=False, layer_norm_eps=1e-5))
    # Published like this beside some of the models.
    ends = [ids["</s>"], ids["<|im_end|>"]]
    (at / "generation_config.json").write_text(json.dumps({"_from_model_config": True, "eos_token_id": ends}) + "\n")
    make(
        HERE / "internvl_chat_qwen2", SYSTEM + TURNS, qwen2_tokenizer,
        dict(architectures=["Qwen2ForCausalLM"], model_type="qwen2", rope_theta=1000000.0,
             rope_scaling={"type": "dynamic", "rope_type": "dynamic", "factor": 2.0}),
        dict(norm_type="layer_norm", qk_normalization=False, qkv_bias=True))


if __name__ == "__main__":
    main()
