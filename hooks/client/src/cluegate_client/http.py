"""A gate over HTTP: ``cluegate serve``, ``/v1/sessions``."""

from __future__ import annotations

import base64
import binascii
import http.client
import io
import json
import ssl
import time
import urllib.parse
from collections.abc import Mapping
from typing import Any

from PIL import Image

from .gate import GateError, Instruction, Outcome, PreviewAnswer, Release, Request, read_instruction, read_preview

#: Most bytes of one answer.
MAX_ANSWER = 256 << 20
#: Bytes that are read at once.
CHUNK = 1 << 16


class HttpGate:
    """Asks the gateway at ``url`` with an API ``key``, which says who the tenant is.

    ``timeout`` is the longest wait for one answer in seconds, whatever the gateway does meanwhile; past it the picture is
    withheld. ``session_timeout`` is the longest life of a session, drawing included; the gateway has a limit of its own.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout: float = 60.0,
        session_timeout: float = 600.0,
        subject: str | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"expected an address such as http://127.0.0.1:7800, got {url!r}")
        if timeout <= 0 or session_timeout <= 0:
            raise ValueError("expected time-outs over 0 seconds")
        self._https = parts.scheme == "https"
        self._host, self._port, self._path = parts.hostname, parts.port, parts.path.rstrip("/")
        self._timeout, self._session_timeout = timeout, session_timeout
        self._context = context
        self._headers = {"accept": "application/json"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"
        if subject:
            self._headers["x-cluegate-subject"] = subject

    def open(self, request: Request) -> HttpSession:
        asked: dict[str, Any] = {"prompt": request.prompt, "count": request.count}
        for name in ("seed", "steps", "model", "generator", "max_tries"):
            if getattr(request, name) is not None:
                asked[name] = getattr(request, name)
        if request.size:
            asked["width"], asked["height"] = request.size
        headers = {"x-cluegate-timeout-ms": str(int(self._session_timeout * 1000))}
        told = self._json("POST", "/v1/sessions", asked, headers)
        try:
            return HttpSession(self, told, request.count)
        except (KeyError, TypeError, ValueError) as error:
            raise GateError(f"the gate's session makes no sense: {error!r}") from error

    def _json(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        types = {} if data is None else {"content-type": "application/json"}
        return self.ask(method, path, data, {**types, **(headers or {})})

    def ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Any:
        """Sends a request and reads the JSON that comes back, all of it within the time-out. Raises GateError."""
        deadline = time.monotonic() + self._timeout
        if self._https:
            context = self._context or ssl.create_default_context()
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                self._host, self._port, timeout=self._timeout, context=context
            )
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        try:
            connection.request(method, self._path + path, body, {**self._headers, **headers})
            answer = connection.getresponse()
            return self._read(connection, answer, deadline)
        except (OSError, http.client.HTTPException) as error:
            what = "did not answer in time" if isinstance(error, TimeoutError) else f"cannot be asked ({error!r})"
            raise GateError(f"the gate at {self._host}:{self._port} {what}", "unreachable") from error
        finally:
            connection.close()

    def _read(self, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse, deadline: float) -> Any:
        read = bytearray()
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            # Gone once the whole answer was received.
            if connection.sock is not None:
                connection.sock.settimeout(left)
            chunk = answer.read1(CHUNK)
            if not chunk:
                break
            read += chunk
            if len(read) > MAX_ANSWER:
                raise GateError(f"the gate's answer has more than {MAX_ANSWER} bytes")
        # read1 says nothing of an answer that is cut off.
        stated = answer.getheader("content-length")
        if stated is not None and int(stated) != len(read):
            raise GateError(f"the gate's answer was cut off: {len(read)} of {stated} bytes came")
        try:
            told = json.loads(read)
        except ValueError as error:
            raise GateError(f"the gate answered with status {answer.status} and no JSON") from error
        if answer.status != 200:
            problem = told if isinstance(told, dict) else {}
            message = f"the gate refused with status {answer.status}: {problem.get('message', 'it did not say why')}"
            raise GateError(message, str(problem.get("error", "refused")))
        if not isinstance(told, dict):
            raise GateError("expected an object from the gate")
        return told


class HttpSession:
    """A session of a gateway."""

    def __init__(self, gate: HttpGate, told: Mapping[str, Any], count: int) -> None:
        self._gate = gate
        self._path = f"/v1/sessions/{urllib.parse.quote(str(told['id']), safe='')}"
        self.request_id = str(told["request_id"])
        self.seeds = tuple(int(seed) for seed in told["seeds"])
        self.tries = int(told["tries"])
        self.preview_steps = frozenset(int(step) for step in told["preview_steps"])
        if len(self.seeds) != count:
            raise ValueError(f"expected a session for {count} pictures, got one for {len(self.seeds)}")

    def preview(self, member: int, step: int, total: int, image: Image.Image) -> PreviewAnswer:
        told = self._send(f"{self._path}/pictures/{member}/preview?step={step}&total={total}", image)
        if told.get("instruction") == "continue":
            return read_preview(told, _picture(told.get("preview")))
        then = told.get("then")
        return read_preview(told, _picture(then.get("placeholder")) if isinstance(then, dict) else None)

    def finished(self, member: int, image: Image.Image) -> Instruction:
        return _instruction(self._send(f"{self._path}/pictures/{member}", image))

    def failed(self, member: int, why: str) -> Instruction:
        told = self._gate._json("POST", f"{self._path}/pictures/{member}/failure", {"why": why[:500]})
        return _instruction(told)

    def close(self) -> list[Outcome]:
        told = self._gate._json("DELETE", self._path)
        outcomes = told.get("outcomes")
        if not isinstance(outcomes, list) or len(outcomes) != len(self.seeds):
            raise GateError("the gate's last report does not have one outcome for each picture")
        return [Outcome.read(one) for one in outcomes]

    def _send(self, path: str, image: Image.Image) -> Any:
        # Pixels only: no text and no profile. Compressing more takes longer than sending.
        file = io.BytesIO()
        image.convert("RGB").save(file, "PNG", compress_level=1)
        return self._gate.ask("POST", path, file.getvalue(), {"content-type": "image/png"})


def _instruction(told: Mapping[str, Any]) -> Instruction:
    name = "image" if told.get("instruction") == "release" else "placeholder"
    read = read_instruction(told, _picture(told.get(name)))
    if isinstance(read, Release) and told.get("placeholder") is not None:
        raise GateError("the gate released a picture and sent a placeholder")
    return read


def _picture(encoded: Any) -> Image.Image | None:
    """The picture in base64, read whole."""
    if encoded is None:
        return None
    try:
        image = Image.open(io.BytesIO(base64.b64decode(str(encoded), validate=True)), formats=["PNG"])
        return image.convert("RGB")
    except (binascii.Error, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise GateError(f"the gate's picture cannot be read: {error!r}") from error
