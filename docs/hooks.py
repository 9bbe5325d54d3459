"""What building the site needs around it: notebooks run in a home of their own.

They find no cluster of the user there, leave no history behind, and their kernels say only what goes wrong.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

_KERNEL_CONFIG = "c.IPKernelApp.log_level = 'ERROR'\n"
_home = tempfile.TemporaryDirectory(prefix="hiersched-docs-")


def on_startup(**_: Any) -> None:
    """Make the home, and have every kernel use it."""
    profile = Path(_home.name, "ipython", "profile_default")
    profile.mkdir(parents=True)
    (profile / "ipython_kernel_config.py").write_text(_KERNEL_CONFIG)
    os.environ["IPYTHONDIR"] = str(profile.parent)
    os.environ["HIERSCHED_DIR"] = str(Path(_home.name, "clusters"))


def on_shutdown(**_: Any) -> None:
    """Remove the home."""
    _home.cleanup()
