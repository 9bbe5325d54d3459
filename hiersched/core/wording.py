"""What users read about tasks and engines: short numbers, runs of ranks, how a task ended."""

from __future__ import annotations

from collections.abc import Collection

from hiersched.kernels import bitset
from hiersched.protocol import messages as m

_SHOWN_MAX = 8

GOES_ON = (
    "it was interrupted and goes on, for its code does not react to KeyboardInterrupt: end its engine, "
    "rc.shutdown(id, restart=True)"
)

_ENDINGS = {
    0: "succeeded",
    m.ENGINE_LOST: "was lost with its engine",
    m.ENGINE_UNKNOWN: "had no engine to run on",
    m.BLOB_LOST: "lacked data that is held nowhere any more",
    m.CANCELLED: "was cancelled",
    m.REFUSED: "was refused",
    m.RAISED: "raised an error",
    m.UNMET: "found no engine that has what it depends on",
    m.DEPENDENCY: "could not run, for what it depends on",
    m.TIMED_OUT: "waited too long for what it depends on",
    m.ANSWER_LOST: "ran, and its answer was lost",
    m.INTERRUPTED: "was interrupted",
}


def name_of(task: m.TaskId) -> str:
    """The id of a call or task as clients know it: its session and its number there."""
    return f"{task >> m.SESSION_SHIFT}-{task & (1 << m.SESSION_SHIFT) - 1}"


def tasks_text(tasks: Collection[m.TaskId]) -> str:
    """These tasks: 'task 1-3', 'tasks 1-3, 1-5 and 1-8'. Long lists are cut and say how many there are."""
    names = [name_of(task) for task in list(tasks)[:_SHOWN_MAX]]
    if len(tasks) == 1:
        return f"task {names[0]}"
    if len(tasks) > _SHOWN_MAX:
        return f"tasks {', '.join(names)}, ... ({len(tasks)} in all)"
    return f"tasks {', '.join(names[:-1])} and {names[-1]}"


def engines_text(ranks: int) -> str:
    """These engines: 'engine 3', 'engines 0-5, 9'. Long lists are cut and say how many there are."""
    runs = bitset.text_of(ranks).split(",")
    shown = ", ".join(runs[:_SHOWN_MAX])
    count = ranks.bit_count()
    if len(runs) > _SHOWN_MAX:
        return f"engines {shown}, ... ({count} in all)"
    return f"engine{'s' if count > 1 else ''} {shown}"


def ending_text(code: int) -> str:
    """What became of a task: 'raised an error'."""
    return _ENDINGS.get(code, "failed")
