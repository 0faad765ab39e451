"""Trains the embedded text model: a Llama of 1.9 M parameters that compiles prose about scenes into chains.

    python text.py --seconds 480 --out OUT/text --device cuda:0 --workers 15
    python text.py --measure ../suite/text [--part held_out] [--show]

--seconds counts from the start of the process and holds everything: compiling, training, measuring, writing. Writes a
Hugging Face folder into --out and prints a table: shares of right answers on wordings of the grammar that training did
not see, and of right chains on the hand-written wordings of ../world/prose_rules.toml (`dev`, unless --part says
otherwise). --smoke makes everything tiny, also on a CPU. --resume goes on from an exported folder.
"""

import argparse
import itertools
import math
import random
import re
import time

STARTED = time.time()

import torch  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

import text_data as td  # noqa: E402
from text_model import Network, answers, export, load  # noqa: E402

VOCABULARY, PEAK, WARM_UP, FLOOR, ROUNDS = 1280, 3e-3, 400, 0.005, 3


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=480)
    parser.add_argument("--out")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--workers", type=int, default=15)
    parser.add_argument("--reserve", type=float, default=35, help="seconds kept for measuring and writing")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--peak", type=float, default=PEAK, help="largest learning rate")
    parser.add_argument("--tokens", type=int, default=td.TOKENS, help="of a batch")
    parser.add_argument("--resume", help="folder to go on from")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--measure", metavar="FOLDER", help="only measure")
    parser.add_argument("--part", choices=("dev", "held_out", "later"), default="dev")
    parser.add_argument("--show", action="store_true", help="print what went wrong on the hand-written wordings")
    return parser.parse_args()


# ---- measures ----

def meaning(chain):
    """The truth table of a chain over its statements: the sets of them that violate it; None if it cannot be read."""
    links = [re.findall(r"\[([^\[\]]+)\]", part) for part in re.split(r"\bunless\b", chain)]
    names = sorted(set(itertools.chain(*links)))
    if not names or len(names) > 16 or len(links) > 2:
        return None
    code = re.sub(r"\[([^\[\]]+)\]", lambda m: f" t[{names.index(m.group(1))}] ", chain)
    code = code.replace("unless", ") and not (")
    code = re.sub(r"\[(?=\s*(t|\[))", "(", code)
    code = re.sub(r"(?<=[\] )])\s*\](?!\s*\d)", ")", code)
    try:
        test = eval(f"lambda t: bool(({code}))")  # noqa: S307: only statements' numbers are left of the answer
        rows = [t for t in itertools.product((False, True), repeat=len(names)) if test(t)]
    except (SyntaxError, IndexError, TypeError, NameError):
        return None
    return names, rows


def compiled(network, tokenizer, wordings):
    """What the compiler's steps make of wordings: (chain, revised text, first rating) of each."""
    ask = lambda name, texts: answers(network, tokenizer, [td.asked(name, t) for t in texts])  # noqa: E731
    texts, first = list(wordings), [None] * len(wordings)
    best = [(-1, t) for t in texts]
    open_ = list(range(len(texts)))
    for _ in range(ROUNDS):
        said = ask("objectiveness", [texts[i] for i in open_])
        ratings = [int((re.findall(r"Rating: (\d+)$", s) or ["0"])[0]) for s in said]
        for i, rating in zip(open_, ratings):
            first[i] = rating if first[i] is None else first[i]
            best[i] = max(best[i], (rating, texts[i]), key=lambda x: x[0])
        open_ = [i for i, rating in zip(open_, ratings) if rating < 9]
        if not open_:
            break
        for i, said in zip(open_, ask("revise", [texts[i] for i in open_])):
            texts[i] = said.rsplit("Rule: ", 1)[-1]
    texts = [t for _, t in best]
    return list(zip(ask("preconditions", texts), texts, first))


def hand_written(network, tokenizer, part, show):
    """The share of hand-written wordings with the right chain, and how many were rated 9 or more as they are."""
    entries = td.WORDINGS[part]
    right, direct = 0, 0
    found = compiled(network, tokenizer, [e["wording"] for e in entries])
    alone = answers(network, tokenizer, [td.asked("preconditions", e["wording"]) for e in entries])
    for entry, (chain, text, rating), at_once in zip(entries, found, alone):
        good = meaning(chain) is not None and meaning(chain) == meaning(entry["chain"])
        right += good
        direct += meaning(at_once) is not None and meaning(at_once) == meaning(entry["chain"])
        if show and not good:
            print(f"  {entry['wording']}\n    rated {rating}, revised: {text}\n    got  {chain}\n    want {entry['chain']}")
    return {f"{part}: right chains of {len(entries)}": right, f"{part}: without revision": direct}


