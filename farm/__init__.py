"""Panic Farm: proves that every registered driver's dump survives a kernel panic."""

__version__ = "0.1.0"
