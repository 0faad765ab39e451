"""Finished pictures of a host that cannot draw again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from .gate import Gate, GateError, Outcome, Release, Request, Session, Withhold


def judge(
    gate: Gate, images: Sequence[Image.Image], request: Request | None = None
) -> list[tuple[Image.Image | None, Outcome]]:
    """Judges finished pictures, and gives for each what may be shown in its place, and its outcome.

    What may be shown is the released picture, redacted or not, or the placeholder; None if there is nothing. A gate that
    gives no answer withholds.
    """
    if not images:
        return []
    size = images[0].size
    request = replace(request or Request(""), count=len(images), max_tries=1, size=size)
    try:
        session = gate.open(request)
    except GateError as error:
        return [(None, Outcome.without_gate(member, error)) for member in range(len(images))]
    judged: list[tuple[Image.Image | None, Outcome]] = []
    try:
        for member, image in enumerate(images):
            try:
                told = session.finished(member, image)
            except GateError as error:
                judged.append((None, Outcome.without_gate(member, error)))
                continue
            if isinstance(told, Release):
                judged.append((told.image, told.outcome))
            elif isinstance(told, Withhold):
                judged.append((told.placeholder, told.outcome))
            else:
                again = GateError("the gate asked for another try where there is none")
                judged.append((None, Outcome.without_gate(member, again)))
    finally:
        _close(session)
    return judged


def _close(session: Session) -> None:
    """Ends a session whose outcomes are known. One that cannot be ended ends by itself."""
    try:
        session.close()
    except GateError:
        pass
