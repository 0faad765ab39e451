"""Asks an OpenAI-compatible engine every statement about each picture, as a bare asynchronous client does, and times it.

    python remote_client.py INPUT OUTPUT

INPUT is a JSON object:
    url         address of the engine, up to and without /v1
    model       the model's name there
    beginning   what every question begins with, after the picture
    statements  what each question goes on with
    pictures    paths of PNG files
    yes, no     ids of the tokens that spell Yes and No

All questions about a picture are sent at once over connections that stay open; the next picture follows when all have been
answered. Files are read and encoded before the clock starts. OUTPUT is a JSON object: `ms`, milliseconds of each picture;
`scores`, by picture and statement; `versions`.
"""

import asyncio
import base64
import math
import sys
import time
from pathlib import Path

import aiohttp
import common


def body(task, url, statement):
    """One question."""
    parts = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": task["beginning"] + statement},
    ]
    return {
        "model": task["model"],
        "messages": [{"role": "user", "content": parts}],
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": True,
        "logprob_token_ids": task["yes"] + task["no"],
        "return_tokens_as_token_ids": True,
    }


def ratio(task, answer):
    """`p(Yes) / (p(Yes) + p(No))`."""
    first = answer["choices"][0]["logprobs"]["content"][0]
    listed = {one["token"]: one["logprob"] for one in first["top_logprobs"] + [first]}
    yes, no = (sum(math.exp(listed[f"token_id:{token}"]) for token in task[word]) for word in ("yes", "no"))
    return yes / (yes + no)


async def ask(session, task, question):
    """The score of one question."""
    async with session.post(f"{task['url']}/v1/chat/completions", json=question) as response:
        response.raise_for_status()
        return ratio(task, await response.json())


async def all_pictures(task):
    """One picture after the other."""
    files = [base64.b64encode(Path(path).read_bytes()).decode() for path in task["pictures"]]
    times, scores = [], []
    limits = {"connector": aiohttp.TCPConnector(limit=0), "timeout": aiohttp.ClientTimeout(total=600)}
    async with aiohttp.ClientSession(**limits) as session:
        for file in files:
            start = time.perf_counter()
            url = f"data:image/png;base64,{file}"
            questions = [body(task, url, statement) for statement in task["statements"]]
            scores.append(await asyncio.gather(*[ask(session, task, question) for question in questions]))
            times.append(common.milliseconds_since(start))
    return times, scores


def main(input_path, output_path):
    """Runs one input file."""
    task = common.read_input(input_path)
    times, scores = asyncio.run(all_pictures(task))
    common.write_output(output_path, {"ms": times, "scores": scores, "versions": common.versions("aiohttp")})


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} INPUT OUTPUT")
    main(*sys.argv[1:])
