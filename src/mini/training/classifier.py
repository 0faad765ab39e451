"""A small convolutional network that says which classes of the scene world a 128 px picture shows.

It exists only to score what the generator draws: no other model is trained with it and it is not shipped. Its training
pictures are scenes of `world.py`, corrupted as files and generators do; it answers, per picture, one logit a class and
one logit a kind of touching (`render.BONDS`: person on fire, animal with a weapon, ...).

    python classifier.py --seconds 45 --out classifier.pt [--device cuda:0] [--workers 8] [--vae DIR] [--smoke]
"""

import argparse
import math
import multiprocessing
import random
import time

import torch
import torch.nn.functional as F
from torch import nn

import render
import world

SIDE = 128
CLASSES = len(world.CLASSES)
ANSWERS = CLASSES + len(render.BONDS)
# Scenes like those that prompts ask for, and fuller ones with smaller objects.
MIXES = (
    dict(max_objects=3, min_size=60.0, wild=0.25, cut=0.0, balanced=True),
    dict(max_objects=4, min_size=48.0, wild=0.5, cut=0.05),
)


def labels(scenes):
    """Truth of every answer for a list of scenes, (B, ANSWERS) float."""
    out = torch.zeros(len(scenes), ANSWERS)
    for row, scene in enumerate(scenes):
        out[row, [o.cls for o in scene.visible()]] = 1
        for subject, hazard in scene.pairs():
            out[row, CLASSES + render.BOND[world.CATEGORY[subject], world.CATEGORY[hazard]]] = 1
    return out


def _sampler(queue, seed, batch):
    rng = random.Random(seed)
    while True:
        scenes = [world.sample(rng, **rng.choice(MIXES)) for _ in range(batch)]
        queue.put((render.pack(scenes), labels(scenes).numpy()))


def _load_vae(folder, device):
    if folder is None:
        return None
    import generator  # late: needs diffusers

    return generator.load_vae(folder, device)


class _Block(nn.Module):
    """Two 3 x 3 convolutions with a shortcut; `stride` 2 halves the picture."""

    def __init__(self, inside, outside, stride):
        super().__init__()
        self.one = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.two = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(outside), nn.BatchNorm2d(outside)])
        self.skip = nn.Conv2d(inside, outside, 1, stride, bias=False)

    def forward(self, x):
        y = F.relu(self.norms[0](self.one(x)))
        return F.relu(self.norms[1](self.two(y)) + self.skip(x))


class Classifier(nn.Module):
    """Pictures (B, 3, 128, 128) in 0..1 to logits (B, ANSWERS): soft maximum over a 16 x 16 map of local answers."""

    def __init__(self, width=48):
        super().__init__()
        w = width
        self.body = nn.Sequential(
            nn.Conv2d(3, w, 5, 2, 2, bias=False), nn.BatchNorm2d(w), nn.ReLU(),
            _Block(w, 2 * w, 2), _Block(2 * w, 2 * w, 1),
            _Block(2 * w, 4 * w, 2), _Block(4 * w, 4 * w, 1), _Block(4 * w, 4 * w, 1),
        )
        self.head = nn.Conv2d(4 * w, ANSWERS, 1)
        nn.init.constant_(self.head.bias, -4.0)

    def forward(self, images):
        local = self.head(self.body(images * 4 - 2)).flatten(2).float()
        return torch.logsumexp(local * 2, 2) / 2 - math.log(4) / 2


def train(seconds, device, workers=8, smoke=False, vae=None, seed=7):
    """Trains for `seconds` and returns the classifier in evaluation mode; `vae`: see `render.corrupt`."""
    torch.manual_seed(seed)
    context = multiprocessing.get_context("fork")
    batch, queue = (16, context.Queue(4)) if smoke else (256, context.Queue(64))
    crew = [context.Process(target=_sampler, args=(queue, seed * 1000 + n, batch), daemon=True) for n in range(workers)]
    for process in crew:
        process.start()
    start = time.time()
    round_trip = _load_vae(vae, device)
    model = Classifier(8 if smoke else 48).to(device).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.02)
    step, rng, kept, running = 0, random.Random(seed), [], 0.0
    while (spent := (time.time() - start) / seconds) < 1:
        # Scenes are slow to sample: each is seen again with other colours, backgrounds and corruption.
        if not kept or (len(kept) < 3000 and not queue.empty()):
            kept.append(queue.get())
            packed, truth = kept[-1]
        else:
            packed, truth = rng.choice(kept)
        images = render.corrupt(render.render(packed, device, size=SIDE), vae=round_trip, strength=0.7)
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * spent))
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            logits = model(images.to(memory_format=torch.channels_last))
        loss = F.binary_cross_entropy_with_logits(
            logits, torch.from_numpy(truth).to(device), pos_weight=torch.full((ANSWERS,), 3.0, device=device)) * 20
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimiser.step()
        step += 1
        if step % 100 == 0:
            running = loss.item()
            print(f"classifier step {step} {time.time() - start:.0f} s loss {running:.4f} batches {len(kept)}",
                  flush=True)
        if smoke and step >= 3:
            break
    for process in crew:
        process.terminate()
    print(f"classifier: {step} steps, {len(kept)} different batches, loss {running:.4f}", flush=True)
    return model.eval()


