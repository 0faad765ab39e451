"""Custom nodes of ComfyUI: a folder of `custom_nodes`, or a clone of it."""

import os
import sys

try:
    from .cluegate_nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

    if os.environ.get("CLUEGATE_UNGATED") != "allow":
        import execution
        import latent_preview
        import nodes

        from .cluegate_nodes.watch import watch

        watch(execution, latent_preview, nodes.NODE_CLASS_MAPPINGS)
except Exception as error:
    # ComfyUI logs what a package raises, and goes on without the package.
    print(f"cluegate cannot stand in this ComfyUI, which therefore does not start: {error!r}", file=sys.stderr, flush=True)
    os._exit(1)

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
