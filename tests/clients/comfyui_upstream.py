#!/usr/bin/env python3
"""Every front that draws, over a real ComfyUI that draws with the embedded generator (comfyui_suite.py), through the real
gateway: pictures, previews, uploads, and what is left on the server.

Usage: comfyui_upstream.py CLUEGATE COMFYUI, with the folder of a ComfyUI and a Python that has what it needs, diffusers and
aiohttp. Prints what it checked and ends with 1 at the first thing that is wrong. Minutes on two cores.
"""

import asyncio
import base64
import io
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
import uuid

import aiohttp
from PIL import Image

from diffusers_upstream import FRONTS, HERE, NO_CATS, POLICY, PROMPT, SEED, STEPS, SUITE, call, pixels, start

CHECKPOINT, SIDE, GUIDANCE = "suite.safetensors", 128, 8.0


def workflow(prompt=PROMPT, steps=STEPS, count=1, seed=SEED):
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": CHECKPOINT}},
        "2": {"class_type": "EmptyLatentImage", "inputs": {"width": SIDE, "height": SIDE, "batch_size": count}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"text": prompt, "clip": ["1", 1]}},
        "4": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["1", 1]}},
        "5": {"class_type": "KSampler", "inputs": {
            "model": ["1", 0], "positive": ["3", 0], "negative": ["4", 0], "latent_image": ["2", 0], "seed": seed,
            "steps": steps, "cfg": GUIDANCE, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}},
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
        "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "mine"}},
    }


def view(url, image, key=None):
    headers = {"authorization": f"Bearer {key}"} if key else {}
    address = f"{url}/view?{urllib.parse.urlencode(image)}"
    with urllib.request.urlopen(urllib.request.Request(address, None, headers), timeout=60) as answer:
        return answer.read()


async def drawn(url, nodes, key=None):
    """A prompt over HTTP and WebSocket, as ComfyUI's own example does it: files, previews, the history's entry."""
    client, frames = uuid.uuid4().hex, []
    headers = {"authorization": f"Bearer {key}"} if key else {}
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.ws_connect(f"{url}/ws?clientId={client}", max_msg_size=0) as events:
            body = {"prompt": nodes, "client_id": client}
            async with session.post(f"{url}/prompt", json=body) as answer:
                told = await answer.json()
                assert answer.status == 200, told
            while True:
                message = await asyncio.wait_for(events.receive(), 120)
                if message.type == aiohttp.WSMsgType.BINARY:
                    frames.append(message.data)
                    continue
                assert message.type == aiohttp.WSMsgType.TEXT, message
                event = json.loads(message.data)
                data = event["data"]
                if event["type"] == "executing" and data["node"] is None and data["prompt_id"] == told["prompt_id"]:
                    break
    _, history, _ = call(f"{url}/history/{told['prompt_id']}", key=key)
    entry = history[told["prompt_id"]]
    images = [image for output in entry["outputs"].values() for image in output.get("images", [])]
    return [view(url, image, key) for image in images], frames, entry


def comfyui(url, key, _, __):
    files, _, entry = asyncio.run(drawn(url, workflow(), key))
    decisions = ", ".join(f"outcome={told['outcome']};reason={told['reason']}" for told in entry["status"]["cluegate"]["pictures"])
    return [base64.b64encode(file).decode() for file in files], entry, {"x-cluegate-decision": decisions}


