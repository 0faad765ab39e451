"""Sessions with a cluegate gate, for hosts that draw by themselves.

A host opens a session for a request, offers previews and finished pictures, and does what it is told. The only picture
that it may hand out is the one inside a :class:`Release`. ``HttpGate`` asks a gateway (``cluegate serve``), and
``EmbeddedGate`` a gate in this process.
"""

from .embedded import EmbeddedGate
from .gate import (
    Abort,
    Continue,
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
from .http import HttpGate
from .judging import judge

__all__ = [
    "Abort",
    "Continue",
    "DrawAgain",
    "EmbeddedGate",
    "Gate",
    "GateError",
    "HttpGate",
    "Instruction",
    "Outcome",
    "PreviewAnswer",
    "Release",
    "Request",
    "Session",
    "Withhold",
    "judge",
]
