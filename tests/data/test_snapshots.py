"""Every change of a function is noticed, and a function that did not change is not packed again."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

from hiersched.data.serialize import Packer
from hiersched.data.snapshots import global_names, snapshot_of
from tests.data.places import Engine, notebook, run_cell

# A notebook, a cell that changes something the function `f` depends on, and what f() returns before and after.
CHANGES: dict[str, tuple[str, str, Any, Any]] = {
    "redefined": ("def f(): return 1", "def f(): return 2", 1, 2),
    "redefined to an equal text": ("def f(): return 1", "def f(): return 1", 1, 1),
    "code": ("def f(): return 1", "f.__code__ = (lambda: 2).__code__", 1, 2),
    "default": ("def f(x=1): return x", "f.__defaults__ = (2,)", 1, 2),
    "default changed in place": ("def f(x=[1]): return x[0]", "f.__defaults__[0][0] = 2", 1, 2),
    "default nested in a tuple": ("def f(x=([1],)): return x[0][0]", "f.__defaults__[0][0][0] = 2", 1, 2),
    "keyword default": ("def f(*, x=1): return x", "f.__kwdefaults__['x'] = 2", 1, 2),
    "new keyword defaults": ("def f(*, x=1): return x", "f.__kwdefaults__ = {'x': 2}", 1, 2),
    "keyword default changed in place": ("def f(*, x=[1]): return x[0]", "f.__kwdefaults__['x'][0] = 2", 1, 2),
    "closure cell": (
        "def outer(x):\n    def f(): return x\n    def set(y):\n        nonlocal x\n        x = y\n    return f, set\n"
        "f, set = outer(1)",
        "set(2)",
        1,
        2,
    ),
    "closure cell from outside": (
        "def outer(x): return lambda: x\nf = outer(1)",
        "f.__closure__[0].cell_contents = 2",
        1,
        2,
    ),
    "object in a closure cell": ("def outer(x): return lambda: x[0]\nx = [1]\nf = outer(x)", "x[0] = 2", 1, 2),
    "function in a closure cell": (
        "def outer(g): return lambda: g()\ndef g(x=1): return x\nf = outer(g)",
        "g.__defaults__ = (2,)",
        1,
        2,
    ),
    "function within functions": (
        "def outer(g): return lambda: g()\ndef g(x=1): return x\nf = outer(outer(outer(g)))",
        "g.__defaults__ = (2,)",
        1,
        2,
    ),
    "attribute of itself": (
        "def outer():\n    def f(): return f.x\n    return f\nf = outer()\nf.x = 1",
        "f.x = 2",
        1,
        2,
    ),
    "attribute changed in place": (
        "def outer():\n    def f(): return f.x[0]\n    return f\nf = outer()\nf.x = [1]",
        "f.x[0] = 2",
        1,
        2,
    ),
    "name": (
        "def outer():\n    def f(): return f.__name__\n    return f\nf = outer()",
        "f.__name__ = 'g'",
        "f",
        "g",
    ),
    "partial": (
        "import functools\ndef g(x): return x\nf = functools.partial(g, x=1)",
        "f.keywords['x'] = 2",
        1,
        2,
    ),
    "function of a partial": (
        "import functools\ndef g(y, x=1): return x\nf = functools.partial(g, 0)",
        "g.__defaults__ = (2,)",
        1,
        2,
    ),
    "object of a partial": ("import functools\nx = [1]\nf = functools.partial(sum, x)", "x[0] = 2", 1, 2),
    "callable object": (
        "class F:\n    def __call__(self): return self.x\nf = F()\nf.x = 1",
        "f.x = 2",
        1,
        2,
    ),
    "class attribute by redefinition": (
        "class F:\n    x = 1\n    def __call__(self): return self.x\nf = F()",
        "class F:\n    x = 2\n    def __call__(self): return self.x\nf = F()",
        1,
        2,
    ),
}

# The same for what only a function packed by value depends on.
CHANGES_OF_GLOBALS: dict[str, tuple[str, str, Any, Any]] = {
    "global": ("x = 1\ndef f(): return x", "x = 2", 1, 2),
    "global changed in place": ("x = [1]\ndef f(): return x[0]", "x[0] = 2", 1, 2),
    "global that was absent": ("import builtins\ndef f(): return len('')", "def len(x): return 9", 0, 9),
    "global function": ("def g(): return 1\ndef f(): return g()", "def g(): return 2", 1, 2),
    "global of a global function": ("x = 1\ndef g(): return x\ndef f(): return g()", "x = 2", 1, 2),
    "default of a global function": ("def g(x=1): return x\ndef f(): return g()", "g.__defaults__ = (2,)", 1, 2),
    "global of inner code": ("x = 1\ndef f(): return [x for _ in '1'][0] + (lambda: x)()", "x = 2", 2, 4),
    "global class": ("class C: x = 1\ndef f(): return C.x", "class C: x = 2", 1, 2),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_noticed(name: str) -> None:
    source, change, before, after = CHANGES[name]
    packer, engine, client = Packer(), Engine(), notebook(source)
    assert engine.run(packer.pack_call(client["f"])) == before
    assert engine.run(packer.pack_call(client["f"])) == before
    run_cell(change, client)
    assert engine.run(packer.pack_call(client["f"])) == after


@pytest.mark.parametrize("name", CHANGES | CHANGES_OF_GLOBALS)
def test_a_change_is_noticed_by_value(name: str) -> None:
    source, change, before, after = (CHANGES | CHANGES_OF_GLOBALS)[name]
    packer, engine, client = Packer(), Engine(), notebook(source)
    assert engine.run(packer.pack_call(client["f"], by_value=True)) == before
    assert engine.run(packer.pack_call(client["f"], by_value=True)) == before
    run_cell(change, client)
    assert engine.run(packer.pack_call(client["f"], by_value=True)) == after


UNCHANGED = {
    "plain": "def f(x=1, *, y='a') -> int: return x",
    "closure": "def outer(x): return lambda: x\nf = outer((1, 'a', None))",
    "recursion": "def outer():\n    def f(n): return f(n - 1)\n    return f\nf = outer()",
    "wrapped": (
        "import functools\ndef g(): ...\ndef outer(g):\n"
        "    @functools.wraps(g)\n    def f(): return g()\n    return f\nf = outer(g)"
    ),
    "partial": "import functools\ndef g(x): ...\nf = functools.partial(g, 1, a='b')",
    "numpy scalar": "import numpy as np\nf = (lambda x: lambda: x)(np.float32(1.5))",
    "importable": "from textwrap import dedent as f",
    "builtin": "f = len",
    "class": "from collections import OrderedDict as f",
    "uses a module": "import numpy as np, os.path\ndef f(): return np.zeros(os.path.sep)",
}


@pytest.mark.parametrize("name", UNCHANGED)
@pytest.mark.parametrize("by_value", [False, True])
def test_an_unchanged_function_is_not_packed_again(name: str, by_value: bool) -> None:
    function = notebook(UNCHANGED[name])["f"]
    packer = Packer()
    _, first = packer.pack_function(function, by_value=by_value)
    _, second = packer.pack_function(function, by_value=by_value)
    assert second is first


REPEATABLE = {
    "list default": "def f(x=[1, 'a', {'b': {1, 2}}]): ...",
    "dict in a closure": "def outer(x): return lambda: x\nf = outer({'a': [1.5]})",
    "object": "class F:\n    def __call__(self): ...\nf = F()",
    "array": "import numpy as np\nf = (lambda x: lambda: x)(np.arange(5))",
}


@pytest.mark.parametrize("name", REPEATABLE)
@pytest.mark.parametrize("by_value", [False, True])
def test_what_must_be_packed_again_keeps_its_digest_while_unchanged(name: str, by_value: bool) -> None:
    function = notebook(REPEATABLE[name])["f"]
    packer = Packer()
    assert snapshot_of(function, by_value=by_value) is None
    digests = {packer.pack_function(function, by_value=by_value)[0] for _ in range(3)}
    assert len(digests) == 1


@pytest.mark.parametrize("by_value", [False, True])
def test_a_function_that_is_no_longer_importable_is_noticed(monkeypatch: pytest.MonkeyPatch, by_value: bool) -> None:
    module = types.ModuleType("passing")
    exec("def f(): return 1", module.__dict__)
    monkeypatch.setitem(sys.modules, "passing", module)
    packer, old = Packer(), module.f
    by_name = packer.pack_function(old, by_value=by_value)
    exec("def f(): return 2", module.__dict__)
    by_code = packer.pack_function(old, by_value=by_value)
    assert by_code != by_name
    call = packer.pack_call(old, by_value=by_value)
    assert Engine().run(call) == 1


def test_by_value_an_import_below_a_package_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    package, part = types.ModuleType("bundle"), types.ModuleType("bundle.part")
    package.__path__, package.__package__ = [], "bundle"
    monkeypatch.setitem(sys.modules, "bundle", package)
    function = notebook("import bundle\ndef f(): return bundle.part")["f"]
    packer = Packer()
    before = packer.pack_function(function, by_value=True)
    monkeypatch.setitem(sys.modules, "bundle.part", part)
    package.part = part  # type: ignore[attr-defined]
    assert packer.pack_function(function, by_value=True) != before


def test_an_id_that_is_used_again_is_not_mistaken() -> None:
    packer, engine = Packer(), Engine()

    def made(number: int) -> Callable[[], int]:
        function: Callable[[], int] = notebook(f"def f(): return {number}")["f"]
        return function

    assert [engine.run(packer.pack_call(made(n))) for n in range(200)] == list(range(200))


def test_a_function_changed_by_its_own_call_is_as_packed_at_the_next() -> None:
    client = notebook(
        """
        def outer():
            n = 0
            def count(seen=[]):
                nonlocal n
                n += 1
                seen.append(n)
                return n, len(seen)
            def count_only():
                nonlocal n
                n += 1
                return n
            return count, count_only
        count, count_only = outer()
        total = 0
        def add():
            global total
            total += 1
            return total
        """
    )
    packer, engine = Packer(), Engine()
    for _ in range(3):
        assert engine.run(packer.pack_call(client["count"])) == (1, 1)
        assert engine.run(packer.pack_call(client["count_only"])) == 1
        assert engine.run(packer.pack_call(client["add"], by_value=True)) == 1


def test_global_names_are_those_of_inner_code_too_and_no_attributes() -> None:
    def f(a: Any) -> Any:
        class Inner:
            value = in_class  # type: ignore[name-defined]  # noqa: F821

        return a.attribute, [in_list for _ in a], lambda: in_lambda, Inner  # type: ignore[name-defined]  # noqa: F821

    names = global_names(f.__code__)
    assert {"in_class", "in_list", "in_lambda"} <= names
    assert not {"attribute", "a"} & names


def test_partials_nest() -> None:
    nested = functools.partial(functools.partial(max, 1), 2)
    snapshot = snapshot_of(nested)
    assert snapshot is not None
    assert snapshot.holds()
