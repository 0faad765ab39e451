"""The extension over a web UI of a page (stand_in.py), and its page followed there with a real gateway."""

import json
import pathlib
import subprocess
import sys

import pytest
from cluegate_client import GateError, Outcome, Release, Withhold
from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]
from hook_support import ROOT, Gateway, draw, shell_lines  # noqa: E402
from stand_in import WebUi  # noqa: E402

EXTENSION = HERE.parent
GOOD, BAD = (0, 200, 0), (250, 0, 0)
BLACK = (0, 0, 0)


class Gate:
    """Red is bad."""

    def __init__(self):
        self.judged, self.fault, self.after = 0, None, 0

    def open(self, request):
        if self.fault and self.judged >= self.after:
            raise self.fault
        self.request = request
        return self

    def finished(self, member, image):
        self.judged += 1
        if BAD in (image.getpixel((0, 0)), image.getpixel((image.width - 1, 0))):
            return Withhold(Outcome("withheld", "violation", "no", member, "d2"))
        return Release(image.convert("RGB"), Outcome("released", "safe", "yes", member, "d1"))

    def close(self):
        return []


@pytest.fixture
def webui(monkeypatch):
    web = WebUi(lambda name, module: monkeypatch.setitem(sys.modules, name, module))
    module = web.load(EXTENSION)
    assert web.errors == [] and web.scripts[0].show(False) is module.scripts.AlwaysVisible and web.scripts[0].ui(True) == []
    web.gate = module.warden._gate = Gate()
    web.extension = module
    return web


def picture(colour):
    return Image.new("RGB", (8, 8), colour)


def colours(images):
    return [image.getpixel((0, 0)) for image in images]


def test_only_released_pictures_are_shown_saved_and_answered(webui):
    processed = webui.generate(picture(GOOD), picture(BAD))
    assert colours(processed.images) == [GOOD, BLACK] and BAD not in colours(webui.saved)
    assert webui.errors == [] and "reason=violation" in processed.extra_generation_params["cluegate"]
    assert processed.comments.count("reason=violation") == 1 and webui.gate.request.model == "sd15"
    # The bad one before a stage and after it; and nothing twice that was released.
    assert webui.gate.judged == 3 and processed.extra_generation_params["cluegate"].count("outcome=") == 2


def test_what_others_add_is_judged_at_the_end(webui):
    adds = [picture(BAD), Image.new("RGB", (16, 16), (0, 100, 0))]
    processed = webui.generate(picture(GOOD), adds=adds)
    assert colours(processed.images + processed.extra_images) == [GOOD, BLACK, (0, 100, 0)]


class Array:
    """Pixels as numpy has them: what ControlNet adds of its maps."""

    def __init__(self, image):
        self.tobytes, self.copy = image.tobytes, lambda: self
        self.size = 3 * image.width * image.height
        self.__array_interface__ = {**image.__array_interface__, "strides": (3 * image.width, 3, 1)}


def test_arrays_that_others_add_are_judged_as_pictures(webui):
    adds = [Array(picture(BAD)), Array(picture((0, 100, 0)))]
    processed = webui.generate(picture(GOOD), adds=adds)
    assert colours(processed.images + processed.extra_images) == [GOOD, BLACK, (0, 100, 0)]


def test_a_script_of_the_menu_is_judged_by_what_it_makes(webui):
    """Two pictures, each released, that together show what is bad: as tiles of SD upscale or X/Y/Z plots can."""

    def script(p):
        made = webui.process_images(p)
        whole = Image.new("RGB", (16, 8), GOOD)
        whole.paste(BAD, (8, 0, 16, 8))
        made.images.append(whole)
        return made

    processed = webui.generate(picture(GOOD), picture((0, 90, 0)), chosen=script)
    assert colours(processed.images) == [GOOD, (0, 90, 0), BLACK]
    assert processed.images[2].getpixel((15, 0)) == BLACK


def test_a_generation_without_scripts_is_judged(webui):
    # As training's previews and other extensions' loops draw.
    processed = webui.generate(picture(BAD), picture(GOOD), with_scripts=False)
    assert colours(processed.images) == [BLACK, GOOD] and BAD not in colours(webui.saved)


@pytest.mark.parametrize("fault", [GateError("nobody answers"), RuntimeError("a defect"), TimeoutError()])
@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_gate_that_dies_at_any_point_shows_nothing_more(webui, fault, after):
    webui.gate.fault, webui.gate.after = fault, after
    shown, pictures = [], [picture(GOOD), picture((0, 90, 0))]
    try:
        shown = webui.generate(*pictures).images
    except (RuntimeError, TimeoutError) as raised:
        # What is no answer of the gate but a defect ends the request.
        assert raised is fault
    released = webui.gate.judged
    assert len({colour for colour in colours([*shown, *webui.saved]) if colour != BLACK}) == released == min(after, 2)


