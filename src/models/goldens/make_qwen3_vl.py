"""Makes the golden files of the Qwen3-VL port in the folder `qwen3_vl` beside this script.

As make_qwen2_vl.py, with a table of 5 x 5 learned positions, features of two layers of the vision tower added after the
first two layers of the language model, and heads wider than the residual stream divided by their number.

    python make_qwen3_vl.py

Made with Python 3.11, torch 2.11.0 (CPU, f32, eager attention), torchvision 0.26.0, transformers 5.17.0,
tokenizers 0.23.3, pillow 13.0.0, numpy 2.4.6, safetensors 0.8.0.
"""

import pathlib

import qwen
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

HERE = pathlib.Path(__file__).resolve().parent / "qwen3_vl"


def random_model(ids):
    config = Qwen3VLConfig(
        text_config=dict(
            vocab_size=len(ids), hidden_size=32, intermediate_size=40, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, head_dim=16, max_position_embeddings=512, rms_norm_eps=1e-6,
            rope_parameters={
                "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2], "mrope_interleaved": True,
            },
            bos_token_id=ids["<|endoftext|>"], eos_token_id=ids["<|im_end|>"],
        ),
        vision_config=dict(
            depth=4, hidden_size=24, out_hidden_size=32, num_heads=2, intermediate_size=20, patch_size=6,
            spatial_merge_size=2, temporal_patch_size=2, in_channels=3, num_position_embeddings=25,
            deepstack_visual_indexes=[0, 2],
        ),
        tie_word_embeddings=True, **qwen.token_ids(ids),
    )
    return Qwen3VLForConditionalGeneration._from_config(config, attn_implementation="eager")


if __name__ == "__main__":
    # As published.
    half = [0.5, 0.5, 0.5]
    qwen.make(HERE, random_model, patch=6, tokens=(6, 30), image_mean=half, image_std=half)
