"""What the extension does; apart from the script, so that it can be tested without a web UI.

The web UI catches what extensions raise and goes on with the picture that it has. So a picture is taken out of its hands
first, and given back when the gate has released it.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from typing import Any

from cluegate_client import Gate, Outcome, Request, judge
from PIL import Image

log = logging.getLogger("cluegate")

#: Released pictures that are remembered, by their pixels: the web UI shows and saves one several times.
REMEMBERED = 4096
#: Settings that would leave this extension out.
KEEPING_OUT = ("disabled_extensions", "disable_all_extensions", "restore_config_state_file")


class Warden:
    """Lets released pictures through."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        #: What became of each of this generation's, and None for what stands in for another.
        self._released: OrderedDict[bytes, Outcome | None] = OrderedDict()
        #: Scripts of the menu that run: what they draw is of one generation.
        self._scripts = 0

    def picture(self, p: Any, pp: Any) -> None:
        """A picture is finished: `pp.image` becomes what may be shown of it."""
        image, pp.image = pp.image, black(pp.image)
        pp.image = self._judged(p, image, told=True)

    def saving(self, params: Any) -> None:
        """A file is about to be written: a picture, one before a later stage, a grid."""
        image, params.image = params.image, black(params.image)
        params.image = self._judged(params.p, image)

    def watch(self, processing: Any, runner: Any, shared: Any) -> None:
        """Stands where a generation comes out: the web UI's own function, which everything that draws calls, and what a
        script of its menu (X/Y/Z plot, SD upscale) makes of such pictures. What is raised here is not caught by the web UI.

        Takes `modules.processing`, `modules.scripts.ScriptRunner` and `modules.shared`.
        """
        inner, run = _bare(processing.process_images_inner), _bare(runner.run)

        def process_images_inner(p: Any) -> Any:
            if not self._scripts:
                # A verdict is of now: the policy, or the gate, may be another at the next generation.
                self._released.clear()
            p.cluegate_outcomes = []
            return self.end(p, inner(p))

        def run_script(own: Any, p: Any, *arguments: Any) -> Any:
            self._released.clear()
            self._scripts += 1
            try:
                made = run(own, p, *arguments)
            finally:
                self._scripts -= 1
            # None says that no script was chosen, and the web UI's function is called.
            return made if made is None else self.end(p, made)

        # The web UI loads its scripts again when its page is reloaded.
        process_images_inner.cluegate_bare, run_script.cluegate_bare = inner, run  # type: ignore[attr-defined]
        processing.process_images_inner, runner.run = process_images_inner, run_script
        _hide_previews(shared.state)
        _keep_enabled(shared.opts)

    def end(self, p: Any, processed: Any) -> Any:
        """All that the page and the API are given: what was not judged yet (grids, what other extensions added) is now."""
        for shown in (processed.images, getattr(processed, "extra_images", None) or []):
            images = list(shown)
            shown.clear()
            for image in images:
                shown.append(self._judged(p, picture(image), told=True))
        told = getattr(p, "cluegate_outcomes", [])
        summary = "; ".join(f"{one.decision_id or '-'};outcome={one.outcome};reason={one.reason}" for one in told)
        # Both are told: the first is in the API's `info`, the second in the page's text.
        processed.extra_generation_params = {**(processed.extra_generation_params or {}), "cluegate": summary}
        comments, line = getattr(processed, "comments", "") or "", f"cluegate: {summary}\n"
        if any(not one.released for one in told) and line not in comments:
            processed.comments = comments + line
        return processed

    def _judged(self, p: Any, image: Any, told: bool = False) -> Any:
        """What may be shown in the place of `image`; `told` says that its outcome is the generation's."""
        if not isinstance(image, Image.Image):
            raise TypeError(f"expected a picture of Pillow, got {type(image).__name__}")
        if (seen := pixels(image)) in self._released:
            if told:
                self._note(p, self._released[seen])
            return image
        prompt = getattr(p, "prompt", "") or ""
        prompt = prompt if isinstance(prompt, str) else "\n".join(prompt)
        model = getattr(p, "sd_model_name", None)
        [(shown, outcome)] = judge(self._gate, [image], Request(prompt, model=model, generator="stable-diffusion-webui"))
        if told:
            self._note(p, outcome)
        shown = shown if shown is not None else black(image)
        # Placeholders and black pictures need no verdict when they are saved.
        self._released[pixels(shown)] = outcome if outcome.released else None
        while len(self._released) > REMEMBERED:
            self._released.popitem(last=False)
        return shown

    def _note(self, p: Any, outcome: Outcome | None) -> None:
        noted = getattr(p, "cluegate_outcomes", None)
        if outcome is None or not isinstance(noted, list) or outcome in noted:
            return
        noted.append(outcome)
        if not outcome.released:
            log.warning("%s (%s)", outcome.message, outcome.reason)


def _bare(function: Any) -> Any:
    """What a function was before an earlier load of this extension stood in front of it."""
    return getattr(function, "cluegate_bare", function)


def _hide_previews(state: Any) -> None:
    """Live previews are not judged here, and so they are not shown: neither on the page nor by `/sdapi/v1/progress`."""
    type(state).current_image = property(lambda _: None, lambda _, image: None)
    # Nor is time spent on what nobody sees.
    state.do_set_current_image = lambda: None


def _keep_enabled(opts: Any) -> None:
    """No request sets what would leave this extension out at the next load: neither through the API, where Forge does not ask
    for `restrict_api`, nor by the settings of a generation. The page's tab of extensions does not go by `set`."""
    kind = type(opts)
    bare = _bare(kind.set)

    def set_option(own: Any, key: str, *arguments: Any, **named: Any) -> Any:
        return False if key in KEEPING_OUT else bare(own, key, *arguments, **named)

    set_option.cluegate_bare = bare  # type: ignore[attr-defined]
    kind.set = set_option


def picture(image: Any) -> Any:
    """What extensions add may be an array (ControlNet's maps), of which the web UI makes a picture too."""
    return image if isinstance(image, Image.Image) or not hasattr(image, "__array_interface__") else Image.fromarray(image)


def pixels(image: Image.Image) -> bytes:
    """What a picture looks like, and nothing else of it."""
    rgb = image.convert("RGB")
    return hashlib.sha256(f"{rgb.width}x{rgb.height} ".encode() + rgb.tobytes()).digest()


def black(image: Any) -> Image.Image:
    """A black picture of the same size."""
    return Image.new("RGB", getattr(image, "size", (512, 512)))
