"""Calls as they travel from a client to an engine.

A call is a function and its arguments. The function is packed once and travels as its digest; a function that is still
what its snapshot says is not even packed again, any other is, and a change shows in its digest. Arguments are one frame
of pickle. A buffer of at least INLINE_BYTES_MAX among them becomes a blob of its own, named by a second frame, so that
equal data travels once. A blob that could still change is copied first, for its bytes must remain those of its digest.

What stands for the result of a task (a future) may be an argument, however deep: it says so with a method
`__hiersched_result__`, travels as the task's id, and is the task's value where the call runs.

Only clients pack calls and only engines unpack them; what is in between knows digests and frames.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from reprlib import repr as short_repr
from typing import Any, TypeAlias

import msgspec
from blake3 import blake3

from hiersched.data.applied import APPLIED, Applied
from hiersched.data.culprits import explain, failure_of
from hiersched.data.functions import NAMESPACE
from hiersched.data.outcomes import unpack_outcome
from hiersched.data.pickles import PROTOCOL, Buffer, Pickled, ReduceResult, are_plain, dump, dump_whole, load
from hiersched.data.recent import Recent
from hiersched.data.snapshots import Snapshot, snapshot_of
from hiersched.errors import HierschedError, PackError, ProtocolError, UnpackError
from hiersched.limits import FUNCTIONS_CACHED_BYTES_MAX, FUNCTIONS_CACHED_MAX
from hiersched.protocol.messages import Digest, TaskId, result_digest

DIGEST_BYTES = 16
_NO_ARGUMENTS = pickle.dumps(((), None), PROTOCOL)
_BY_VALUE, _BY_NAMESPACE = b"v", b"n"  # the first byte of a packed function: where its globals come from; or APPLIED


def digest_of(data: Buffer) -> Digest:
    """The name of a blob: its blake3 hash, cut to 128 bits."""
    return blake3(data).digest(length=DIGEST_BYTES)


class Reference:
    """An argument that is evaluated on the engine, in the user namespace: `apply(f, Reference("data[0]"))`.

    Raises SyntaxError if `expression` is not one, TypeError if it is no text.
    """

    __slots__ = ("expression",)

    def __init__(self, expression: str) -> None:
        if not isinstance(expression, str):
            raise TypeError(f"a Reference is to an expression, as text, not to {expression!r}")
        compile(expression, "<reference>", "eval")
        self.expression = expression

    def __reduce__(self) -> tuple[Any, ...]:
        return dereference, (self.expression,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and other.expression == self.expression

    def __hash__(self) -> int:
        return hash(self.expression)

    def __repr__(self) -> str:
        return f"Reference({self.expression!r})"


def dereference(expression: str) -> Any:
    """The expression's value on an engine; the reference itself where nothing is being unpacked for an engine."""
    namespace = NAMESPACE.get()
    return Reference(expression) if namespace is None else eval(expression, namespace)


_DEREFERENCES = dereference.__qualname__.encode()


# --- results of other tasks -------------------------------------------------------------------------------------------

# What `__hiersched_result__()` of a future gives: the id of its task; the frames of the outcome, if the task has ended
# and they are at hand; and the outcome's only frame, if it is small.
Ticket: TypeAlias = tuple[TaskId, Sequence[Buffer] | None, bytes | None]

_RESULTS: ContextVar[Mapping[TaskId, Sequence[Buffer]] | None] = ContextVar("hiersched_results", default=None)


def result_of(task: TaskId) -> Any:
    """The value of the task, where a call that takes it is unpacked. Each call has a copy of its own.

    Raises UnpackError if the result is not here, the task's own error if it failed.
    """
    frames = (_RESULTS.get() or {}).get(task)
    if frames is None:
        raise UnpackError(f"the result of task {task} is not here")
    return unpack_outcome(frames).value


def pack_result(frames: Sequence[Buffer]) -> bytes:
    """An outcome's frames as one blob."""
    return msgspec.msgpack.encode(frames)


def unpack_result(blob: Buffer) -> list[bytes]:
    """The frames in such a blob. Raises ProtocolError if it is none."""
    try:
        return _decode_result(blob)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"not the result of a task: {error}") from error


_decode_result = msgspec.msgpack.Decoder(list[bytes]).decode


