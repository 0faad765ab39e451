"""Batches of scenes for the relevance encoder and the detector, and what their training runs have in common."""

import argparse
import copy
import json
import math
import multiprocessing
import os
import random
import time
from collections import deque
from pathlib import Path

import numpy as np
import torch

import world

OBJECTS = 8  # places for objects in a batch; a scene has at most six
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def process_start():
    """When this process started, in seconds of time.time()."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
        booted = time.time() - float(Path("/proc/uptime").read_text().split()[0])
        return booted + ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return time.time()


class Clock:
    """Seconds since the process started against a limit, of which `reserve` seconds are kept for what follows."""

    def __init__(self, limit, reserve):
        self.start, self.limit, self.reserve = process_start(), limit, reserve
        self.began = None

    def spent(self):
        return time.time() - self.start

    def progress(self):
        """Share of the training time gone, 0 at the first call and 1 when training has to stop."""
        if self.began is None:
            self.began = self.spent()
        return (self.spent() - self.began) / max(1.0, self.limit - self.reserve - self.began)


def arguments(doc):
    """The command line that both training scripts share, as a parser that they may add to."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=400, help="limit of the whole run, from process start")
    parser.add_argument("--out", default="out", help="folder to write")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--workers", type=int, default=5, help="processes that sample scenes")
    parser.add_argument("--resume", help="folder of an earlier run to go on from")
    parser.add_argument("--vae", type=Path, help="folder of the suite's VAE, to train on pictures that went through it")
    parser.add_argument("--smoke", action="store_true", help="a few small steps on any machine, to see that all works")
    parser.add_argument("--batch", type=int, default=0, help="scenes a step (default: the script's own)")
    parser.add_argument("--seed", type=int, default=1)
    return parser


def pack(scenes, captions):
    """Scenes with their labels as arrays: classes and touched subjects [B, 8], boxes [B, 8, 4] (0..1, corners)."""
    import render  # late: only what draws needs it before the workers are forked

    count = len(scenes)
    classes = np.full((count, OBJECTS), -1, np.int16)
    touched = np.full((count, OBJECTS), -1, np.int16)
    boxes = np.zeros((count, OBJECTS, 4), np.float32)
    for i, scene in enumerate(scenes):
        for j, obj in enumerate(scene.objects):
            if not obj.gone:
                classes[i, j] = obj.cls
                boxes[i, j] = world.box(obj)
        for s, h in scene.touches:
            touched[i, h] = s
    return {"packed": render.pack(scenes), "captions": captions, "classes": classes, "touched": touched, "boxes": boxes / world.SIDE}


def draw(rng, size, mix, empty=0.0, erased=0.06):
    """`size` random scenes, packed. A share has an object erased as region removal does, a share no object at all."""
    scenes = []
    for _ in range(size):
        scene = world.sample(rng, **mix)
        r = rng.random()
        if r < erased:
            scene = world.erase(scene, rng.randrange(len(scene.objects)), rng) or scene
        elif r < erased + empty:  # of the world's own backgrounds only: an empty texture is nothing of this world
            scene = world.Scene([], set(), rng.randrange(len(world.BACKGROUNDS)))
        scenes.append(scene)
    return pack(scenes, [world.caption(s, rng) for s in scenes])


def _work(queue, seed, size, mixes, keywords):
    torch.set_num_threads(1)
    rng = random.Random(seed)
    while True:
        queue.put(draw(rng, size, rng.choice(mixes), **keywords))


class ScenePool:
    """Worker processes that sample scenes. Each has its own seed and queue and they are read in turn, so that a run
    sees the same batches whatever the machine. With `reuse` every second batch is one from a while ago, which the
    renderer draws anew on other backgrounds."""

    def __init__(self, workers, size, mixes, seed, reuse=True, **keywords):
        context = multiprocessing.get_context("fork")
        self.queues = [context.Queue(6) for _ in range(max(1, workers))]
        self.processes = [
            context.Process(target=_work, args=(q, seed * 1000 + i, size, mixes, keywords), daemon=True)
            for i, q in enumerate(self.queues)
        ]
        for process in self.processes:
            process.start()
        self.turn, self.reuse, self.old = 0, reuse, deque()
        self.again = False

    def next(self):
        if self.reuse and self.again and len(self.old) >= 40:
            self.again = False
            return self.old.popleft()
        batch = self.queues[self.turn].get()
        self.turn = (self.turn + 1) % len(self.queues)
        self.again = True
        if self.reuse:
            self.old.append(batch)
        return batch

    def close(self):
        for process in self.processes:
            process.terminate()


