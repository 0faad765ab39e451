"""The guard around pipelines of a page, with gates that do as they are told: needs Pillow and numpy alone."""

import copy
import gc
import threading
import weakref

import numpy as np
import pytest
from cluegate_client import Abort, Continue, DrawAgain, GateError, Outcome, Release, Withhold
from PIL import Image

from cluegate_diffusers import GuardOptions, SafetyChecker, UngatedDecode, guard

BAD = (250, 0, 0)
GREY = Image.new("RGB", (8, 8), (120, 120, 120))


class Latents(np.ndarray):
    """An array that knows the one method of tensors that the guard needs."""

    def clone(self):
        return self.copy()


def latents(values):
    return np.asarray(values, dtype=float).reshape(-1, 1, 1, 1).view(Latents)


class Vae:
    """Shows latents: what is over 0.5 is bad."""

    def __init__(self):
        self.decoded = []

    def decode(self, z):
        self.decoded.append([float(one) for one in np.asarray(z).reshape(-1)])
        return z


class Output:
    def __init__(self, images, nsfw=None):
        self.images, self.nsfw_content_detected = images, nsfw


class Pipe:
    """Draws what `script` says of each picture, call by call: 1 is bad, 0 is good."""

    def __init__(self, *script):
        self.vae, self.script, self.calls, self.steps_run = Vae(), list(script), [], 0
        self._interrupt, self.other_words, self.drawn = False, [], []

    @property
    def interrupt(self):
        return self._interrupt

    def __call__(self, prompt=None, num_inference_steps=4, num_images_per_prompt=1, negative_prompt=None, output_type="pil",
                 return_dict=True, callback_on_step_end=None, callback_on_step_end_tensor_inputs=("latents",),
                 prompt_2=None, prompt_embeds=None):
        self.calls.append({"prompt": prompt, "negative_prompt": negative_prompt})
        self.other_words.append(prompt_2)
        prompts = [prompt] if isinstance(prompt, str) else prompt if prompt is not None else prompt_embeds
        count = len(prompts) * num_images_per_prompt
        z, self._interrupt = latents(self.script.pop(0)[:count]), False
        assert len(z) == count
        for step in range(num_inference_steps):
            if self.interrupt:
                continue
            self.steps_run += 1
            if callback_on_step_end:
                z = callback_on_step_end(self, step, None, {name: z for name in callback_on_step_end_tensor_inputs})["latents"]
        shown = np.asarray(self.vae.decode(z)).reshape(-1)
        images = [Image.new("RGB", (8, 8), BAD if one > 0.5 else (0, 200, round(255 * one))) for one in shown]
        self.drawn += [weakref.ref(image) for image in images]
        return Output(images) if return_dict else (images,)


class Session:
    def __init__(self, gate, request):
        self.gate, self.request, self.closed = gate, request, False
        self.request_id, self.seeds = "r", tuple(range(request.count))
        self.tries, self.preview_steps = gate.tries, frozenset(gate.previews)
        self.attempts = [1] * request.count

    def _told(self, member, image):
        if image.getpixel((0, 0)) != BAD:
            return Release(image, Outcome("released", "safe", "safe", member, "d"))
        if self.attempts[member] < self.tries:
            self.attempts[member] += 1
            return DrawAgain(self.attempts[member], 99, ("a sword is visible",), "again", self.gate.rewritten)
        return Withhold(Outcome("withheld", "violation", "violates a rule", member, "d"), self.gate.placeholder)

    def preview(self, member, step, total, image):
        self.gate.fault("preview")
        self.gate.seen.append((member, step, total))
        told = self._told(member, image)
        return Continue() if isinstance(told, Release) else Abort(told)

    def finished(self, member, image):
        self.gate.fault("finished")
        self.gate.judged += 1
        if self.gate.redacts and image.getpixel((0, 0)) == BAD:
            return Release(GREY, Outcome("released", "redacted", "hidden", member, "d"))
        return self._told(member, image)

    def failed(self, member, why):
        self.gate.fault("failed")
        self.gate.failures.append(why)
        return Withhold(Outcome("withheld", "generator-failure", why, member, "d"))

    def close(self):
        self.closed = True
        return []


class Gate:
    def __init__(self, tries=1, previews=(), redacts=False, placeholder=None, faults=()):
        self.tries, self.previews, self.redacts, self.placeholder = tries, previews, redacts, placeholder
        self.faults, self.seen, self.judged, self.failures, self.sessions = set(faults), [], 0, [], []
        self.rewritten, self.faults_after = None, 0

    def fault(self, where):
        if where in self.faults and self.judged >= self.faults_after:
            raise GateError(f"no answer to {where}")

    def open(self, request):
        self.fault("open")
        self.sessions.append(Session(self, request))
        return self.sessions[-1]


