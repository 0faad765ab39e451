"""Trains the judge of the embedded suite: a Qwen2-VL of 8.4 M parameters, from scratch, on scenes.

    python judge.py --seconds 560 --out OUT/judge --device cuda:0 --workers 14 [--vae OUT/generator/vae] [--resume DIR]

--seconds counts from the start of the process and holds everything: compiling, training, measuring, writing. Writes a
Hugging Face folder and metrics.json into --out and checkpoint.pt into --keep (default: --out with ".checkpoint" added),
from which --resume goes on; --span says which part of the learning-rate schedule the call covers. --smoke makes
everything tiny; on a CPU it takes two minutes (--seconds 60).

What makes it learn: an auxiliary loss on the image tokens (which classes cover each 28 px cell, and who in it touches
what), thrown away afterwards; drawing on the GPU; rows that ask a dozen questions about one picture.
"""

import argparse
import json
import math
import random
import sys
import time
from pathlib import Path

STARTED = time.time()

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402
from transformers import Qwen2VLForConditionalGeneration  # noqa: E402

import judge_data  # noqa: E402
from judge_eval import evaluate, table  # noqa: E402
from judge_model import Network, Text, build, compare_with_transformers, export, train_tokenizer  # noqa: E402
from render import BONDS, corrupt, render  # noqa: E402
from round_trip import Vae  # noqa: E402
from world import CLASSES  # noqa: E402

PEAK, WARM_UP, FLOOR = 1e-3, 300, 0.01
COVER_WEIGHT, BOND_WEIGHT = 10.0, 5.0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument("--vae", type=Path, help="folder of the generator's VAE; used once it appears")
    parser.add_argument("--resume", type=Path, help="folder with a checkpoint.pt, or an exported one")
    parser.add_argument("--keep", type=Path, help="where to write checkpoint.pt")
    parser.add_argument("--span", type=float, nargs=2, default=(0.0, 1.0), metavar=("FROM", "TO"))
    parser.add_argument("--batch", type=int, default=160)
    parser.add_argument("--reserve", type=float, default=60, help="seconds kept for measuring and writing")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--smoke", action="store_true")
    return parser.parse_args()


class Trainer:
    """Network, auxiliary heads and optimiser."""

    def __init__(self, args, text, tokenizer):
        self.args, self.device = args, torch.device(args.device)
        torch.manual_seed(args.seed)
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        self.model = build(tokenizer.get_vocab_size(), text.ids).to(self.device)
        self.heads = torch.nn.Linear(256, len(CLASSES) + len(BONDS)).to(self.device)
        compiled = not args.no_compile and self.device.type == "cuda"
        self.network = Network(self.model, text, self.device, compiled)
        everything = list(self.model.parameters()) + list(self.heads.parameters())
        wide = [p for p in everything if p.ndim > 1]
        thin = [p for p in everything if p.ndim <= 1]
        self.parameters = everything
        self.optimiser = torch.optim.AdamW(
            [{"params": wide, "weight_decay": 0.05}, {"params": thin, "weight_decay": 0.0}], lr=PEAK,
            betas=(0.9, 0.95), fused=self.device.type == "cuda")
        self.step = 0
        if args.resume:
            self._resume(args.resume)
        self.sums = torch.zeros(4, device=self.device)

    def _resume(self, folder):
        """From a checkpoint, or from an exported folder: then the heads and the optimiser begin anew."""
        if not (folder / "checkpoint.pt").exists():
            written = Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
            self.model.load_state_dict(written.state_dict())
            return
        state = torch.load(folder / "checkpoint.pt", map_location=self.device)
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]

    def save(self):
        folder = self.args.keep or self.args.out.with_name(self.args.out.name + ".checkpoint")
        folder.mkdir(parents=True, exist_ok=True)
        torch.save({"model": self.model.state_dict(), "heads": self.heads.state_dict(),
                    "optimiser": self.optimiser.state_dict(), "step": self.step}, folder / "checkpoint.pt")
        self.network.text.tokenizer.save(str(folder / "tokenizer.json"))

    def _to_device(self, *arrays):
        tensors = [torch.from_numpy(a) for a in arrays]
        if self.device.type == "cuda":
            tensors = [t.pin_memory() for t in tensors]
        return [t.to(self.device, non_blocking=True) for t in tensors]

    def learn(self, batch, done, vae):
        """One step on a batch; `done` is the share of the schedule behind us."""
        rate = PEAK * min(1, (self.step + 1) / WARM_UP) * (FLOOR + (1 - FLOOR) * (0.5 + 0.5 * math.cos(math.pi * done)))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        packed, rows, where, target, weight = batch
        images, cover, bonds = render(packed, self.device, cover=True, bonds=True)
        images = corrupt(images, vae=vae, strength=min(1.0, 0.1 + done / 0.2))
        where, target, weight = self._to_device(where, target, weight)
        rows = self.network.rows(rows)
        with torch.autocast(self.device.type, torch.bfloat16):
            features = self.network.pictures(images)
            states = self.network.states(features, rows).flatten(0, 1)[where]
            logits = self.network.logits(states).float()
            maps = self.heads(features).float()
        wanted = torch.cat([cover, bonds], 1).flatten(2).transpose(1, 2) > 0.2
        cells = F.binary_cross_entropy_with_logits(maps, wanted.float(), reduction="none",
                                                   pos_weight=torch.full((), 5.0, device=self.device))
        cover_loss, bond_loss = cells[..., :len(CLASSES)].mean(), cells[..., len(CLASSES):].mean()
        each = F.cross_entropy(logits, target, reduction="none")
        loss = (each * weight).sum() / weight.sum() + COVER_WEIGHT * cover_loss + BOND_WEIGHT * bond_loss
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        self.step += 1
        plain = weight == 1.0
        self.sums += torch.stack([(each * plain).sum() / plain.sum(), (each * ~plain).sum() / (~plain).sum().clamp(min=1),
                                  cover_loss, bond_loss]).detach()

    def report(self, steps, done, queue):
        statements, others, cover, bonds = (self.sums / steps).tolist()
        self.sums.zero_()
        print(f"{time.time() - STARTED:6.0f} s  step {self.step}  {done:.2f}  statements {statements:.4f}  others "
              f"{others:.4f}  cover {cover:.4f}  bonds {bonds:.4f}  waiting batches {queue.qsize()}", flush=True)


