"""Trains the embedded text-to-image generator: a small latent diffusion model in the Hugging Face diffusers layout.

    python generator.py --seconds 560 --out out [--device cuda:0] [--workers 12] [--resume out] [--smoke]

In order: (1) the autoencoder (AutoencoderKL, 128 px to 32 x 32 x 4), saved at once to OUT/generator/vae, because the
other models are trained on pictures that went through it (`load_vae`); (2) a bank of scenes, drawn and encoded once;
(3) the denoising network (UNet2DConditionModel) and the text encoder (CLIPTextModel) on that bank until shortly before
`--seconds` after the start; (4) OUT/generator, a complete pipeline folder in f16, and OUT/generator-checkpoint.pt;
(5) the score: prompts of one to three objects, drawn in 20 DDIM steps and looked at by `classifier.py`
(OUT/generator/metrics.json and sheet.png). `--resume DIR` continues (3) from DIR, with a fresh and lower learning rate.

Training: Ho et al. 2020 (epsilon prediction), Rombach et al. 2022 (latents, cross attention), Ho & Salimans 2022
(captions dropped, guidance), Hang et al. 2023 (min-SNR weights). Needs diffusers beside torch and transformers.
"""

import argparse
import json
import math
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

START = time.time()
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch  # noqa: E402

import clip_tokenizer  # noqa: E402
import render  # noqa: E402
from generator_scenes import CAPTIONS, SIDE, TOKENS, Crew, encode, new_tokenizer, paint  # noqa: E402

LATENT = 32
SCALE = 0.18215  # Stable Diffusion's factor; the latents are shifted and scaled so that it fits (see `normalise`)
VAE = dict(block_out_channels=(48, 64, 96), norm_num_groups=16, layers_per_block=1)
# 32 groups because candle's up blocks know no other number; heads (`attention_head_dim` counts them) of 32 channels.
UNET = dict(block_out_channels=(64, 128, 160), attention_head_dim=(2, 4, 5), layers_per_block=1, norm_num_groups=32,
            cross_attention_dim=192)
TEXT = dict(hidden_size=192, intermediate_size=768, num_hidden_layers=4, num_attention_heads=6)
TINY_VAE = dict(VAE, block_out_channels=(16, 16, 32))
TINY_UNET = dict(UNET, block_out_channels=(32, 32, 32), attention_head_dim=(1, 1, 1), cross_attention_dim=32)
TINY_TEXT = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=1)
NOISE = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)
SAMPLER = dict(NOISE, prediction_type="epsilon", clip_sample=False, set_alpha_to_one=False, steps_offset=1,
               timestep_spacing="leading")


# ---- models ----

def build_vae(smoke=False):
    """The autoencoder, untrained."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
                         latent_channels=4, sample_size=SIDE, scaling_factor=SCALE, **(TINY_VAE if smoke else VAE))


def build_denoiser(vocabulary, smoke=False):
    """(UNet, text encoder), untrained. Attention only at 16 x 16 and 8 x 8: at 32 x 32 it would cost too much."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    down = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")
    unet = UNet2DConditionModel(sample_size=LATENT, in_channels=4, out_channels=4, down_block_types=down,
                                up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                                **(TINY_UNET if smoke else UNET))
    text = CLIPTextModel(CLIPTextConfig(
        vocab_size=vocabulary, max_position_embeddings=TOKENS, hidden_act="quick_gelu", bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1, pad_token_id=vocabulary - 1, **(TINY_TEXT if smoke else TEXT)))
    return unet, text


def millions(module):
    """Parameters in millions."""
    return sum(p.numel() for p in module.parameters()) / 1e6


