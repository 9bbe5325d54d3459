"""How functions travel: which globals they get, and that nothing of them is lost."""

from __future__ import annotations

import functools
import sys
import textwrap
import types
from collections.abc import Iterator
from typing import Any

import cloudpickle
import numpy as np
import pytest

from hiersched.data import functions
from hiersched.data.serialize import Packer
from hiersched.errors import UnpackError
from tests.data.places import Engine, notebook


@pytest.fixture
def workshop() -> Iterator[types.ModuleType]:
    """An importable module whose functions use its globals."""
    module = types.ModuleType("workshop")
    sys.modules["workshop"] = module
    source = """
        import functools
        wood = "oak"

        def build():
            return wood

        def builder():
            def inner():
                return wood
            return inner

        def shouted(function):
            @functools.wraps(function)
            def wrapper(*args):
                return wood + ": " + function(*args)
            return wrapper

        class Tool:
            def use(self):
                return wood
    """
    exec(textwrap.dedent(source), module.__dict__)
    yield module
    sys.modules.pop("workshop", None)


def test_a_notebook_function_sees_the_engines_namespace() -> None:
    client = notebook("x = 'client'\ndef f(): return x")
    engine = Engine(x="engine")
    assert engine.apply(client["f"]) == "engine"


def test_and_by_value_it_takes_its_own_globals_along() -> None:
    client = notebook("x = 'client'\ndef f(): return x")
    assert Engine(x="engine").apply(client["f"], by_value=True) == "client"


def test_a_notebook_function_can_set_globals_of_the_engine() -> None:
    client = notebook("def f():\n    global y\n    y = 5")
    engine = Engine()
    engine.apply(client["f"])
    assert engine.namespace["y"] == 5


def test_what_an_engine_defines_later_is_seen_at_the_next_call() -> None:
    client = notebook("def f(): return x")
    engine = Engine()
    packer = Packer()
    with pytest.raises(NameError):
        engine.run(packer.pack_call(client["f"]))
    engine.namespace["x"] = 1
    assert engine.run(packer.pack_call(client["f"])) == 1


def test_an_importable_function_is_the_very_same_on_the_other_side(workshop: types.ModuleType) -> None:
    engine = Engine(wood="engine")
    assert engine.echo(workshop.build) is workshop.build
    assert engine.apply(workshop.build) == "oak"
    assert engine.apply(workshop.build, by_value=True) == "oak"
    assert engine.echo(workshop.Tool.use) is workshop.Tool.use


def test_an_inner_function_of_a_module_sees_that_module(workshop: types.ModuleType) -> None:
    assert Engine(wood="engine").apply(workshop.builder()) == "oak"


def test_a_modules_decorator_sees_its_module_and_the_function_within_the_engine(workshop: types.ModuleType) -> None:
    client = notebook(
        """
        @shouted
        def name():
            return who
        """,
        shouted=workshop.shouted,
    )
    assert client["name"].__module__ == "__main__"
    assert Engine(who="engine").apply(client["name"]) == "oak: engine"


def test_a_module_that_is_missing_there_is_named_and_so_is_the_remedy(workshop: types.ModuleType) -> None:
    call = Packer().pack_call(workshop.builder())
    by_value = Packer().pack_call(workshop.builder(), by_value=True)
    del sys.modules["workshop"]
    with pytest.raises(UnpackError, match=r"'inner' belongs to module 'workshop'.*use_cloudpickle\(\)"):
        Engine().run(call)
    assert Engine().run(by_value) == "oak"


def test_a_missing_module_of_an_importable_function_is_named(workshop: types.ModuleType) -> None:
    call = Packer().pack_call(workshop.build)
    del sys.modules["workshop"]
    with pytest.raises(UnpackError, match=r"No module named 'workshop'.*register_pickle_by_value"):
        Engine().run(call)


def test_a_module_registered_with_cloudpickle_travels_by_value(workshop: types.ModuleType) -> None:
    packer = Packer()
    packer.pack_call(workshop.build)
    cloudpickle.register_pickle_by_value(workshop)
    try:
        calls = [packer.pack_call(f) for f in (workshop.build, workshop.builder(), workshop.Tool().use)]
        workshop.wood = "elm"
        calls.append(packer.pack_call(workshop.build))
    finally:
        cloudpickle.unregister_pickle_by_value(workshop)
    del sys.modules["workshop"]
    assert [Engine().run(call) for call in calls] == ["oak", "oak", "oak", "elm"]


def test_all_parts_of_a_function_arrive() -> None:
    client = notebook(
        """
        def f(a, b=2, *args, c, d=4, **kwargs) -> int:
            "Says what it does."
            return (a, b, args, c, d, kwargs)
        f.colour = "red"
        """
    )
    arrived = Engine().echo(client["f"])
    assert arrived(1, c=3) == (1, 2, (), 3, 4, {})
    assert arrived.__defaults__ == (2,)
    assert arrived.__kwdefaults__ == {"d": 4}
    assert arrived.__annotations__ == {"return": int}
    assert arrived.__dict__ == {"colour": "red"}
    assert (arrived.__name__, arrived.__qualname__, arrived.__module__) == ("f", "f", "__main__")
    assert arrived.__doc__ == "Says what it does."


