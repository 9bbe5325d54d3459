"""The IPython that this process runs in, if it runs in one. IPython is not imported for the question."""

from __future__ import annotations

import sys
from typing import Any


def current_shell() -> Any:
    """IPython's shell, or None outside of IPython."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return None if get_ipython is None else get_ipython()
