"""An error of packing names the object at fault and where it sits."""

from __future__ import annotations

import functools
import threading
from typing import Any

import numpy as np
import pytest

from hiersched.data.serialize import Packer
from hiersched.errors import PackError
from tests.data.places import notebook

LOCK = threading.Lock()
IS_A_LOCK = "is a <_thread.lock>, which cannot be pickled: TypeError: cannot pickle '_thread.lock' object"


class Holder:
    """Holds things in attributes."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    def method(self) -> None:
        """Do nothing."""


class Slotted:
    """Holds a thing in a slot."""

    __slots__ = ("inner",)

    def __init__(self, inner: Any) -> None:
        self.inner = inner


class Stubborn:
    """Cannot be pickled, for a reason of its own."""

    def __reduce__(self) -> Any:
        raise RuntimeError("not today")


def target(*args: Any, **kwargs: Any) -> None:
    """Take anything."""


def complaint(function: Any, *args: Any, by_value: bool = False, **kwargs: Any) -> str:
    """What PackError says of this call."""
    with pytest.raises(PackError) as refused:
        Packer().pack_call(function, args, kwargs, by_value=by_value)
    return str(refused.value)


ARGUMENTS: list[tuple[Any, str]] = [
    (LOCK, ""),
    ([1, 2, LOCK], ": [2]"),
    ({"a": [0, 1, 2, LOCK]}, ": ['a'][3]"),
    (((1, (LOCK,)),), ": [0][1][0]"),
    ({LOCK: 1}, ": key <"),
    (Holder(model=Holder(lock=LOCK)), ": .model.lock"),
    (Slotted([LOCK]), ": .inner[0]"),
    (np.array([1, LOCK], dtype=object), ": .flat[1]"),
    (functools.partial(target, 1, lock=LOCK), ": .keywords['lock']"),
    (Holder(lock=LOCK).method, ": .__self__.lock"),
    ([0] * 50_000 + [LOCK] + [0] * 50_000, ": [50000]"),
]


@pytest.mark.parametrize(("value", "path"), ARGUMENTS, ids=[path or "itself" for _, path in ARGUMENTS])
@pytest.mark.parametrize("by_value", [False, True])
def test_where_in_an_argument(value: Any, path: str, by_value: bool) -> None:
    text = complaint(target, 1, value, by_value=by_value)
    assert text.startswith(f"argument 2 of target{path}")
    assert text.endswith(IS_A_LOCK)


def test_keyword_arguments_have_a_name_and_a_number() -> None:
    text = complaint(target, 1, x={"a": [0, 0, 0, LOCK]})
    assert text == f"argument 2 (keyword 'x') of target: ['a'][3] {IS_A_LOCK}"


FUNCTIONS = {
    "function f: closure variable 'x'": "def outer(x): return lambda: x\nf = outer(lock)",
    "function f: closure variable 'x'['deep'][0]": "def outer(x): return lambda: x\nf = outer({'deep': [lock]})",
    "function f: default of 'b'": "def f(a, b=lock, c=1): ...",
    "function f: default of 'k'": "def f(a, *, k=lock): ...",
    "function f: .note": "def f(): ...\nf.note = lock",
    "function f: closure variable 'g' default of 'a'": (
        "def g(a=lock): ...\ndef outer(g): return lambda: g\nf = outer(g)"
    ),
}


@pytest.mark.parametrize("place", FUNCTIONS)
@pytest.mark.parametrize("by_value", [False, True])
def test_where_in_a_function(place: str, by_value: bool) -> None:
    function = notebook(FUNCTIONS[place], lock=LOCK)["f"]
    function.__qualname__ = "f"
    assert complaint(function, by_value=by_value) == f"{place} {IS_A_LOCK}"


def test_globals_count_only_by_value() -> None:
    client = notebook("def g(): return lock\ndef f(): return g()", lock=LOCK)
    Packer().pack_call(client["f"])
    assert complaint(client["f"], by_value=True) == f"function f: global 'g' global 'lock' {IS_A_LOCK}"


def test_an_object_whose_parts_are_fine_is_itself_at_fault() -> None:
    text = complaint(target, [Holder(inner=Stubborn())])
    assert text == (
        f"argument 1 of target: [0].inner is a <{__name__}.Stubborn>, which cannot be pickled: RuntimeError: not today"
    )


def test_a_cycle_ends_the_search() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    loop.append(LOCK)
    text = complaint(target, loop)
    assert text.startswith("argument 1 of target")
    assert "cannot pickle '_thread.lock' object" in text


def test_what_is_nested_too_deeply_is_refused() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    assert "recursion" in complaint(target, nested)


def test_a_running_generator() -> None:
    assert "argument 1 of target is a <generator>" in complaint(target, (number for number in (1, 2)))


def test_the_cause_is_kept() -> None:
    with pytest.raises(PackError) as refused:
        Packer().pack_call(target, (LOCK,))
    assert isinstance(refused.value.__cause__, TypeError)
    assert isinstance(refused.value, TypeError)
