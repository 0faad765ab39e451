"""A gate around any diffusers pipeline.

``guard(pipe, gate)`` changes the pipeline so that calling it returns released pictures and nothing else; ``SafetyChecker``
takes the place of Stable Diffusion's own.
"""

from cluegate_client import EmbeddedGate, GateError, HttpGate, Outcome

from .checker import SafetyChecker
from .guard import GuardedOutput, GuardOptions, UngatedDecode, guard

__all__ = [
    "EmbeddedGate",
    "GateError",
    "GuardOptions",
    "GuardedOutput",
    "HttpGate",
    "Outcome",
    "SafetyChecker",
    "UngatedDecode",
    "guard",
]