class _Inputs:
    """The results that one call takes."""

    def __init__(self) -> None:
        self.tickets: dict[TaskId, Ticket] = {}

    def reduce(self, future: Any) -> tuple[Any, ...]:
        """How a future travels."""
        ticket: Ticket = future.__hiersched_result__()
        self.tickets[ticket[0]] = ticket
        return result_of, (ticket[0],)

    def add_to(self, call: PackedCall) -> PackedCall:
        """The call with what it takes."""
        for task, frames, small in self.tickets.values():
            if small is not None:
                call.given.append((task, small))
            elif frames is not None:
                call.blobs[result_digest(task)] = pack_result(frames)
        return msgspec.structs.replace(call, inputs=list(self.tickets))


# --- packing ----------------------------------------------------------------------------------------------------------


class PackedCall(msgspec.Struct, frozen=True, gc=False):
    """A call as it travels.

    function: the digest of the packed function. blobs: by digest, all that travels once, the function among it.
    frames: the arguments; one frame, or two if they have blobs. inputs: tasks whose results are among the arguments.
    given: of these, the small outcomes at hand; large ones at hand are among the blobs.
    """

    function: Digest
    blobs: dict[Digest, Buffer]
    frames: list[Buffer]
    inputs: Sequence[TaskId] = ()
    given: list[tuple[TaskId, bytes]] = []


class _PackedFunction:
    __slots__ = ("blob", "digest", "function", "snapshot")

    def __init__(self, function: Any, snapshot: Snapshot, digest: Digest, blob: bytes) -> None:
        self.function = function  # held, so that no other object gets its id
        self.snapshot, self.digest, self.blob = snapshot, digest, blob


class Packer:
    """Packs the calls of one client. Safe between threads.

    by_value: functions that cannot be imported take along the globals that they use, instead of seeing the engine's.
    """

    def __init__(self) -> None:
        self._functions: Recent[tuple[int, bool], _PackedFunction] = Recent(
            count_max=FUNCTIONS_CACHED_MAX, bytes_max=FUNCTIONS_CACHED_BYTES_MAX
        )

    def pack_call(
        self,
        function: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        by_value: bool = False,
    ) -> PackedCall:
        """The call `function(*args, **kwargs)`.

        Raises PackError naming what cannot be packed; what a future among the arguments raises that cannot be one.
        """
        digest, blob = self.pack_function(function, by_value=by_value)
        args = tuple(args)
        if not args and not kwargs:
            return PackedCall(digest, {digest: blob}, [_NO_ARGUMENTS])
        arguments = (args, dict(kwargs) if kwargs else None)
        if are_plain(args) and (not kwargs or are_plain(kwargs.values())):
            return PackedCall(digest, {digest: blob}, [pickle.dumps(arguments, PROTOCOL)])
        inputs = _Inputs()
        try:
            pickled = dump(arguments, by_value=by_value, reduce_result=inputs.reduce)
        except HierschedError:
            raise
        except Exception as error:
            raise _explain_arguments(function, arguments, error, by_value, inputs.reduce) from error
        blobs: dict[Digest, Buffer] = {digest: blob}
        frames: list[Buffer] = [pickled.body]
        if pickled.large:
            frames.append(_add_blobs(pickled, blobs))
        call = PackedCall(digest, blobs, frames)
        return inputs.add_to(call) if inputs.tickets else call

    def pack_function(self, function: Any, *, by_value: bool = False) -> tuple[Digest, bytes]:
        """The digest of the packed function, and its bytes. Raises PackError naming what cannot be packed."""
        key = (id(function), by_value)
        known = self._functions.get(key)
        if known is not None and known.snapshot.holds():
            return known.digest, known.blob
        if not callable(function) and not isinstance(function, Reference):
            raise PackError(f"a call needs a function, and {short_repr(function)} is not callable")
        snapshot = snapshot_of(function, by_value=by_value)
        try:
            blob = (_BY_VALUE if by_value else _BY_NAMESPACE) + dump_whole(function, by_value=by_value)
        except Exception as error:
            raise explain(f"function {_name_of(function)}", function, error, by_value=by_value) from error
        digest = digest_of(blob)
        if snapshot is not None and snapshot.holds():  # another thread may have changed the function meanwhile
            self._functions.put(key, _PackedFunction(function, snapshot, digest, blob), size=len(blob))
        else:
            self._functions.discard(key)
        return digest, blob


def _add_blobs(pickled: Pickled, blobs: dict[Digest, Buffer]) -> bytes:
    """Add what left the pickle to `blobs`; the frame that says where it belongs."""
    digests = []
    for buffer in pickled.large:
        blob = buffer if type(buffer) is bytes else bytes(buffer)
        digest = digest_of(blob)
        blobs[digest] = blob
        digests.append(digest)
    return msgspec.msgpack.encode((pickled.cuts, digests))