def show(_pipe, z, _size):
    return Image.new("RGB", (8, 8), BAD if float(np.asarray(z).reshape(-1)[0]) > 0.5 else (0, 200, 0))


def guarded(pipe, gate, **options):
    return guard(pipe, gate, options=GuardOptions(decoder=show, model="stub", **options))


def bad(images):
    return [image is not None and image.getpixel((0, 0)) == BAD for image in images]


def test_one_of_four_costs_only_itself():
    gate = Gate(placeholder=GREY)
    out = guarded(Pipe([0, 1, 0, 0]), gate)("a shop", num_images_per_prompt=4)
    assert [one.reason for one in out.outcomes] == ["safe", "violation", "safe", "safe"]
    assert [one.member for one in out.outcomes] == [0, 1, 2, 3]
    assert out.nsfw_content_detected == [False, True, False, False]
    assert not any(bad(out.images)) and out.images[1] == GREY and out["images"] is out[0]
    assert gate.sessions[0].closed and gate.sessions[0].request.model == "stub"


def test_only_the_failing_one_is_drawn_again_with_words_to_avoid():
    pipe = Pipe([0, 1], [1], [0])
    out = guarded(pipe, Gate(tries=3))(["a shop", "a street"], negative_prompt=["dull", "dark"])
    assert [one.reason for one in out.outcomes] == ["safe", "safe"]
    again = {"prompt": ["a street"], "negative_prompt": ["dark, a sword is visible"]}
    assert pipe.calls[1:] == [again, again]


def test_what_is_drawn_again_is_drawn_from_the_words_that_the_gate_wrote():
    pipe, gate = Pipe([0, 1], [1], [0]), Gate(tries=3)
    gate.rewritten = "a street without weapons"
    out = guarded(pipe, gate)(["a shop", "a street"], prompt_2=["a shop", "with swords"])
    assert [one.reason for one in out.outcomes] == ["safe", "safe"]
    assert [call["prompt"] for call in pipe.calls] == [["a shop", "a street"], *[["a street without weapons"]] * 2]
    # What another encoder was told would draw the swords again.
    assert pipe.other_words == [["a shop", "with swords"], None, None]
    pipe.script = [[1], [0]]
    assert pipe("a street").outcomes[0].reason == "safe"
    assert [call["prompt"] for call in pipe.calls[3:]] == ["a street", "a street without weapons"]
    pipe.script = [[1], [0]]
    # What was asked for in no words is drawn again from what was given.
    assert pipe(prompt_embeds=[[0.5]]).outcomes[0].reason == "safe" and pipe.calls[-1]["prompt"] is None


def test_what_is_redacted_is_what_the_gate_sent():
    out = guarded(Pipe([1]), Gate(redacts=True))("a shop")
    assert out.images == [GREY] and out.nsfw_content_detected == [True] and out.outcomes[0].released


def test_a_preview_ends_the_loop_and_its_latents_are_never_decoded():
    pipe, gate = Pipe([1, 1], [0], [0]), Gate(tries=2, previews=[2])
    out = guarded(pipe, gate, wait_for_previews=True)("a shop", num_inference_steps=10, num_images_per_prompt=2)
    assert [one.reason for one in out.outcomes] == ["safe", "safe"]
    # Two steps of the first loop, and ten of each of the others.
    assert pipe.steps_run == 22 and sorted(gate.seen) == [(0, 2, 10), (0, 2, 10), (1, 2, 10), (1, 2, 10)]
    assert pipe.vae.decoded == [[0.0], [0.0]]


def test_a_preview_of_one_lets_the_others_go_on_and_wipes_its_latents():
    pipe, gate = Pipe([0, 1, 0.25]), Gate(previews=[2])
    out = guarded(pipe, gate)("a shop", num_inference_steps=10, num_images_per_prompt=3)
    assert [one.reason for one in out.outcomes] == ["safe", "violation", "safe"]
    assert pipe.steps_run == 10 and pipe.vae.decoded == [[0.0, 0.0, 0.25]] and gate.judged == 2


def slow(gate, drawn):
    """Sessions of the gate give a verdict on a preview once `drawn` is set."""
    opened = gate.open

    def open_slow(request):
        session = opened(request)
        told = session.preview

        def preview(*preview):
            assert drawn.wait(60), "the loop waits for the verdict"
            return told(*preview)

        session.preview = preview
        return session

    gate.open = open_slow


def after(step, drawn):
    return lambda _pipe, done, _time, tensors: (drawn.set() if done + 1 == step else None, tensors)[1]


