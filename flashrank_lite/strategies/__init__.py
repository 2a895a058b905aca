"""Scorers that wrap scorers: windows over long texts, cascades, blends with a first stage."""

from flashrank_lite.strategies.cascade import Cascade, EarlyPruning
from flashrank_lite.strategies.fusion import Fusion
from flashrank_lite.strategies.windows import Windows

__all__ = ["Cascade", "EarlyPruning", "Fusion", "Windows"]