def _explain_arguments(
    function: Any,
    arguments: tuple[tuple[Any, ...], dict[str, Any] | None],
    error: Exception,
    by_value: bool,
    reduce_result: ReduceResult,
) -> PackError:
    """Which argument of the call cannot be pickled, and why. Arguments count from 1."""
    args, kwargs = arguments
    name = _name_of(function)
    places = [(f"argument {index} of {name}", value) for index, value in enumerate(args, 1)]
    for index, (keyword, value) in enumerate((kwargs or {}).items(), len(args) + 1):
        places.append((f"argument {index} (keyword {keyword!r}) of {name}", value))
    for place, value in places:
        cause = failure_of(value, by_value=by_value, reduce_result=reduce_result)
        if cause is not None:
            return explain(place, value, cause, by_value=by_value, reduce_result=reduce_result)
    return PackError(f"the arguments of {name} cannot be pickled: {type(error).__name__}: {error}")


def _name_of(function: Any) -> str:
    return getattr(function, "__qualname__", None) or short_repr(function)


_decode_blobs = msgspec.msgpack.Decoder(tuple[list[int], list[bytes]]).decode


class _KeptFunction:
    """A packed function on an engine and, if its snapshot can tell whether it has changed, the function."""

    __slots__ = ("_function", "_reusable", "_snapshot", "blob")

    def __init__(self, blob: bytes) -> None:
        self.blob = blob
        self._function: Any = None
        self._snapshot: Snapshot | None = None
        self._reusable = _DEREFERENCES not in blob  # a Reference is evaluated anew by every call

    def fresh(self, namespace: dict[str, Any]) -> Any:
        """The function as it was packed: the one at hand if nothing has changed it, else a new one."""
        if self._snapshot is not None and self._snapshot.holds():
            return self._function
        if self.blob[:1] == APPLIED:
            return Applied(self.blob)
        function = load(Pickled(memoryview(self.blob)[1:]), namespace=namespace)
        if self._reusable:
            self._snapshot = snapshot_of(function, by_value=self.blob[:1] == _BY_VALUE)
            self._reusable = self._snapshot is not None
            self._function = function if self._reusable else None
        return function


class Unpacker:
    """Unpacks the calls that reach one engine."""

    def __init__(self, user_namespace: dict[str, Any]) -> None:
        self._namespace = user_namespace
        self._functions: Recent[Digest, _KeptFunction] = Recent(
            count_max=FUNCTIONS_CACHED_MAX, bytes_max=FUNCTIONS_CACHED_BYTES_MAX
        )

    def __contains__(self, digest: Digest) -> bool:
        """Whether this function was unpacked before and is still kept."""
        return self._functions.get(digest) is not None

    def function(self, digest: Digest, blob: Buffer | None = None) -> Any:
        """The function, as it was packed: what earlier calls did to its defaults or its closure does not show. An old
        client's is an `Applied`, to be bound to its arguments.

        blob: its bytes; may be None if it was unpacked before. Raises KeyError if it was not, or is no longer kept;
        UnpackError if it cannot be rebuilt here.
        """
        kept = self._functions.get(digest)
        if kept is None:
            if blob is None:
                raise KeyError(digest)
            kept = _KeptFunction(bytes(blob))
            self._functions.put(digest, kept, size=len(kept.blob))
        return kept.fresh(self._namespace)

    def arguments(
        self,
        frames: Sequence[Buffer],
        blobs: Mapping[Digest, Buffer],
        results: Mapping[TaskId, Sequence[Buffer]] | None = None,
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call. Arrays that are blobs are read-only, for other calls share them.

        results: the outcomes of tasks whose values are among the arguments. Raises KeyError with the digest of a blob
        that is not in `blobs`, UnpackError if something cannot be rebuilt here, NameError for a Reference to what the
        user namespace lacks, ProtocolError for frames that are no call, the error of a task that failed.
        """
        body = frames[0]
        if body == _NO_ARGUMENTS:
            return (), {}
        pickled = Pickled(body) if len(frames) == 1 else _with_blobs(frames, blobs)
        if not results:
            args, kwargs = load(pickled, namespace=self._namespace)
            return args, kwargs or {}
        token = _RESULTS.set(results)
        try:
            args, kwargs = load(pickled, namespace=self._namespace)
        finally:
            _RESULTS.reset(token)
        return args, kwargs or {}


def _with_blobs(frames: Sequence[Buffer], blobs: Mapping[Digest, Buffer]) -> Pickled:
    try:
        cuts, digests = _decode_blobs(frames[1])
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"the frames are not those of a call: {error}") from error
    return Pickled(frames[0], cuts, [memoryview(blobs[digest]).toreadonly() for digest in digests])
