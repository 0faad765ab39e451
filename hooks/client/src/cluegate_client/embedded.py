"""A gate in this process: the wheel ``cluegate`` (``hooks/python``)."""

from __future__ import annotations

import json
import os
from typing import Any

from PIL import Image

from .gate import GateError, Instruction, Outcome, PreviewAnswer, Request, read_instruction, read_preview


class EmbeddedGate:
    """Judges in this process, for one tenant of a policy file; ``gate`` shares models with another of these.

    ``policy`` is a policy file (the shipped one if there is none), ``models`` a preset or models file (the embedded models
    if there is none), ``log`` the file of the decision log, and ``review`` the folder for pictures that wait for a person.
    """

    def __init__(
        self,
        tenant: str = "default",
        policy: str | os.PathLike[str] | None = None,
        *,
        models: str | os.PathLike[str] | None = None,
        log: str | os.PathLike[str] | None = None,
        review: str | os.PathLike[str] | None = None,
        gate: EmbeddedGate | None = None,
        session_timeout: float | None = None,
    ) -> None:
        try:
            import cluegate
        except ImportError as error:
            raise GateError("a gate in this process needs the wheel `cluegate`: pip install ./hooks/python") from error
        self._tenant, self._session_timeout = tenant, session_timeout
        self._gate: Any
        if gate is not None:
            self._gate = gate._gate
            return
        try:
            self._gate = cluegate.Gate(policy, models=models, log=log, review=review)
        except ValueError as error:
            raise GateError(str(error)) from error

    def open(self, request: Request) -> EmbeddedSession:
        try:
            session = self._gate.open(
                self._tenant,
                request.prompt,
                count=request.count,
                seed=request.seed or 0,
                steps=request.steps or 0,
                size=request.size,
                model=request.model,
                generator=request.generator,
                max_tries=request.max_tries,
                timeout=self._session_timeout,
            )
        except (ValueError, OverflowError) as error:
            raise GateError(str(error)) from error
        return EmbeddedSession(session)


class EmbeddedSession:
    """A session of a gate in this process."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.request_id: str = session.request_id
        self.seeds = tuple(session.seeds)
        self.tries: int = session.tries
        self.preview_steps = frozenset(session.preview_steps)

    def preview(self, member: int, step: int, total: int, image: Image.Image) -> PreviewAnswer:
        return read_preview(*self._ask("preview", member, step, total, *_pixels(image)))

    def finished(self, member: int, image: Image.Image) -> Instruction:
        return read_instruction(*self._ask("finished", member, *_pixels(image)))

    def failed(self, member: int, why: str) -> Instruction:
        return read_instruction(*self._ask("failed", member, why[:500]))

    def close(self) -> list[Outcome]:
        try:
            told = json.loads(self._session.close())
        except (ValueError, RuntimeError) as error:
            raise GateError(str(error)) from error
        return [Outcome.read(one) for one in told["outcomes"]]

    def _ask(self, name: str, *arguments: Any) -> tuple[Any, Image.Image | None]:
        try:
            told, pixels = getattr(self._session, name)(*arguments)
        except (ValueError, RuntimeError, OverflowError) as error:
            raise GateError(str(error)) from error
        image = None if pixels is None else Image.frombytes("RGB", (pixels[0], pixels[1]), pixels[2])
        return json.loads(told), image


def _pixels(image: Image.Image) -> tuple[int, int, bytes]:
    rgb = image.convert("RGB")
    return rgb.width, rgb.height, rgb.tobytes()
