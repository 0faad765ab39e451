"""The `litellm` proxy with its generic guardrail pointed at the gateway, before a model of a page of Python.

Arguments: URL, KEY, folder with clean.png, beer.png (the policy redacts it) and sword.png (the policy blocks it).
"""

import base64
import http.server
import io
import json
import os
import pathlib
import secrets
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import openai
from PIL import Image

url, key, folder = sys.argv[1:]
folder = pathlib.Path(folder)
seen = []  # what reached the model


class Model(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        seen.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        message = {"role": "assistant", "content": "a picture"}
        answer = {
            "id": "c", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }  # fmt: skip
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def guardrail(name, base, default_on):
    # Neither `unreachable_fallback` nor `fail_on_error`: the defaults are to fail closed.
    params = {
        "guardrail": "generic_guardrail_api", "mode": "pre_call", "api_base": base, "api_key": key,
        "default_on": default_on,
    }  # fmt: skip
    return {"guardrail_name": name, "litellm_params": params}


model = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Model)
threading.Thread(target=model.serve_forever, daemon=True).start()
port, nobody = free_port(), free_port()
master = f"sk-{secrets.token_hex(32)}"
config = {
    "model_list": [
        {
            "model_name": "m",
            "litellm_params": {
                "model": "openai/m", "api_base": f"http://127.0.0.1:{model.server_port}/v1", "api_key": "x",
            },  # fmt: skip
        }
    ],
    "guardrails": [guardrail("cluegate", url, True), guardrail("dead", f"http://127.0.0.1:{nobody}", False)],
    "general_settings": {"master_key": master},
    "litellm_settings": {"num_retries": 0},
}
(folder / "litellm.yaml").write_text(json.dumps(config))  # JSON is YAML
log = open(folder / "litellm.log", "w")
proxy = subprocess.Popen(
    [pathlib.Path(sys.executable).with_name("litellm"), "--config", folder / "litellm.yaml", "--host", "127.0.0.1",
     "--port", str(port)],
    stdout=log, stderr=subprocess.STDOUT,
    env=os.environ | {"NO_PROXY": "127.0.0.1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
)  # fmt: skip
client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=master, max_retries=0, timeout=120)


def data_url(data):
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def picture(name):
    return data_url((folder / name).read_bytes())


def ask(*urls, text="what is this?", **more):
    parts = [{"type": "text", "text": text}] if text else []
    parts += [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": parts}], **more)


def blocked(*urls, words, **more):
    before = len(seen)
    try:
        ask(*urls, **more)
    except openai.APIStatusError as error:
        assert words in str(error), error
    else:
        raise SystemExit(f"the call went through, expected {words!r}")
    assert len(seen) == before, "a blocked call reached the model"


def green(image):
    pixels = image.tobytes()
    return sum(pixels[at : at + 3] == bytes((10, 250, 10)) for at in range(0, len(pixels), 3))


def pictures_of(request):
    parts = request["messages"][-1]["content"]
    return [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]


try:
    for _ in range(240):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=2).read()
            break
        except OSError:
            assert proxy.poll() is None, "the proxy ended; see litellm.log"
            time.sleep(0.5)
    else:
        raise SystemExit("the proxy did not come up")

    clean, beer, sword = picture("clean.png"), picture("beer.png"), picture("sword.png")
    ask(text="how are you?")
    ask(clean, clean)
    assert pictures_of(seen[-1]) == [clean, clean], "a clean picture was changed"
    print("litellm: text and clean pictures pass as they came")

    blocked(clean, sword, words="picture 2 of 2")
    print("litellm: one bad picture blocks the call, and nothing of it reaches the model")

    ask(clean, beer)
    kept, redacted = pictures_of(seen[-1])
    assert kept == clean and redacted != beer and redacted.startswith("data:image/png;base64,"), seen[-1]
    shown = Image.open(io.BytesIO(base64.b64decode(redacted.split(",")[1]))).convert("RGB")
    original = Image.open(folder / "beer.png").convert("RGB")
    assert green(original) > 100 and green(shown) == 0, "the beer can still be seen"
    print("litellm: a redacted picture reaches the model in the place of the one that came")

    blocked(data_url(b"no picture"), words="Generic Guardrail API failed")
    blocked("http://127.0.0.1:1/a.png", words="Generic Guardrail API failed")
    blocked(clean, words="Generic Guardrail API failed", extra_body={"guardrails": ["dead"]})
    print("litellm: a guardrail that errs or is not there fails the call by default")

    count = len(seen)
    ask(sword, text=None)
    assert len(seen) == count + 1, "docs/gateway-judging.md says that litellm does not ask about pictures without text"
    print("litellm: as documented, pictures without any text are not sent to a guardrail")
finally:
    proxy.terminate()
    proxy.wait(30)
