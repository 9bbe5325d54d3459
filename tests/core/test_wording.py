"""What users read is short, and says how much is left out."""

from __future__ import annotations

import pytest

from hiersched.core.wording import ending_text, engines_text, name_of, tasks_text
from hiersched.kernels import bitset
from hiersched.protocol import messages as m


def test_a_task_has_the_name_by_which_its_client_knows_it():
    assert name_of((3 << m.SESSION_SHIFT) + 17) == "3-17"


@pytest.mark.parametrize(
    ("tasks", "text"),
    [
        ([(1 << m.SESSION_SHIFT) + 4], "task 1-4"),
        ([4, 5], "tasks 0-4 and 0-5"),
        ([4, 5, 9], "tasks 0-4, 0-5 and 0-9"),
        (list(range(1, 41)), "tasks 0-1, 0-2, 0-3, 0-4, 0-5, 0-6, 0-7, 0-8, ... (40 in all)"),
    ],
)
def test_tasks_are_listed_by_their_names(tasks, text):
    assert tasks_text(tasks) == text


@pytest.mark.parametrize(
    ("ranks", "text"),
    [
        ([3], "engine 3"),
        ([0, 1, 2, 3, 4, 5, 9], "engines 0-5, 9"),
        (list(range(0, 40, 2)), "engines 0, 2, 4, 6, 8, 10, 12, 14, ... (20 in all)"),
    ],
)
def test_engines_are_named_by_runs_of_their_ranks(ranks, text):
    assert engines_text(bitset.of_ranks(ranks)) == text


def test_every_code_of_a_result_has_its_words():
    codes = [0, m.ENGINE_LOST, m.ENGINE_UNKNOWN, m.BLOB_LOST, m.CANCELLED, m.REFUSED, m.RAISED, m.UNMET]
    codes += [m.DEPENDENCY, m.TIMED_OUT, m.ANSWER_LOST, m.INTERRUPTED]
    assert len({ending_text(code) for code in codes}) == len(codes)
    assert ending_text(-1) == "failed"
