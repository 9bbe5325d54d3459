"""hiersched: many Python engines, driven through a spanning tree of schedulers."""

from __future__ import annotations

__version__ = "0.1.0"
