"""Makes narrow models with the pictures of published checkpoints in the folder `published` beside this script.

    python make_published.py

How many tokens a picture becomes depends on the sizes of patches and tiles, on the image processor, and on nothing that
is wide. So each folder here has the geometry and the preprocessor_config.json of a published checkpoint, and one layer
of eight numbers: small enough to keep, and true in what is counted. `published.json` has for each

- `checkpoints`: the published checkpoints of this geometry, and of each the number of its parameters, counted on the
  model that transformers builds of the published sizes: of all of them (`all`), of the matrices in the layers of the
  language model (`matrices`), which quantisation stores in fewer bits, and of the output layer (`head`; 0 where it is
  the embedding table);
- `tokens`: what the reference's processor makes of pictures of some sizes, as [width, height, tokens], the marks around
  a picture that belong to its placeholder included.

Detectors and relevance encoders bring every picture to one size: `positions` is the number of tokens in their towers.
Text models see none. `published.json` has the parameters of all of them.

Made with Python 3.11, torch 2.11.0, torchvision 0.26.0, transformers 5.17.0, tokenizers 0.23.3, num2words 0.5.14.
"""

import json
import pathlib
import shutil

import language
import torch
import transformers as hf
from PIL import Image
from tokenizers import processors as post
from transformers.models.got_ocr2.image_processing_got_ocr2 import GotOcr2ImageProcessor
from transformers.models.internvl.video_processing_internvl import InternVLVideoProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor

HERE = pathlib.Path(__file__).resolve().parent / "published"
SIZES = [(1024, 1024), (640, 480), (333, 1000), (100, 100), (1920, 1080)]
# Enough of a template: one turn, the picture first.
TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ 'PLACE' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ ' Answer:' }}{% endif %}"
)
CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
PLAIN = {"do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True, "rescale_factor": 1 / 255}
MARKS = {"eos_token": "</s>", "pad_token": "<pad>", "bos_token": "<s>"}


def text(ids, **more):
    """A language model of one layer, eight numbers wide."""
    return dict(
        vocab_size=len(ids), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, max_position_embeddings=32768, bos_token_id=None, eos_token_id=ids["</s>"],
        pad_token_id=None, **more)


def write(name, special, place, preprocessor, build, processor):
    """Writes a folder; the token counts that the reference's processor gives."""
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    raw = language.byte_level_tokenizer([*MARKS.values(), *special])
    raw.post_processor = post.ByteLevel(trim_offsets=False)
    raw.save(str(folder / "tokenizer.json"))
    config = {**MARKS, "chat_template": TEMPLATE.replace("PLACE", place), "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    ids = raw.get_vocab()
    torch.manual_seed(1)
    build(ids).to(torch.bfloat16).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=1) + "\n")
    fast = hf.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **MARKS)
    count = processor(fast)
    found = [[width, height, count(Image.new("RGB", (width, height)))] for width, height in SIZES]
    print(name, found)
    return found


def whole(of, place):
    """Counts the tokens that the whole processor puts in the place of a picture."""
    def count(image):
        ids = of(images=[image], text=place)["input_ids"]
        return len(ids[0] if isinstance(ids[0], list) else ids)
    return count


def qwen(name, config, model, vision, rope, patch, preprocessor, **more):
    special = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    names = zip(["vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id"], special)

    def build(ids):
        roles = {role: ids[token] for role, token in names}
        return model(config(text_config=text(ids, rope_parameters=rope, **more), vision_config=vision, **roles))

    def processor(_):
        images = Qwen2VLImageProcessor(**{
            k: v for k, v in preprocessor.items() if k not in ("processor_class", "image_processor_type")})

        def count(image):
            grid = images(images=[image], return_tensors="pt")["image_grid_thw"][0]
            assert images.patch_size == patch
            return int(grid.prod()) // 4
        return count

    return write(name, special, "<|vision_start|><|image_pad|><|vision_end|>", preprocessor, build, processor)