MIXES = [{}, {}, {"hard": 0.6}, {"balanced": True}, {"balanced": True, "touch": 0.7}, {"max_objects": 3, "min_size": 50.0}]


def normalise(images):
    """Pictures 0..1 as CLIP's image processor hands them to the model."""
    mean = torch.tensor(CLIP_MEAN, device=images.device)[:, None, None]
    return (images - mean) / torch.tensor(CLIP_STD, device=images.device)[:, None, None]


def to_device(batch, device):
    """The label arrays of a packed batch as tensors on `device`."""
    return {k: torch.from_numpy(batch[k]).to(device, non_blocking=True) for k in ("classes", "touched", "boxes")}


def autocast(device):
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


@torch.no_grad()
def start_vision(encoder, grid):
    """Start values that make a small vision transformer learn sooner: positions as sines and cosines of row and column,
    and attention that is not uniform at first. `grid` is the number of patches a side."""
    position = encoder.embeddings.position_embedding.weight
    width = position.shape[1]
    axis = torch.arange(grid, dtype=torch.float)
    waves = axis[:, None] * (100.0 ** -(torch.arange(width // 4) / (width // 4)))
    waves = torch.cat([waves.sin(), waves.cos()], 1)
    both = torch.cat([waves[:, None].expand(grid, grid, -1), waves[None].expand(grid, grid, -1)], -1)
    position[1:] = both.flatten(0, 1) * 0.3
    for layer in encoder.encoder.layers:
        for part in (layer.self_attn.q_proj, layer.self_attn.k_proj):
            torch.nn.init.normal_(part.weight, std=width**-0.5)


def rate(progress, peak, warm=0.03, floor=0.01):
    """Learning rate at a share of the run: linear start, cosine, `floor` x peak at the end."""
    if progress < warm:
        return peak * progress / warm
    fall = (progress - warm) / (1 - warm)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, fall))))


def groups(modules, decay):
    """AdamW parameter groups: no weight decay on vectors and scalars."""
    params = [p for m in modules for p in m.parameters() if p.requires_grad]
    return [
        {"params": [p for p in params if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0},
    ]


class Average:
    """Exponential moving average of a model's weights; what is exported."""

    def __init__(self, model, decay=0.998):
        self.model, self.decay, self.steps = model, decay, 0
        self.params = [p for p in model.parameters()]
        self.shadow = [p.detach().clone() for p in self.params]

    @torch.no_grad()
    def update(self):
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.shadow, [p.detach() for p in self.params], 1 - decay)

    @torch.no_grad()
    def apply(self):
        for p, s in zip(self.params, self.shadow):
            p.copy_(s)


def save_model(model, folder):
    """bf16 weights and config of `model` to `folder`, and the parameter count and bytes written."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    small = copy.deepcopy(model).to("cpu", torch.bfloat16)
    small.config.dtype = torch.bfloat16
    small.save_pretrained(folder)
    size = (folder / "model.safetensors").stat().st_size
    if size > 15 * 2**20:
        raise SystemExit(f"model.safetensors has {size} bytes, over the 15 MiB that the repository allows")
    (folder / "model.safetensors").chmod(0o644)
    return {"parameters": sum(p.numel() for p in model.parameters()), "bytes": size}


def write_json(path, value):
    Path(path).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def table(title, rows):
    """Prints rows of (name, value, target)."""
    print(f"\n{title}")
    for name, value, target in rows:
        shown = f"{value:.4f}" if isinstance(value, float) else str(value)
        print(f"  {name:<58} {shown:>10}   {target}")
