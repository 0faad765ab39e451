#!/usr/bin/env python3
"""What the guard costs a loop without previews, judging apart: time of a step and peak memory, bare and guarded.

Usage: overhead.py [ROUNDS] [STEPS]. Draws with the embedded generator; each round is a process of its own, bare and guarded in
turns, and the gate releases at once. Prints a table and ends with 1 if the guard costs more than 3 %.
"""

import json
import pathlib
import resource
import statistics
import subprocess
import sys
import time

SUITE = pathlib.Path(__file__).resolve().parents[3] / "src/mini/suite/generator"
LIMIT = 1.03


class Gate:
    """Releases at once."""

    def open(self, request):
        self.request_id, self.seeds, self.tries, self.preview_steps = "r", tuple(range(request.count)), 1, frozenset()
        return self

    def finished(self, member, image):
        from cluegate_client import Outcome, Release

        return Release(image, Outcome("released", "safe", "", member, "d"))

    def close(self):
        return []


def measure(kind, steps):
    import torch
    from cluegate_diffusers import guard
    from diffusers import StableDiffusionPipeline

    torch.set_grad_enabled(False)
    pipe = StableDiffusionPipeline.from_pretrained(SUITE, dtype=torch.float32, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    if kind == "guarded":
        guard(pipe, Gate())
    begins = []
    pipe.unet.register_forward_pre_hook(lambda *_: begins.append(time.perf_counter()))
    for _ in range(2):
        # The first call warms up.
        begins.clear()
        pipe("a cat", num_inference_steps=steps, num_images_per_prompt=2, generator=torch.Generator().manual_seed(1))
    times = [after - before for before, after in zip(begins, begins[1:])]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"step_ms": 1000 * statistics.median(times), "peak_mib": peak}))


def main(rounds=5, steps=20):
    found = {"bare": [], "guarded": []}
    for _ in range(rounds):
        for kind, runs in found.items():
            command = [sys.executable, __file__, "--measure", kind, str(steps)]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            runs.append(json.loads(told))
    print(f"| median of {rounds} | bare | guarded | ratio |\n|---|--:|--:|--:|")
    ratios = []
    for name in ("step_ms", "peak_mib"):
        bare, guarded = (statistics.median(run[name] for run in found[kind]) for kind in ("bare", "guarded"))
        ratios.append(guarded / bare)
        print(f"| {name} | {bare:.1f} | {guarded:.1f} | {guarded / bare:.3f} |")
    return int(max(ratios) > LIMIT)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], int(sys.argv[3]))
    else:
        sys.exit(main(*map(int, sys.argv[1:])))
