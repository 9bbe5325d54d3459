"""What the workers run. In a module of their own, so that every peer ships them by the same name."""

import os
import time


def nothing() -> None:
    """Return at once: what is left to measure is the way there and back."""


def nothing_of(item: object) -> None:
    """Ignore `item`: the argument travels, nothing is done with it."""


def echo(value: object) -> object:
    """Give `value` back, so that it travels both ways."""
    return value


def pid_after(delay_s: float) -> int:
    """The worker's process id, after `delay_s`: long enough that one worker cannot answer for all."""
    time.sleep(delay_s)
    return os.getpid()


def ignore(*arguments: object) -> None:
    """Ignore whatever comes: results of other tasks, say."""


def spin(directory: str) -> None:
    """Leave a file in `directory` to say that this began, and never return."""
    with open(os.path.join(directory, str(os.getpid())), "w"):
        pass
    while True:
        pass
