"""`webuiapi` against the gateway: what a script does that was written for AUTOMATIC1111's web UI.

Arguments: the gateway's address and an API key. The gateway's upstream answers as the web UI does: see `clients.rs` among
the gateway's tests.
"""

import importlib.metadata
import sys
import threading
import urllib.parse

import webuiapi
from PIL import Image

URL, KEY = sys.argv[1:3]
address = urllib.parse.urlparse(URL)
api = webuiapi.WebUIApi(host=address.hostname, port=address.port, username="anyone", password=KEY)
checks = 0


def check(what, holds, *found):
    global checks
    if not holds:
        sys.exit(f"FAILED: {what}: {found}")
    checks += 1
    print(f"ok: {what}")


def refused(what, status, named, call):
    try:
        call()
    except RuntimeError as error:
        check(what, error.args[0] == status and named in error.args[1], error)
    else:
        sys.exit(f"FAILED: {what}: it was not refused")


def lists():
    check("scripts that are allowed are found", api.has_adetailer and not api.has_controlnet)
    check("models", api.util_get_model_names() == ["fine.safetensors [abcd]"])
    check("samplers", api.util_get_sampler_names() == ["Euler"])
    check("schedulers", api.util_get_scheduler_names() == ["karras"])
    check("command-line flags stay behind", api.get_cmd_flags() == {})
    check("memory", api.get_memory()["ram"] == {"free": 1})
    check("embeddings", api.get_embeddings() == {"loaded": {}, "skipped": {}})
    for name in ["sd_vae", "upscalers", "latent_upscale_modes", "loras", "hypernetworks", "face_restorers"]:
        check(name, getattr(api, f"get_{name}")() == [])
    check("realesrgan_models", api.get_realesrgan_models() == [])
    check("prompt_styles", api.get_prompt_styles() == [])


def options():
    check("the current model", api.util_get_current_model() == "fine.safetensors [abcd]")
    api.util_set_model("fine")
    api.set_options({"CLIP_stop_at_last_layers": 2})
    expected = {"sd_model_checkpoint": "fine.safetensors [abcd]", "CLIP_stop_at_last_layers": 2}
    check("options", api.get_options() == expected, api.get_options())
    told = api.set_options({"outdir_samples": "/tmp"})
    check("an option that writes files is refused", "outdir_samples" in told["detail"], told)


def pictures():
    result = api.txt2img(prompt="a cat", negative_prompt="dogs", seed=1003, cfg_scale=7)
    check("txt2img gives a picture", result.image.size == (64, 64) and "parameters" not in result.image.info)
    check("with its seed", result.info["all_seeds"] == [1003], result.info)
    check("and its infotext", "Seed: 1003" in result.info["infotexts"][0])

    mixed = api.txt2img(prompt="a cat, then a sword", batch_size=3, n_iter=1, seed=5)
    told = mixed.info["cluegate"]["pictures"]
    outcomes = [(picture["outcome"], picture["image"]) for picture in told]
    check("one bad picture costs only itself", outcomes == [("released", 0), ("withheld", 1), ("released", 2)], told)
    check("and says why", told[1]["reason"] == "violation" and told[1]["placeholder"], told[1])
    check("images judged are images returned", len(mixed.images) == 3)

    larger = api.txt2img(prompt="a cat", enable_hr=True, hr_scale=2, hr_upscaler=webuiapi.HiResUpscaler.Latent)
    check("hires fix", len(larger.images) == 1)
    detailed = api.txt2img(prompt="a cat", adetailer=[webuiapi.ADetailer(ad_model="face_yolov8n.pt")])
    check("an extension that is allowed", len(detailed.images) == 1)

    mask = Image.new("RGB", (64, 64), "white")
    changed = api.img2img(images=[result.image], prompt="a dog", mask_image=mask, denoising_strength=0.5)
    check("img2img with a mask", changed.image.size == (64, 64))
    check("sends no picture back", "init_images" not in changed.parameters and "mask" not in changed.parameters)


def refusals():
    refused("saving is refused", 422, "save_images", lambda: api.txt2img(prompt="x", save_images=True))
    refused("a script is refused", 422, "script_name", lambda: api.txt2img(prompt="x", script_name="Loopback"))
    unit = webuiapi.ControlNetUnit(image=Image.new("RGB", (8, 8)))
    refused("ControlNet is refused", 422, "ControlNet", lambda: api.txt2img(prompt="x", controlnet_units=[unit], alwayson_scripts={}))
    refused("an upscaler's route is refused", 404, "not_found", lambda: api.extra_single_image(unit.image))
    wrong = webuiapi.WebUIApi(baseurl=f"{URL}/sdapi/v1")
    wrong.session.auth = ("anyone", "wrong")
    refused("a wrong key is refused", 401, "invalid_api_key", lambda: wrong.txt2img(prompt="x"))


def interruption():
    ended = []
    thread = threading.Thread(target=lambda: ended.append(api.txt2img(prompt="slow")))
    thread.start()
    while not (told := api.get_progress())["current_image"]:
        pass
    check("progress", 0 < told["progress"] <= 1 and told["state"]["job"] == "txt2img", told["state"])
    check("interrupt", api.interrupt() == {})
    thread.join()
    reasons = [picture["reason"] for picture in ended[0].info["cluegate"]["pictures"]]
    check("ends the request without an error", reasons == ["cancelled"] and len(ended[0].images) <= 1, reasons)
    api.util_wait_for_ready()
    check("and the server is ready again", True)


print(f"webuiapi {importlib.metadata.version('webuiapi')}")
lists()
options()
pictures()
refusals()
interruption()
print(f"{checks} checks")
