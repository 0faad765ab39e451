"""Writes small classifiers over CLIP with random weights, and what the references compute with them.

    pip install torch==2.11.0 transformers==5.17.0 diffusers==0.42.1 numpy==2.4.2 pillow==13.0.0
    python make_pixels.py && python make_clip.py && python make_heads.py

Written below heads/; Q16's and LAION's heads are over the CLIP in clip/current.
- `prompts.p`, `prompts-4.p`: Q16's prompts as `pickle.dump` of a numpy array writes them with protocols 3 (as published) and 4.
- `tiny_nsfw_head.pth`: LAION's layout as `torch.save` writes a state dictionary, transposed weights included.
- `safety_checker/`: diffusers' own class, saved by `save_pretrained`, with the names that transformers 4 gave its tensors.
- `expected.safetensors`.
Tolerances of the tests: similarities within 1e-3 of 100, scores within 1e-4, margins within 0.001 (they are rounded to that).
"""

import pickle
from pathlib import Path

import numpy
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker, cosine_distance
from make_clip import HERE as CLIP, pictures, randomise
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPVisionConfig

HERE = Path(__file__).parent / "heads"


def embeddings() -> torch.Tensor:
    folder = CLIP / "current"
    pixels = CLIPImageProcessor.from_pretrained(folder)(pictures(), return_tensors="pt").pixel_values
    features = CLIPModel.from_pretrained(folder).eval().get_image_features(pixel_values=pixels)
    features = getattr(features, "pooler_output", features)
    return torch.nn.functional.normalize(features.detach())


def q16(embeds: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    prompts = (embeds[[0, 4]] + torch.randn(2, embeds.shape[1], generator=generator) * 0.02).half().numpy()
    for name, protocol, module in [("prompts.p", 3, b"numpy.core.multiarray"), ("prompts-4.p", 4, None)]:
        data = pickle.dumps(prompts, protocol=protocol)
        if module:
            # numpy 2 has another name for the module that the published files name.
            data = data.replace(b"numpy._core.multiarray", module)
        (HERE / name).write_bytes(data)
    # What the reference does with them, in f32.
    rows = torch.tensor(prompts).float()
    return 100.0 * embeds @ (rows / rows.norm(dim=-1, keepdim=True)).T


class Normalization(torch.nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) / (self.variance.sqrt() + 1e-10)


class Head(torch.nn.Module):
    def __init__(self, widths: list[int]):
        super().__init__()
        self.norm = Normalization(widths[0])
        self.count = len(widths) - 1
        for index in range(self.count):
            setattr(self, f"linear_{index + 1}", torch.nn.Linear(widths[index], widths[index + 1]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(x)
        for index in range(self.count):
            x = getattr(self, f"linear_{index + 1}")(x)
            x = torch.relu(x) if index < self.count - 1 else torch.sigmoid(x)
        return x.flatten()


def laion(embeds: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    head = Head([embeds.shape[1], 6, 9, 5, 1]).eval()
    state = head.state_dict()
    for name, value in state.items():
        noise = torch.randn(value.shape, generator=generator)
        if name == "norm.mean":
            state[name] = embeds.mean(0)
        elif name == "norm.variance":
            state[name] = embeds.var(0) + 1e-4
        elif name.endswith("weight"):
            # Keras has them the other way round, and the reference saves the transposed view.
            state[name] = (2 * noise.T.contiguous() / value.shape[1] ** 0.5).T
        else:
            state[name] = noise * 0.1
    head.load_state_dict(state)
    torch.save(state, HERE / "tiny_nsfw_head.pth")
    with torch.no_grad():
        return head(embeds)


def safety_checker() -> dict[str, torch.Tensor]:
    folder = HERE / "safety_checker"
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    model = StableDiffusionSafetyChecker(CLIPConfig(projection_dim=20, vision_config=vision.to_dict())).eval()
    randomise(model, 5)
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
    pixels = processor(pictures(), return_tensors="pt").pixel_values
    with torch.no_grad():
        embeds = model.visual_projection(model.vision_model(pixels)[1])
        special = cosine_distance(embeds, model.special_care_embeds)
        concepts = cosine_distance(embeds, model.concept_embeds)
        # Thresholds among the cosines of the pictures: concept 9 is found in one, concept 4 only by the adjustment.
        careful = int(special[:, 1].argmax())
        model.special_care_embeds_weights.copy_(special.max(dim=0).values + 0.02)
        model.special_care_embeds_weights[1] = special[:, 1].topk(2).values.mean()
        model.concept_embeds_weights.copy_(concepts.max(dim=0).values + 0.02)
        model.concept_embeds_weights[4] = concepts[careful, 4] + 0.005
        model.concept_embeds_weights[9] = concepts[:, 9].topk(2).values.mean()
        _, flagged = model(pixels, [numpy.ones(1) for _ in range(len(pixels))])
    margins = {"special": [], "concepts": []}
    for row in range(len(pixels)):
        adjustment = 0.0
        for name, cosines, thresholds in [
            ("special", special, model.special_care_embeds_weights), ("concepts", concepts, model.concept_embeds_weights)
        ]:
            scores = []
            for index in range(cosines.shape[1]):
                scores.append(float(round(cosines[row].numpy()[index] - thresholds[index].item() + adjustment, 3)))
                if name == "special" and scores[-1] > 0:
                    adjustment = 0.01
            margins[name].append(scores)
    again = [any(score > 0 for score in row) for row in margins["concepts"]]
    assert again == flagged and any(flagged) and not all(flagged), (again, flagged)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    nested = {
        name if name.startswith("vision_model.vision_model.") else name.replace("vision_model.", "vision_model.vision_model.", 1): value
        for name, value in weights.items()
    }
    save_file(nested, folder / "model.safetensors", metadata={"format": "pt"})
    return {
        "checker_pixels": pixels.contiguous(),
        "checker_special": torch.tensor(margins["special"]),
        "checker_concepts": torch.tensor(margins["concepts"]),
        "checker_flagged": torch.tensor(flagged).to(torch.uint8),
    }


def main() -> None:
    torch.set_num_threads(1)
    HERE.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(16)
    embeds = embeddings()
    expected = {"q16": q16(embeds, generator), "laion": laion(embeds, generator), **safety_checker()}
    save_file({name: value.contiguous() for name, value in expected.items()}, HERE / "expected.safetensors")


if __name__ == "__main__":
    main()