def train(trainer, queue, args, until):
    """Steps until the clock says `until`; the learning rate follows the clock."""
    first, last = args.span
    begun, every, since = None, (2 if args.smoke else 100), 0
    vae = Vae(args.vae, trainer.device)
    trainer.model.train()
    while time.time() < until:
        batch = queue.get(timeout=300)
        share = 0.0 if begun is None else min(1.0, (time.time() - begun) / max(1.0, until - begun))
        done = first + (last - first) * share
        trainer.learn(batch, done, vae.call)
        if begun is None:
            begun = time.time()
            print(f"first step after {begun - STARTED:.0f} s", flush=True)
        since += 1
        if since == every:
            trainer.report(every, done, queue)
            since = 0
    return vae.call


def main():
    args = arguments()
    if args.smoke:
        args.batch, args.reserve = 6, 25
    args.out.mkdir(parents=True, exist_ok=True)
    until = STARTED + args.seconds - args.reserve
    known = args.resume and str(args.resume / "tokenizer.json")
    tokenizer = Tokenizer.from_file(known) if known else train_tokenizer()
    text = Text(tokenizer)
    queue, processes = judge_data.start(text, args.batch, args.workers, args.seed + int(args.span[0] * 1000))
    trainer = Trainer(args, text, tokenizer)
    print(f"{sum(p.numel() for p in trainer.model.parameters()) / 1e6:.2f} M parameters, vocabulary "
          f"{tokenizer.get_vocab_size()}, ready after {time.time() - STARTED:.0f} s", flush=True)
    vae = train(trainer, queue, args, until)
    for process in processes:
        process.terminate()
    trainer.save()
    export(trainer.model.float().cpu() if args.smoke else trainer.model, tokenizer, args.out)
    print(f"written after {time.time() - STARTED:.0f} s, {trainer.step} steps", flush=True)
    measure(trainer, args, tokenizer, text, vae)


def measure(trainer, args, tokenizer, text, vae):
    """Measures what was written, in the precision in which it was written."""
    model = trainer.model.eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16().float())
    network = Network(model.to(trainer.device), text, trainer.device, False)
    with torch.autocast(trainer.device.type, torch.bfloat16, enabled=not args.smoke):
        metrics = evaluate(network, 0.01 if args.smoke else 1.0, vae)
    metrics["steps"], metrics["seconds"] = trainer.step, args.seconds
    metrics["parameters"] = sum(p.numel() for p in model.parameters())
    (args.out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    print(table(metrics), flush=True)
    batch = render([judge_data.scene_of(random.Random(1))] * 2, "cpu", seed=1)
    print(f"largest difference from transformers' own forward pass: "
          f"{compare_with_transformers(args.out, network, batch):.2e}", flush=True)
    print(f"done after {time.time() - STARTED:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
