"""A view of chosen engines: every call runs on each of them, and their namespaces are at hand by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from hiersched.client.balanced_map import BalancedMap
from hiersched.client.chunks import ChunkSizer
from hiersched.client.imports import sync_imports
from hiersched.client.joined import GatheredResult, JoinedMapResult
from hiersched.client.map_results import AsyncMapResult
from hiersched.client.map_run import DirectMap, chunk_packer
from hiersched.client.partition import Blocks, columns, distribution
from hiersched.client.results import AsyncResult
from hiersched.client.targets import describe_ids, is_single, means_all, resolve_targets
from hiersched.client.views import MapOptions, View, name_of
from hiersched.data.namespace import pull, push
from hiersched.limits import PROGRESS_AFTER_S

if TYPE_CHECKING:
    from hiersched.client.balanced_view import LoadBalancedView
    from hiersched.client.client import Client
    from hiersched.client.pending import Pending


class DirectView(View):
    """The engines named by `targets`: an id, several, a slice of those there are, or 'all', which follows the cluster.

    With a single id, results are plain; otherwise lists in the order of the targets. flags: block, track, label.
    """

    def __init__(self, client: Client, targets: Any = "all", **flags: Any) -> None:
        super().__init__(client, targets=targets, **flags)

    @property
    def targets(self) -> Any:
        """The engines: an id, a list of ids, or 'all'. Raises UnknownEngine when set to one that does not exist."""
        return self._targets

    @targets.setter
    def targets(self, targets: Any) -> None:
        self._ids: tuple[int, ...] | None = None  # None: all there are when a call is made
        self._single = self._is_single(targets)
        self._executor = None
        if means_all(targets) and not isinstance(targets, slice):
            self._targets: Any = "all"
            return
        self._ids = resolve_targets(targets, self.session.engine_ids())
        self._targets = self._ids[0] if self._single else list(self._ids)

    def _is_single(self, targets: Any) -> bool:
        """Whether results of these targets are plain."""
        return is_single(targets)

    def __len__(self) -> int:
        return len(self.session.engine_ids()) if self._ids is None else len(self._ids)

    def __repr__(self) -> str:
        if self._ids is None:
            return f"<{type(self).__name__} of all engines>"
        return f"<{type(self).__name__} of engine{'s' * (len(self._ids) > 1)} {describe_ids(self._ids)}>"

    def _chosen(self, targets: Any = None) -> tuple[tuple[int, ...], bool]:
        """The ids for one call, and whether its result is single. targets: instead of the view's own."""
        if targets is not None:
            return resolve_targets(targets, self.session.engine_ids()), self._is_single(targets)
        if self._ids is None:
            return resolve_targets("all", self.session.engine_ids()), False
        return self._ids, self._single

    # --- apply --------------------------------------------------------------------------------------------------------

    def apply_async(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncResult:
        """`f(*args, **kwargs)` on each engine, as an AsyncResult at once."""
        return self._call(f, args, kwargs)

    def apply_sync(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """The result of `f(*args, **kwargs)`, or a list of the engines' results."""
        session = self.session
        ids, single = self._chosen() if self._ids is None else (self._ids, self._single)
        pending = self._noted(session.call(ids, self._packed(f, args, kwargs), wake=False))
        in_time = session.wait((pending,), None if single else PROGRESS_AFTER_S)
        if not in_time or pending.failed:
            return AsyncResult(session, pending, name=name_of(f), single=single).get()  # shows how far it is, or raises
        outcomes = pending.outcomes
        return outcomes[0].value if single else [outcome.value for outcome in outcomes]

    def _call(
        self, f: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, targets: Any = None
    ) -> AsyncResult:
        """A call on the view's engines, or on others."""
        ids, single = self._chosen(targets)
        return self._result(self.session.call(ids, self._packed(f, args, kwargs)), name_of(f), single=single)

    def _result(self, pending: Pending, name: str, *, single: bool = False, label: str | None = None) -> AsyncResult:
        return AsyncResult(self.session, self._noted(pending, label), name=name, single=single)

    # --- code ---------------------------------------------------------------------------------------------------------

    def execute(
        self, code: str, silent: bool = True, targets: Any = None, block: bool | None = None, label: str | None = None
    ) -> AsyncResult:
        """Run `code` as a notebook cell on each engine, and give an AsyncResult.

        silent: show no result and use no execution count. Where it blocks, raises what the code raised. Raises
        TypeError for code that is no text.
        """
        if not isinstance(code, str):
            raise TypeError(f"execute takes code as a string, not {type(code).__name__}")
        ids, single = self._chosen(targets)
        result = self._result(self.session.execute(ids, code, silent=silent), "execute", single=single, label=label)
        self._maybe_got(result, block)
        return result

    def run(
        self, filename: str, targets: Any = None, block: bool | None = None, label: str | None = None
    ) -> AsyncResult:
        """`execute` the contents of a file of this machine. Raises OSError where it cannot be read."""
        with open(filename, encoding="utf-8") as file:
            code = file.read()
        return self.execute(f"{code}\n", targets=targets, block=block, label=label)

    def sync_imports(self, local: bool = True, quiet: bool = False) -> AbstractContextManager[None]:
        """Imports in the `with` block happen here and on the view's engines. quiet: do not say so.

            with view.sync_imports():
                import numpy as np

        Raises ImportError, and at the end of the block what the engines raised.
        """
        return sync_imports(self, local=local, quiet=quiet)

    @property
    def importer(self) -> AbstractContextManager[None]:
        """`sync_imports()`."""
        return self.sync_imports()

    def activate(self, suffix: str = "") -> None:
        """Make the magics %px, %%px, %autopx, %pxresult and %pxconfig, with `suffix`, run on this view's engines."""
        from hiersched.client.magics import activate  # imports ipyparallel, which takes as long as everything else

        activate(self, suffix)

    # --- namespaces ---------------------------------------------------------------------------------------------------

    def push(
        self, ns: Mapping[str, Any], targets: Any = None, block: bool | None = None, track: bool | None = None
    ) -> Any:
        """Set the names of `ns` in each engine's namespace. Raises TypeError for what is no mapping of names."""
        if not isinstance(ns, Mapping):
            raise TypeError(f"push takes a dict of names and values, not {type(ns).__name__}")
        return self._maybe_got(self._call(push, (), dict(ns), targets=targets), block)

    def update(self, ns: Mapping[str, Any]) -> Any:
        """`push(ns)`."""
        return self.push(ns)

    def pull(self, names: str | Iterable[str], targets: Any = None, block: bool | None = None) -> Any:
        """The value of a name or expression on each engine, or of several as a list.

        Undefined names raise a RemoteError whose ename is 'NameError'. Raises TypeError for names that are no strings.
        """
        if not isinstance(names, str):
            names = list(names) if isinstance(names, Iterable) else [names]
            if not all(isinstance(name, str) for name in names):
                raise TypeError(f"names must be strings, not {names!r}")
        return self._maybe_got(self._call(pull, (names,), {}, targets=targets), block)

    def get(self, key_s: str | Iterable[str]) -> Any:
        """`pull(key_s, block=True)`."""
        return self.pull(key_s, block=True)

    def __getitem__(self, key: str | Iterable[str]) -> Any:
        return self.get(key)

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def clear(self, targets: Any = None, block: bool | None = None) -> Any:
        """Empty the namespaces of the view's engines."""
        return self.client.clear(targets=self._or_own(targets), block=self.block if block is None else block)

    # --- scatter, gather, map -----------------------------------------------------------------------------------------

    def scatter(
        self,
        key: str,
        seq: Any,
        dist: str = "b",
        flatten: bool = False,
        targets: Any = None,
        block: bool | None = None,
        track: bool | None = None,
    ) -> AsyncResult | None:
        """Give each engine its share of `seq` under the name `key`; None where it blocks.

        dist: 'b' blocks, 'r' in turn. flatten: a share of one item becomes the item.
        """
        ids, _ = self._chosen(targets)
        shares = distribution(dist).split(seq, len(ids))
        if flatten:
            shares = [share[0] if len(share) == 1 else share for share in shares]
        packed = [self._packed(push, (), {key: share}) for share in shares]
        result = self._result(self.session.call_each(ids, packed), "scatter")
        if not (self.block if block is None else block):
            return result
        result.get()
        return None

    def gather(self, key: str, dist: str = "b", targets: Any = None, block: bool | None = None) -> Any:
        """The sequence whose shares the engines hold under the name `key`: where it does not block, an AsyncMapResult.

        Iterating over that gives the items, share by share as the engines answer.
        """
        ids, _ = self._chosen(targets)
        session = self.session
        pack = chunk_packer(session.packer, pull, by_value=session.by_value)
        pending = self._noted(session.call(ids, pack(([key],))))
        run = DirectMap(session, pending, [1] * len(ids), name="gather")
        return self._maybe_got(GatheredResult(run, join=distribution(dist).join), block)

    def map(
        self,
        f: Callable[..., Any],
        /,
        *sequences: Iterable[Any],
        block: bool | None = None,
        track: bool = False,
        return_exceptions: bool = False,
        label: str | None = None,
    ) -> Any:
        """`f` on each item of `sequences`, as the builtin: a list where it blocks, else an AsyncMapResult.

        Each engine gets one share of the items. return_exceptions: give the errors of items, do not raise them.
        """
        options = MapOptions(return_exceptions=return_exceptions, label=label)
        return self._maybe_got(self.start_map(f, sequences, options), block)

    def start_map(
        self, f: Callable[..., Any], sequences: tuple[Iterable[Any], ...], options: MapOptions
    ) -> AsyncMapResult:
        """One chunk for each engine, as equal as can be; engines without an item are not called."""
        whole, count = columns(sequences)
        session, name = self.session, name_of(f)
        pack = chunk_packer(session.packer, f, by_value=session.by_value)
        if count:
            ids = self._chosen()[0][:count]
            shares = [Blocks().split(column, len(ids)) for column in whole]
            pending = session.call_each(ids, [pack(share) for share in zip(*shares, strict=True)])
            counts = [len(share) for share in shares[0]]
            run: Any = DirectMap(session, self._noted(pending, options.label), counts, name=name)
        else:
            run = BalancedMap(session, whole, pack=pack, sizer=ChunkSizer(), name=name)
        kind = AsyncMapResult if options.join is None else JoinedMapResult
        return kind(run, ordered=options.ordered, return_exceptions=options.return_exceptions, join=options.join)

    def shares_of(self, count: int, chunksize: int | None) -> int:
        """Into how many shares a parallel function cuts `count` items: one for each engine."""
        return max(min(len(self), count), 1)

    def _balanced(self) -> LoadBalancedView:
        from hiersched.client.balanced_view import LoadBalancedView

        return LoadBalancedView(self.client, self._ids, label=self.label)
