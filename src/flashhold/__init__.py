"""FlashHold: a stock-hold engine for flash sales."""

from flashhold.domain.model import Hold, HoldLine, HoldState, Line, Policy, Stock
from flashhold.domain.outcomes import Applied, Refused
from flashhold.domain.reasons import Reason
from flashhold.engine.engine import Engine
from flashhold.engine.options import EngineOptions

__all__ = [
    "Applied",
    "Engine",
    "EngineOptions",
    "Hold",
    "HoldLine",
    "HoldState",
    "Line",
    "Policy",
    "Reason",
    "Refused",
    "Stock",
]
