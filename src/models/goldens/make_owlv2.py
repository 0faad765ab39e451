"""Writes a small OWLv2 model with random weights and what the reference computes with it.

    pip install torch==2.11.0 torchvision==0.26.0 transformers==5.17.0 tokenizers==0.23.3 pillow==13.0.0
    python make_pixels.py && python make_owlv2.py

Written to owlv2/: a folder in Hugging Face layout and expected.safetensors. The picture processor is the default,
torchvision-backed `Owlv2ImageProcessor`. The batch holds six pictures with three queries each; `padded_*` are the
logits when the last query is padding (all token ids 0).
Tolerances of the tests: pixel values within 1/255 before normalisation; logits and boxes within 1e-4 relative, f32.
"""

from pathlib import Path

import torch
from make_clip import NAMES, pictures, randomise, tokenizer
from safetensors.torch import save_file
from transformers import Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessor, Owlv2Processor

HERE = Path(__file__).parent / "owlv2"
QUERIES = ["fire", "a dog", "person who holds a weapon and stands"]
SIDE = 48


def main() -> None:
    torch.set_num_threads(1)
    HERE.mkdir(exist_ok=True)
    words = tokenizer(HERE, 16, extra=False)
    config = Owlv2Config(
        projection_dim=24,
        text_config={
            "vocab_size": len(words), "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
            "num_attention_heads": 3, "max_position_embeddings": 16, "hidden_act": "quick_gelu",
            "bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": 0,
        },
        vision_config={
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": SIDE, "patch_size": 8, "hidden_act": "quick_gelu",
        },
    )
    model = Owlv2ForObjectDetection(config).eval()
    randomise(model, 3)
    model.save_pretrained(HERE)
    images = Owlv2ImageProcessor(size={"height": SIDE, "width": SIDE})
    images.save_pretrained(HERE)
    processor = Owlv2Processor(image_processor=images, tokenizer=words)
    batch = pictures()
    inputs = processor(text=[QUERIES] * len(batch), images=batch, return_tensors="pt")
    assert inputs.input_ids.shape == (len(batch) * len(QUERIES), 16), inputs.input_ids.shape
    with torch.no_grad():
        out = model(**inputs)
        padded = inputs.input_ids.clone()
        padded[len(QUERIES) - 1 :: len(QUERIES)] = 0
        padded_out = model(input_ids=padded, pixel_values=inputs.pixel_values, attention_mask=inputs.attention_mask)
    sizes = torch.tensor([(picture.height, picture.width) for picture in batch])
    found = images.post_process_object_detection(out, threshold=0.0, target_sizes=sizes)
    save_file(
        {
            "pixel_values": inputs.pixel_values.contiguous(),
            "input_ids": inputs.input_ids[: len(QUERIES)].to(torch.int64).contiguous(),
            "lengths": inputs.attention_mask[: len(QUERIES)].sum(1).to(torch.int64),
            "logits": out.logits.contiguous(),
            "padded_logits": padded_out.logits.contiguous(),
            "pred_boxes": out.pred_boxes.contiguous(),
            "objectness_logits": out.objectness_logits.contiguous(),
            "text_embeds": out.text_embeds[0].contiguous(),
            "corners": torch.stack([f["boxes"] for f in found]),
        },
        HERE / "expected.safetensors",
    )
    print("pictures", NAMES, "highest score", torch.sigmoid(out.logits).max().item())


if __name__ == "__main__":
    main()