def save(model, path):
    """Writes the weights with the width to build the network with."""
    torch.save({"width": model.body[0].out_channels, "state": model.state_dict()}, path)


def load(path, device):
    """The classifier of `save`, in evaluation mode."""
    data = torch.load(path, map_location=device, weights_only=True)
    model = Classifier(data["width"]).to(device)
    model.load_state_dict(data["state"])
    return model.eval()


@torch.no_grad()
def scores(model, images):
    """Probabilities (B, ANSWERS) for pictures (B, 3, 128, 128) in 0..1."""
    return torch.cat([model(part.float()).sigmoid() for part in images.split(256)])


def calibrate(model, device, count=2000, seed=99, draw_scene=None, painter=None):
    """Thresholds and hit rates on fresh scenes: of `draw_scene(rng)`, drawn by `painter(packed scenes, device)`.

    Returns a dict: `threshold` of each answer (tensor; where its own true and false rates are best together, between
    0.2 and 0.8), and shares on a second set of scenes: `objects` of present classes recognised, `false` answers for
    absent classes, `pictures` all of whose classes are recognised, `touching` bonds found, `apart` pairs that stand
    apart and are called touching.
    """
    rng = random.Random(seed)
    draw_scene = draw_scene or (lambda rng: world.sample(rng, **MIXES[0]))
    painter = painter or (lambda packed, device: render.render(packed, device, size=SIDE))
    found = []
    for _ in range(2):
        scenes = [draw_scene(rng) for _ in range(count)]
        truth = labels(scenes).to(device) > 0
        score = torch.cat([scores(model, painter(render.pack(scenes[i:i + 256]), device))
                           for i in range(0, count, 256)])
        found.append((scenes, truth, score))
    _, truth, score = found[0]
    levels = torch.linspace(0.2, 0.8, 25, device=device)
    over = score[..., None] > levels
    hit = (over & truth[..., None]).sum(0) / truth.sum(0).clamp(min=1)[:, None]
    false = (over & ~truth[..., None]).sum(0) / (~truth).sum(0).clamp(min=1)[:, None]
    # Absent classes are many: a false answer in a hundred weighs like a miss in ten.
    threshold = levels[(hit - 10 * false).argmax(1)]
    scenes, truth, score = found[1]
    yes = score > threshold
    seen, named = yes[:, :CLASSES], truth[:, :CLASSES]
    apart = [(row, CLASSES + at) for row, scene in enumerate(scenes) for pair, at in render.BOND.items()
             if {o.category for o in scene.objects} >= set(pair) and not truth[row, CLASSES + at]]
    share = lambda t: round(t.float().mean().item(), 4)  # noqa: E731
    return {
        "threshold": threshold,
        "objects": share(seen[named]),
        "false": share(seen[~named]),
        "pictures": share((seen | ~named).all(1)),
        "touching": share(yes[:, CLASSES:][truth[:, CLASSES:]]),
        "apart": share(torch.stack([yes[i, j] for i, j in apart])) if apart else 0.0,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=45)
    parser.add_argument("--out", required=True, help="file to write")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--vae", help="folder of an autoencoder that some training pictures go through")
    parser.add_argument("--smoke", action="store_true", help="a few tiny steps, to see that it runs")
    args = parser.parse_args()
    model = train(args.seconds, args.device, args.workers, args.smoke, args.vae)
    result = calibrate(model, args.device, 64 if args.smoke else 2000)
    print("classifier on rendered scenes:", {k: v for k, v in result.items() if k != "threshold"})
    save(model, args.out)


if __name__ == "__main__":
    main()
