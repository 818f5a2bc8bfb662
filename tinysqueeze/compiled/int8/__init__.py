"""The compiled plan in integers."""

from tinysqueeze.compiled.int8.plan import Int8Plan

__all__ = ["Int8Plan"]
