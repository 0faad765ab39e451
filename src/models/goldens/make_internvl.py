"""Makes the golden files of InternVL in the layout of transformers in the folder `internvl` beside this script.

A small random model with a vision tower of the 300M kind and a Qwen2 language model, pictures of one and of several
tiles, and what Hugging Face transformers makes of them. See language.py.

    python make_internvl.py

Made with Python 3.11, torch 2.11.0 (CPU, f32, eager attention), torchvision 0.26.0, transformers 5.17.0,
tokenizers 0.23.3, pillow 13.0.0, numpy 2.4.6, safetensors 0.8.0.
"""

import pathlib

import language
import tiles
import torch
from transformers import InternVLConfig, InternVLForConditionalGeneration, InternVLProcessor, PreTrainedTokenizerFast
from transformers.models.got_ocr2.image_processing_got_ocr2 import GotOcr2ImageProcessor
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.internvl.video_processing_internvl import InternVLVideoProcessor

HERE = pathlib.Path(__file__).resolve().parent / "internvl"
# Same turns as the published template of InternVL3 in this layout.
TEMPLATE = """\
{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}{% if message['content'] is string %}\
{{ message['content'] }}{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' %}\
{{ '<IMG_CONTEXT>\\n' }}{% elif part['type'] == 'video' %}{{ '<video>\\n' }}{% elif part['type'] == 'text' %}\
{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
ROLES = dict(
    start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>", video_token="<video>")
PROCESSOR = dict(
    size={"height": tiles.TILE, "width": tiles.TILE}, min_patches=1, max_patches=tiles.MOST,
    # Published like this; the processor cuts all the same.
    crop_to_patches=False, resample=3, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])


def random_model(ids):
    config = InternVLConfig(
        text_config=dict(
            model_type="qwen2", **tiles.text_sizes(len(ids), ids["<|endoftext|>"], ids["<|im_end|>"]), tie_word_embeddings=False,
            rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}),
        vision_config=dict(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, attention_bias=True,
            use_qk_norm=False, norm_type="layer_norm", image_size=[tiles.TILE] * 2,
            patch_size=[tiles.PATCH] * 2),
        image_token_id=ids["<IMG_CONTEXT>"], image_seq_length=tiles.TOKENS, tie_word_embeddings=False,
    )
    return InternVLForConditionalGeneration._from_config(config, attn_implementation="eager")


def main():
    raw = language.byte_level_tokenizer([*tiles.SPECIAL, "<video>"])
    ids = raw.get_vocab()
    at = language.begin(
        HERE, raw, TEMPLATE, tiles.MARKS, tokenizer_class="Qwen2Tokenizer", extra_special_tokens=ROLES)
    model = language.randomised(lambda: random_model(ids), seed=12)
    model.save_pretrained(at)
    images, other = GotOcr2ImageProcessorPil(**PROCESSOR), GotOcr2ImageProcessor(**PROCESSOR)
    images.save_pretrained(at)
    (at / "processor_config.json").write_text(
        f'{{"image_seq_length": {tiles.TOKENS}, "processor_class": "InternVLProcessor"}}\n')
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(at / "tokenizer.json"), **tiles.MARKS, extra_special_tokens=ROLES)
    processors = [
        InternVLProcessor(
            image_processor=images, tokenizer=tokenizer, video_processor=InternVLVideoProcessor(),
            image_seq_length=tiles.TOKENS, chat_template=TEMPLATE)
        for images in (images, other)
    ]

    def see(name, image):
        out, same = (each(images=[image], text="<IMG_CONTEXT>", return_tensors="pt") for each in processors)
        pixels = out["pixel_values"]
        gap = (pixels - same["pixel_values"]).abs().max().item()
        # Pillow rounds and clips between the axes.
        assert gap * 0.229 * 255 < 2.1, f"{name}: the two reference processors differ by {gap}"
        tiles.check_width_first(name, image, pixels, images)
        text = tiles.text_of(len(pixels))
        assert tokenizer(text)["input_ids"] == out["input_ids"][0].tolist(), f"{name}: {len(pixels)} tiles"
        with torch.no_grad():
            features = model.get_image_features(pixels).pooler_output
        return language.Seen(pixels, features.flatten(0, 1), text, dict(pixel_values=pixels))

    language.write(
        HERE, model, TEMPLATE, tiles.MARKS, see=see, mark="<IMG_CONTEXT>", cases=tiles.CASES,
        sizes=tiles.SIZES)


if __name__ == "__main__":
    main()