def served(folder, comfy):
    """A ComfyUI with a folder of its own."""
    for name in ("custom_nodes", "models/checkpoints", "user", "input", "output", "temp", "page"):
        (folder / name).mkdir(parents=True)
    shutil.copy(HERE / "comfyui_suite.py", folder / "custom_nodes")
    (folder / "models/checkpoints" / CHECKPOINT).touch()
    (folder / "page/index.html").write_text("<html></html>")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port), "--base-directory", str(folder),
        "--front-end-root", str(folder / "page"), "--disable-api-nodes", "--database-url", "sqlite:///:memory:",
    ]
    environment = os.environ | {"CLUEGATE_SUITE": str(SUITE), "NO_PROXY": "127.0.0.1"}
    log = (folder / "log").open("w")
    process = subprocess.Popen(command, cwd=comfy, env=environment, stdout=log, stderr=subprocess.STDOUT)
    url, begin = f"http://127.0.0.1:{port}", time.time()
    while True:
        try:
            return process, url, call(f"{url}/system_stats")[1]["system"]["comfyui_version"]
        except OSError:
            if process.poll() is not None or time.time() - begin > 180:
                raise SystemExit(f"ComfyUI did not start:\n{(folder / 'log').read_text()[-3000:]}")
            time.sleep(0.5)


def gateway(cluegate, folder, server):
    (folder / "gate.toml").write_text(
        'listen = "127.0.0.1:0"\npolicy = "policy.toml"\n[keys]\nfile = "keys.toml"\n'
        f'[upstream]\nkind = "comfyui"\nurl = "{server}"\nmodel = "{CHECKPOINT}"\n'
    )
    return start([cluegate, "serve", "--config", str(folder / "gate.toml")])


def queue(server):
    told = call(f"{server}/queue")[1]
    return [[item[1] for item in told[name]] for name in ("queue_running", "queue_pending")]


def until(what, holds):
    begin = time.time()
    while not holds():
        assert time.time() - begin < 120, what
        time.sleep(0.1)


def leaves(url, key, server, others):
    """A client that goes away, while its prompt is drawn or waits behind `others`: only its own prompt ends."""
    body = json.dumps({"prompt": PROMPT, "steps": 900, "width": SIDE, "height": SIDE}).encode()
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    request = urllib.request.Request(f"{url}/sdapi/v1/txt2img", body, headers)
    try:
        urllib.request.urlopen(request, timeout=3)
        raise AssertionError("900 steps in three seconds")
    except TimeoutError:
        pass
    until("the server draws on for nobody", lambda: sum(queue(server), []) == others)


