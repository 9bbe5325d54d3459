"""A client's calls by id, as ipyparallel's clients have them in dicts.

Nothing is kept for it: it looks among the calls that are open or whose AsyncResults somebody holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from hiersched.client.names import part_ids
from hiersched.errors import HierschedError, UnknownTask

if TYPE_CHECKING:
    from hiersched.client.jobs import Jobs
    from hiersched.client.metadata import Metadata
    from hiersched.client.results import AsyncResult


class MetadataById(Mapping[str, Any]):
    """{id: Metadata} of the parts of all calls that are listed and held. By the id of a whole call: a list.

    Raises UnknownTask or ResultDropped, both of them KeyErrors.
    """

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def __getitem__(self, name: str) -> Metadata | list[Metadata]:
        return self._found(name).metadata

    def __iter__(self) -> Iterator[str]:
        for record in self._jobs.session.records():
            if record.pending is not None:
                names = part_ids(record.request, record.pending.targets)
                for name, outcome in zip(names, record.pending.outcomes, strict=False):
                    if self._counts(ended=outcome is not None):
                        yield name

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)} calls and parts of calls>"

    def _counts(self, *, ended: bool) -> bool:
        return True

    def _found(self, name: str) -> AsyncResult:
        if not isinstance(name, str):
            raise UnknownTask(f"{name!r} is no id of a call or task: ids are those of AsyncResult.msg_ids")
        return self._jobs.get_result(name, block=False)


class ResultsById(MetadataById):
    """{id: result} of those that have ended, errors in the places of results. By the id of a whole call: a list.

    Raises UnknownTask or ResultDropped, both of them KeyErrors.
    """

    def __getitem__(self, name: str) -> Any:
        result = self._found(name)
        if not result.done():
            raise UnknownTask(f"{name} has not ended: rc.get_result({name!r}).get() waits for it")
        try:
            return result.get(return_exceptions=True)
        except HierschedError as error:
            return error

    def _counts(self, *, ended: bool) -> bool:
        return ended