def qwens():
    size = {"min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2}
    sections = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]}
    yield "qwen2_vl", qwen(
        "qwen2_vl", hf.Qwen2VLConfig, hf.Qwen2VLForConditionalGeneration,
        dict(depth=1, embed_dim=8, hidden_size=8, num_heads=1, mlp_ratio=1, patch_size=14), sections, 14,
        {**size, **CLIP, "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2VLProcessor"})
    yield "qwen2_5_vl", qwen(
        "qwen2_5_vl", hf.Qwen2_5_VLConfig, hf.Qwen2_5_VLForConditionalGeneration,
        dict(
            depth=1, hidden_size=8, out_hidden_size=8, num_heads=1, intermediate_size=8, patch_size=14, window_size=112,
            fullatt_block_indexes=[0]),
        sections, 14,
        {**size, **CLIP, "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor"})
    yield "qwen3_vl", qwen(
        "qwen3_vl", hf.Qwen3VLConfig, hf.Qwen3VLForConditionalGeneration,
        dict(
            depth=1, hidden_size=8, out_hidden_size=8, num_heads=1, intermediate_size=8, patch_size=16,
            num_position_embeddings=2304, deepstack_visual_indexes=[0]),
        {**sections, "mrope_section": [2, 1, 1], "mrope_interleaved": True}, 16,
        {
            "size": {"longest_edge": 16777216, "shortest_edge": 65536}, "patch_size": 16, "temporal_patch_size": 2,
            "merge_size": 2, **HALF, "processor_class": "Qwen3VLProcessor",
            "image_processor_type": "Qwen2VLImageProcessorFast",
        }, head_dim=8)


