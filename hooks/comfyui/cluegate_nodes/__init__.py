"""Nodes that let through what a cluegate gateway releases, and nothing else."""

from .nodes import CluegateGate, CluegateImages, CluegateLatents, CluegateVerdict

NODE_CLASS_MAPPINGS = {
    "CluegateGate": CluegateGate,
    "CluegateImages": CluegateImages,
    "CluegateLatents": CluegateLatents,
    "CluegateVerdict": CluegateVerdict,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "CluegateGate": "cluegate: choose constitution",
    "CluegateImages": "cluegate: gate images",
    "CluegateLatents": "cluegate: gate latents",
    "CluegateVerdict": "cluegate: read verdict",
}

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
