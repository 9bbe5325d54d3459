"""Classes of a notebook: what comes home is the original, which its own return does not overwrite.

How they do on an engine takes two processes to see: `test_two_processes`.
"""

from __future__ import annotations

import enum

import pytest

from hiersched.data.outcomes import pack_outcome_value, unpack_outcome
from hiersched.data.pickles import dump, load
from tests.data.places import Engine, notebook, run_cell


def test_enums_and_named_tuples_of_a_notebook() -> None:
    client = notebook(
        """
        import enum, collections, typing
        class Colour(enum.Enum):
            RED = 1
        Pair = collections.namedtuple("Pair", "a b")
        class Typed(typing.NamedTuple):
            a: int
        """
    )
    engine = Engine()
    assert engine.echo(client["Colour"].RED) is client["Colour"].RED
    assert engine.echo(client["Pair"](1, 2)) == (1, 2)
    assert engine.echo(client["Typed"](1)).a == 1
    assert engine.echo(enum.Enum) is enum.Enum


def test_a_class_that_comes_home_is_the_original_and_untouched() -> None:
    client = notebook("class Model:\n    count = 0")
    model = client["Model"]
    sent = dump(model())
    model.count = 5
    arrived = load(sent)
    assert type(arrived) is model
    assert model.count == 5


def test_a_result_brings_the_original_class_back() -> None:
    client = notebook("class Model:\n    def __init__(self): self.fitted = True")
    home = unpack_outcome(pack_outcome_value(client["Model"](), started=0.0, ended=1.0).whole).value
    assert isinstance(home, client["Model"])
    assert home.fitted


def test_a_redefined_class_is_noticed() -> None:
    client = notebook("class Model:\n    def name(self): return 'old'")
    engine = Engine()
    assert engine.apply(client["Model"]().name) == "old"
    run_cell("class Model:\n    def name(self): return 'new'", client)
    assert engine.apply(client["Model"]().name) == "new"


@pytest.mark.parametrize("kind", [type(None), type(...), type(NotImplemented), type(lambda: 0), int, type(len)])
def test_types_of_the_language_are_found_not_made(kind: type) -> None:
    assert Engine().echo(kind) is kind
