"""A client as a process of its own, whose `__main__` the engine does not have. Run, not imported.

Runs every `case` against an engine in another process and prints {name: "" or what went wrong} as JSON.
"""

from __future__ import annotations

import collections
import enum
import functools
import json
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from hiersched.data.outcomes import unpack_outcome
from hiersched.data.serialize import Packer, Reference

place = "client"
cases: dict[str, Callable[[], None]] = {}


class Engine:
    """The other process. A function's bytes are sent with its first call only."""

    def __init__(self) -> None:
        self.packer = Packer()
        self.sent: set[bytes] = set()
        script = Path(__file__).with_name("engine_script.py")
        self.process = subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def apply(self, function: Any, *args: Any, by_value: bool = False, **kwargs: Any) -> Any:
        """What the call returns there."""
        call = self.packer.pack_call(function, args, kwargs, by_value=by_value)
        blobs = {digest: blob for digest, blob in call.blobs.items() if digest not in self.sent}
        self.sent.add(call.function)
        message = msgspec.msgpack.encode((call.function, blobs, call.frames))
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(struct.pack("<I", len(message)) + message)
        self.process.stdin.flush()
        length = struct.unpack("<I", self.process.stdout.read(4))[0]
        return unpack_outcome(msgspec.msgpack.decode(self.process.stdout.read(length), type=list[bytes])).value

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def case(run: Callable[[], None]) -> Callable[[], None]:
    """Make a function one of the cases."""
    cases[run.__name__] = run
    return run


# --- what the engine does not have ------------------------------------------------------------------------------------


def where() -> str:
    """The value of a global."""
    return place


def fib(n: int) -> int:
    """Refers to itself by a global."""
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def apply_it(function: Callable[..., Any], *args: Any) -> Any:
    """Call its argument."""
    return function(*args)


class Base:
    """A base class of `__main__`."""

    made = 0

    def __init__(self, name: str) -> None:
        self.name = name

    def describe(self) -> str:
        """Use a global and an attribute."""
        return f"{self.name} on {place}"


class Child(Base):
    """Uses super(), a property and a static method."""

    def describe(self) -> str:
        """What the base says, and more."""
        return "child " + super().describe() + self.mark() + self.suffix

    @property
    def suffix(self) -> str:
        """An end."""
        return "?"

    @staticmethod
    def mark() -> str:
        """A mark."""
        return "!"


@dataclass
class Point:
    """A data class of `__main__`."""

    x: int
    tags: list[str] = field(default_factory=list)


class Colour(enum.Enum):
    """An enumeration of `__main__`."""

    RED = 1


Pair = collections.namedtuple("Pair", "a b")


class Refusal(Exception):
    """An exception of `__main__`."""


def refuse() -> None:
    """Raise it."""
    raise Refusal("no")


@functools.lru_cache(maxsize=3)
def squared(n: int) -> int:
    """A cached function of `__main__`."""
    return n * n


# --- the cases --------------------------------------------------------------------------------------------------------


@case
def a_function_sees_the_engines_globals() -> None:
    assert engine.apply(where) == "engine"


@case
def a_function_by_value_sees_its_own() -> None:
    assert engine.apply(where, by_value=True) == "client"


@case
def recursion_by_global_needs_the_name_there() -> None:
    try:
        engine.apply(fib, 10)
    except Exception as error:
        assert "name 'fib' is not defined" in str(error), error
    else:
        raise AssertionError("fib is not on the engine")
    assert engine.apply(fib, 10, by_value=True) == 55


@case
def a_function_as_an_argument() -> None:
    assert engine.apply(apply_it, where) == "engine"
    assert engine.apply(apply_it, where, by_value=True) == "client"
    assert engine.apply(apply_it, lambda x: x + 1, 1) == 2


@case
def a_function_comes_home_and_sees_this_main() -> None:
    home = engine.apply(apply_it, lambda function: function, where)
    assert home() == "client"


@case
def partials_and_cached_functions() -> None:
    assert engine.apply(functools.partial(apply_it, where)) == "engine"
    assert engine.apply(squared, 4) == 16
    assert engine.apply(apply_it, squared, 5) == 25


@case
def methods_see_the_engine_and_super_works() -> None:
    assert engine.apply(Child("x").describe) == "child x on engine!?"
    assert engine.apply(Child("x").describe, by_value=True) == "child x on client!?"


@case
def instances_come_home_as_the_same_class() -> None:
    Base.made = 3
    home = engine.apply(apply_it, lambda it: it, Child("x"))
    assert type(home) is Child
    assert Base.made == 3
    assert home.describe() == "child x on client!?"
    assert type(engine.apply(Child, "y")) is Child


@case
def a_class_changed_here_is_changed_there() -> None:
    class Changing:
        def value(self) -> int:
            return 1

    assert engine.apply(Changing().value) == 1
    Changing.value = lambda self: 2  # type: ignore[method-assign]
    assert engine.apply(Changing().value) == 2
    assert engine.apply(apply_it, lambda it: it.value(), Changing()) == 2


@case
def data_classes_enums_and_named_tuples() -> None:
    assert engine.apply(apply_it, lambda p: (p.x, p.tags), Point(1)) == (1, [])
    assert engine.apply(Point, 5) == Point(5)
    assert engine.apply(apply_it, lambda c: c, Colour.RED) is Colour.RED
    assert engine.apply(apply_it, lambda p: p._replace(a=3), Pair(1, 2)) == Pair(3, 2)


@case
def arrays_of_every_size() -> None:
    for size in (0, 3, 10_000, 1_000_000):
        array = np.arange(size, dtype="f4")
        home = engine.apply(np.add, array, 1)
        assert np.array_equal(home, array + 1)
        assert home.flags.writeable


@case
def an_error_names_the_users_line() -> None:
    try:
        engine.apply(refuse)
    except Exception as error:
        assert "Refusal" in str(error) or "NameError" in str(error), error
        text = error.traceback  # type: ignore[attr-defined]
        assert "client_script.py" in text, text
        assert 'raise Refusal("no")' in text, text
    else:
        raise AssertionError("it did not raise")


@case
def references_are_evaluated_there() -> None:
    assert engine.apply(apply_it, lambda x: x.upper(), Reference("place")) == "ENGINE"


@case
def a_result_that_cannot_travel_is_named() -> None:
    try:
        engine.apply(lambda: {"a": __import__("threading").Lock()})
    except Exception as error:
        assert "PackError: the result: ['a'] is a <_thread.lock>" in str(error), error
    else:
        raise AssertionError("a lock travelled")


@case
def ten_calls_send_a_function_once() -> None:
    digest, _ = engine.packer.pack_function(where)
    assert digest in engine.sent
    assert [engine.apply(where) for _ in range(10)] == ["engine"] * 10


if __name__ == "__main__":
    engine = Engine()
    report = {}
    for name, run in cases.items():
        try:
            run()
            report[name] = ""
        except Exception:
            report[name] = traceback.format_exc()
    engine.close()
    print(json.dumps(report))
