"""Makes the golden files of the Qwen2.5-VL port in the folder `qwen2_5_vl` beside this script.

As make_qwen2_vl.py, with windows of 2 x 2 tokens in all layers of the vision tower but one, and an output layer of its
own.

    python make_qwen2_5_vl.py

Made with Python 3.11, torch 2.11.0 (CPU, f32, eager attention), torchvision 0.26.0, transformers 5.17.0,
tokenizers 0.23.3, pillow 13.0.0, numpy 2.4.6, safetensors 0.8.0.
"""

import pathlib

import qwen
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

HERE = pathlib.Path(__file__).resolve().parent / "qwen2_5_vl"


def random_model(ids):
    config = Qwen2_5_VLConfig(
        text_config=dict(
            vocab_size=len(ids), hidden_size=32, intermediate_size=40, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=512, rms_norm_eps=1e-6,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
            bos_token_id=ids["<|endoftext|>"], eos_token_id=ids["<|im_end|>"],
        ),
        vision_config=dict(
            depth=3, hidden_size=24, out_hidden_size=32, num_heads=2, intermediate_size=20, patch_size=6,
            spatial_merge_size=2, temporal_patch_size=2, in_channels=3, window_size=24, fullatt_block_indexes=[1],
        ),
        tie_word_embeddings=False, **qwen.token_ids(ids),
    )
    return Qwen2_5_VLForConditionalGeneration._from_config(config, attn_implementation="eager")


if __name__ == "__main__":
    qwen.make(HERE, random_model, patch=6, tokens=(6, 42))
