"""What the golden scripts of the Qwen vision-language models share: tokens, chat template, preprocessing."""

import language
import torch
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
]
MARKS = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": None}
IMAGE = "<|image_pad|>"
# Same turns as the published template of Qwen2-VL: a default system turn, pictures between vision marks.
TEMPLATE = """\
{%- if messages[0]['role'] != 'system' %}
    {{- '<|im_start|>system\\nYou look at pictures.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' }}
    {%- if message['content'] is string %}
        {{- message['content'] }}
    {%- else %}
        {%- for part in message['content'] %}
            {%- if part['type'] == 'image' or 'image' in part %}
                {{- '<|vision_start|><|image_pad|><|vision_end|>' }}
            {%- elif 'text' in part %}
                {{- part['text'] }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def token_ids(ids):
    """The fields of a configuration that name tokens."""
    names = ("image_token_id", "<|image_pad|>"), ("video_token_id", "<|video_pad|>"), \
        ("vision_start_token_id", "<|vision_start|>"), ("vision_end_token_id", "<|vision_end|>")
    return {name: ids[token] for name, token in names}


def make(folder, random_model, patch, tokens, **options):
    """Writes all files of a family. `random_model` builds the model for a vocabulary, pictures become between
    `tokens[0]` and `tokens[1]` tokens of 2 x 2 patches, `options` go to the image processor."""
    raw = language.byte_level_tokenizer(SPECIAL)
    ids = raw.get_vocab()
    at = language.begin(folder, raw, TEMPLATE, MARKS, tokenizer_class="Qwen2Tokenizer")
    model = language.randomised(lambda: random_model(ids))
    model.save_pretrained(at)
    fewest, most = ((2 * patch) ** 2 * count for count in tokens)
    options = dict(
        size={"shortest_edge": fewest, "longest_edge": most}, patch_size=patch, merge_size=2, temporal_patch_size=2,
        **options)
    processor, other = Qwen2VLImageProcessorPil(**options), Qwen2VLImageProcessor(**options)
    processor.save_pretrained(at)

    def see(name, image):
        out = processor(images=[image], return_tensors="pt")
        gap = (out["pixel_values"] - other(images=[image], return_tensors="pt")["pixel_values"]).abs().max().item()
        assert gap * min(processor.image_std) * 255 < 1.1, f"{name}: the two reference processors differ by {gap}"
        grid = out["image_grid_thw"]
        with torch.no_grad():
            features = model.get_image_features(out["pixel_values"], grid)
        features = getattr(features, "pooler_output", features)
        features = features[0] if isinstance(features, (tuple, list)) else features
        count = int(grid[0, 1] * grid[0, 2]) // 4
        return language.Seen(
            out["pixel_values"], features, IMAGE * count, dict(pixel_values=out["pixel_values"], image_grid_thw=grid))

    def kinds(tokens):
        return {"mm_token_type_ids": (tokens == ids[IMAGE]).int()}

    def positions(tokens, picture):
        found, _ = model.model.get_rope_index(tokens, **kinds(tokens), image_grid_thw=picture.get("image_grid_thw"))
        return {"positions": found[:, 0].tolist()}

    language.write(
        folder, model, TEMPLATE, MARKS, see=see, mark=IMAGE, arguments=kinds, notes=positions)
