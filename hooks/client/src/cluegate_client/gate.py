"""What a host and a gate say to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Union

from PIL import Image


class GateError(RuntimeError):
    """The gate gave no answer, or one that makes no sense. Nothing is released. ``code`` is the gateway's, if it has one."""

    def __init__(self, message: str, code: str = "gate-error") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Request:
    """What a host is about to draw. What is left out is not known."""

    prompt: str
    #: Number of pictures.
    count: int = 1
    #: Seed of the first picture; the gate numbers the others on from it.
    seed: int | None = None
    #: Steps of the loop, for which the session names those of which a preview is wanted.
    steps: int | None = None
    #: Width and height in pixels.
    size: tuple[int, int] | None = None
    #: The model that draws. Its name chooses among the policy's ``model`` tables.
    model: str | None = None
    #: Identity of the generator, for the log.
    generator: str | None = None
    #: Most attempts at one picture, where the host can make fewer than the policy allows.
    max_tries: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of one picture."""

    #: ``released``, ``withheld`` or ``held``.
    outcome: str
    #: As in the decision log: ``safe``, ``violation``, ``judge-timeout``; ``gate-error`` where the gate gave no answer.
    reason: str
    #: For people.
    message: str
    #: Index of the picture in the request.
    member: int = 0
    #: In the decision log; none where the gate gave no answer.
    decision_id: str | None = None
    #: Of the attempt that was decided.
    seed: int | None = None
    #: Ids of the violated rules, where the tenant may see evidence.
    violated: tuple[str, ...] = ()
    #: The judge's report, where the tenant may see evidence.
    evidence: Mapping[str, Any] | None = field(default=None, repr=False)

    @property
    def released(self) -> bool:
        """Whether there is a picture."""
        return self.outcome == "released"

    @property
    def flagged(self) -> bool:
        """Whether the policy did not release the picture as it came: what fields such as ``nsfw_content_detected`` say."""
        return not self.released or self.reason == "redacted"

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Outcome:
        """Reads a gate's report. Raises GateError if it is none."""
        try:
            outcome, reason, message = (str(told[name]) for name in ("outcome", "reason", "message"))
            if outcome not in ("released", "withheld", "held"):
                raise GateError(f"expected the outcome released, withheld or held, got {outcome!r}")
            return cls(
                outcome=outcome,
                reason=reason,
                message=message,
                member=int(told["member"]),
                decision_id=str(told["decision_id"]),
                seed=int(told["seed"]),
                violated=tuple(told.get("violated") or ()),
                evidence=told.get("evidence"),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise GateError(f"the gate's report makes no sense: {error!r}") from error

    @classmethod
    def without_gate(cls, member: int, error: BaseException) -> Outcome:
        """The outcome of a picture on which the gate gave no word: withheld."""
        message = f"the gate gave no verdict, and the picture was withheld: {error}"
        return cls(outcome="withheld", reason="gate-error", message=message, member=member)


@dataclass(frozen=True)
class Release:
    """Hand out this picture, which may be redacted, and no other."""

    image: Image.Image
    outcome: Outcome


@dataclass(frozen=True)
class DrawAgain:
    """Draw the picture again, with this seed."""

    attempt: int
    seed: int
    #: Words for a negative prompt, where the tenant may see evidence.
    avoid: tuple[str, ...] = ()
    message: str = ""
    #: What to draw in place of the request's own prompt, where something rewrites prompts.
    prompt: str | None = None


@dataclass(frozen=True)
class Withhold:
    """Hand out nothing, or the placeholder. The picture is gone, or kept by the gate for a person (``held``)."""

    outcome: Outcome
    placeholder: Image.Image | None = None


Instruction = Union[Release, DrawAgain, Withhold]


@dataclass(frozen=True)
class Continue:
    """Draw on."""

    #: The preview, if the requester may see it.
    preview: Image.Image | None = None


@dataclass(frozen=True)
class Abort:
    """Give the attempt up, discard what it made, and do this."""

    then: DrawAgain | Withhold


PreviewAnswer = Union[Continue, Abort]


class Session(Protocol):
    """A request in the hands of a gate. Every method raises GateError if the gate gives no answer."""

    request_id: str
    #: Seed of each picture's first attempt.
    seeds: tuple[int, ...]
    #: Most attempts at one picture.
    tries: int
    #: Finished steps, of the request's ``steps``, after which a preview is wanted.
    preview_steps: frozenset[int]

    def preview(self, member: int, step: int, total: int, image: Image.Image) -> PreviewAnswer:
        """Offers what a picture looks like after ``step`` of ``total`` steps."""

    def finished(self, member: int, image: Image.Image) -> Instruction:
        """Offers a finished picture."""

    def failed(self, member: int, why: str) -> Instruction:
        """Says that there is no picture; ``why`` completes "the generator failed: ..."."""

    def close(self) -> list[Outcome]:
        """Ends the session: what has no decision is withheld."""


class Gate(Protocol):
    """Where sessions are opened."""

    def open(self, request: Request) -> Session:
        """Opens a session. Raises GateError if the policy refuses the request as a whole."""


def read_instruction(told: Mapping[str, Any], image: Image.Image | None) -> Instruction:
    """Reads an instruction, with the picture that came with it. Raises GateError if it is none: then nothing is released."""
    try:
        what = told["instruction"]
        if what == "draw_again":
            avoid = tuple(str(word) for word in told.get("avoid") or ())
            prompt = told.get("prompt")
            if prompt is not None and not isinstance(prompt, str):
                raise GateError(f"expected a text as the prompt to draw again, got {prompt!r}")
            return DrawAgain(int(told["attempt"]), int(told["seed"]), avoid, str(told.get("message", "")), prompt)
        outcome = Outcome.read(told["outcome"])
    except (KeyError, TypeError, ValueError) as error:
        raise GateError(f"the gate's instruction makes no sense: {error!r}") from error
    if what == "release":
        if image is None or not outcome.released:
            raise GateError("the gate released a picture and sent none, or its report says otherwise")
        return Release(image, outcome)
    if what in ("withhold", "hold"):
        if outcome.released:
            raise GateError("the gate withheld a picture, and its report says otherwise")
        return Withhold(outcome, image)
    raise GateError(f"expected an instruction release, draw_again, withhold or hold, got {what!r}")


def read_preview(told: Mapping[str, Any], image: Image.Image | None) -> PreviewAnswer:
    """Reads the answer to a preview. Raises GateError if it is none."""
    what = told.get("instruction")
    if what == "continue":
        return Continue(image)
    if what == "abort" and isinstance(told.get("then"), Mapping):
        then = read_instruction(told["then"], image)
        if not isinstance(then, Release):
            return Abort(then)
    raise GateError(f"expected an answer continue, or abort with what follows, got {what!r}")
