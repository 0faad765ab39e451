"""Goes on training an exported generator, its decoder and its denoiser side by side on two GPUs.

    python generator_refine.py SUITE/generator --seconds 320 --out OUT --devices cuda:0 cuda:1 --workers 24

The encoder stays as it is, so that decoder and denoiser need not know of each other: both learn on its latents. On
the first device a process of its own trains the decoder (and another one, early, the classifier that scores); on the
second this one trains UNet and text encoder, on a bank of scenes that grows meanwhile. OUT/generator starts as a copy
of the input and each part replaces its own folder when it is done and better (decoder) or sound (UNet): if one fails,
its old weights stay. `--pack DIR` then writes the folder there in pieces (`cat generator.tar.gz.* | tar xz`), with
metrics.json and sheet.png beside, which are made last. OUT must not hold a checkpoint of `generator.py`.
"""

import argparse
import copy
import json
import math
import random
import shutil
import subprocess
import sys
import time
import traceback
from pathlib import Path

import torch
import torch.nn.functional as F

import clip_tokenizer
import generator
import render
import suite
from generator import LATENT, SCALE, START, Bank, Trainer, save_pipeline, save_vae
from generator_scenes import Crew, draw_difficult, draw_scene, encode, paint

SCORING = 38      # seconds kept for export and score
DECODER_LEAD = 8  # seconds by which the decoder ends before the UNet
HELD_OUT = 512    # scenes on which old and new decoder are compared
GUIDANCES = (7.5, 5.0, 8.0)


