"""The client over a gateway of a page that does as it is told, and mostly does it wrong."""

import base64
import http.server
import io
import json
import socket
import threading
import time

import pytest
from cluegate_client import Abort, Continue, DrawAgain, GateError, HttpGate, Outcome, Release, Request, Withhold, judge
from PIL import Image

PICTURE = Image.new("RGB", (8, 8), (10, 200, 30))
OUTCOME = {"decision_id": "d", "member": 0, "outcome": "released", "reason": "safe", "message": "m", "seed": 7}
WITHHELD = OUTCOME | {"outcome": "withheld", "reason": "violation"}


def encoded(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


OPENED = {"id": "s", "request_id": "r", "seeds": [7], "tries": 2, "preview_steps": [3], "expires_in_ms": 1, "idle_ms": 1}
GREY = Image.new("RGB", (8, 8), (90, 90, 90))


class Gateway:
    """Answers a route with (status, body), with bytes, or by a function of the handler."""

    def __init__(self):
        self.answers, self.asked = {"open": (200, OPENED), "close": (200, {"outcomes": [OUTCOME]})}, []
        gateway = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                gateway.asked.append((self.command, self.path, dict(self.headers), body))
                path = self.path.split("?")[0]
                what = "open" if path == "/v1/sessions" else path.rsplit("/", 1)[-1]
                what = "close" if self.command == "DELETE" else "finished" if what == "0" else what
                answer = gateway.answers[what]
                if callable(answer):
                    return answer(self)
                status, told = answer
                self.reply(status, told if isinstance(told, bytes) else json.dumps(told).encode())

            do_POST = do_DELETE = do

            def reply(self, status, body, length=None):
                self.send_response(status)
                self.send_header("content-length", str(len(body) if length is None else length))
                self.send_header("location", "http://127.0.0.1:1/")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def gate(self, **options):
        return HttpGate(f"http://127.0.0.1:{self.server.server_port}/", "cg_key", **{"timeout": 20, **options})

    def session(self, **options):
        return self.gate(**options).open(Request("a shop", seed=7, steps=9, size=(8, 8), max_tries=2))


@pytest.fixture
def gateway():
    gateway = Gateway()
    yield gateway
    gateway.server.shutdown()


def test_a_session_says_and_reads_what_the_document_names(gateway):
    session = gateway.session(subject="reader-7")
    assert (session.seeds, session.tries, session.preview_steps) == ((7,), 2, frozenset({3}))
    method, path, headers, body = gateway.asked[0]
    assert (method, path, headers["authorization"]) == ("POST", "/v1/sessions", "Bearer cg_key")
    assert headers["x-cluegate-subject"] == "reader-7" and headers["x-cluegate-timeout-ms"] == "600000"
    asked = {"prompt": "a shop", "count": 1, "seed": 7, "steps": 9, "max_tries": 2, "width": 8, "height": 8}
    assert json.loads(body) == asked
    again = {"instruction": "draw_again", "attempt": 2, "seed": 9, "avoid": ["a sword"], "message": "m"}
    gateway.answers |= {
        "finished": (200, {"instruction": "release", "outcome": OUTCOME, "image": encoded(GREY)}),
        "preview": (200, {"instruction": "abort", "then": again}),
        "failure": (200, {"instruction": "withhold", "outcome": WITHHELD, "placeholder": encoded(GREY)}),
    }
    told = session.finished(0, PICTURE)
    assert isinstance(told, Release) and told.image.getpixel((0, 0)) == (90, 90, 90)
    assert Image.open(io.BytesIO(gateway.asked[-1][3])).convert("RGB").tobytes() == PICTURE.tobytes()
    assert session.preview(0, 3, 9, PICTURE) == Abort(DrawAgain(2, 9, ("a sword",), "m"))
    assert gateway.asked[-1][1] == "/v1/sessions/s/pictures/0/preview?step=3&total=9"
    gateway.answers["preview"] = (200, {"instruction": "abort", "then": again | {"prompt": "a shop without weapons"}})
    assert session.preview(0, 3, 9, PICTURE) == Abort(DrawAgain(2, 9, ("a sword",), "m", "a shop without weapons"))
    gateway.answers["preview"] = (200, {"instruction": "continue", "preview": encoded(GREY)})
    shown = session.preview(0, 4, 9, PICTURE)
    assert isinstance(shown, Continue) and shown.preview is not None
    told = session.failed(0, "out of memory")
    assert isinstance(told, Withhold) and told.placeholder is not None and told.outcome.flagged
    assert session.close() == [Outcome.read(OUTCOME)] and Outcome.read(OUTCOME).seed == 7


RELEASE = {"instruction": "release", "outcome": OUTCOME, "image": encoded(GREY)}


@pytest.mark.parametrize(
    "answer",
    [
        (503, {"error": "judge_failed", "message": "no verdict"}),
        (302, RELEASE),
        (201, RELEASE),
        (200, b"<html>"),
        (200, b""),
        (200, []),
        (200, {}),
        (200, RELEASE | {"image": None}),
        (200, {key: value for key, value in RELEASE.items() if key != "image"}),
        (200, RELEASE | {"image": "no base64!"}),
        (200, RELEASE | {"image": base64.b64encode(b"GIF89a").decode()}),
        (200, RELEASE | {"image": encoded(GREY)[:60]}),
        (200, RELEASE | {"outcome": WITHHELD}),
        (200, RELEASE | {"outcome": OUTCOME | {"outcome": "fine"}}),
        (200, RELEASE | {"outcome": {}}),
        (200, RELEASE | {"placeholder": encoded(GREY)}),
        (200, {"instruction": "withhold", "outcome": OUTCOME}),
        (200, RELEASE | {"instruction": "let it go"}),
        (200, {"instruction": "draw_again", "attempt": "x", "seed": 1}),
        (200, {"instruction": "draw_again", "attempt": 2, "seed": 1, "prompt": ["a shop"]}),
        lambda handler: handler.connection.close(),
        lambda handler: handler.reply(200, json.dumps(RELEASE).encode(), length=99_999) or handler.connection.close(),
    ],
)
def test_whatever_is_no_answer_releases_nothing(gateway, answer):
    gateway.answers["finished"] = answer
    with pytest.raises(GateError):
        gateway.session(timeout=2).finished(0, PICTURE)
    [(shown, outcome)] = judge(gateway.gate(timeout=2), [PICTURE])
    assert shown is None and outcome.reason == "gate-error" and outcome.flagged


def test_a_slow_gate_and_one_that_trickles_are_given_up(gateway):
    def trickle(handler):
        handler.send_response(200)
        handler.send_header("content-length", "1000")
        handler.end_headers()
        try:
            for _ in range(400):
                handler.wfile.write(b" ")
                handler.wfile.flush()
                time.sleep(0.05)
        except OSError:
            pass

    gateway.answers["finished"] = trickle
    session = gateway.session(timeout=0.4)
    begin = time.monotonic()
    with pytest.raises(GateError, match="in time"):
        session.finished(0, PICTURE)
    assert time.monotonic() - begin < 15
    silent = socket.create_server(("127.0.0.1", 0))
    with pytest.raises(GateError, match="in time"):
        HttpGate(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.2).open(Request("a"))
    silent.close()


@pytest.mark.parametrize("answer", [{}, OPENED | {"seeds": []}, OPENED | {"seeds": "x"}, OPENED | {"id": None, "tries": None}])
def test_a_session_that_makes_no_sense_is_none(gateway, answer):
    gateway.answers["open"] = (200, answer)
    with pytest.raises(GateError):
        gateway.session()


def test_a_refusal_has_the_gateways_words_and_code(gateway):
    gateway.answers["open"] = (403, {"error": "suspended", "message": "the tenant is suspended"})
    with pytest.raises(GateError, match="the tenant is suspended") as raised:
        gateway.session()
    assert raised.value.code == "suspended"
    for url in ("127.0.0.1:1", "ftp://a", "http://"):
        with pytest.raises(ValueError):
            HttpGate(url)


def test_pictures_of_a_host_that_cannot_draw_again(gateway):
    gateway.answers["open"] = (200, OPENED | {"seeds": [1, 2]})
    told = iter([RELEASE, {"instruction": "draw_again", "attempt": 2, "seed": 9}])
    gateway.answers["finished"] = gateway.answers["1"] = lambda handler: handler.reply(200, json.dumps(next(told)).encode())
    (first, released), (second, refused) = judge(gateway.gate(), [PICTURE, PICTURE])
    assert first.getpixel((0, 0)) == (90, 90, 90) and released.released
    assert second is None and refused.reason == "gate-error" and "no" in refused.message
    assert json.loads(gateway.asked[0][3])["max_tries"] == 1 and gateway.asked[-1][0] == "DELETE"
    assert judge(gateway.gate(), []) == []
