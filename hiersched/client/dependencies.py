"""What a task waits for.

A dependency is other tasks, whether all of them count or any, and which of their ends count: success, failure or both.
`after` asks when a task may run; `follow` asks where: on the engines that the others ran on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any, TypeAlias

from hiersched.client.results import AsyncResult

Task: TypeAlias = str | AsyncResult  # an id, or the result of one or more
_TASK = (str, AsyncResult)


class Dependency(set[str]):
    """A set of message ids, with the conditions under which it is met.

    dependencies: an AsyncResult, an id, several of both, or what `as_dict` gave. all: all of them, or any; success,
    failure: which ends count. Raises TypeError for anything else, ValueError if no end counts.
    """

    def __init__(self, dependencies: Any = (), all: bool = True, success: bool = True, failure: bool = False) -> None:
        if isinstance(dependencies, Mapping):
            all = dependencies.get("all", all)
            success = dependencies.get("success", success)
            failure = dependencies.get("failure", failure)
            dependencies = dependencies.get("dependencies", ())
        if not (success or failure):
            raise ValueError("a dependency must count successes, failures or both")
        self.all = all
        self.success = success
        self.failure = failure
        tasks = tasks_of(dependencies)
        super().__init__(part for task in tasks for part in ((task,) if isinstance(task, str) else task.msg_ids))

    def check(self, completed: Set[str], failed: Set[str] | None = None) -> bool:
        """Whether it is met once these have succeeded and those have failed."""
        if not self:
            return True
        counted = self._ended(completed, failed, success=self.success, failure=self.failure)
        return self <= counted if self.all else not self.isdisjoint(counted)

    def unreachable(self, completed: Set[str], failed: Set[str] | None = None) -> bool:
        """Whether it can never be met once these have succeeded and those have failed."""
        if not self:
            return False
        against = self._ended(completed, failed, success=not self.success, failure=not self.failure)
        return not self.isdisjoint(against) if self.all else self <= against

    @staticmethod
    def _ended(completed: Set[str], failed: Set[str] | None, *, success: bool, failure: bool) -> set[str]:
        """Those that ended in one of the ways asked for."""
        ended = set(completed) if success else set()
        return ended | set(failed or ()) if failure else ended

    def as_dict(self) -> dict[str, Any]:
        """What another Dependency can be made of."""
        return {
            "dependencies": list(self),
            "all": self.all,
            "success": self.success,
            "failure": self.failure,
        }

    def __repr__(self) -> str:
        ends = "ended" if self.success and self.failure else "succeeded" if self.success else "failed"
        return f"<Dependency: {'all' if self.all else 'any'} of {len(self)} {ends}>"


def tasks_of(dependencies: Any) -> list[Task]:
    """One task or several as a list.

    Raises TypeError for what is neither an id nor an AsyncResult, ValueError for a map that is still being sent.
    """
    if isinstance(dependencies, _TASK):
        dependencies = [dependencies]
    elif not isinstance(dependencies, Iterable):
        raise TypeError(f"a task is named by its AsyncResult or id, not by {dependencies!r}")
    listed = list(dependencies)
    for task in listed:
        if not isinstance(task, _TASK):
            raise TypeError(f"a task is named by its AsyncResult or id, not by {task!r}")
        if not isinstance(task, str) and not task.sent:
            raise ValueError(f"{task!r} has items that were not sent yet: wait for it, or give the map a chunksize")
    return listed


def as_dependency(given: Any) -> Dependency | list[Task] | None:
    """What `after` and `follow` may be set to: None, tasks, a Dependency or its dict. Raises ValueError for others."""
    if given is None or isinstance(given, Dependency):
        return given
    try:
        return Dependency(given) if isinstance(given, Mapping) else tasks_of(given)
    except TypeError as error:
        raise ValueError(f"invalid dependency: {error}") from None