def main(cluegate, comfy):
    processes = []
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            process, server, version = served(folder / "comfyui", comfy)
            processes.append(process)
            (folder / "policy.toml").write_text(POLICY + "[tenant.open.client]\npreviews = true\n")
            (folder / "no-cats.toml").write_text(NO_CATS)
            new = [cluegate, "keys", "new", "--file", str(folder / "keys.toml")]
            keys = {tenant: subprocess.run([*new, "--tenant", tenant, "--id", tenant], check=True, text=True,
                                           capture_output=True).stdout.strip() for tenant in ("open", "strict")}
            # What the server itself gives, past the gateway: with the workflow inside the file.
            files, frames, _ = asyncio.run(drawn(server, workflow()))
            assert PROMPT.encode() in files[0]
            own = Image.open(io.BytesIO(files[0])).convert("RGB").tobytes()
            print(f"ComfyUI {version} draws by itself, with {len(frames)} previews", flush=True)
            saved = sorted(path.name for path in (folder / "comfyui/output").rglob("*.png"))
            process, url = gateway(cluegate, folder, server)
            processes.append(process)
            for front, ask in (FRONTS | {"comfyui": comfyui}).items():
                pictures, told, headers = ask(url, keys["open"], True, SIDE)
                assert len(pictures) == 1, told
                shown = pixels(pictures[0])
                assert PROMPT.encode() not in base64.b64decode(pictures[0])
                # The other fronts say no guidance.
                assert front != "comfyui" or shown.tobytes() == own, "another picture"
                assert "outcome=released" in headers["x-cluegate-decision"]
                pictures, told, headers = ask(url, keys["strict"], True, SIDE)
                assert pictures == [], told
                assert "outcome=withheld;reason=violation" in headers["x-cluegate-decision"]
                print(f"{front} over comfyui: one released, one withheld", flush=True)
            body = {"prompt": PROMPT, "seed": SEED, "steps": STEPS, "cfg_scale": GUIDANCE, "width": SIDE, "height": SIDE,
                    "batch_size": 2}
            _, told, _ = call(f"{url}/sdapi/v1/txt2img", body, keys["open"])
            assert len(told["images"]) == 2 and pixels(told["images"][0]).tobytes() == own
            print("a1111 over comfyui: two of a batch, the first is the server's own picture of that seed", flush=True)
            files, frames, _ = asyncio.run(drawn(url, workflow(count=2), keys["open"]))
            previews = [Image.open(io.BytesIO(frame[8:])).format for frame in frames]
            assert len(files) == 2 and previews and set(previews) == {"PNG"}, (len(files), previews)
            files, frames, entry = asyncio.run(drawn(url, workflow(), keys["strict"]))
            assert not files and not frames and entry["status"]["status_str"] == "error", entry
            print(f"comfyui over comfyui: two of a batch with {len(previews)} previews; none where it is withheld", flush=True)
            upload(url, keys["open"], own)
            print("comfyui over comfyui: an uploaded picture goes through LoadImage and back", flush=True)
            leaves(url, keys["open"], server, [])
            print("a client that left stopped its own prompt", flush=True)
            others = call(f"{server}/prompt", {"prompt": workflow(steps=120)})[1]["prompt_id"]
            until("another's prompt is drawn", lambda: queue(server)[0] == [others])
            leaves(url, keys["open"], server, [others])
            until("another's prompt ends", lambda: sum(queue(server), []) == [])
            history = call(f"{server}/history")[1]
            assert history[others]["status"]["status_str"] == "success", "another's prompt was interrupted"
            print("and not another's that the server draws", flush=True)
            status, told, _ = call(f"{url}/prompt", {"prompt": workflow() | {"8": {"class_type": "RunPython", "inputs": {}}}},
                                   keys["open"])
            assert status == 400 and "8" in told["node_errors"], told
            # An error of the server's own: told without its words.
            process_error = workflow()
            process_error["1"]["inputs"]["ckpt_name"] = "missing.safetensors"
            _, _, entry = asyncio.run(drawn(url, process_error, keys["open"]))
            assert entry["status"]["status_str"] == "error" and server not in json.dumps(entry), entry
            assert len(history) == 2, f"prompts of the gateway's in the history: {list(history)}"
            left = sorted(path.name for path in (folder / "comfyui/output").rglob("*.png"))
            assert [name for name in left if name not in saved] == [f"mine_0000{len(saved) + 1}_.png"], left
            print("nothing of the gateway's is left in the server's history or its output folder", flush=True)
            process.terminate()
            assert process.wait(60) == 0
        print("all as it should be")
    finally:
        for process in processes:
            process.kill()


def upload(url, key, pixels):
    """A picture goes to the server among what is temporary, through a workflow without a model, and back."""
    file = io.BytesIO()
    Image.frombytes("RGB", (SIDE, SIDE), pixels).save(file, "PNG")
    mark = uuid.uuid4().hex
    head = f'--{mark}\r\ncontent-disposition: form-data; name="image"; filename="x.png"\r\ncontent-type: image/png\r\n\r\n'
    body = head.encode() + file.getvalue() + f"\r\n--{mark}--\r\n".encode()
    headers = {"content-type": f"multipart/form-data; boundary={mark}", "authorization": f"Bearer {key}"}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/upload/image", body, headers), timeout=60) as answer:
        name = json.loads(answer.read())["name"]
    nodes = {"1": {"class_type": "LoadImage", "inputs": {"image": name}},
             "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}}}
    files, _, entry = asyncio.run(drawn(url, nodes, key))
    assert len(files) == 1, entry
    returned = Image.open(io.BytesIO(files[0])).convert("RGB")
    assert returned.tobytes() == pixels, "another picture"


if __name__ == "__main__":
    main(*sys.argv[1:])
