"""What tests have engines do, of either kind. Imported on engines, so it imports little."""

from __future__ import annotations

import os
from pathlib import Path

from tests.processes.errands import hold


def fail_or_hold(directory: str, pid: int) -> int:
    """Fail at once on the engine of this process; the others hold, and give their own process."""
    if os.getpid() == pid:
        raise ValueError("this one fails at once")
    return hold(directory, os.getpid())


def say_pid() -> None:
    """Print the engine's process."""
    print(os.getpid())


def leave_a_mark(directory: str) -> None:
    """Leave a file that tells that this engine has run this."""
    Path(directory, f"mark-{os.getpid()}").touch()


def targets_told() -> int:
    """How many targets the message that brought this call tells of. On ipyparallel's engines only."""
    from IPython import get_ipython

    return len(get_ipython().kernel.get_parent("shell")["metadata"].get("targets", ()))
