"""A web UI of a page, as far as an extension sees one.

No registry has the web UI's modules. These have the names, the order of calls and the catching of exceptions of
AUTOMATIC1111/stable-diffusion-webui 1.10: modules/scripts.py `ScriptRunner` and `load_scripts`, modules/processing.py
`process_images`, modules/script_callbacks.py `ImageSaveParams`, modules/shared_state.py `State`, modules/options.py
`Options.set`, modules/api/api.py. Nothing here ran inside a web UI. It draws pictures that it is given.
"""

import importlib.util
import json
import os
import pathlib
import sys
import types

from PIL import Image


class Named(types.SimpleNamespace):
    """PostprocessImageArgs(image), ImageSaveParams(image, p, filename, pnginfo), Processed, OptionInfo, and the request."""


class Script:
    sorting_priority = 0


class State:
    current_image = None

    def do_set_current_image(self):
        self.assign_current_image(self.current_latent)

    def assign_current_image(self, image):
        self.current_image = image


class Options:
    def __init__(self):
        names = ("disabled_extensions", "disable_all_extensions", "restore_config_state_file", "samples_save")
        self.data, self.data_labels = {}, {name: Named(restrict_api=False) for name in names}

    def set(self, key, value, is_api=False):
        if is_api and self.data_labels[key].restrict_api:
            return False
        self.data[key] = value
        return True


class WebUi:
    """Loads the extension that lies in a folder, and draws. `register` puts a module among those of the process."""

    def __init__(self, register):
        self.saving, self.errors, self.saved, self.scripts, self.state = [], [], [], [], State()
        web = self

        class ScriptRunner:
            def run(self, p, *arguments):
                # The script that was chosen in the menu, which calls `process_images` itself.
                return arguments[0](p) if arguments and arguments[0] else None

            def postprocess_image(self, p, pp):
                for script in web.scripts:
                    web.guarded(script.postprocess_image, p, pp)

        def on_before_image_saved(callback, *, name=None):
            self.saving.append(callback)

        self.runner, self.opts = ScriptRunner(), Options()
        modules = {
            "scripts": {"AlwaysVisible": object(), "Script": Script, "ScriptRunner": ScriptRunner},
            "script_callbacks": {"on_before_image_saved": on_before_image_saved},
            "shared": {"state": self.state, "opts": self.opts},
            "processing": {"process_images_inner": self.process_images_inner},
        }
        parent = types.ModuleType("modules")
        register("modules", parent)
        for name, content in modules.items():
            module = types.ModuleType(f"modules.{name}")
            vars(module).update(content)
            setattr(parent, name, module)
            register(module.__name__, module)
        self.processing = parent.processing

    def load(self, extension):
        """As `load_scripts`: what a script raises is reported, and the web UI starts without it."""
        module = None
        for file in sorted((pathlib.Path(extension) / "scripts").glob("*.py")):
            spec = importlib.util.spec_from_file_location(file.stem, file)
            module = importlib.util.module_from_spec(spec)
            sys.path.insert(0, str(extension))
            try:
                spec.loader.exec_module(module)
                kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Script)]
                self.scripts += [kind() for kind in kinds]
            except Exception as error:
                self.errors.append(error)
            finally:
                sys.path.remove(str(extension))
        return module

    def guarded(self, act, *arguments):
        """As `ScriptRunner` and the callbacks do: what an extension raises is reported, and the generation goes on."""
        try:
            act(*arguments)
        except Exception as error:
            self.errors.append(error)

    def save(self, p, image):
        params = Named(image=image, p=p, filename="a.png", pnginfo={})
        for callback in self.saving:
            self.guarded(callback, params)
        self.saved.append(params.image)

    def process_images_inner(self, p):
        shown = []
        for drawn in p.draws:
            image = drawn.copy()
            self.state.current_latent = image
            self.state.do_set_current_image()
            self.save(p, image)  # before face restoration
            pp = Named(image=image)
            if p.scripts is not None:
                p.scripts.postprocess_image(p, pp)
            self.save(p, pp.image)
            shown.append(pp.image)
        extra = [image.copy() for image in p.adds]
        return Named(images=shown, extra_images=extra, extra_generation_params={}, comments="")

    def process_images(self, p):
        return self.processing.process_images_inner(p)

    def generate(self, *images, chosen=None, adds=(), with_scripts=True):
        """As the page and `/sdapi/v1/txt2img` do, which hand out what comes back."""
        scripts = self.runner if with_scripts else None
        p = Named(prompt="a shop", sd_model_name="sd15", draws=images, adds=adds, scripts=scripts)
        processed = self.runner.run(p, chosen) if with_scripts else None
        return self.process_images(p) if processed is None else processed


def main(folder):
    """Starts as `launch.py` does, draws the picture that PICTURE names, and prints what came of it."""
    web = WebUi(sys.modules.__setitem__)
    for extension in sorted((pathlib.Path(folder) / "extensions").iterdir()):
        web.load(extension)
    drawn = Image.open(os.environ["PICTURE"]).convert("RGB")
    processed = web.generate(drawn)
    same = [image.tobytes() == drawn.tobytes() for image in processed.images + web.saved]
    print(json.dumps({"same": same, "info": processed.extra_generation_params, "errors": [repr(one) for one in web.errors]}))
