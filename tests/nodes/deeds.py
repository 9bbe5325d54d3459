"""What tests have real engines do. Imported on engines, so it imports little."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

PATIENCE_S = 30.0  # longer than any test waits


def hold(gate: str, value: Any = None) -> Any:
    """Say that this has begun, and wait until it may end."""
    Path(gate, "begun").touch()
    ends_at = time.monotonic() + PATIENCE_S
    while not Path(gate, "go").exists():
        if time.monotonic() > ends_at:
            raise TimeoutError("nobody let it go")
        time.sleep(0.002)
    return value


def spin(gate: str) -> None:
    """The same, without ever sleeping."""
    Path(gate, "begun").touch()
    ends_at = time.monotonic() + PATIENCE_S
    while not Path(gate, "go").exists() and time.monotonic() < ends_at:
        pass


def talk_and_hold(gate: str, text: str) -> str:
    """Print, then hold."""
    print(text)
    return hold(gate, "held")


def swallow(gate: str) -> str:
    """Take an interrupt as nothing, and go on."""
    try:
        hold(gate)
    except KeyboardInterrupt:
        Path(gate, "swallowed").touch()
        return "went on"
    return "was never interrupted"


def flood(lines: int, width: int) -> None:
    """Print many numbered lines."""
    for number in range(lines):
        print(f"{number:0{width - 1}d}")


def fork_and_return() -> tuple[str, int]:
    """What a child does that forgets to exit: it returns."""
    pid = os.fork()
    if pid == 0:
        return "child", os.getpid()
    _, status = os.waitpid(pid, 0)
    return "parent", os.waitstatus_to_exitcode(status)


def fork_and_raise(status: int) -> int:
    """The child exits as a script would; what became of it."""
    pid = os.fork()
    if pid == 0:
        sys.exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
