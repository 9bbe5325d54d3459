"""A function with a condition is just the function here, and looks at its condition where it was sent."""

from __future__ import annotations

import json
import math
import sys
from functools import partial

import pytest

from hiersched.data import namespace
from hiersched.data.conditions import depend, dependent, interactive, provide, require
from hiersched.data.namespace import mapper
from hiersched.data.pickles import dump, load
from hiersched.errors import UnmetDependency
from tests.data.places import Engine, notebook


@pytest.fixture
def engine():
    before = namespace.user_namespace
    engine = Engine()
    namespace.bind(engine.namespace)
    yield engine
    namespace.bind(before)


CELL = """
    def double(x):
        "Twice."
        return 2 * x
    def has(name): return name in globals()
    def norm(a): return math.hypot(*a)
    def uses_helper(x): return helper(x) * 10
    def helper(x): return x + 1
    class Point: pass
    def kind(): return Point.__name__
"""


@pytest.fixture
def cell():
    return notebook(CELL)


# --- depend -----------------------------------------------------------------------------------------------------------


def test_where_it_was_made_it_is_just_the_function(cell):
    double = depend(cell["has"], "nowhere")(cell["double"])
    assert isinstance(double, dependent)
    assert double(4) == 8
    assert (double.__name__, double.__doc__) == ("double", "Twice.")
    assert repr(double) == "<dependent double>"


def test_on_an_engine_it_runs_only_if_its_condition_holds(cell, engine):
    double = depend(cell["has"], name="there")(cell["double"])
    with pytest.raises(UnmetDependency, match="double depends on has, which is False on this engine"):
        engine.apply(double, 4)
    engine.namespace["there"] = True
    assert engine.apply(double, 4) == 8


def test_only_false_means_no(cell, engine):
    for answer in (None, 0, True, ""):
        assert engine.apply(depend(partial(_same, answer))(cell["double"]), 4) == 8


def _same(value: object) -> object:
    return value


def test_conditions_can_be_combined(cell, engine):
    both = depend(cell["has"], "a")(depend(cell["has"], "b")(cell["double"]))
    engine.namespace["a"] = 1
    with pytest.raises(UnmetDependency):
        engine.apply(both, 4)
    engine.namespace["b"] = 1
    assert engine.apply(both, 4) == 8


def test_a_condition_may_raise_by_itself(cell, engine):
    def refuse() -> None:
        raise UnmetDependency("not here")

    with pytest.raises(UnmetDependency, match="not here"):
        engine.apply(depend(refuse)(cell["double"]), 4)


def test_it_can_be_looked_at_anywhere(cell):
    with pytest.raises(UnmetDependency):
        depend(cell["has"], "nowhere")(cell["double"]).check_dependency()


def test_a_map_looks_once_for_a_chunk(cell, engine):
    engine.namespace["looks"] = []
    look = notebook("def look(): looks.append(1)")["look"]
    mapped = depend(look)(depend(look)(cell["double"])).around(mapper)
    assert engine.apply(mapped, [1, 2, 3]).results == [2, 4, 6]
    assert engine.namespace["looks"] == [1, 1]


def test_what_comes_home_is_just_the_function_again(cell, engine):
    double = depend(cell["has"], "nowhere")(cell["double"])
    there = engine.echo(double)
    with pytest.raises(UnmetDependency):
        there(4)
    assert load(dump(there))(4) == 8


# --- require ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("needed", ["math", math])
def test_required_modules_are_imported_in_the_user_namespace(cell, engine, needed):
    assert engine.apply(require(needed)(cell["norm"]), [3, 4]) == 5
    assert engine.namespace["math"] is math


def test_a_required_module_that_is_missing_is_unmet(cell, engine):
    with pytest.raises(UnmetDependency, match="module 'no_such_module' cannot be imported on this engine"):
        engine.apply(require("math", "no_such_module")(cell["norm"]), [3, 4])


def test_required_functions_and_classes_are_sent_along(cell, engine):
    assert engine.apply(require(cell["helper"])(cell["uses_helper"]), 1) == 20
    assert engine.apply(require(cell["Point"])(cell["kind"])) == "Point"


def test_anything_else_is_sent_under_a_name(cell, engine):
    cell_2 = notebook("def scaled(x): return x * scale[0]")
    assert engine.apply(require(scale=[3])(cell_2["scaled"]), 2) == 6
    with pytest.raises(TypeError, match="list objects by keyword only"):
        require([3])


@pytest.mark.parametrize("by_value", [False, True])
def test_a_function_that_brings_its_globals_sees_them_too(engine, by_value):
    cell = notebook("offset = 1\ndef norm(a): return math.hypot(*a) + offset")
    engine.namespace["offset"] = 1
    assert engine.apply(require("math")(cell["norm"]), [3, 4], by_value=by_value) == 6


def test_a_decorated_function_of_a_module_sees_that_module(engine):
    assert engine.apply(decorated, "[1]") == [1]


@require("json")
def decorated(text: str) -> object:
    return json.loads(text)


def test_provided_names_are_set_where_the_function_looks(cell):
    before = namespace.user_namespace
    namespace.bind(user := {})
    try:
        assert provide(["math"], {"scale": 2}, cell["norm"]) is True
    finally:
        namespace.bind(before)
    for place in (user, cell):
        assert (place["math"], place["scale"]) == (math, 2)


# --- interactive ------------------------------------------------------------------------------------------------------


def test_an_interactive_function_sees_the_user_namespace(engine):
    engine.namespace["place"] = "the engine"

    @interactive
    def where() -> str:
        return place  # noqa: F821

    assert engine.apply(where) == "the engine"


def test_an_interactive_function_keeps_all_its_parts():
    cell = 5

    def whole(a: int, b: int = 2, *, c: int = 3) -> int:
        """Sum."""
        return a + b + c + cell

    whole.mark = "kept"
    made = interactive(whole)
    assert made(1) == 11
    assert made(1, 1, c=1) == 8
    assert (made.__name__, made.__doc__, made.mark, made.__module__) == ("whole", "Sum.", "kept", "__main__")
    assert made.__globals__ is vars(sys.modules["__main__"])
    assert whole.__module__ == __name__


def test_anything_else_is_only_marked():
    class Callable:
        def __call__(self) -> int:
            return 1

    made = Callable()
    assert interactive(made) is made
    assert made.__module__ == "__main__"