def load_vae(folder, device):
    """The whole autoencoder of a generator folder, frozen, in f32."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(Path(folder) / "vae").float().to(device).eval().requires_grad_(False)
    return vae.to(memory_format=torch.channels_last)


@torch.no_grad()
def latents_of(vae, images):
    """The mean latents of pictures (B, 3, 128, 128) in 0..1, as the decoder wants them (unscaled), in f32."""
    with torch.autocast(images.device.type, torch.bfloat16):
        return vae.encode((images * 2 - 1).contiguous(memory_format=torch.channels_last)).latent_dist.mode().float()


# ---- decoder ----

class Decoder(torch.nn.Module):
    """The part of the autoencoder that is trained on: latents to pictures in -1..1."""

    def __init__(self, vae):
        super().__init__()
        self.spread, self.body = copy.deepcopy(vae.post_quant_conv), copy.deepcopy(vae.decoder)

    def forward(self, latents):
        return self.body(self.spread(latents))


def picture_loss(drawn, images):
    """Distance of pictures in -1..1: colours, slopes, details at three scales (Laplacian pyramid), spectrum."""
    off = drawn - images
    loss = off.abs().mean() + 0.5 * sum(slope.abs().mean() for slope in generator._slope(off))
    level = off
    for _ in range(3):
        small = F.avg_pool2d(level, 2)
        loss = loss + 0.5 * (level - F.interpolate(small, scale_factor=2, mode="bilinear")).abs().mean()
        level = small
    # Amplitudes alone ask for the right amount of detail, even where its place is not certain.
    spectra = [torch.fft.rfft2(x, norm="ortho").abs() for x in (drawn, images)]
    return loss + 0.1 * (spectra[0] - spectra[1]).abs().mean()


@torch.no_grad()
def reconstruction(decoder, latents, images):
    """(mean absolute error, PSNR in dB) of decoded pictures, in 0..1; computed in f32 as it is used."""
    drawn = torch.cat([decoder(z) for z in latents.split(64)])
    off = (drawn / 2 + 0.5).clamp(0, 1) - images
    psnr = -10 * off.pow(2).mean((1, 2, 3)).clamp(min=1e-10).log10()
    return off.abs().mean().item(), psnr.mean().item()


def held_out(vae, device, count):
    """Pictures and latents of scenes that no training sees."""
    rng = random.Random(20261122)
    scenes = [draw_scene(rng) for _ in range(count)]
    images = torch.cat([paint(render.pack(scenes[i:i + 128]), device) for i in range(0, count, 128)])
    return images, torch.cat([latents_of(vae, part) for part in images.split(128)])


def decoder_batches(crew, vae, device):
    """Endless (latents with noise, pictures in -1..1); scenes come again with other colours and horizons."""
    kept = []
    while True:
        if not kept or (len(kept) < 3000 and not crew.queue.empty()):
            kept.append(crew.get()[0])
            packed = kept[-1]
        else:
            packed = random.choice(kept)
        images = paint(packed, device)
        latents = latents_of(vae, images)
        # What the UNet denoises is a little off the encoder's latents; half of the pictures stay nearly clean.
        amount = 0.08 / SCALE * torch.rand(len(images), 1, 1, 1, device=device) ** 2
        yield latents + amount * torch.randn_like(latents), images * 2 - 1


def fit_decoder(vae, batches, args, until):
    """Trains until `until` seconds after `args.start`; returns the moving average, f16-rounded as it is shipped."""
    device = torch.device(args.devices[0])
    model = Decoder(vae).to(device).to(memory_format=torch.channels_last).requires_grad_(True).train()
    average = copy.deepcopy(model)
    weights, means = list(model.parameters()), list(average.parameters())
    optimiser = torch.optim.AdamW(weights, lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-4, fused=device.type == "cuda")
    fast, first, step = generator.compiled(model, device), time.time() - args.start, 0
    while (now := time.time() - args.start) < until and not (args.smoke and step >= 3):
        latents, images = next(batches)
        share = (now - first) / max(until - first, 1)
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * min(1, (step + 1) / 200) * (0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * share)))
        try:
            with torch.autocast(device.type, torch.bfloat16):
                drawn = fast(latents.contiguous(memory_format=torch.channels_last))
            loss = picture_loss(drawn.float(), images)
            loss.backward()
        except Exception as error:  # noqa: BLE001 - whatever the compiler stumbles over, training must go on
            if fast is model:
                raise
            print(f"decoder not compiled: {type(error).__name__}: {str(error)[:300]}", flush=True)
            fast = model
            optimiser.zero_grad(set_to_none=True)
            continue
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        step += 1
        with torch.no_grad():
            torch._foreach_lerp_(means, weights, 1 - min(0.998, (1 + step) / (10 + step)))
        if step % 200 == 0 or args.smoke:
            print(f"decoder step {step} {time.time() - args.start:.0f} s loss {loss.item():.4f}", flush=True)
    print(f"decoder: {step} steps", flush=True)
    with torch.no_grad():
        for weight in means:
            weight.copy_(weight.half())
    return average.eval().requires_grad_(False)


def decoder_process(args):
    """What `start_decoder` starts: trains and, if the held-out error fell, writes OUT/generator/vae."""
    device, home = args.devices[0], Path(args.out) / "generator"
    crew = Crew(home / "tokenizer", max(1, args.workers // 5), 8 if args.smoke else 128, 700_000, draw_difficult,
                others=False)
    settings(device, 71)
    vae = load_vae(args.source, device)
    images, latents = held_out(vae, device, 8 if args.smoke else HELD_OUT)
    before = reconstruction(Decoder(vae), latents, images)
    until = args.seconds - SCORING - DECODER_LEAD
    better = fit_decoder(vae, decoder_batches(crew, vae, device), args, until)
    crew.stop()
    after = reconstruction(better, latents, images)
    names = ("l1", "psnr")
    result = {"scenes": len(images), "old": dict(zip(names, before)), "new": dict(zip(names, after)),
              "kept": after[0] < before[0]}
    if result["kept"] or args.smoke:  # not true of a NaN
        vae.post_quant_conv, vae.decoder = better.spread, better.body
        save_vae(vae, home / "vae")
    (Path(args.out) / "decoder.json").write_text(json.dumps(result), encoding="utf-8")


def start_decoder(args):
    """The decoder's process."""
    line = [sys.executable, str(Path(__file__).resolve()), args.source, "--out", args.out, "--devices", *args.devices,
            "--seconds", str(args.seconds), "--workers", str(args.workers), "--decoder-from", str(args.start)]
    return subprocess.Popen(line + ["--smoke"] * args.smoke)


