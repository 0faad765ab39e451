"""ComfyUI's clients against the gateway: `comfyui-workflow-client`, with and without its WebSocket, and `comfy-script`.

Arguments: the gateway's address and an API key. The gateway's upstream draws by the prompt: see `clients.rs` among the
gateway's tests.
"""

import asyncio
import json
import pathlib
import subprocess
import sys
import tempfile

import aiohttp
from comfyuiclient.client import ComfyUIClient, ComfyUIClientAsync
from PIL import Image

URL, KEY = sys.argv[1:3]
# These clients send no headers of ours: the key comes as the password of the address.
SERVER = f"any:{KEY}@{URL.removeprefix('http://')}"
WORKFLOW = {
    "3": {"class_type": "KSampler", "inputs": {
        "cfg": 8, "denoise": 1, "latent_image": ["5", 0], "model": ["4", 0], "negative": ["7", 0], "positive": ["6", 0],
        "sampler_name": "euler", "scheduler": "normal", "seed": 1, "steps": 4}},
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "m.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"batch_size": 1, "height": 64, "width": 64}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["4", 1], "text": ""}, "_meta": {"title": "Positive"}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["4", 1], "text": "bad"}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x", "images": ["8", 0]}, "_meta": {"title": "Result"}},
}
folder = pathlib.Path(tempfile.mkdtemp())


def check(what, holds, *found):
    if not holds:
        sys.exit(f"FAILED: {what}: {found}")
    print(f"ok: {what}")


def workflow(name, nodes):
    path = folder / name
    path.write_text(json.dumps(nodes))
    return str(path)


def polling():
    client = ComfyUIClient(SERVER, workflow("plain.json", WORKFLOW))
    client.connect()
    client.set_data(key="Positive", text="a person")
    client.set_data(key="KSampler", seed=7)
    picture = client.generate(["Result"])["Result"]
    check("comfyui-workflow-client polls the history and gets its picture", picture.size == (64, 64), picture.size)
    check("the picture carries no text of the upstream's", not picture.info.get("parameters"), picture.info)
    client.set_data(key="Positive", text="a sword")
    check("a withheld picture is not among its results", client.generate(["Result"]) == {})
    from_picture = dict(WORKFLOW)
    from_picture["5"] = {"class_type": "VAEEncode", "inputs": {"pixels": ["10", 0], "vae": ["4", 2]}}
    from_picture["10"] = {"class_type": "LoadImage", "inputs": {"image": ""}}
    client = ComfyUIClient(SERVER, workflow("from_picture.json", from_picture))
    client.connect()
    client.set_data(key="LoadImage", image=Image.new("RGB", (64, 64), (90, 120, 150)))
    client.set_data(key="Positive", text="a person")
    check("it uploads a picture and starts from it", client.generate(["Result"])["Result"].size == (64, 64))
    nodes = dict(WORKFLOW) | {"11": {"class_type": "RunPython", "inputs": {"code": "1"}}}
    client = ComfyUIClient(SERVER, workflow("python.json", nodes))
    client.connect()
    try:
        client.generate(["Result"])
        sys.exit("FAILED: a node that is not allowed was taken")
    except ConnectionError as error:
        check("a node that is not allowed is refused", "400" in str(error), error)


async def listening():
    client = ComfyUIClientAsync(SERVER, workflow("plain.json", WORKFLOW))
    await client.connect()
    await client.set_data(key="Positive", text="a person")
    picture = (await asyncio.wait_for(client.generate(["Result"]), 60))["Result"]
    check("comfyui-workflow-client hears the end over its WebSocket", picture.size == (64, 64), picture.size)
    await client.set_data(key="Positive", text="a sword")
    check("it hears the end of a withheld one too", await asyncio.wait_for(client.generate(["Result"]), 60) == {})
    await client.close()


def script():
    from comfy_script import client
    from comfy_script.runtime import Workflow, load

    headers = {"authorization": f"Bearer {KEY}"}
    load(client.Client(URL, session_factory=lambda: aiohttp.ClientSession(headers=headers)), save_script_source=False)
    from comfy_script.runtime import nodes

    with Workflow(wait=True):
        model, clip, vae = nodes.CheckpointLoaderSimple("m.safetensors")
        latent = nodes.EmptyLatentImage(64, 64, 2)
        texts = [nodes.CLIPTextEncode(text, clip) for text in ("a person", "bad")]
        latent = nodes.KSampler(model, 3, 4, 7.0, "euler", "normal", *texts, latent, 1.0)
        images = nodes.SaveImage(nodes.VAEDecode(latent, vae), "x")
        got = images.wait()
    pictures = [picture for picture in got.wait()] if hasattr(got, "wait") else list(got)
    check("comfy-script builds its nodes from /object_info and gets both pictures", len(pictures) == 2, got)


def script_in_time():
    # comfy-script 0.6.1 takes note of a prompt only after the answer to it. If the first event of a prompt is read before,
    # as can happen where drawing takes no time, it drops its WebSocket and waits for ever for an end that it has missed.
    for _ in range(3):
        try:
            sys.exit(subprocess.run([sys.executable, *sys.argv, "script"], timeout=60).returncode)
        except subprocess.TimeoutExpired:
            print("comfy-script missed the end of its prompt")
    sys.exit("FAILED: comfy-script missed the end of its prompt three times")


if sys.argv[3:] == ["script"]:
    script()
else:
    polling()
    asyncio.run(listening())
    script_in_time()
