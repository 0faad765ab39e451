#!/usr/bin/env python3
"""Every front that draws, over a real server (diffusers_server.py) in each of its dialects, through the real gateway.

Usage: diffusers_upstream.py CLUEGATE [DIALECT...], with a Python that has torch, transformers and diffusers. Prints what it
checked and ends with 1 at the first thing that is wrong. Minutes on two cores.
"""

import base64
import io
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent
SUITE = HERE.parent.parent / "src/mini/suite/generator"
PROMPT, SEED, STEPS = "a cat", 5, 20

POLICY = """
[tenant.open]
action.default = "allow"
[tenant.strict]
constitution = "no-cats.toml"
placeholder = "none"
"""
NO_CATS = (HERE.parent / "support/no-cats.toml").read_text()


def call(url, body=None, key=None):
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=300) as answer:
            return answer.status, json.loads(answer.read()), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read()), error.headers


def pixels(encoded):
    return Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")


# Each front asks for one picture, of a size if it is named, and returns (pictures, the whole answer, the header of decisions).
def sdcpp(url, key, seeded, side=None):
    size = {"width": side, "height": side} if side else {}
    body = {"prompt": PROMPT} | size | ({"seed": SEED, "sample_params": {"sample_steps": STEPS}} if seeded else {})
    status, job, _ = call(f"{url}/sdcpp/v1/img_gen", body, key)
    assert status == 202, job
    while True:
        status, told, headers = call(url + job["poll_url"], key=key)
        assert status == 200, told
        if told["completed"]:
            images = (told["result"] or {"images": []})["images"]
            return [image["b64_json"] for image in images], told, headers
        time.sleep(0.1)


def a1111(url, key, seeded, side=None):
    size = {"width": side, "height": side} if side else {}
    body = {"prompt": PROMPT} | size | ({"seed": SEED, "steps": STEPS} if seeded else {})
    status, told, headers = call(f"{url}/sdapi/v1/txt2img", body, key)
    return [image for image in told.get("images") or [] if image], told, headers


def openai(url, key, _, side=None):
    body = {"prompt": PROMPT, "response_format": "b64_json"} | ({"size": f"{side}x{side}"} if side else {})
    status, told, headers = call(f"{url}/v1/images/generations", body, key)
    assert status in (200, 400), told
    return [image["b64_json"] for image in told.get("data", [])], told, headers


FRONTS = {"sdcpp": sdcpp, "a1111": a1111, "openai": openai}
# Which of the requests above each upstream has words for the seed and the steps of.
SEEDED = {"sdcpp": True, "a1111": True, "openai": False}


def start(command):
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in process.stdout:
        if "http://" in line:
            return process, "http://" + line.split("http://")[1].strip()
    raise SystemExit(f"{command} ended without an address")


def gateway(cluegate, folder, kind, server):
    config = folder / f"{kind}.toml"
    config.write_text(
        f'listen = "127.0.0.1:0"\npolicy = "policy.toml"\n[log]\nfile = "{kind}.jsonl"\n[keys]\nfile = "keys.toml"\n'
        f'[upstream]\nkind = "{kind}"\nurl = "{server}"\npoll_ms = 50\n'
    )
    return start([cluegate, "serve", "--config", str(config)])


def leaves(url, key, server):
    """A client that goes away: the server does not go on for nobody."""
    body = json.dumps({"prompt": PROMPT, "steps": 400}).encode()
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    request = urllib.request.Request(f"{url}/sdapi/v1/txt2img", body, headers)
    finished = call(f"{server}/state")[1]["finished"]
    try:
        urllib.request.urlopen(request, timeout=2)
        raise AssertionError("400 steps in two seconds")
    except TimeoutError:
        pass
    begin = time.time()
    while call(f"{server}/state")[1]["steps"]:
        assert time.time() - begin < 30, "the server draws on for nobody"
        time.sleep(0.1)
    assert call(f"{server}/state")[1]["finished"] == finished, "the picture was finished"


def main(cluegate, *kinds):
    server_process, server = start([sys.executable, str(HERE / "diffusers_server.py"), str(SUITE)])
    processes = [server_process]
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            (folder / "policy.toml").write_text(POLICY)
            (folder / "no-cats.toml").write_text(NO_CATS)
            new = [cluegate, "keys", "new", "--file", str(folder / "keys.toml")]
            keys = {tenant: subprocess.run([*new, "--tenant", tenant, "--id", tenant], check=True, text=True,
                                           capture_output=True).stdout.strip() for tenant in ("open", "strict")}
            # What the server itself gives, past the gateway: with the prompt inside the file.
            _, told, _ = call(f"{server}/sdapi/v1/txt2img", {"prompt": PROMPT, "seed": SEED, "steps": STEPS})
            drawn = pixels(told["images"][0])
            assert PROMPT.encode() in base64.b64decode(told["images"][0])
            for kind in kinds or SEEDED:
                seeded = SEEDED[kind]
                process, url = gateway(cluegate, folder, kind, server)
                processes.append(process)
                for front, ask in FRONTS.items():
                    pictures, told, headers = ask(url, keys["open"], seeded)
                    assert len(pictures) == 1, told
                    shown = pixels(pictures[0])
                    assert shown.size == drawn.size and PROMPT.encode() not in base64.b64decode(pictures[0])
                    assert not seeded or front == "openai" or shown.tobytes() == drawn.tobytes(), "another picture"
                    assert "outcome=released" in headers["x-cluegate-decision"]
                    pictures, told, headers = ask(url, keys["strict"], seeded)
                    assert pictures == [], told
                    assert "outcome=withheld;reason=violation" in headers["x-cluegate-decision"]
                    print(f"{front} over {kind}: one released, one withheld", flush=True)
                if kind == "a1111":
                    leaves(url, keys["open"], server)
                    print("a1111 over a1111: a client that left stopped the server", flush=True)
                process.terminate()
                assert process.wait(60) == 0
                decisions = [json.loads(line) for line in (folder / f"{kind}.jsonl").read_text().splitlines()]
                assert len(decisions) >= 2 * len(FRONTS), len(decisions)
        print("all as it should be")
    finally:
        for process in processes:
            process.kill()


if __name__ == "__main__":
    main(*sys.argv[1:])
