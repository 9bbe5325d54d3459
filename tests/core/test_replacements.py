"""What may have been run by an engine that has been replaced since."""

from __future__ import annotations

import pytest

from hiersched.core.replacements import ALWAYS, Replacements
from tests.core.transcript import engine_child, scheduler_child


@pytest.fixture
def replacements() -> Replacements:
    return Replacements()


def test_an_engine_that_is_in_nobodys_place_leaves_no_doubt(replacements):
    assert replacements.doubtful_before(engine_child(3)) == 0
    assert replacements.doubtful_before(scheduler_child(0, 4)) == 0


def test_everything_is_in_doubt_until_a_replacement_is_known(replacements):
    assert replacements.doubtful_before(engine_child(3, 7)) == ALWAYS
    replacements.note([(3, 7)])
    assert replacements.doubtful_before(engine_child(3, 7)) == replacements.epoch == 1
    assert replacements.doubtful_before(engine_child(3, 8)) == ALWAYS


def test_what_is_told_again_is_no_news(replacements):
    assert replacements.note([(3, 7), (4, 7)]) == 0b11000
    assert replacements.note([(3, 7)]) == 0
    assert (replacements.epoch, replacements.doubtful_before(engine_child(3, 7))) == (2, 1)


def test_those_in_the_place_of_others_are_listed(replacements):
    assert replacements.among(0b11111) == []
    replacements.note([(3, 7), (4, 9), (3, 8)])
    assert replacements.among(0b01111) == [(3, 8)]