def test_the_loop_draws_on_while_a_preview_is_judged_and_decodes_nothing_that_it_ends():
    pipe, gate, drawn = Pipe([1, 1], [0], [0]), Gate(tries=2, previews=[2]), threading.Event()
    slow(gate, drawn)
    options = {"num_inference_steps": 10, "num_images_per_prompt": 2}
    out = guarded(pipe, gate)("a shop", callback_on_step_end=after(9, drawn), **options)
    assert [one.reason for one in out.outcomes] == ["safe", "safe"]
    assert sorted(gate.seen) == [(0, 2, 10), (0, 2, 10), (1, 2, 10), (1, 2, 10)]
    # The verdicts came after nine steps at the earliest; both pictures were drawn again.
    assert pipe.vae.decoded == [[0.0], [0.0]] and gate.judged == 2


def test_of_previews_that_come_meanwhile_the_newest_is_judged():
    pipe, gate, drawn = Pipe([0]), Gate(previews=[1, 2, 3, 4]), threading.Event()
    slow(gate, drawn)
    seen = gate.seen

    def theirs(_pipe, done, _time, tensors):
        if done + 1 == 5:
            drawn.set()
        if done + 1 == 6:
            # The loop went past the step at which the newest was taken from those that wait.
            assert [step for _, step, _ in seen] in ([], [1], [1, 4])
        return tensors

    out = guarded(pipe, gate)("a shop", num_inference_steps=10, callback_on_step_end=theirs)
    assert [one.reason for one in out.outcomes] == ["safe"]
    # What waits when the loop ends is left out.
    assert [step for _, step, _ in seen] in ([1], [1, 4])


def test_what_breaks_while_a_preview_is_judged_releases_nothing():
    gate, drawn = Gate(previews=[1]), threading.Event()
    slow(gate, drawn)
    pipe = guarded(Pipe([0]), gate)

    def theirs(_pipe, done, _time, tensors):
        if done == 2:
            drawn.set()
            raise RuntimeError("out of memory")
        return tensors

    with pytest.raises(RuntimeError, match="out of memory"):
        pipe("a shop", callback_on_step_end=theirs)
    assert gate.judged == 0 and pipe.cluegate.outcomes[0].reason == "generator-failure"


def test_the_callers_callback_sees_what_it_asked_for_and_decodes_nothing():
    pipe, gate, seen = Pipe([0], [0]), Gate(previews=[2]), []

    def theirs(pipe, step, timestep, tensors):
        seen.append((step, sorted(tensors)))
        with pytest.raises(UngatedDecode):
            pipe.vae.decode(tensors["latents"])
        return tensors

    guarded(pipe, gate)("a shop", callback_on_step_end=theirs, callback_on_step_end_tensor_inputs=["latents"])
    assert seen == [(step, ["latents"]) for step in range(4)] and gate.seen == [(0, 2, 4)]
    gate.previews = []
    pipe("a shop", callback_on_step_end=theirs)
    assert len(seen) == 8


@pytest.mark.parametrize("where", ["open", "preview", "finished"])
def test_a_dead_gate_withholds_each_picture(where):
    pipe = Pipe([0, 0])
    out = guarded(pipe, Gate(previews=[2], faults=[where]))("a shop", num_images_per_prompt=2)
    assert [one.reason for one in out.outcomes] == ["gate-error"] * 2 and out.images == [None, None]
    assert out.nsfw_content_detected == [True, True]
    if where != "finished":
        assert pipe.vae.decoded == []


def test_what_breaks_inside_the_loop_is_raised_and_nothing_comes_out():
    gate = Gate()
    pipe = guarded(Pipe([0, 0]), gate)

    def broken(*_):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        pipe("a shop", num_images_per_prompt=2, callback_on_step_end=broken)
    assert gate.failures == ["RuntimeError: out of memory"] * 2 and gate.sessions[0].closed
    assert [one.reason for one in pipe.cluegate.outcomes] == ["generator-failure"] * 2


def test_a_decoder_of_previews_that_breaks_is_raised_too():
    gate = Gate(previews=[1])
    pipe = guard(Pipe([0]), gate, options=GuardOptions(decoder=lambda *_: 1 / 0))
    with pytest.raises(ZeroDivisionError):
        pipe("a shop")
    assert gate.judged == 0 and pipe.cluegate.outcomes[0].reason == "generator-failure"


def test_a_gate_that_talks_nonsense_releases_nothing():
    gate = Gate()
    pipe = guarded(Pipe([0]), gate)
    original = gate.open

    def opened(request):
        session = original(request)
        session.finished = lambda *_: "fine"
        return session

    gate.open = opened
    out = pipe("a shop")
    assert out.images == [None] and out.outcomes[0].reason == "gate-error"


