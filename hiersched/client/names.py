"""The ids of calls and tasks as users see them: '7-42' is the 42nd of session 7, '7-42:3' what it has engine 3 do.

Schedulers speak of tasks by the same names, as in "task 7-42 raised an error".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hiersched.core.wording import name_of as name_of
from hiersched.errors import UnknownTask
from hiersched.protocol.messages import SESSION_SHIFT, TaskId

_NAME = re.compile(r"(?P<session>\d+)-(?P<number>\d+)(:(?P<engine>\d+))?")
_SHOWN_MAX = 8


def part_ids(request: TaskId, targets: tuple[int, ...]) -> list[str]:
    """The id of each engine's part of a request; that of the request itself where it has one part."""
    name = name_of(request)
    return [f"{name}:{target}" for target in targets] if len(targets) > 1 else [name]


def calls_text(names: Sequence[str], whose: str = "this session") -> str:
    """Which calls there are: 'this session has 2 calls: 7-1, 7-2'. names: their ids, oldest first; of many the last."""
    if not names:
        return f"{whose} has no calls yet"
    shown = ", ".join(names[-_SHOWN_MAX:])
    if len(names) > _SHOWN_MAX:
        return f"{whose} has {len(names)} calls, the latest: {shown}"
    return f"{whose} has {len(names)} call{'s' * (len(names) > 1)}: {shown}"


def is_name(text: str) -> bool:
    """Whether this could be the id of a call, or of a part of one."""
    return _NAME.fullmatch(text) is not None


def request_of(name: str) -> TaskId:
    """The request that an id is of, or is of a part of. Raises UnknownTask for what is no id."""
    return _parsed(name)[0]


def engine_of(name: str) -> int | None:
    """The engine whose part an id is of; None for that of a whole request. Raises UnknownTask for what is no id."""
    return _parsed(name)[1]


def _parsed(name: str) -> tuple[TaskId, int | None]:
    found = _NAME.fullmatch(name)
    if found is None:
        raise UnknownTask(f"{name!r} is no id of a call or task: ids are those of AsyncResult.msg_ids")
    engine = found["engine"]
    return int(found["session"]) << SESSION_SHIFT | int(found["number"]), None if engine is None else int(engine)