def internvl():
    preprocessor = {
        **PLAIN, "crop_to_patches": False, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
        "image_processor_type": "GotOcr2ImageProcessorFast", "max_patches": 12, "min_patches": 1,
        "processor_class": "InternVLProcessor", "resample": 3, "size": {"height": 448, "width": 448},
    }
    roles = dict(
        start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>", video_token="<video>")

    def build(ids):
        vision = dict(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, attention_bias=True,
            use_qk_norm=False, norm_type="layer_norm", image_size=[448, 448], patch_size=[14, 14])
        return hf.InternVLForConditionalGeneration(hf.InternVLConfig(
            text_config=dict(model_type="qwen2", **text(ids)), vision_config=vision, image_seq_length=256,
            image_token_id=ids["<IMG_CONTEXT>"], tie_word_embeddings=False))

    def processor(fast):
        fast = hf.PreTrainedTokenizerFast(tokenizer_object=fast.backend_tokenizer, **MARKS, extra_special_tokens=roles)
        options = {k: v for k, v in preprocessor.items() if k not in ("processor_class", "image_processor_type")}
        of = hf.InternVLProcessor(
            image_processor=GotOcr2ImageProcessor(**options), tokenizer=fast, video_processor=InternVLVideoProcessor(),
            image_seq_length=256, chat_template=TEMPLATE)
        return whole(of, "<IMG_CONTEXT>")

    return write("internvl", list(roles.values()), "<IMG_CONTEXT>", preprocessor, build, processor)


def llava(name, grid):
    preprocessor = {
        **PLAIN, **CLIP, "crop_size": {"height": 336, "width": 336}, "do_center_crop": True, "resample": 3,
        "size": {"shortest_edge": 336},
        "image_processor_type": "LlavaNextImageProcessor" if grid else "CLIPImageProcessor",
        **({"image_grid_pinpoints": grid, "do_pad": True} if grid else {}),
    }
    more = {"image_grid_pinpoints": grid} if grid else {}

    def build(ids):
        vision = dict(
            model_type="clip_vision_model", hidden_size=8, image_size=336, intermediate_size=8, num_attention_heads=1,
            num_hidden_layers=2, patch_size=14, projection_dim=8)
        config, model = (hf.LlavaNextConfig, hf.LlavaNextForConditionalGeneration) if grid else \
            (hf.LlavaConfig, hf.LlavaForConditionalGeneration)
        return model(config(
            text_config=dict(model_type="llama", **text(ids)), vision_config=vision, image_token_index=ids["<image>"],
            **more))

    def processor(fast):
        options = {k: v for k, v in preprocessor.items() if k != "image_processor_type"}
        of, images = (hf.LlavaNextProcessor, hf.LlavaNextImageProcessor) if grid else \
            (hf.LlavaProcessor, hf.CLIPImageProcessor)
        return whole(of(
            images(**options), fast, patch_size=14, vision_feature_select_strategy="default",
            num_additional_image_tokens=1), "<image>")

    return write(name, ["<image>"], "<image>", preprocessor, build, processor)


def smolvlm(name, tile, longest, patch, scale):
    preprocessor = {
        **PLAIN, **HALF, "do_image_splitting": True, "do_pad": True, "image_processor_type": "Idefics3ImageProcessor",
        "max_image_size": {"longest_edge": tile}, "processor_class": "Idefics3Processor", "resample": 1,
        "size": {"longest_edge": longest},
    }
    places = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    special = ["<fake_token_around_image>", "<image>", "<global-img>", *places]

    def build(ids):
        vision = dict(
            hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=tile,
            patch_size=patch)
        return hf.Idefics3ForConditionalGeneration(hf.Idefics3Config(
            text_config=dict(model_type="llama", **text(ids)), vision_config=vision, scale_factor=scale,
            tie_word_embeddings=False, image_token_id=ids["<image>"], pad_token_id=ids["<pad>"]))

    def processor(fast):
        options = {k: v for k, v in preprocessor.items() if k not in ("processor_class", "image_processor_type")}
        of = hf.Idefics3Processor(
            hf.Idefics3ImageProcessor(**options), fast, image_seq_len=(tile // patch // scale) ** 2)

        def count(image):
            return len(of(images=[[image]], text="<image>")["input_ids"][0])
        return count

    return write(name, special, "<image>", preprocessor, build, processor)


GRID = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]


def tokens():
    yield from qwens()
    yield "internvl", internvl()
    yield "llava", llava("llava", None)
    yield "llava_next", llava("llava_next", GRID)
    yield "smolvlm_256m", smolvlm("smolvlm_256m", 512, 2048, 16, 4)
    yield "idefics3", smolvlm("idefics3", 364, 1456, 14, 2)


def count(model):
    """Parameters of a model without memory: all, in the matrices of the language model's layers, in its head."""
    named = dict(model.named_parameters())
    matrices = sum(
        p.numel() for name, p in named.items()
        if p.dim() == 2 and ".layers." in name and not any(part in name for part in ("vis", "embed")))
    head = sum(p.numel() for name, p in named.items() if name.endswith("lm_head.weight"))
    return {"all": sum(p.numel() for p in named.values()), "matrices": matrices, "head": head}


def meta(model, config):
    with torch.device("meta"):
        return count(model._from_config(config))


def qwen_text(hidden, inner, layers, heads, kv, **more):
    return dict(
        hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv, **more)


LLAMA3 = dict(vocab_size=128256, intermediate_size=14336, num_key_value_heads=8)
SIGLIP = dict(hidden_size=1152, intermediate_size=4304, num_attention_heads=16, num_hidden_layers=27)
# ViT-L/14 of CLIP at 336 pixels, as LLaVA has it.
TOWER = dict(
    model_type="clip_vision_model", hidden_size=1024, image_size=336, intermediate_size=4096, num_attention_heads=16,
    num_hidden_layers=24, patch_size=14, projection_dim=768)


def towers(model, config):
    """Parameters of what is never quantised, and the tokens of any picture: patches, and the class token if there is one."""
    with torch.device("meta"):
        built = model._from_config(config)
    positions = next(p for name, p in built.named_parameters() if "vision_model.embeddings.position_embedding" in name)
    return {**count(built), "matrices": 0, "head": 0, "positions": len(positions)}


def clip(image, patch, large):
    text = dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12) if large else {}
    vision = dict(hidden_size=1024, intermediate_size=4096, num_attention_heads=16, num_hidden_layers=24) if large else {}
    return towers(hf.CLIPModel, hf.CLIPConfig(
        text_config=text, vision_config={**vision, "image_size": image, "patch_size": patch},
        projection_dim=768 if large else 512))


def siglip(vocabulary):
    vision = dict(**SIGLIP, image_size=384, patch_size=14)
    return towers(hf.SiglipModel, hf.SiglipConfig(text_config=dict(**SIGLIP, vocab_size=vocabulary), vision_config=vision))


def owlv2(large):
    if not large:
        return towers(hf.Owlv2ForObjectDetection, hf.Owlv2Config(vision_config=dict(image_size=960)))
    return towers(hf.Owlv2ForObjectDetection, hf.Owlv2Config(
        projection_dim=768, text_config=dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12),
        vision_config=dict(
            hidden_size=1024, image_size=1008, intermediate_size=4096, num_attention_heads=16, num_hidden_layers=24,
            patch_size=14)))