def of_the_grammar(network, tokenizer, count, seed):
    """Shares of exactly right answers on fresh wordings."""
    rng, asked = random.Random(seed), {}
    while min(map(len, asked.values()), default=0) < count or len(asked) < len(td.TEMPLATES):
        for name, text, answer in td.examples(rng):
            if name and len(asked.setdefault(name, [])) < count:
                asked[name].append((td.asked(name, text), answer))
    out = {}
    for name, pairs in asked.items():
        given = answers(network, tokenizer, [p for p, _ in pairs])
        out[f"{name}: exactly right of {count}"] = sum(g == a for g, (_, a) in zip(given, pairs))
    return out


def measure(network, tokenizer, args, count):
    network.eval()
    found = of_the_grammar(network, tokenizer, count, args.seed + 777) if count else {}
    return found | hand_written(network, tokenizer, args.part, args.show)


# ---- training ----

def train(args):
    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    tokenizer = Tokenizer.from_file(f"{args.resume}/tokenizer.json") if args.resume else td.train_tokenizer(
        VOCABULARY, count=2000 if args.smoke else 40_000)
    batches = td.Batches(tokenizer, args.seed, args.workers, 2048 if args.smoke else args.tokens)
    network = load(args.resume)[0].train() if args.resume else Network(tokenizer.get_vocab_size())
    network.to(device)
    size = sum(p.numel() for p in network.parameters())
    print(f"{size / 1e6:.2f} M parameters, vocabulary {tokenizer.get_vocab_size()}, {time.time() - STARTED:.0f} s", flush=True)
    on_gpu = device.type == "cuda"
    wide = [p for p in network.parameters() if p.ndim > 1]
    thin = [p for p in network.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW([{"params": wide, "weight_decay": 0.05}, {"params": thin, "weight_decay": 0.0}],
                                  lr=args.peak, betas=(0.9, 0.98), fused=on_gpu)
    learn = torch.compile(network.loss, dynamic=False) if on_gpu and not args.no_compile else network.loss
    begun, told, step, seen = None, time.time(), 0, 0
    end = STARTED + args.seconds - args.reserve
    while time.time() < end:
        ids, begin = (torch.from_numpy(a).to(device, non_blocking=True).long() for a in batches.get())
        if step == 12:  # compiling is over
            begun = time.time()
        done = 0.0 if begun is None else (time.time() - begun) / max(1.0, end - begun)
        rate = args.peak * min(1, (step + 1) / WARM_UP) * (FLOOR + (1 - FLOOR) * (0.5 + 0.5 * math.cos(math.pi * min(1, done))))
        for group in optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast(device.type, torch.bfloat16):
            loss, right = learn(ids, begin)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        step, seen = step + 1, seen + len(ids)
        if time.time() - told > (2 if args.smoke else 15):
            told = time.time()
            print(f"{time.time() - STARTED:5.0f} s, step {step}, {seen / 1e6:.2f} M examples, rate {rate:.1e}, "
                  f"loss {loss.item():.4f}, tokens right {right.item():.4f}", flush=True)
    print(f"{step} steps, {seen} examples, {batches.dropped.value} measured wordings dropped", flush=True)
    batches.close()
    return network, tokenizer


def main():
    args = arguments()
    if args.measure:
        network, tokenizer = load(args.measure)
        for name, value in measure(network, tokenizer, args, 0).items():
            print(f"| {name} | {value} |")
        return
    network, tokenizer = train(args)
    network.to(torch.bfloat16).float()  # measured as it is stored
    gap = export(network, tokenizer, args.out)
    print(f"logits as transformers computes them, to {gap:.1e}; {time.time() - STARTED:.0f} s", flush=True)
    with torch.autocast(args.device.split(":")[0], enabled=False):
        found = measure(network, tokenizer, args, 20 if args.smoke else 1000)
    print("| measure | |\n|---|---|")
    for name, value in found.items():
        print(f"| {name} | {value} |")
    print(f"{time.time() - STARTED:.0f} s")


if __name__ == "__main__":
    main()