def test_annotations_that_are_not_importable_arrive_as_text() -> None:
    client = notebook(
        """
        class Model: ...
        def f(a: Model, b: list[int], c: "text", d: None) -> dict: ...
        """
    )
    arrived = Engine().echo(client["f"]).__annotations__
    assert arrived == {"a": "Model", "b": "list[int]", "c": "text", "d": None, "return": dict}


def test_a_closure_that_refers_to_itself() -> None:
    client = notebook(
        """
        def outer():
            def factorial(n):
                return 1 if n == 0 else n * factorial(n - 1)
            return factorial
        """
    )
    for by_value in (False, True):
        assert Engine().apply(client["outer"](), 5, by_value=by_value) == 120


def test_functions_that_refer_to_each_other() -> None:
    client = notebook(
        """
        def outer():
            def even(n): return True if n == 0 else odd(n - 1)
            def odd(n): return False if n == 0 else even(n - 1)
            return even
        """
    )
    assert Engine().apply(client["outer"](), 10) is True
    assert Engine().apply(client["outer"](), 7) is False


def test_closures_that_share_a_variable_still_share_it() -> None:
    client = notebook(
        """
        def outer():
            n = 0
            def count():
                nonlocal n
                n += 1
            def total():
                return n
            return count, total
        def use(pair):
            count, total = pair
            count(); count()
            return total()
        """
    )
    assert Engine().apply(client["use"], client["outer"]()) == 2


def test_a_variable_that_is_not_bound_yet_arrives_unbound() -> None:
    client = notebook(
        """
        def outer():
            def f(): return late
            if False:
                late = 1
            return f
        """
    )
    with pytest.raises(NameError, match="late"):
        Engine().apply(client["outer"]())


def test_functions_in_defaults_closures_and_arguments_see_the_engine_too() -> None:
    client = notebook(
        """
        def g(): return x
        def f(other, default=g):
            return default(), other()
        def outer(inner):
            return lambda: inner()
        """
    )
    engine = Engine(x="engine")
    assert engine.apply(client["f"], client["g"]) == ("engine", "engine")
    assert engine.apply(client["outer"](client["g"])) == "engine"


@pytest.mark.parametrize("by_value", [False, True])
def test_lambdas_partials_methods_builtins_and_classes(by_value: bool) -> None:
    client = notebook(
        """
        def add(a, b): return a + b
        class Scale:
            def __init__(self, by): self.by = by
            def __call__(self, x): return self.by * x
            def method(self, x): return self.by + x
            @classmethod
            def made(cls, x): return cls(x).by
            @staticmethod
            def plain(x): return -x
        """
    )
    scale = client["Scale"](3)
    engine = Engine()

    def answer(function: Any, *args: Any, **kwargs: Any) -> Any:
        return engine.apply(function, *args, by_value=by_value, **kwargs)

    assert answer(lambda x: x + 1, 1) == 2
    assert answer(functools.partial(client["add"], 1), 2) == 3
    assert answer(functools.partial(functools.partial(client["add"], b=1), 4)) == 5
    assert answer(scale, 2) == 6
    assert answer(scale.method, 2) == 5
    assert answer(client["Scale"].made, 8) == 8
    assert answer(client["Scale"].plain, 8) == -8
    assert answer(client["Scale"], 7).by == 7
    assert answer(len, "four") == 4
    assert answer("a-b".split, "-") == ["a", "b"]
    assert answer(np.sqrt, 9.0) == 3.0
    assert answer(str.upper, "x") == "X"
    assert answer(dict, a=1) == {"a": 1}


def test_a_notebook_function_under_lru_cache() -> None:
    client = notebook(
        """
        import functools
        @functools.lru_cache(maxsize=7)
        def square(n): return n * n
        """
    )
    arrived = Engine().echo(client["square"])
    assert arrived(3) == 9
    assert arrived.cache_parameters() == {"maxsize": 7, "typed": False}
    assert Engine().echo(cached) is cached


@functools.lru_cache
def cached() -> None:
    """An importable function under lru_cache."""


def test_generators_and_coroutines() -> None:
    client = notebook(
        """
        def numbers(n):
            yield from range(n)
        async def wait():
            return 1
        """
    )
    assert list(Engine().echo(client["numbers"])(3)) == [0, 1, 2]
    coroutine = Engine().echo(client["wait"])()
    with pytest.raises(StopIteration) as done:
        coroutine.send(None)
    assert done.value.value == 1


def test_a_function_made_without_a_module_name_sees_the_engine() -> None:
    namespace: dict[str, Any] = {}
    exec("def f(): return x", namespace)
    assert Engine(x="engine").apply(namespace["f"]) == "engine"


@pytest.mark.parametrize("by_value", [False, True])
def test_code_of_another_python_is_refused(monkeypatch: pytest.MonkeyPatch, by_value: bool) -> None:
    client = notebook("def f(): return 1")
    call = Packer().pack_call(client["f"], by_value=by_value)
    monkeypatch.setattr(functions, "PYTHON", "cpython-399-ffff")
    with pytest.raises(UnpackError, match=r"compiled by cpython-3.*this process runs cpython-399-ffff"):
        Engine().run(call)


def test_equal_functions_have_one_digest_whoever_made_them() -> None:
    source = "def f(x, y='name'):\n    names = {'a', 'b'}\n    return lambda: (x, 'name', names)"
    first, second = notebook(source)["f"], notebook(source)["f"]
    assert Packer().pack_function(first) == Packer().pack_function(second)