def multiply_adds(module, *inputs):
    """Multiply-adds of one forward pass in milliards, counted in convolutions and linear layers (attention apart)."""
    total = [0]

    def count(layer, _, out):
        inside = layer.weight.numel() // layer.weight.shape[0]
        total[0] += out.numel() * inside

    hooks = [m.register_forward_hook(count) for m in module.modules()
             if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    with torch.no_grad():
        module(*inputs)
    for hook in hooks:
        hook.remove()
    return total[0] / 1e9


def load_vae(folder, device):
    """The round trip through the autoencoder of `folder` (a vae folder, or a folder with generator/vae in it).

    Returns a callable on pictures (B, 3, 128, 128) in 0..1, giving the same; it encodes to the mean.
    """
    from diffusers import AutoencoderKL

    folder = Path(folder)
    folder = next(f for f in (folder, folder / "vae", folder / "generator" / "vae") if (f / "config.json").exists())
    vae = AutoencoderKL.from_pretrained(folder).float().to(device).eval().requires_grad_(False)
    kind = torch.device(device).type

    @torch.no_grad()
    def round_trip(images):
        out = []
        for part in images.split(128):
            with torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda"):
                latents = vae.encode(part.float() * 2 - 1).latent_dist.mode()
                out.append(vae.decode(latents).sample.float() / 2 + 0.5)
        return torch.cat(out).clamp(0, 1)

    return round_trip


# ---- autoencoder ----

def _slope(x):
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def train_vae(crew, bank, device, seconds, smoke):
    """Trains the autoencoder for `seconds`; what it draws on the way goes into `bank`."""
    vae = build_vae(smoke).to(device)
    print(f"autoencoder {millions(vae):.2f} M parameters, decoder "
          f"{multiply_adds(vae.decoder, torch.zeros(1, 4, LATENT, LATENT, device=device)):.2f} G multiply-adds",
          flush=True)
    optimiser = torch.optim.AdamW(vae.parameters(), lr=1e-3, weight_decay=1e-4)
    start, step, part, others = time.time(), 0, 8 if smoke else 80, None
    while (spent := (time.time() - start) / seconds) < 1 and not (smoke and step >= 3):
        if others is None or not crew.queue.empty():  # training does not wait for the samplers
            others = bank.add(crew)
        images = torch.cat([bank.pictures(part), render.render(others, device, size=SIDE)[:part // 2]]) * 2 - 1
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * min(1, (step + 1) / 100) * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * spent)))
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            spread = vae.encode(images).latent_dist
            back = vae.decode(spread.sample()).sample
        back = back.float()
        off = (back - images).abs().mean()
        edges = sum((a - b).abs().mean() for a, b in zip(_slope(back), _slope(images)))
        # The divergence from the unit normal, as a mean over the latent's numbers.
        divergence = spread.kl().float().mean() / (4 * LATENT * LATENT)
        loss = off + 0.5 * edges + 2e-4 * divergence
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        step += 1
        if step % 100 == 0 or smoke:
            print(f"vae step {step} {time.time() - START:.0f} s off {off.item():.4f} edges {edges.item():.4f} "
                  f"kl {divergence.item():.2f} bank {len(bank)}", flush=True)
    vae.eval().requires_grad_(False)
    normalise(vae, bank.pictures(min(len(bank), 2048)))
    return vae


@torch.no_grad()
def normalise(vae, images):
    """Folds shift and scale of each latent channel into the two 1 x 1 convolutions around the latent, exactly.

    Afterwards the latents times `scaling_factor` have mean 0 and variance 1 in every channel.
    """
    latents = torch.cat([vae.encode(part * 2 - 1).latent_dist.mode() for part in images.split(256)])
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3)) * SCALE
    inside, outside = vae.quant_conv, vae.post_quant_conv
    outside.bias += outside.weight[:, :, 0, 0] @ mean
    outside.weight *= deviation[None, :, None, None]
    inside.weight[:4] /= deviation[:, None, None, None]
    inside.bias[:4] = (inside.bias[:4] - mean) / deviation
    inside.bias[4:] -= 2 * deviation.log()


def save_vae(vae, folder):
    """Writes the vae folder in f16 under another name and renames it, so that no one sees half of it."""
    from diffusers import AutoencoderKL

    folder, hidden = Path(folder), Path(folder).parent / ".vae-being-written"
    shutil.rmtree(hidden, ignore_errors=True)
    half = AutoencoderKL.from_config(vae.config)
    half.load_state_dict(vae.state_dict())
    half.half().save_pretrained(hidden)
    readable(hidden)
    shutil.rmtree(folder, ignore_errors=True)
    hidden.rename(folder)
    print(f"vae saved at {time.time() - START:.0f} s", flush=True)