def test_a_pipeline_that_makes_fewer_pictures_releases_none():
    class Short(Pipe):
        def __call__(self, prompt=None, num_images_per_prompt=1, output_type="pil", return_dict=True):
            return Output(super().__call__(prompt, num_images_per_prompt=num_images_per_prompt).images[:1])

    out = guarded(Short([0, 0]), Gate())("a shop", num_images_per_prompt=2)
    assert [one.reason for one in out.outcomes] == ["generator-failure"] * 2 and out.images == [None, None]


def test_it_cannot_be_walked_around():
    pipe = Pipe([1], [1])
    other_name = pipe
    held = guarded(pipe, Gate())
    assert held is pipe and isinstance(pipe, Pipe) and type(pipe).__name__ == "Pipe"
    assert other_name("a shop").images == [None]
    with pytest.raises(UngatedDecode):
        pipe.vae.decode(latents([1]))
    with pytest.raises(ValueError, match="latent"):
        pipe("a shop", output_type="latent")
    with pytest.raises(ValueError, match="already"):
        guarded(pipe, Gate())
    with pytest.raises(ValueError, match="one of"):
        guard(Pipe())


def test_other_ways_to_the_bare_pipeline_decode_nothing():
    pipe = guarded(Pipe([1]), Gate())
    with pytest.raises(UngatedDecode):
        Pipe.__call__(pipe, "a shop")
    for vae in (pipe.vae, copy.copy(pipe.vae), copy.deepcopy(pipe.vae)):
        with pytest.raises(UngatedDecode):
            vae.decode(latents([1]))
    sibling = Pipe([1])
    sibling.vae = pipe.vae
    with pytest.raises(UngatedDecode):
        sibling("a shop")
    assert pipe.vae.decoded == [] and pipe.drawn == sibling.drawn == []


def test_a_thread_of_the_callers_decodes_nothing_while_the_pipeline_runs():
    pipe, raised = Pipe([0]), []

    def theirs(pipe, step, timestep, tensors):
        def decode():
            try:
                pipe.vae.decode(tensors["latents"])
            except UngatedDecode as error:
                raised.append(error)

        thread = threading.Thread(target=decode)
        thread.start()
        thread.join()
        return tensors

    guarded(pipe, Gate())("a shop", callback_on_step_end=theirs)
    assert len(raised) == 4 and pipe.vae.decoded == [[0.0]]


def test_an_autoencoder_that_is_put_in_later_is_watched_too():
    pipe = guarded(Pipe([1], [1]), Gate())
    pipe.vae = Vae()
    assert pipe("a shop").images == [None]
    with pytest.raises(UngatedDecode):
        pipe.vae.decode(latents([1]))


def test_nothing_of_what_was_not_released_is_left_behind():
    pipe = Pipe([1, 0, 1], [1], [1])
    out = guarded(pipe, Gate(tries=2))("a shop", num_images_per_prompt=3)
    assert [one.released for one in out.outcomes] == [False, True, False] and len(pipe.drawn) == 5
    gc.collect()
    # The one that was released, and whoever holds the pipeline finds no other.
    assert [image() is not None for image in pipe.drawn] == [False, True, False, False, False]
    assert pipe.drawn[1]() is out.images[1]


def test_a_gate_that_dies_between_two_pictures_releases_the_first_alone():
    gate = Gate(faults=["finished"])
    gate.faults_after = 1
    pipe = guarded(Pipe([0, 0, 0]), gate)
    out = pipe("a shop", num_images_per_prompt=3)
    assert [one.reason for one in out.outcomes] == ["safe", "gate-error", "gate-error"]
    assert [image is None for image in out.images] == out.nsfw_content_detected == [False, True, True]


def test_arrays_and_tuples_have_the_bare_pipelines_shape():
    pipe = guarded(Pipe([0, 1], [0, 1]), Gate())
    out = pipe("a shop", num_images_per_prompt=2, output_type="np")
    assert out.images.shape == (2, 8, 8, 3) and out.images[0].max() > 0.5 and out.images[1].max() == 0
    assert pipe("a shop", num_images_per_prompt=2, return_dict=False)[0][1] is None
    assert len(pipe.cluegate.outcomes) == 2


@pytest.mark.parametrize("faults", [(), ("open",), ("finished",)])
def test_the_safety_checker_has_the_old_call_shape(faults):
    images = np.zeros((3, 8, 8, 3), dtype=np.float32)
    images[:, :, :, 1] = 0.5
    images[1] = np.array(BAD) / 255
    gate = Gate(placeholder=GREY, faults=faults)
    checker = SafetyChecker(gate)
    answer, flags = checker(images=images, clip_input=None)
    assert flags == ([False, True, False] if not faults else [True] * 3) and len(checker.outcomes) == 3
    assert answer.shape == images.shape and (answer[1, :, :, 0] < 0.5).all()
    if faults:
        assert answer.max() == 0
    with pytest.raises(TypeError, match="no slot"):
        checker.install(Pipe())
