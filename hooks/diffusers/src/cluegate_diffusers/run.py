"""One call of a guarded pipeline."""

from __future__ import annotations

import logging
import pathlib
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from cluegate_client import (
    Abort,
    DrawAgain,
    Gate,
    GateError,
    Instruction,
    Outcome,
    PreviewAnswer,
    Release,
    Request,
    Session,
    Withhold,
)
from PIL import Image

from .latents import decode
from .members import Call, generator

log = logging.getLogger("cluegate")

#: Previews that are judged at a time, of different pictures.
JUDGED_AT_ONCE = 4


class Discarded(Exception):
    """Ends a loop of which nothing is wanted any more, before anything is decoded."""


@dataclass
class Member:
    """One picture of the call."""

    prompt: int
    session: Session | None
    #: Its index in the session.
    index: int
    seed: int | None = None
    #: The order to draw it again, until it is drawn.
    again: DrawAgain | None = None
    image: Image.Image | None = None
    outcome: Outcome | None = None


@dataclass
class Watched:
    """The previews of one row of the loop."""

    #: The verdict on the one that is being judged.
    verdict: Future[PreviewAnswer]
    #: The newest that came meanwhile: its step, and the picture.
    waiting: tuple[int, Image.Image] | None = None


class Run:
    """Draws, offers, and does what the gate says, until each picture has its outcome."""

    def __init__(self, pipe: Any, method: Any, gate: Gate, call: Call, options: Any) -> None:
        self._pipe, self._method, self._gate, self._call, self._options = pipe, method, gate, call, options
        self._members: list[Member] = []
        self._sessions: list[Session] = []
        #: Indices into `_members` of the rows of the loop that runs, and those of them that were given up.
        self._rows: list[int] = []
        #: Whether the caller's own callback runs, which may decode nothing.
        self.is_lent = False
        self._dropped: set[int] = set()
        #: By row, while a preview of it is being judged.
        self._watched: dict[int, Watched] = {}
        self._judging = ThreadPoolExecutor(JUDGED_AT_ONCE, "cluegate-preview")

    def work(self) -> None:
        """Ends with an outcome for each picture. What the pipeline itself raises is raised, and nothing is released."""
        try:
            self._open()
            if all(member.outcome for member in self._members):
                return
            arguments = dict(self._call.arguments)
            if arguments.get("generator") is None and "generator" in self._call.parameters:
                # Otherwise nobody could draw the picture again that the log speaks of.
                arguments["generator"] = [generator(member.seed or 0) for member in self._members]
            self._draw(list(range(len(self._members))), arguments)
            while due := [place for place, member in enumerate(self._members) if member.again]:
                for place in due:
                    member = self._members[place]
                    order, member.again = member.again, None
                    assert order is not None
                    again = self._call.again(member.prompt, order, self._options.avoid)
                    self._draw([place], again)
        except BaseException as error:
            self._fail_undecided(f"{type(error).__name__}: {error}")
            raise
        finally:
            self._judging.shutdown(wait=False, cancel_futures=True)
            self._close()

    def outcomes(self) -> list[Outcome]:
        """One for each picture."""
        missing = GateError("the call ended before the picture was decided")
        return [
            member.outcome or Outcome.without_gate(place, missing) for place, member in enumerate(self._members)
        ]

    def shown(self) -> list[Image.Image | None]:
        """What may be shown for each picture."""
        return [member.image if member.outcome else None for member in self._members]

    def kept(self, latents: Any) -> Any:
        """The latents that may be decoded: those of attempts that were given up are gone."""
        # The loop is over: what is still being judged may end an attempt, what waits no more.
        for watched in self._watched.values():
            watched.waiting = None
        self._hear(wait=True)
        if not self._dropped:
            return latents
        if len(self._dropped) == len(self._rows) or len(latents) != len(self._rows):
            raise Discarded
        return self._without_dropped(latents)

    def _without_dropped(self, latents: Any) -> Any:
        latents = latents.clone()
        latents[sorted(self._dropped)] = 0
        return latents

    def _open(self) -> None:
        """A session for each prompt, since the log and the judge know a session's prompt."""
        call, pipe = self._call, self._pipe
        model = self._options.model or _name(getattr(getattr(pipe, "config", None), "_name_or_path", None))
        for prompt, words in enumerate(call.prompts):
            request = Request(
                prompt=words, count=call.each, seed=call.seed(prompt), steps=call.steps, size=call.size,
                model=model, generator=f"diffusers {pipe._cluegate_bare.__name__}", max_tries=self._options.max_tries,
            )  # fmt: skip
            try:
                session = self._gate.open(request)
                self._sessions.append(session)
            except Exception as error:
                for index in range(call.each):
                    member = Member(prompt, None, index)
                    member.outcome = Outcome.without_gate(len(self._members), error)
                    self._members.append(member)
                continue
            for index in range(call.each):
                self._members.append(Member(prompt, session, index, session.seeds[index]))

    def _draw(self, places: list[int], arguments: dict[str, Any]) -> None:
        """Draws the pictures at `places` once, and offers them."""
        self._rows, self._dropped, self._watched = places, set(), {}
        # A picture whose session could not be opened is drawn with the others, and not looked at.
        self._dropped = {row for row, place in enumerate(places) if self._members[place].outcome}
        arguments = {**arguments, "output_type": "pil", "return_dict": True}
        self._chain(arguments)
        if "output_type" not in self._call.parameters:
            del arguments["output_type"]
        try:
            drawn = self._method(self._pipe, **arguments)
        except Discarded:
            # What the pipeline does at its end.
            if hasattr(self._pipe, "maybe_free_model_hooks"):
                self._pipe.maybe_free_model_hooks()
            return
        self._hear(wait=True)
        images = list(getattr(drawn, "images", None) or ())
        blanked = list(getattr(drawn, "nsfw_content_detected", None) or [False] * len(images))
        for row, place in enumerate(places):
            if row in self._dropped:
                continue
            if len(images) != len(places):
                why = f"the pipeline made {len(images)} pictures where {len(places)} were asked for"
                self._follow(place, lambda session, index: session.failed(index, why))
            elif blanked[row]:
                why = "its own safety checker blanked the picture"
                self._follow(place, lambda session, index: session.failed(index, why))
            else:
                image = images[row]
                self._follow(place, lambda session, index: session.finished(index, image))

    def _follow(self, place: int, ask: Any) -> None:
        """Asks the gate, and does what it says. Whatever goes wrong withholds."""
        member = self._members[place]
        try:
            self._settle(place, ask(member.session, member.index))
        except Exception as error:
            log.exception("the gate gave no verdict on picture %d", place)
            self._withhold(place, error)

    def _settle(self, place: int, told: Instruction) -> None:
        member = self._members[place]
        if isinstance(told, DrawAgain):
            member.again = told
        elif isinstance(told, Release):
            member.outcome, member.image = _numbered(told.outcome, place), told.image
        elif isinstance(told, Withhold):
            member.outcome, member.image = _numbered(told.outcome, place), told.placeholder
        else:
            raise GateError(f"expected an instruction, got {told!r}")

    def _withhold(self, place: int, error: BaseException) -> None:
        member = self._members[place]
        member.image, member.again = None, None
        member.outcome = Outcome.without_gate(place, error)

    def _chain(self, arguments: dict[str, Any]) -> None:
        """Puts the gate's callback after the caller's own, if the policy wants previews at all."""
        theirs = arguments.get("callback_on_step_end")
        if theirs is not None and hasattr(theirs, "tensor_inputs"):
            # What the pipeline asks of callbacks that are objects, which it would not find any more.
            arguments["callback_on_step_end_tensor_inputs"] = list(theirs.tensor_inputs)
        for name in ("callback_on_step_end", "callback"):
            if arguments.get(name) is not None:
                arguments[name] = self._lend(arguments[name])
        open_rows = [row for row in range(len(self._rows)) if row not in self._dropped]
        due = {step for row in open_rows for step in self._session_of(row).preview_steps}
        if not due:
            return
        if "callback_on_step_end" not in self._call.parameters:
            log.warning("this pipeline has no step callback: the policy's previews are left out, and all else is judged")
            return
        theirs = arguments.get("callback_on_step_end")
        names = list(arguments.get("callback_on_step_end_tensor_inputs") or ["latents"])
        arguments["callback_on_step_end_tensor_inputs"] = list(dict.fromkeys([*names, "latents"]))

        def step_ended(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            latents = tensors["latents"]
            if theirs is not None:
                mine = {name: tensors[name] for name in names}
                tensors = {**tensors, **(theirs(pipe, step, timestep, mine) or {})}
                latents = tensors["latents"]
            latents = self._after_step(step + 1, latents)
            return {**tensors, "latents": latents}

        arguments["callback_on_step_end"] = step_ended

    def _lend(self, theirs: Any) -> Any:
        """The caller's callback, which sees what it always saw and decodes nothing: nobody would judge the picture."""

        def called(*arguments: Any, **named: Any) -> Any:
            self.is_lent = True
            try:
                return theirs(*arguments, **named)
            finally:
                self.is_lent = False

        return called

    def _session_of(self, row: int) -> Session:
        session = self._members[self._rows[row]].session
        assert session is not None
        return session

    def _after_step(self, done: int, latents: Any) -> Any:
        """Follows the verdicts that are there, offers the previews that are due, and wipes what was given up."""
        self._hear(wait=False)
        pipe = self._pipe
        steps = self._call.steps or 0
        total = int(getattr(pipe, "num_timesteps", None) or steps)
        if len(latents) != len(self._rows):
            raise RuntimeError(f"expected latents of {len(self._rows)} pictures, got {len(latents)}")
        for row, place in enumerate(self._rows):
            if row in self._dropped:
                continue
            nominal = self._nominal(self._session_of(row), done, total, steps)
            if nominal is not None:
                self._offer(row, nominal, latents)
        if self._options.wait_for_previews:
            self._hear(wait=True)
        if self._dropped:
            latents = self._without_dropped(latents)
        if len(self._dropped) == len(self._rows):
            # The loop skips its other steps, and `kept` refuses to decode what is left.
            pipe._interrupt = True
            if not hasattr(type(pipe), "interrupt"):
                raise Discarded
        return latents

    @staticmethod
    def _nominal(session: Session, done: int, total: int, steps: int) -> int | None:
        """The step of the request's count that has just been reached, if a preview is due; schedulers may take more or
        fewer steps than were asked for."""
        for due in session.preview_steps:
            at = due if total == steps else max(1, min(total - 1, round(due * total / steps)))
            if at == done:
                return due
        return None

    def _offer(self, row: int, step: int, latents: Any) -> None:
        """Has a preview judged while the loop draws on. One of a row is judged at a time; of those that come meanwhile the
        newest waits, because it tells most of the picture."""
        mine = latents[row : row + 1]
        if self._options.decoder is not None:
            preview = self._options.decoder(self._pipe, mine, self._call.size)
        else:
            preview = decode(self._pipe, mine, self._call.size, self._pipe.vae.__dict__["_cluegate_decode"])
        if row in self._watched:
            self._watched[row].waiting = (step, preview)
        else:
            self._watch(row, step, preview)

    def _watch(self, row: int, step: int, preview: Image.Image) -> None:
        member, session = self._members[self._rows[row]], self._session_of(row)
        verdict = self._judging.submit(session.preview, member.index, step, self._call.steps or 0, preview)
        self._watched[row] = Watched(verdict)

    def _hear(self, *, wait: bool) -> None:
        """Follows the verdicts on previews that are there, or waits for them."""
        for row in list(self._watched):
            while (watched := self._watched.get(row)) and (wait or watched.verdict.done()):
                del self._watched[row]
                self._heed(row, watched.verdict)
                if watched.waiting is not None and row not in self._dropped:
                    self._watch(row, *watched.waiting)

    def _heed(self, row: int, verdict: Future[PreviewAnswer]) -> None:
        """Gives an attempt up if a verdict says so, or if there is none."""
        place = self._rows[row]
        try:
            told = verdict.result()
            if isinstance(told, Abort):
                self._dropped.add(row)
                self._settle(place, told.then)
        except Exception as error:
            log.exception("the gate gave no answer to a preview of picture %d", place)
            self._dropped.add(row)
            self._withhold(place, error)

    def _fail_undecided(self, why: str) -> None:
        """Tells the gate why there is no picture of what is undecided."""
        for place, member in enumerate(self._members):
            if member.outcome is None and member.session is not None:
                member.again = None
                try:
                    told = member.session.failed(member.index, why)
                    if isinstance(told, Withhold):
                        member.outcome = _numbered(told.outcome, place)
                except Exception as error:
                    self._withhold(place, error)

    def _close(self) -> None:
        for session in self._sessions:
            try:
                session.close()
            except Exception as error:
                # Each picture has its outcome; a session that is left open ends by itself.
                log.info("a session could not be closed: %s", error)


def _name(loaded_from: Any) -> str | None:
    """A model's name: the repository's, or of a folder its own name, as its place is nobody's business."""
    if not loaded_from:
        return None
    path = pathlib.Path(str(loaded_from))
    return path.name if path.is_absolute() or path.is_dir() else str(loaded_from)


def _numbered(outcome: Outcome, place: int) -> Outcome:
    """The outcome by the picture's place in the call: its session may be one of several."""
    return replace(outcome, member=place)
