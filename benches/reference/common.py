"""What the reference programs share: their files, the process they run in, and how an answer is read."""

import json
import os
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path

# Everything is on disk already: a look at the network would only cost time, or hang.
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def read_input(path):
    """The input file, one JSON object."""
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def write_output(path, output):
    """Writes the output file: `output`, with what is to be said of every run."""
    output |= {"peak_rss_mb": round(peak_rss_mb(), 1)}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(output, file)
        file.write("\n")


def peak_rss_mb():
    """Most memory that this process has held, in MiB, model and libraries included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def versions(*packages):
    """The versions of Python and of these packages."""
    return {"python": sys.version.split()[0]} | {name: version(name) for name in packages}


def progress(*words):
    """Tells whoever watches what is going on."""
    print(*words, file=sys.stderr, flush=True)


def cores():
    """Number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0))


def milliseconds_since(start):
    """Milliseconds since `start`, a value of `time.perf_counter()`."""
    return (time.perf_counter() - start) * 1e3


def load_pictures(paths):
    """The pictures as RGB, decoded: reading files is not what is compared."""
    from PIL import Image

    pictures = []
    for path in paths:
        with Image.open(path) as file:
            pictures.append(file.convert("RGB"))
            pictures[-1].filename = Path(path).name
    return pictures


def spellings(tokenizer, word):
    """Ids of every token that spells `word`, whatever its case and leading space. The score sums over them."""
    decoded = ((token_id, tokenizer.decode([token_id])) for token_id in range(len(tokenizer)))
    ids = [token_id for token_id, text in decoded if text.lstrip().lower() == word]
    if not ids:
        raise ValueError(f"expected a token that spells {word!r}, the tokenizer has none")
    return ids
