"""What tests have engines do. Imported on engines, so it imports little."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

PATIENCE_S = 60.0  # longer than any test waits


def hold(directory: str, value: Any = None) -> Any:
    """Say in `directory` that this engine has come, wait until it is let go, and return `value`."""
    come, go = Path(directory, str(os.getpid())), Path(directory, "go")
    come.touch()
    ends_at = time.monotonic() + PATIENCE_S
    while not go.exists():
        if time.monotonic() > ends_at:
            raise TimeoutError("nobody let this engine go")
        time.sleep(0.002)
    return value


def nap(duration_s: float, value: Any = None) -> Any:
    """Sleep, and return `value`."""
    time.sleep(duration_s)
    return value


def run_once(log: str, number: int, duration_s: float) -> int:
    """Leave `number` in a file that many write to, sleep, and return it."""
    with open(log, "a") as file:
        file.write(f"{number}\n")
    time.sleep(duration_s)
    return number


def hold_unless(directory: str, pid: int) -> str:
    """'at once' on the engine of this process; the others hold first, and say 'later'."""
    return "at once" if os.getpid() == pid else hold(directory, "later")


def hold_the_interpreter(duration_s: float) -> float:
    """Keep every thread of this engine from running, as a C extension may."""
    ctypes.PyDLL(None).usleep(int(duration_s * 1e6))
    return duration_s


def end(how: str) -> None:
    """End this engine's process, or try to."""
    if how == "_exit":
        os._exit(3)
    if how == "segfault":
        ctypes.string_at(0)
    if how == "sys.exit":
        sys.exit(3)
    if how == "thread":
        threading.Thread(target=os._exit, args=(4,)).start()
        time.sleep(PATIENCE_S)
    raise ValueError(how)


def environment(*names: str) -> dict[str, str | None]:
    """Variables of this engine."""
    return {name: os.environ.get(name) for name in names}


def thread_name() -> str:
    """Of the thread that runs calls."""
    return threading.current_thread().name


def is_loaded(module: str) -> bool:
    """Whether this engine has imported a module."""
    return module in sys.modules


def attribute(module: str, name: str) -> Any:
    """Of a module that was imported before."""
    return getattr(sys.modules[module], name)


def total(array: Any) -> float:
    """The sum of an array."""
    return float(array.sum())


def count_and_total(first: Any, second: Any) -> tuple[int, float]:
    """Of two arrays together."""
    return first.size + second.size, float(first.sum() + second.sum())


def spoil(array: Any) -> None:
    """Change an argument in place."""
    array[:] = -1


def square(number: float) -> float:
    return number * number


def reciprocal(number: float) -> float:
    return 1 / number
