"""Makes a checkpoint in the shape of Qwen2-VL-7B-Instruct with random weights in bf16.

    python gpu_checkpoint.py JUDGE FOLDER

JUDGE is a Qwen2-VL checkpoint whose tokenizer, chat template and processor are taken over; the vocabulary is larger
than its tokenizer's, as in the real model. FOLDER is made. The weights say nothing about pictures, but cost what the
real ones cost: layers have the initialisation that transformers gives them, so that values stay finite. The output
layer answers with tokens of the tokenizer only, and never with a special one, so that answers can be read.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from transformers import AutoTokenizer, Qwen2VLConfig, Qwen2VLForConditionalGeneration

# https://huggingface.co/Qwen/Qwen2-VL-7B-Instruct, config.json
TEXT = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
}
VISION = {"depth": 32, "embed_dim": 1280, "num_heads": 16, "mlp_ratio": 4, "hidden_size": 3584}
COPIED = ["tokenizer.json", "tokenizer_config.json", "processor_config.json", "generation_config.json"]
PROCESSORS = ["preprocessor_config.json", "video_preprocessor_config.json"]
# Pictures of up to 16,384 tokens, as the real processor takes them.
LIMITS = {"min_pixels": 56 * 56, "max_pixels": 28 * 28 * 16384}


def configuration(judge):
    """The real model's shape with the tokens of `judge`."""
    config = json.loads((judge / "config.json").read_text())
    config["text_config"] |= TEXT | {"tie_word_embeddings": False}
    # One entry for each layer of the small model.
    config["text_config"].pop("layer_types", None)
    config["vision_config"] |= VISION
    config["tie_word_embeddings"] = False
    config.pop("transformers_version", None)
    return Qwen2VLConfig.from_dict(config)


@torch.no_grad()
def main(judge, folder):
    """Makes the checkpoint."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(7)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = Qwen2VLForConditionalGeneration(configuration(judge))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.normal_(std=0.05)
    tokenizer = AutoTokenizer.from_pretrained(judge)
    silent = sorted(set(tokenizer.all_special_ids) | set(range(len(tokenizer), TEXT["vocab_size"])))
    model.lm_head.weight[silent] = 0
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, max_shard_size="5GB")
    for name in COPIED:
        shutil.copy(judge / name, folder / name)
    for name in PROCESSORS:
        processor = json.loads((judge / name).read_text()) | LIMITS
        processor["size"] = {"shortest_edge": LIMITS["min_pixels"], "longest_edge": LIMITS["max_pixels"]}
        (folder / name).write_text(json.dumps(processor))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} JUDGE FOLDER")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