# ---- denoiser ----

class GrowingBank(Bank):
    """A bank that is used while it fills: pictures are encoded as they come."""

    def __init__(self, vae, crew, device, limit):
        super().__init__(device, limit)
        self.vae, self.crew = vae, crew
        self.latents = torch.zeros(limit, 4, LATENT, LATENT, dtype=torch.float16, device=device)
        self.ids = None

    def take(self):
        """Draws and encodes the crew's next scenes."""
        packed, ids, _ = self.crew.get()
        ids = torch.from_numpy(ids)[:self.limit - self.count].to(self.device)
        latents = latents_of(self.vae, paint(packed, self.device))[:len(ids)] * SCALE
        if self.ids is None:
            self.ids = torch.zeros(self.limit, *ids.shape[1:], dtype=ids.dtype, device=self.device)
        rows = slice(self.count, self.count + len(ids))
        self.latents[rows], self.ids[rows] = latents.half(), ids
        self.count += len(ids)
        if self.count == self.limit:
            self.crew.stop()
            print(f"bank: {len(self)} scenes at {time.time() - START:.0f} s, deviation "
                  f"{self.latents[:4096].float().std():.3f}", flush=True)

    def draw(self, count):
        """Row numbers of `count` scenes, after a look at what the crew has ready."""
        if self.count == self.limit:
            return super().draw(count)
        for _ in range(3):
            if self.count < count or (self.count < self.limit and not self.crew.queue.empty()):
                self.take()
        return torch.randint(self.count, (count,), device=self.device)


def refine_denoiser(trainer, bank, tokenizer, args):
    """Trains UNet and text encoder and replaces their folders in OUT/generator."""
    empty = encode(tokenizer, [""]).to(trainer.device)
    trainer.train(bank, empty, args.seconds - SCORING)
    if not all(torch.isfinite(w).all() for w in trainer.average):
        raise FloatingPointError("the UNet's averaged weights are not finite; its old weights are kept")
    trainer.use_average()
    home, hidden = Path(args.out) / "generator", Path(args.out) / ".generator-being-written"
    shutil.rmtree(hidden, ignore_errors=True)
    hidden.mkdir()
    save_pipeline(trainer, tokenizer, hidden)
    for part in ("unet", "text_encoder"):
        shutil.rmtree(home / part)
        (hidden / part).rename(home / part)
    shutil.rmtree(hidden)


# ---- all of it ----

def settings(device, seed):
    """Seeds and speed settings, after the crews have been forked."""
    random.seed(seed)
    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    if torch.device(device).type == "cuda":
        torch.cuda.set_device(device)


def copy_input(args):
    """OUT/generator as a copy of the input folder."""
    home = Path(args.out) / "generator"
    if (Path(args.out) / "generator-checkpoint.pt").exists():
        raise SystemExit(f"expected a fresh folder as --out, found a checkpoint in {args.out}: name another folder")
    if not (Path(args.source) / "model_index.json").exists():
        raise SystemExit(f"expected a generator's folder with model_index.json, found none in {args.source}")
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(args.source, home, ignore=shutil.ignore_patterns("metrics.json", "*.png", ".*"))
    (Path(args.out) / "decoder.json").unlink(missing_ok=True)
    return home


