"""cluegate in AUTOMATIC1111's web UI and Forge: no picture is shown, saved or answered that the gate did not release.

A request cannot switch it off, from the page or through the API: it stands in the web UI's own functions, is always visible,
and has no arguments. Address and key lie with whoever starts the web UI, in CLUEGATE_URL and CLUEGATE_KEY.
"""

import os
import sys

from modules import processing, script_callbacks, scripts, shared

try:
    from cluegate_client import HttpGate
    from cluegate_webui import Warden

    warden = Warden(
        HttpGate(
            os.environ.get("CLUEGATE_URL", "http://127.0.0.1:7800"),
            os.environ.get("CLUEGATE_KEY"),
            timeout=float(os.environ.get("CLUEGATE_TIMEOUT_S", "60")),
        )
    )
    warden.watch(processing, scripts.ScriptRunner, shared)
    script_callbacks.on_before_image_saved(warden.saving)
except Exception as error:
    # The web UI reports what an extension raises, and goes on without the extension.
    print(f"cluegate cannot stand in this web UI, which therefore does not start: {error!r}", file=sys.stderr, flush=True)
    os._exit(1)


class CluegateScript(scripts.Script):
    # After other extensions, so that what they make of a picture is judged too.
    sorting_priority = 1_000_000

    def title(self):
        return "cluegate"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return []

    def postprocess_image(self, p, pp, *_):
        # At the end all of it is judged; this is early enough for grids and for what other extensions do with it.
        warden.picture(p, pp)
