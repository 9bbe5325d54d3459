"""A view of chosen engines: every call runs on each of them, and their namespaces are at hand by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from hiersched.client.balanced_map import BalancedMap
from hiersched.client.chunks import ChunkSizer
from hiersched.client.map_results import AsyncMapResult
from hiersched.client.map_run import DirectMap, chunk_packer
from hiersched.client.partition import Blocks, columns, distribution
from hiersched.client.results import AsyncResult, Join
from hiersched.client.targets import describe_ids, is_single, means_all, resolve_targets
from hiersched.client.views import View, name_of
from hiersched.data.namespace import pull, push

if TYPE_CHECKING:
    from hiersched.client.client import Client


class DirectView(View):
    """The engines named by `targets`: an id, several, a slice, or 'all', which follows the cluster as it grows.

    With a single id, results are plain; otherwise lists in the order of the targets.
    """

    _FLAGS = ("block", "targets")

    def __init__(self, client: Client, targets: Any = "all", *, block: bool = False) -> None:
        super().__init__(client, block=block)
        self.targets = targets

    @property
    def targets(self) -> Any:
        """The engines: an id, a list of ids, or 'all'. Raises UnknownEngine when set to one that does not exist."""
        return self._targets

    @targets.setter
    def targets(self, targets: Any) -> None:
        self._ids: tuple[int, ...] | None = None  # None: all there are when a call is made
        self._single = is_single(targets)
        if means_all(targets):
            self._targets: Any = "all"
            return
        self._ids = resolve_targets(targets, self.session.engine_ids())
        self._targets = self._ids[0] if self._single else list(self._ids)

    def __len__(self) -> int:
        return len(self.session.engine_ids()) if self._ids is None else len(self._ids)

    def __repr__(self) -> str:
        shown = "all" if self._ids is None else describe_ids(self._ids)
        return f"<{type(self).__name__} of engine{'' if self._single else 's'} {shown}>"

    def _chosen(self, targets: Any = None) -> tuple[tuple[int, ...], bool]:
        """The ids for one call, and whether its result is single. targets: instead of the view's own."""
        if targets is not None:
            return resolve_targets(targets, self.session.engine_ids()), is_single(targets)
        if self._ids is None:
            return resolve_targets("all", self.session.engine_ids()), False
        return self._ids, self._single

    # --- apply --------------------------------------------------------------------------------------------------------

    def apply_async(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncResult:
        """`f(*args, **kwargs)` on each engine, as an AsyncResult at once."""
        ids, single = self._chosen()
        return AsyncResult(
            self.session, self.session.call(ids, self._packed(f, args, kwargs)), name=name_of(f), single=single
        )

    def apply_sync(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """The result of `f(*args, **kwargs)`, or a list of the engines' results."""
        session = self.session
        ids, single = self._chosen() if self._ids is None else (self._ids, self._single)
        pending = session.call(ids, self._packed(f, args, kwargs), wake=False)
        session.wait((pending,), None)
        if pending.failed:
            return AsyncResult(session, pending, name=name_of(f), single=single).get()  # raises
        outcomes = pending.outcomes
        return outcomes[0].value if single else [outcome.value for outcome in outcomes]

    def _apply(
        self, f: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, targets: Any, block: bool | None
    ) -> Any:
        """A call with targets and blocking of its own."""
        ids, single = self._chosen(targets)
        result = AsyncResult(
            self.session, self.session.call(ids, self._packed(f, args, kwargs)), name=name_of(f), single=single
        )
        return self._maybe_got(result, block)

    def _maybe_got(self, result: AsyncResult, block: bool | None) -> Any:
        return result.get() if (self.block if block is None else block) else result

    # --- code ---------------------------------------------------------------------------------------------------------

    def execute(self, code: str, silent: bool = True, targets: Any = None, block: bool | None = None) -> AsyncResult:
        """Run `code` as a notebook cell on each engine, and give an AsyncResult.

        silent: show no result and use no execution count. Where it blocks, raises what the code raised.
        """
        ids, single = self._chosen(targets)
        pending = self.session.execute(ids, code, silent=silent)
        result = AsyncResult(self.session, pending, name="execute", single=single)
        self._maybe_got(result, block)
        return result

    def run(self, filename: str, targets: Any = None, block: bool | None = None) -> AsyncResult:
        """`execute` the contents of a file of this machine. Raises OSError where it cannot be read."""
        with open(filename, encoding="utf-8") as file:
            return self.execute(file.read(), targets=targets, block=block)

    # --- namespaces ---------------------------------------------------------------------------------------------------

    def push(self, ns: Mapping[str, Any], targets: Any = None, block: bool | None = None) -> Any:
        """Set the names of `ns` in each engine's namespace. Raises TypeError for what is no mapping of names."""
        if not isinstance(ns, Mapping):
            raise TypeError(f"push takes a dict of names and values, not {type(ns).__name__}")
        return self._apply(push, (), dict(ns), targets=targets, block=block)

    def update(self, ns: Mapping[str, Any]) -> Any:
        """`push(ns)`."""
        return self.push(ns)

    def pull(self, names: str | Iterable[str], targets: Any = None, block: bool | None = None) -> Any:
        """The value of a name or expression on each engine, or of several as a list.

        Undefined names raise a RemoteError whose ename is 'NameError'. Raises TypeError for names that are no strings.
        """
        if not isinstance(names, str):
            names = list(names)
            if not all(isinstance(name, str) for name in names):
                raise TypeError(f"names must be strings, not {names!r}")
        return self._apply(pull, (names,), {}, targets=targets, block=block)

    def get(self, key_s: str | Iterable[str]) -> Any:
        """`pull(key_s, block=True)`."""
        return self.pull(key_s, block=True)

    def __getitem__(self, key: str | Iterable[str]) -> Any:
        return self.get(key)

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    # --- scatter, gather, map -----------------------------------------------------------------------------------------

    def scatter(
        self,
        key: str,
        seq: Any,
        dist: str = "b",
        flatten: bool = False,
        targets: Any = None,
        block: bool | None = None,
    ) -> Any:
        """Give each engine its share of `seq` under the name `key`. flatten: a share of one item becomes the item."""
        ids, _ = self._chosen(targets)
        shares = distribution(dist).split(seq, len(ids))
        if flatten:
            shares = [share[0] if len(share) == 1 else share for share in shares]
        packed = [self._packed(push, (), {key: share}) for share in shares]
        return self._maybe_got(AsyncResult(self.session, self.session.call_each(ids, packed), name="scatter"), block)

    def gather(self, key: str, dist: str = "b", targets: Any = None, block: bool | None = None) -> Any:
        """The sequence whose shares the engines hold under the name `key`."""
        ids, _ = self._chosen(targets)
        pending = self.session.call(ids, self._packed(pull, (key,), {}))
        result = AsyncResult(self.session, pending, name="gather", join=distribution(dist).join)
        return self._maybe_got(result, block)

    def _map(
        self,
        f: Callable[..., Any],
        sequences: tuple[Iterable[Any], ...],
        *,
        join: Join | None = None,
        return_exceptions: bool = False,
    ) -> AsyncMapResult:
        """One chunk for each engine, as equal as can be; engines without an item are not called."""
        whole, count = columns(sequences)
        session, name = self.session, name_of(f)
        pack = chunk_packer(session.packer, f, by_value=session.by_value)
        if not count:
            nothing = BalancedMap(session, whole, pack=pack, sizer=ChunkSizer(), name=name)
            return AsyncMapResult(nothing, return_exceptions=return_exceptions, join=join)
        ids = self._chosen()[0][:count]
        shares = [Blocks().split(column, len(ids)) for column in whole]
        packed = [pack(share) for share in zip(*shares, strict=True)]
        run = DirectMap(session, session.call_each(ids, packed), [len(share) for share in shares[0]], name=name)
        return AsyncMapResult(run, return_exceptions=return_exceptions, join=join)

    def shares_of(self, count: int, chunksize: int | None) -> int:
        """Into how many shares a parallel function cuts `count` items: one for each engine."""
        return max(min(len(self), count), 1)