def readable(folder):
    """Gives files the usual rights: safetensors writes them for their owner alone."""
    for file in Path(folder).rglob("*.safetensors"):
        file.chmod(0o644)


class Bank:
    """Scenes drawn once: pictures as bytes, later their latents, and the token ids of a few captions each."""

    def __init__(self, device, limit):
        self.device, self.limit = device, limit
        self.images, self.ids, self.count = [], [], 0
        self.latents, self.order = None, None

    def __len__(self):
        return self.count

    def draw(self, count):
        """Row numbers of `count` scenes, every scene once before any comes again."""
        if self.order is None or len(self.order) < count:
            self.order = torch.randperm(len(self), device=self.device)
        rows, self.order = self.order[:count], self.order[count:]
        return rows

    def add(self, crew):
        """Draws the crew's next scenes, and returns those of the whole world that came with them."""
        packed, ids, others = crew.get()
        if self.count < self.limit:
            self.images.append((paint(packed, self.device) * 255).round().byte())
            self.ids.append(torch.from_numpy(ids))
            self.count += len(ids)
        return others

    def pictures(self, count):
        """`count` random pictures of the bank in 0..1, those of a few of its parts."""
        parts = random.choices(self.images, k=min(len(self.images), 8))
        rows = torch.cat([p[torch.randperm(len(p), device=self.device)[:-(-count // len(parts))]] for p in parts])
        return rows[:count].float() / 255

    @torch.no_grad()
    def encode(self, vae):
        """Replaces the pictures by scaled latents in f16."""
        start = time.time()
        latents = []
        for part in self.images:
            with torch.autocast(torch.device(self.device).type, torch.bfloat16):
                latents.append((vae.encode(part.float() / 127.5 - 1).latent_dist.mode().float() * SCALE).half())
        self.latents, self.ids = torch.cat(latents), torch.cat(self.ids).to(self.device)
        self.images = []
        print(f"bank: {len(self)} scenes encoded in {time.time() - start:.0f} s, latents' mean "
              f"{self.latents.float().mean():.3f}, deviation {self.latents.float().std():.3f}", flush=True)


# ---- denoiser ----

def loss_terms(device):
    """Square roots of the two shares (signal, noise) and the min-SNR weight (gamma 5) of every step."""
    betas = torch.linspace(NOISE["beta_start"] ** 0.5, NOISE["beta_end"] ** 0.5, 1000, dtype=torch.float64) ** 2
    kept = torch.cumprod(1 - betas, 0)
    ratio = kept / (1 - kept)
    return tuple(t.float().to(device) for t in (kept.sqrt(), (1 - kept).sqrt(), ratio.clamp(max=5) / ratio))


def compiled(unet, device):
    """The UNet compiled for fixed shapes, or itself where that is not to be had."""
    if torch.device(device).type != "cuda" or os.environ.get("GENERATOR_EAGER"):
        return unet
    return torch.compile(unet, dynamic=False)


def training_loss(unet, text, batch, terms, device):
    """Weighted squared error of the predicted noise; batch: latents (B, 4, 32, 32), token ids (B, TOKENS)."""
    latents, ids = batch
    count = len(latents)
    even = (torch.arange(count, device=device) + torch.rand(count, device=device)) / count
    steps = (even * 1000).long().clamp(max=999)
    noise = torch.randn_like(latents)
    signal, share, weight = (t[steps] for t in terms)
    noisy = signal[:, None, None, None] * latents + share[:, None, None, None] * noise
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        hidden = text(input_ids=ids).last_hidden_state
        guess = unet(noisy.contiguous(memory_format=torch.channels_last), steps, hidden, return_dict=False)[0]
    return ((guess.float() - noise).pow(2).mean((1, 2, 3)) * weight).mean()


def warm_compiler(vocabulary, args):
    """Compiles the training step in a process of its own while the autoencoder trains: the caches are on disk."""
    if torch.device(args.device).type != "cuda" or args.smoke or os.environ.get("GENERATOR_EAGER"):
        return None
    command = [sys.executable, str(Path(__file__).resolve()), "--out", args.out, "--device", args.device, "--batch",
               str(args.batch), "--seconds", "1", "--only-compile", str(vocabulary)]
    with open(Path(args.out) / "generator-compile.log", "w", encoding="utf-8") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def only_compile(args):
    """What `warm_compiler` starts."""
    torch.cuda.set_device(args.device)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True  # settings are part of the caches' keys: the same as in `main`
    unet, text = (m.to(args.device) for m in build_denoiser(args.only_compile))
    unet.to(memory_format=torch.channels_last)
    fast = compiled(unet, args.device)
    batch = (torch.randn(args.batch, 4, LATENT, LATENT, device=args.device),
             torch.zeros(args.batch, TOKENS, dtype=torch.long, device=args.device))
    for _ in range(2):
        training_loss(fast, text, batch, loss_terms(args.device), args.device).backward()
    torch.cuda.synchronize()


class Trainer:
    """UNet, text encoder, their moving averages and the optimiser."""

    def __init__(self, vocabulary, args, tiny=None):
        """`tiny`: networks of the smoke test's size (default: in a smoke test)."""
        self.args, self.device = args, args.device
        sizes = args.smoke if tiny is None else tiny
        self.unet, self.text = (m.to(args.device) for m in build_denoiser(vocabulary, sizes))
        self.unet.to(memory_format=torch.channels_last)
        self.weights = [*self.unet.parameters(), *self.text.parameters()]
        fused = torch.device(args.device).type == "cuda"
        self.optimiser = torch.optim.AdamW(self.weights, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.01, fused=fused)
        self.step = 0
        self.average = None
        if args.resume:
            self.load(Path(args.resume))
        if self.average is None:
            self.average = [w.detach().clone() for w in self.weights]

    def load(self, folder):
        """Continues from the checkpoint, or from the exported weights where there is none."""
        from safetensors.torch import load_file

        checkpoint = folder / "generator-checkpoint.pt"
        if checkpoint.exists():
            data = torch.load(checkpoint, map_location=self.device, weights_only=True)
            self.unet.load_state_dict(data["unet"])
            self.text.load_state_dict(data["text"])
            self.optimiser.load_state_dict(data["optimiser"])
            self.average, self.step = data["average"], data["step"]
            print(f"resumed at step {self.step}", flush=True)
            return
        shards = sorted((folder / "generator" / "unet").glob("*.safetensors"))
        self.unet.load_state_dict({k: v.float() for s in shards for k, v in load_file(s).items()})
        text = load_file(folder / "generator" / "text_encoder" / "model.safetensors")
        names = set(self.text.state_dict())
        bare = {k if k in names else k.removeprefix("text_model."): v.float() for k, v in text.items()}
        self.text.load_state_dict(bare)
        print("resumed from exported weights, without optimiser state", flush=True)

    def save(self, path):
        torch.save({"unet": self.unet.state_dict(), "text": self.text.state_dict(), "average": self.average,
                    "optimiser": self.optimiser.state_dict(), "step": self.step}, path)

    @torch.no_grad()
    def use_average(self):
        """Puts the averaged weights, rounded to f16 as they are shipped, into the models, and ends training mode."""
        self.unet.eval()
        self.text.eval()
        for weight, average in zip(self.weights, self.average):
            weight.copy_(average.half())

    def train(self, bank, empty, until, warm=None):
        """Until `until` seconds after the start; `empty` is the row of token ids of the empty caption.

        Steps are taken uncompiled until `warm`, the process that fills the compiler's caches, has ended.
        """
        args, device, terms = self.args, self.device, loss_terms(self.device)
        fast, tried, start, first = self.unet, False, time.time(), self.step
        end, peak, low = START + until, args.rate or (2.5e-4 if args.resume else 8e-4), 1e-5
        total = torch.zeros((), device=device)
        while (now := time.time()) < end and not (args.smoke and self.step - first >= 3):
            rows = bank.draw(args.batch)
            ids = bank.ids[rows, torch.randint(CAPTIONS, (len(rows),), device=device)].long()
            ids = torch.where(torch.rand(len(rows), 1, device=device) < 0.1, empty, ids)
            share = (now - start) / max(end - start, 1)
            rate = low + (peak - low) * (0.5 + 0.5 * math.cos(math.pi * share))
            for group in self.optimiser.param_groups:
                group["lr"] = rate * min(1.0, (self.step - first + 1) / 300)
            batch = (bank.latents[rows].float(), ids)
            if not tried and (warm is None or warm.poll() is not None):
                print(f"compiling at {now - START:.0f} s", flush=True)
                fast, tried = compiled(self.unet, device), True
            try:
                loss = training_loss(fast, self.text, batch, terms, device)
                loss.backward()
            except Exception as error:  # noqa: BLE001 - whatever the compiler stumbles over, training must go on
                if fast is self.unet:
                    raise
                print(f"not compiled, going on without: {type(error).__name__}: {str(error)[:300]}", flush=True)
                fast = self.unet
                self.optimiser.zero_grad(set_to_none=True)
                continue
            norm = torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
            self.optimiser.step()
            self.optimiser.zero_grad(set_to_none=True)
            self.step += 1
            keep = min(0.999, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(self.average, [w.detach() for w in self.weights], 1 - keep)
            total += loss.detach()
            if self.step % 250 == 0 or args.smoke:
                print(f"unet step {self.step} {time.time() - START:.0f} s loss {total.item() / 250:.4f} "
                      f"norm {norm.item():.2f} rate {rate:.1e}", flush=True)
                total.zero_()
        print(f"unet: {self.step - first} steps of {args.batch} on {len(bank)} scenes", flush=True)


# ---- folder ----

def save_pipeline(trainer, tokenizer, folder):
    """Writes everything but vae/ of the pipeline folder; the trainer's models hold the averaged weights."""
    import diffusers
    from diffusers import DDIMScheduler, UNet2DConditionModel
    from safetensors.torch import save_file

    half = UNet2DConditionModel.from_config(trainer.unet.config)
    half.load_state_dict(trainer.unet.state_dict())
    shutil.rmtree(folder / "unet", ignore_errors=True)
    half.half().save_pretrained(folder / "unet", max_shard_size="12MB")
    DDIMScheduler(**SAMPLER).save_pretrained(folder / "scheduler")
    clip_tokenizer.save(tokenizer, folder / "tokenizer", TOKENS, clip_tokenizer.END)
    (folder / "text_encoder").mkdir(exist_ok=True)
    config = trainer.text.config
    config.architectures, config.dtype = ["CLIPTextModel"], torch.float16
    config.save_pretrained(folder / "text_encoder")
    # Published checkpoints name these tensors `text_model.*`; transformers 5 reads that and writes it no more.
    state = {("" if k.startswith("text_model.") else "text_model.") + k: v.half().cpu().contiguous()
             for k, v in trainer.text.state_dict().items() if not k.endswith("position_ids")}
    save_file(state, folder / "text_encoder" / "model.safetensors", metadata={"format": "pt"})
    readable(folder)
    none = [None, None]
    index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": diffusers.__version__,
             "feature_extractor": none, "image_encoder": none, "requires_safety_checker": False, "safety_checker": none,
             "scheduler": ["diffusers", "DDIMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
             "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
             "vae": ["diffusers", "AutoencoderKL"]}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    files = {str(f.relative_to(folder)): f.stat().st_size for f in sorted(folder.rglob("*")) if f.is_file()}
    print(f"folder {sum(files.values()) / 1e6:.1f} MB, largest file {max(files.values()) / 2**20:.2f} MiB, "
          f"at {time.time() - START:.0f} s", flush=True)


# ---- all of it ----

def prepare_vae(crew, bank, args, seconds):
    """The trained autoencoder: from the folder to resume, or trained now and saved."""
    from diffusers import AutoencoderKL

    home = Path(args.out) / "generator"
    if args.resume:
        source = Path(args.resume) / "generator" / "vae"
        vae = AutoencoderKL.from_pretrained(source).float().to(args.device)
        if source.resolve() != (home / "vae").resolve():
            shutil.copytree(source, home / "vae", dirs_exist_ok=True)
        return vae.eval().requires_grad_(False)
    vae = train_vae(crew, bank, args.device, seconds, args.smoke)
    save_vae(vae, home / "vae")
    return vae


def start_classifier(args):
    """The file of the held-out classifier and the process that trains it, None if the file is there."""
    name = "generator-classifier.pt"
    for folder in (args.out, args.resume):
        if folder and (Path(folder) / name).exists():
            return Path(folder) / name, None
    target = Path(args.out) / name
    command = [sys.executable, str(Path(__file__).with_name("classifier.py")), "--seconds", "60", "--out", str(target),
               "--vae", str(Path(args.out) / "generator"), "--device", args.device,
               "--workers", str(max(1, min(4, args.workers // 3)))]
    return target, subprocess.Popen(command + ["--smoke"] * args.smoke)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=560, help="from the start of the process to its end")
    parser.add_argument("--out", required=True)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument("--resume", help="folder of an earlier call's --out")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, help="highest learning rate of the UNet")
    parser.add_argument("--scenes", type=int, default=240_000, help="size of the bank")
    parser.add_argument("--vae-seconds", type=float, default=95)
    parser.add_argument("--smoke", action="store_true", help="a few tiny steps, to see that it runs")
    parser.add_argument("--only-compile", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only_compile:
        return only_compile(args)
    if args.smoke:
        args.batch, args.scenes = 8, 64
    home = Path(args.out) / "generator"
    home.mkdir(parents=True, exist_ok=True)
    random.seed(1)
    tokenizer = clip_tokenizer.load(Path(args.resume) / "generator" / "tokenizer") if args.resume else new_tokenizer()
    clip_tokenizer.save(tokenizer, home / "tokenizer", TOKENS, clip_tokenizer.END)
    seed = (1 if args.resume else 0) * 5000 + 100
    crew = Crew(home / "tokenizer", max(1, args.workers), 16 if args.smoke else 320, seed)  # forked before CUDA starts
    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    if torch.device(args.device).type == "cuda":
        torch.cuda.set_device(args.device)
    warm = warm_compiler(tokenizer.get_vocab_size(), args)
    bank = Bank(args.device, args.scenes)
    vae = prepare_vae(crew, bank, args, min(args.vae_seconds, args.seconds * 0.25))
    deadline = time.time() + 45
    while len(bank) < bank.limit and (time.time() < deadline or not len(bank)):
        bank.add(crew)
    crew.stop()
    judge_file, judge_process = start_classifier(args)
    bank.encode(vae)
    trainer = Trainer(tokenizer.get_vocab_size(), args)
    flow = multiply_adds(trainer.unet, torch.zeros(1, 4, LATENT, LATENT, device=args.device),
                         torch.tensor([1], device=args.device),
                         torch.zeros(1, TOKENS, trainer.text.config.hidden_size, device=args.device))
    print(f"unet {millions(trainer.unet):.2f} M, {flow:.2f} G multiply-adds; text {millions(trainer.text):.2f} M; all "
          f"{millions(trainer.unet) + millions(trainer.text) + millions(vae):.2f} M parameters", flush=True)
    trainer.train(bank, encode(tokenizer, [""]).to(args.device), max(args.seconds - 45, args.seconds * 0.6), warm)
    if warm is not None:
        warm.terminate()
    trainer.save(Path(args.out) / "generator-checkpoint.pt")
    trainer.use_average()
    save_pipeline(trainer, tokenizer, home)
    import generator_score  # late, because it imports this module

    if judge_process is not None:
        judge_process.wait(timeout=90)
    generator_score.evaluate(trainer, vae, tokenizer, judge_file, args, START)


if __name__ == "__main__":
    main()