def internlm2_with_internvit():
    """InternVL2-8B, whose language model transformers has not: InternViT-300M, the projector, InternLM2-7B."""
    hidden, inner, layers, kv, vocabulary = 4096, 14336, 32, 8 * 128, 92553
    vision = meta(hf.InternVLVisionModel, hf.InternVLVisionConfig(attention_bias=True))["all"]
    layer = hidden * (hidden + 2 * kv) + hidden * hidden + 3 * hidden * inner
    head = vocabulary * hidden
    projector = 2 * 4096 + 4096 * hidden + hidden + hidden * hidden + hidden
    whole = vision + projector + layers * (layer + 2 * hidden) + 2 * head + hidden
    return {"all": whole, "matrices": layers * layer, "head": head}


def llava_of(config, model, text, **more):
    return meta(model, config(text_config=text, vision_config=TOWER, **more))


def parameters():
    """Of each geometry its published checkpoints with their parameters."""
    qwen2 = dict(depth=32, embed_dim=1280, num_heads=16, mlp_ratio=4)
    vicuna = dict(model_type="llama", vocab_size=32064)
    mistral = dict(model_type="mistral", vocab_size=32064, intermediate_size=14336, num_key_value_heads=8)
    yi = dict(model_type="llama", vocab_size=64064, **qwen_text(7168, 20480, 60, 56, 8))
    small = dict(model_type="llama", vocab_size=49280, max_position_embeddings=8192, pad_token_id=2)
    internvit = hf.InternVLVisionConfig(attention_bias=True).to_dict()
    clips = {
        "openai/clip-vit-base-patch32": clip(224, 32, False), "openai/clip-vit-base-patch16": clip(224, 16, False),
        "openai/clip-vit-large-patch14": clip(224, 14, True), "openai/clip-vit-large-patch14-336": clip(336, 14, True),
    }
    return {
        "clip": clips,
        "siglip": {
            "google/siglip-so400m-patch14-384": siglip(32000), "google/siglip2-so400m-patch14-384": siglip(256000),
        },
        "owlv2": {
            "google/owlv2-base-patch16-ensemble": owlv2(False), "google/owlv2-large-patch14-ensemble": owlv2(True),
        },
        "qwen2_vl": {
            "Qwen/Qwen2-VL-2B-Instruct": meta(hf.Qwen2VLForConditionalGeneration, hf.Qwen2VLConfig(
                text_config=dict(vocab_size=151936, **qwen_text(1536, 8960, 28, 12, 2)),
                vision_config=dict(**qwen2, hidden_size=1536), tie_word_embeddings=True)),
            "Qwen/Qwen2-VL-7B-Instruct": meta(hf.Qwen2VLForConditionalGeneration, hf.Qwen2VLConfig(
                text_config=dict(vocab_size=152064, **qwen_text(3584, 18944, 28, 28, 4)),
                vision_config=dict(**qwen2, hidden_size=3584), tie_word_embeddings=False)),
        },
        "qwen2_5_vl": {
            "Qwen/Qwen2.5-VL-7B-Instruct": meta(hf.Qwen2_5_VLForConditionalGeneration, hf.Qwen2_5_VLConfig(
                text_config=dict(vocab_size=152064, **qwen_text(3584, 18944, 28, 28, 4)),
                vision_config=dict(
                    depth=32, hidden_size=1280, out_hidden_size=3584, num_heads=16, intermediate_size=3420),
                tie_word_embeddings=False)),
        },
        "qwen3_vl": {
            "Qwen/Qwen3-VL-8B-Instruct": meta(hf.Qwen3VLForConditionalGeneration, hf.Qwen3VLConfig(
                text_config=dict(vocab_size=151936, **qwen_text(4096, 12288, 36, 32, 8, head_dim=128)),
                vision_config=dict(
                    depth=27, hidden_size=1152, out_hidden_size=4096, num_heads=16, intermediate_size=4304, patch_size=16,
                    num_position_embeddings=2304, deepstack_visual_indexes=[8, 16, 24]),
                tie_word_embeddings=False)),
        },
        "internvl": {
            "OpenGVLab/InternVL2-8B": internlm2_with_internvit(),
            "OpenGVLab/InternVL3-8B-hf": meta(hf.InternVLForConditionalGeneration, hf.InternVLConfig(
                text_config=dict(model_type="qwen2", vocab_size=151674, **qwen_text(3584, 18944, 28, 28, 4)),
                vision_config=internvit, tie_word_embeddings=False)),
        },
        "llava": {"llava-hf/llava-1.5-7b-hf": llava_of(hf.LlavaConfig, hf.LlavaForConditionalGeneration, vicuna)},
        "llava_next": {
            "llava-hf/llava-v1.6-mistral-7b-hf": llava_of(
                hf.LlavaNextConfig, hf.LlavaNextForConditionalGeneration, mistral, image_grid_pinpoints=GRID),
            "llava-hf/llava-v1.6-34b-hf": llava_of(
                hf.LlavaNextConfig, hf.LlavaNextForConditionalGeneration, yi, image_grid_pinpoints=GRID),
        },
        "smolvlm_256m": {
            "HuggingFaceTB/SmolVLM-256M-Instruct": meta(hf.Idefics3ForConditionalGeneration, hf.Idefics3Config(
                text_config=dict(**small, **qwen_text(576, 1536, 30, 9, 3, head_dim=64)),
                vision_config=dict(
                    hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, image_size=512,
                    patch_size=16),
                scale_factor=4, tie_word_embeddings=False)),
        },
        "idefics3": {
            "HuggingFaceM4/Idefics3-8B-Llama3": meta(hf.Idefics3ForConditionalGeneration, hf.Idefics3Config(
                text_config=dict(model_type="llama", **{**LLAMA3, "vocab_size": 128259}),
                vision_config=dict(**SIGLIP, image_size=364, patch_size=14), scale_factor=2, tie_word_embeddings=False)),
        },
        "text": {
            "meta-llama/Llama-3.1-8B-Instruct": meta(hf.LlamaForCausalLM, hf.LlamaConfig(**LLAMA3)),
            "Qwen/Qwen2.5-7B-Instruct": meta(hf.Qwen2ForCausalLM, hf.Qwen2Config(
                vocab_size=152064, **qwen_text(3584, 18944, 28, 28, 4))),
            "Qwen/Qwen3-8B": meta(hf.Qwen3ForCausalLM, hf.Qwen3Config(
                vocab_size=151936, **qwen_text(4096, 12288, 36, 32, 8, head_dim=128))),
        },
    }


if __name__ == "__main__":
    found = dict(tokens())
    written = {
        name: {"checkpoints": checkpoints, **({"tokens": found[name]} if name in found else {})}
        for name, checkpoints in parameters().items()
    }
    (HERE / "published.json").write_text(json.dumps(written, indent=1) + "\n")
    for checkpoints in parameters().values():
        for name, numbers in checkpoints.items():
            print(name, numbers)
