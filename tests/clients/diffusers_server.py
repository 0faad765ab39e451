#!/usr/bin/env python3
"""A real text-to-image server of a page: diffusers' StableDiffusionPipeline behind the three HTTP dialects that the gateway
draws with and that fit a page (/sdapi/v1, /v1/images, /sdcpp/v1). It leaks as such servers do: prompts inside PNG files,
a grid before the pictures, previews in its progress.

Usage: diffusers_server.py FOLDER [PORT]. Prints its address. Needs torch, transformers and diffusers (0.42.1).
"""

import base64
import http.server
import io
import json
import math
import queue
import sys
import threading
import time
import uuid

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from PIL.PngImagePlugin import PngInfo

FOLDER, PORT = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0
pipe = StableDiffusionPipeline.from_pretrained(FOLDER, dtype=torch.float32, local_files_only=True)
pipe.set_progress_bar_config(disable=True)
one_at_a_time = threading.Lock()
now = {"step": 0, "steps": 0, "preview": None, "interrupted": False, "finished": 0}


def png(picture, text):
    info, file = PngInfo(), io.BytesIO()
    info.add_text("parameters", text)
    picture.save(file, "PNG", pnginfo=info)
    return base64.b64encode(file.getvalue()).decode()


def grid(pictures):
    side = math.ceil(math.sqrt(len(pictures)))
    width, height = pictures[0].size
    whole = Image.new("RGB", (side * width, side * height))
    for index, picture in enumerate(pictures):
        whole.paste(picture, (index % side * width, index // side * height))
    return whole


def draw(prompt, negative="", count=1, seed=None, steps=20, guidance=5.0, size=None):
    """Pictures of consecutive seeds. Interrupted, it ends with what it has: noise."""
    seed = int(time.time()) if seed is None or seed < 0 else seed

    def step_ended(pipe, step, _, tensors):
        now["step"] = step + 1
        pipe._interrupt = now["interrupted"]
        if step % 4 == 3:
            decoded = pipe.vae.decode(tensors["latents"][:1] / pipe.vae.config.scaling_factor).sample
            now["preview"] = png(pipe.image_processor.postprocess(decoded)[0], f"preview: {prompt}")
        return tensors

    with one_at_a_time, torch.no_grad():
        now.update(step=0, steps=steps, preview=None, interrupted=False)
        width, height = size or (None, None)
        pictures = pipe(
            prompt, negative_prompt=negative, num_images_per_prompt=count, num_inference_steps=steps,
            guidance_scale=guidance, width=width, height=height, callback_on_step_end=step_ended,
            generator=[torch.Generator().manual_seed(seed + index) for index in range(count)],
        ).images
        now.update(steps=0, preview=None, finished=now["finished"] + (not now["interrupted"]))
    return pictures, seed


def txt2img(body):
    size = (body["width"], body["height"]) if "width" in body else None
    prompt, count = body["prompt"], body.get("batch_size", 1)
    pictures, seed = draw(prompt, body.get("negative_prompt", ""), count, body.get("seed"), body.get("steps", 20),
                          body.get("cfg_scale", 5.0), size)
    images = [png(picture, prompt) for picture in pictures]
    grids = [png(grid(pictures), prompt)] if count > 1 else []
    seeds = list(range(seed, seed + count))
    info = {"prompt": prompt, "seed": seed, "all_seeds": seeds, "infotexts": [prompt] * count,
            "index_of_first_image": len(grids)}
    return 200, {"images": grids + images, "parameters": body, "info": json.dumps(info)}


def progress(_):
    fraction = now["step"] / now["steps"] if now["steps"] else 0.0
    state = {"job_count": int(now["steps"] > 0), "sampling_step": now["step"], "sampling_steps": now["steps"]}
    return 200, {"progress": fraction, "eta_relative": 0.0, "state": state, "current_image": now["preview"],
                 "textinfo": None}


def interrupt(_):
    now["interrupted"] = True
    return 200, {}


def generations(body):
    size = tuple(map(int, body["size"].split("x"))) if "x" in body.get("size", "") else None
    pictures, _ = draw(body["prompt"], count=body.get("n") or 1, size=size)
    data = [{"b64_json": png(picture, body["prompt"])} for picture in pictures]
    return 200, {"created": int(time.time()), "data": data, "output_format": "png"}


jobs, waiting = {}, queue.Queue()


def submit(body):
    job = {"id": f"job_{uuid.uuid4().hex}", "kind": "img_gen", "status": "queued", "created": int(time.time()),
           "started": None, "completed": None, "queue_position": 0, "result": None, "error": None}
    jobs[job["id"]] = job
    waiting.put((job, body))
    return 202, {key: job[key] for key in ("id", "kind", "status", "created")} | {"poll_url": f"/sdcpp/v1/jobs/{job['id']}"}


def job(path):
    found = jobs.get(path.split("/")[4])
    if found is None:
        return 404, {"error": "job not found"}
    if path.endswith("/cancel"):
        if found["status"] == "generating":
            return 409, {"error": "job is currently generating and cannot be interrupted yet"}
        if found["status"] == "queued":
            found.update(status="cancelled", error={"code": "cancelled", "message": "job cancelled by client"})
    return 200, found


def work():
    while True:
        found, body = waiting.get()
        if found["status"] != "queued":
            continue
        found.update(status="generating", started=int(time.time()))
        sampling = body.get("sample_params", {})
        size = (body["width"], body["height"]) if "width" in body else None
        pictures, _ = draw(body["prompt"], body.get("negative_prompt", ""), body.get("batch_count", 1), body.get("seed"),
                           sampling.get("sample_steps", 20), sampling.get("guidance", {}).get("txt_cfg", 5.0), size)
        images = [{"index": i, "b64_json": png(picture, body["prompt"])} for i, picture in enumerate(pictures)]
        result = {"output_format": "png", "images": images}
        found.update(status="completed", completed=int(time.time()), result=result)


ROUTES = {
    ("POST", "/sdapi/v1/txt2img"): txt2img,
    ("GET", "/sdapi/v1/progress"): progress,
    ("POST", "/sdapi/v1/interrupt"): interrupt,
    ("GET", "/sdapi/v1/samplers"): lambda _: (200, [{"name": "DDIM", "aliases": ["ddim"], "options": {}}]),
    ("GET", "/sdapi/v1/schedulers"): lambda _: (200, [{"name": "automatic", "label": "Automatic"}]),
    ("GET", "/sdapi/v1/sd-models"): lambda _: (200, [{"title": "suite", "model_name": "suite", "filename": FOLDER}]),
    ("POST", "/v1/images/generations"): generations,
    ("GET", "/v1/models"): lambda _: (200, {"object": "list", "data": [{"id": "suite", "object": "model"}]}),
    ("POST", "/sdcpp/v1/img_gen"): submit,
    ("GET", "/sdcpp/v1/capabilities"): lambda _: (200, {"supported_modes": ["img_gen"], "model": {"path": FOLDER}}),
    ("GET", "/state"): lambda _: (200, {key: now[key] for key in ("step", "steps", "finished")}),
}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, method):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        path = self.path.split("?")[0]
        if path.startswith("/sdcpp/v1/jobs/"):
            status, told = job(path)
        elif (method, path) in ROUTES:
            status, told = ROUTES[method, path](json.loads(body) if body else {})
        else:
            status, told = 404, {"detail": "Not Found"}
        told = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def do_GET(self):
        self.answer("GET")

    def do_POST(self):
        self.answer("POST")

    def log_message(self, *_):
        pass


threading.Thread(target=work, daemon=True).start()
server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
print(f"http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
