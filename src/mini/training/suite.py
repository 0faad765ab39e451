"""Trains the four models of the embedded suite side by side on the GPUs at hand, and packs what they wrote.

    python suite.py --seconds 560 --work WORK --out OUT                    # everything, from scratch
    python suite.py --seconds 560 --work WORK --out OUT --resume --only judge generator --span 0.5 1.0
    python suite.py --smoke --work WORK --out OUT                          # a minute or two, also on a CPU

WORK keeps checkpoints for --resume; WORK/suite is the suite's folder. OUT gets it as suite.tar.gz in pieces of 15 MiB
(`cat suite.tar.gz.* | tar xz`), table.txt, and logs.tar.gz. The generator writes its VAE early; the others train on
pictures that went through it from then on. --span is passed to the judge: the part of its schedule that this call
covers (0 0.5 in the first of two calls, 0.5 1 in the second).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

STARTED = time.time()
HERE = Path(__file__).resolve().parent
PIECE = 15 * 1024 * 1024
SCRIPTS = ("judge", "generator", "relevance", "detector")
CORES = {"judge": 0.3, "generator": 0.28, "relevance": 0.2, "detector": 0.2}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=560, help="from the start of this process to its end")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, default=list(SCRIPTS))
    parser.add_argument("--devices", nargs="+", help="default: every GPU, or the CPU")
    parser.add_argument("--place", nargs="+", default=[], metavar="SCRIPT=DEVICE", help="overrides for some scripts")
    parser.add_argument("--limit", nargs="+", default=[], metavar="SCRIPT=SECONDS", help="less time for some scripts")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--span", nargs=2, default=None)
    parser.add_argument("--smoke", action="store_true")
    return parser.parse_args()


def pairs(items):
    return dict(item.split("=", 1) for item in items)


def places(args):
    """A device for each script: the judge and the generator apart, the small ones spread over both."""
    devices = args.devices
    if not devices:
        import torch

        devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]
    first, second = devices[0], devices[-1]
    return {"judge": first, "generator": second, "relevance": second, "detector": first,
            **({"relevance": devices[1], "detector": devices[2]} if len(devices) > 3 else {}), **pairs(args.place)}


def run_folder(work, script):
    """What a script gets as --out."""
    return work / "judge" if script == "judge" else work / f"{script}.run"


def command(args, script, device):
    seconds = args.seconds - (8 if args.smoke else 18)  # the rest is for packing
    seconds = min(seconds, float(pairs(args.limit).get(script, seconds)))
    cores = os.cpu_count() or 2
    out = run_folder(args.work, script)
    line = [sys.executable, str(HERE / f"{script}.py"), "--seconds", str(seconds), "--out", str(out), "--device", device,
            "--workers", str(max(1, int(cores * CORES[script])))]
    if script != "generator":
        line += ["--vae", str(run_folder(args.work, "generator") / "generator" / "vae")]
    if script == "judge" and args.span:
        line += ["--span", *args.span]
    before = args.work / "judge.checkpoint" if script == "judge" else out
    if args.resume and before.exists():
        line += ["--resume", str(before)]
    return line + (["--smoke"] if args.smoke else [])


def last_line(log):
    lines = [piece for piece in log.read_text(errors="replace").replace("\r", "\n").splitlines() if piece.strip()]
    return lines[-1][:150] if lines else ""


def run(args):
    """Starts the scripts, waits for all of them; returns their exit statuses."""
    logs = args.work / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    where, running, status = places(args), {}, {}
    for script in args.only:
        line = command(args, script, where[script])
        print(" ".join(line), flush=True)
        env = {**os.environ, "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "2"}
        with open(logs / f"{script}.log", "w") as log:
            running[script] = subprocess.Popen(line, cwd=HERE, stdout=log, stderr=subprocess.STDOUT, env=env)
    told = 0.0
    while running:
        time.sleep(0.5)
        for script, process in list(running.items()):
            late = not args.smoke and time.time() - STARTED > args.seconds - 8
            if process.poll() is None and late:
                print(f"{script} is out of time", flush=True)
                process.kill()
                process.wait()
            if process.poll() is not None:
                status[script] = process.returncode
                del running[script]
                print(f"{time.time() - STARTED:.0f} s: {script} ended with {process.returncode}", flush=True)
        if time.time() - told > 45:
            told = time.time()
            for script in running:
                print(f"{told - STARTED:5.0f} s {script:9} {last_line(logs / f'{script}.log')}", flush=True)
    return status


def assemble(work):
    """Copies what the scripts wrote into WORK/suite."""
    suite = work / "suite"
    for script in SCRIPTS:
        made = run_folder(work, script)
        source = made if script == "judge" else made / script
        if (source / "config.json").exists() or (source / "model_index.json").exists():
            shutil.rmtree(suite / script, ignore_errors=True)
            shutil.copytree(source, suite / script, ignore=shutil.ignore_patterns(
                "metrics.json", "*.png", "checkpoint*", "*.log", ".*"))
    for path in run_folder(work, "relevance").glob("domain.*"):
        suite.mkdir(exist_ok=True)
        shutil.copy(path, suite / path.name)
    return suite


def find_metrics(work, script):
    out = run_folder(work, script)
    for path in (out / "metrics.json", out / script / "metrics.json"):
        if path.exists():
            return json.loads(path.read_text(encoding="utf-8"))
    return {}


def size_lines(suite):
    files = [p for p in sorted(suite.rglob("*")) if p.is_file()]
    lines = []
    for part in SCRIPTS:
        inside = [p.stat().st_size for p in files if p.relative_to(suite).parts[0] == part]
        if inside:
            lines.append(f"{part:10} {sum(inside) / 1e6:6.1f} MB, largest file {max(inside) / 2**20:.1f} MiB")
    total = sum(p.stat().st_size for p in files)
    return lines + [f"{'total':10} {total / 1e6:6.1f} MB (at most 64)"]


def report(args, status, suite):
    """The suite's table: what each script measured."""
    metrics = {script: find_metrics(args.work, script) for script in SCRIPTS}
    (suite / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    lines = [f"{script}: exit status {status[script]}" for script in status] + size_lines(suite)
    for script in SCRIPTS:
        log = args.work / "logs" / f"{script}.log"
        if log.exists():
            kept = [line for line in log.read_text(errors="replace").replace("\r", "\n").splitlines() if line.strip()]
            lines += ["", f"== {script}", *(line[:400] for line in kept[-(45 if script == "judge" else 30):])]
    return "\n".join(lines) + "\n"


def pack(args, suite, text):
    """Writes the pieces into OUT."""
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "table.txt").write_text(text, encoding="utf-8")
    with tarfile.open(args.out / "logs.tar.gz", "w:gz", compresslevel=6) as archive:
        archive.add(args.work / "logs", "logs")
        for path in args.work.rglob("*.png"):
            if path.stat().st_size < 4_000_000:
                archive.add(path, f"pictures/{path.parent.name}-{path.name}")
    split(suite, "suite", args.out)


def split(folder, name, out):
    """Writes `folder`, called `name` inside, to OUT/NAME.tar.gz.00, .01, ..., pieces of 15 MiB."""
    whole = out / f".{name}.tar.gz"
    with tarfile.open(whole, "w:gz", compresslevel=1) as archive:
        archive.add(folder, name)
    with open(whole, "rb") as stream:
        for number in range(100):
            piece = stream.read(PIECE)
            if not piece:
                break
            (out / f"{name}.tar.gz.{number:02}").write_bytes(piece)
    whole.unlink()


def main():
    args = arguments()
    args.work, args.out = args.work.resolve(), args.out.resolve()
    args.work.mkdir(parents=True, exist_ok=True)
    status = run(args)
    suite = assemble(args.work)
    suite.mkdir(exist_ok=True)
    text = report(args, status, suite)
    print(text, flush=True)
    pack(args, suite, text)
    print(f"packed after {time.time() - STARTED:.0f} s", flush=True)
    return 1 if any(status.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