def start_classifier(args):
    """The file of the scoring classifier and the process that trains it, None if the file is given."""
    if args.classifier:
        return Path(args.classifier), None
    target = Path(args.out) / "generator-classifier.pt"
    line = [sys.executable, str(Path(__file__).with_name("classifier.py")), "--seconds", "45", "--out", str(target),
            "--vae", str(Path(args.source) / "vae"), "--device", args.devices[0],
            "--workers", str(max(1, args.workers // 6))]
    return target, subprocess.Popen(line + ["--smoke"] * args.smoke)


def finish(process, name, seconds):
    """Waits at most `seconds` for a process, then ends it; says if it failed."""
    if process is None:
        return
    try:
        status = process.wait(timeout=max(1.0, seconds))
    except subprocess.TimeoutExpired:
        process.kill()
        status = "no end in time"
    if status:
        print(f"{name} failed: {status}", flush=True)


def pack(home, folder):
    """Writes the folder's pieces, and metrics and sheet beside them as far as they are there."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob("generator.tar.gz.*")):
        suite.split(home, "generator", folder)
    for name in ("metrics.json", "sheet.png"):
        if (home / name).exists():
            shutil.copy(home / name, folder / name)


def score(trainer, tokenizer, judge_file, args):
    """Scores OUT/generator as exported, and prints the last lines."""
    import generator_score  # late, as generator.py does

    home, decoder = Path(args.out) / "generator", None
    result = generator_score.evaluate(trainer, load_vae(home, trainer.device), tokenizer, judge_file, args, START,
                                      GUIDANCES)
    made = Path(args.out) / "decoder.json"
    if made.exists():
        decoder = json.loads(made.read_text(encoding="utf-8"))
    result["decoder"] = decoder
    (home / "metrics.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name in ("old", "new") if decoder else ():
        print(f"{name} decoder on {decoder['scenes']} held-out scenes: L1 {decoder[name]['l1']:.4f}, "
              f"PSNR {decoder[name]['psnr']:.2f} dB")
    print(f"decoder replaced: {bool(decoder and decoder['kept'])}; recognised "
          + ", ".join(f"{t['pictures']:.1%} at guidance {g}" for g, t in result["by_guidance"].items())
          + f" of {result['prompts']} prompts; {time.time() - START:.0f} s", flush=True)


def run(args):
    """The whole refinement, in the process that trains the denoiser."""
    home, device = copy_input(args), args.devices[-1]
    decoder = start_decoder(args)
    judge_file, judge = start_classifier(args)
    tokenizer = clip_tokenizer.load(home / "tokenizer")
    busy = args.workers // 5 + args.workers // 6
    crew = Crew(home / "tokenizer", max(1, args.workers - busy), 16 if args.smoke else 320, 900_000, draw_difficult,
                others=False, ahead=1000)  # forked before CUDA starts
    settings(device, 72)
    args.device, args.resume = device, args.out
    trainer, failed = Trainer(tokenizer.get_vocab_size(), args, tiny=False), False
    try:
        refine_denoiser(trainer, GrowingBank(load_vae(home, device), crew, device, args.scenes), tokenizer, args)
    except Exception:  # noqa: BLE001 - whatever happened, the decoder's result must still go out
        failed = True
        traceback.print_exc()
    crew.stop()
    finish(decoder, "decoder", 600 if args.smoke else args.seconds - 28 - (time.time() - START))
    finish(judge, "classifier", 600 if args.smoke else 1)
    if args.pack:
        pack(home, args.pack)
    if failed:
        trainer = Trainer(tokenizer.get_vocab_size(), args, tiny=False)
        trainer.use_average()
    score(trainer, tokenizer, judge_file, args)
    if args.pack:
        pack(home, args.pack)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="generator folder to go on from")
    parser.add_argument("--seconds", type=float, default=320, help="from the start of the process to its end")
    parser.add_argument("--out", required=True)
    parser.add_argument("--devices", nargs="+", default=["cuda:0", "cuda:1"], help="decoder's and UNet's")
    parser.add_argument("--workers", type=int, default=24)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=3e-4, help="highest learning rate of the UNet")
    parser.add_argument("--scenes", type=int, default=200_000, help="size of the bank")
    parser.add_argument("--classifier", help="file of a trained classifier")
    parser.add_argument("--pack", help="folder for the result in pieces of 15 MiB")
    parser.add_argument("--smoke", action="store_true", help="a few tiny steps, to see that it runs")
    parser.add_argument("--decoder-from", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.smoke:
        args.batch, args.scenes = 8, 64
    args.start = args.decoder_from or START
    if args.decoder_from:
        decoder_process(args)
    else:
        run(args)


if __name__ == "__main__":
    main()
