"""A blocking method as a coroutine."""

from __future__ import annotations

import asyncio
import inspect
import threading

import pytest

from hiersched.client.awaited import awaited


class Adder:
    """Something that blocks."""

    def add_sync(self, a: int, b: int = 1) -> tuple[int, threading.Thread]:
        """The sum, and the thread that added."""
        if a < 0:
            raise ValueError("only natural numbers")
        return a + b, threading.current_thread()

    add = awaited(add_sync)


def test_it_gives_what_the_blocking_form_gives_without_blocking_the_loop() -> None:
    total, thread = asyncio.run(Adder().add(2, b=3))
    assert total == 5
    assert thread is not threading.current_thread()


def test_errors_are_those_of_the_blocking_form() -> None:
    with pytest.raises(ValueError, match="only natural numbers"):
        asyncio.run(Adder().add(-1))


def test_it_has_the_name_and_the_arguments_of_the_blocking_form() -> None:
    assert (Adder.add.__name__, Adder.add.__qualname__) == ("add", "Adder.add")
    assert inspect.signature(Adder.add) == inspect.signature(Adder.add_sync)
    assert Adder.add.__doc__ == "As `add_sync`, awaited."