def test_what_was_released_once_is_judged_anew_at_the_next_generation(webui):
    def script(p):
        return webui.process_images(p)

    assert colours(webui.generate(picture(GOOD)).images) == [GOOD]
    webui.gate.fault = GateError("nobody answers")
    for chosen in (None, script):
        assert colours(webui.generate(picture(GOOD), chosen=chosen).images) == [BLACK]


def test_what_callbacks_raise_is_swallowed_by_the_web_ui_and_releases_nothing(webui):
    webui.gate.fault = RuntimeError("a defect")
    with pytest.raises(RuntimeError, match="a defect"):
        webui.generate(picture(GOOD))
    assert len(webui.errors) == 3 and set(colours(webui.saved)) == {BLACK}


def test_what_is_no_picture_is_not_shown(webui):
    adds = [picture(GOOD)]
    adds[0].copy = lambda: "a path on the disk"
    with pytest.raises(TypeError, match="a picture of Pillow"):
        webui.generate(adds=adds)


def test_previews_are_not_shown(webui):
    webui.generate(picture(BAD))
    webui.state.assign_current_image(picture(BAD))
    webui.state.current_image = picture(BAD)
    assert webui.state.current_image is None


def test_no_request_can_leave_the_extension_out_at_the_next_load(webui):
    for name, value in (("disabled_extensions", ["cluegate"]), ("disable_all_extensions", "all")):
        # Forge's API says nothing of being one.
        for named in ({"is_api": True}, {}):
            assert not webui.opts.set(name, value, **named) and webui.opts.data == {}
    assert webui.opts.set("samples_save", True, is_api=True)


def test_a_second_load_stands_there_once(webui):
    webui.extension = webui.load(EXTENSION)
    webui.extension.warden._gate = gate = Gate()
    assert colours(webui.generate(picture(BAD), with_scripts=False).images) == [BLACK] and gate.judged > 0
    assert not hasattr(webui.processing.process_images_inner.cluegate_bare, "cluegate_bare")


@pytest.fixture(scope="module")
def gateway():
    with Gateway() as gateway:
        yield gateway


def follow(folder, gateway, tenant, **variables):
    """The page's lines, literally but for address and key, in a folder with this repository's hooks and a web UI of a page."""
    (folder / "hooks").symlink_to(ROOT / "hooks")
    (folder / "stable-diffusion-webui/extensions").mkdir(parents=True)
    launch = f"import sys; sys.path.insert(0, {str(HERE)!r}); import stand_in; stand_in.main({str(folder / 'stable-diffusion-webui')!r})"
    (folder / "stable-diffusion-webui/launch.py").write_text(launch)
    environ = gateway.environ(tenant, PATH=f"{pathlib.Path(sys.executable).parent}:/usr/bin:/bin", **variables)
    return subprocess.run(["sh", "-ec", "\n".join(shell_lines("webui", gateway, tenant))], cwd=folder, env=environ, text=True, capture_output=True)


def test_the_page_can_be_followed(gateway, tmp_path):
    cat = str(draw(tmp_path, "a cat", 5))
    for tenant, shown, reason in (("open", True, "safe"), ("strict", False, "violation")):
        folder = tmp_path / tenant
        folder.mkdir()
        ran = follow(folder, gateway, tenant, PICTURE=cat)
        assert ran.returncode == 0, ran.stderr
        told = json.loads(ran.stdout)
        assert set(told["same"]) == {shown} and told["errors"] == [] and f"reason={reason}" in told["info"]["cluegate"]


def test_a_gate_that_is_too_slow_shows_nothing(gateway, tmp_path):
    ran = follow(tmp_path, gateway, "open", PICTURE=str(draw(tmp_path, "a cat", 5)), CLUEGATE_TIMEOUT_S="0.001")
    told = json.loads(ran.stdout)
    assert not any(told["same"]) and "reason=gate-error" in told["info"]["cluegate"], ran.stderr


def test_a_web_ui_in_which_it_cannot_stand_does_not_start(gateway, tmp_path):
    ran = follow(tmp_path, gateway, "open", CLUEGATE_TIMEOUT_S="soon", PICTURE="none")
    assert ran.returncode == 1 and "does not start" in ran.stderr and ran.stdout == ""
