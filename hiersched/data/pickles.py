"""Objects <-> bytes, in pickle protocol 5, without copying what is large.

A buffer of at least INLINE_BYTES_MAX (an array's data, a byte string) leaves the pickle: arrays go out of band, as
protocol 5 has it; byte strings and texts are cut out of the stream, into which C's pickler writes them in one piece.
All that is smaller stays in the stream, so that an ordinary value is one piece of bytes.

What belongs to `__main__` is never pickled as a name, for the receiver's `__main__` is another one. Functions travel as
`functions` describes, or, `by_value`, with their globals, as cloudpickle does it; classes as `classes` describes.
"""

from __future__ import annotations

import copyreg
import functools
import pickle
from collections.abc import Callable, Iterable, Sequence
from types import CellType, CodeType, FunctionType
from typing import Any, TypeAlias

import cloudpickle
import msgspec
import numpy as np

from hiersched.data.classes import reduce_class
from hiersched.data.functions import (
    NAMESPACE,
    brings_globals,
    complete_function,
    fill_cell,
    load_code,
    make_cell,
    make_function,
    reduce_cell,
    reduce_code,
    reduce_function,
    reference_of,
)
from hiersched.errors import TaskError, UnpackError, UserError
from hiersched.limits import INLINE_BYTES_MAX

Buffer: TypeAlias = bytes | bytearray | memoryview
ReduceResult: TypeAlias = Callable[[Any], tuple[Any, ...]]

PROTOCOL = 5
_FRAME = pickle.FRAME[0]
_FRAME_BYTES = 9  # the opcode and a length of eight bytes
_SCALARS = frozenset({type(None), bool, int, float, complex})
_SHORT = INLINE_BYTES_MAX // 4  # characters, of up to four bytes


class Pickled(msgspec.Struct, frozen=True, gc=False):
    """An object as bytes.

    body: the stream. large: what left it, each at least INLINE_BYTES_MAX; the first len(cuts) belong back into the body
    at the offsets `cuts`, the others are out-of-band buffers. Those alias the object's memory.
    """

    body: Buffer
    cuts: Sequence[int] = ()
    large: Sequence[Buffer] = ()


def are_plain(values: Iterable[Any]) -> bool:
    """Whether all are small and of types that pickle needs no help with."""
    for value in values:
        kind = type(value)
        if kind not in _SCALARS and not ((kind is str or kind is bytes) and len(value) < _SHORT):
            return False
    return True


def dump(value: Any, *, by_value: bool = False, reduce_result: ReduceResult | None = None) -> Pickled:
    """`value` as bytes. reduce_result: how the results of other tasks in it travel; they do not without.

    Raises whatever pickling raises; `culprits` explains it.
    """
    if are_plain((value,)):
        return Pickled(pickle.dumps(value, PROTOCOL))
    stream = _Stream()
    buffers: list[Buffer] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        data = buffer.raw()
        if data.nbytes < INLINE_BYTES_MAX:
            return True  # stays in the stream
        buffers.append(data)
        return False

    pickler = pickler_for(by_value)(stream, PROTOCOL, buffer_callback=keep)
    pickler.reduce_result = reduce_result
    pickler.dump(value)
    if len(stream) == 1 and not buffers:
        return Pickled(stream[0])
    return _cut(stream, buffers)


def dump_whole(value: Any, *, by_value: bool = False) -> bytes:
    """`value` as one piece of bytes, however large. Raises whatever pickling raises."""
    stream = _Stream()
    pickler_for(by_value)(stream, PROTOCOL).dump(value)
    return b"".join(stream)


def load(pickled: Pickled, *, namespace: dict[str, Any] | None = None) -> Any:
    """The object. Arrays alias the out-of-band buffers, and are read-only where these are.

    namespace: the globals of functions of `__main__`; None: those of this process. Raises UnpackError; NameError from
    a Reference; the TaskError of another task whose result is asked for and that failed.
    """
    token = NAMESPACE.set(namespace)
    try:
        if not pickled.large:
            return pickle.loads(pickled.body)
        return pickle.loads(_spliced(pickled), buffers=pickled.large[len(pickled.cuts) :])
    except (UserError, TaskError, NameError):
        raise
    except ImportError as error:
        raise UnpackError(
            f"{error}: install the module here too, or ship what it defines by value with "
            "cloudpickle.register_pickle_by_value(module)"
        ) from error
    except Exception as error:
        raise UnpackError(f"cannot be rebuilt here: {type(error).__name__}: {error}") from error
    finally:
        NAMESPACE.reset(token)


class _Stream(list[Any]):
    """A file for the pickler, which keeps the pieces written to it apart."""

    write = list.append


def _cut(stream: _Stream, buffers: list[Buffer]) -> Pickled:
    """The stream's large byte strings taken out of it, ahead of the out-of-band buffers."""
    body: list[Buffer] = []
    cuts: list[int] = []
    large: list[Buffer] = []
    size = 0
    for index, piece in enumerate(stream):
        if index and len(piece) >= INLINE_BYTES_MAX and not _is_frame(piece):
            cuts.append(size)
            large.append(piece)
        else:
            body.append(piece)
            size += len(piece)
    return Pickled(b"".join(body), cuts, large + buffers)


def _is_frame(piece: Buffer) -> bool:
    """Whether a piece is a run of opcodes; if a byte string should look like one, it stays in the stream, as it may."""
    return piece[0] == _FRAME and int.from_bytes(piece[1:_FRAME_BYTES], "little") + _FRAME_BYTES == len(piece)


def _spliced(pickled: Pickled) -> Buffer:
    """The stream with the byte strings back in their places."""
    if not pickled.cuts:
        return pickled.body
    pieces: list[Buffer] = []
    start = 0
    for cut, piece in zip(pickled.cuts, pickled.large, strict=False):
        pieces += (pickled.body[start:cut], piece)
        start = cut
    pieces.append(pickled.body[start:])
    return b"".join(pieces)


# --- what is pickled otherwise than by pickle itself ------------------------------------------------------------------


def _reduce_array(array: Any) -> Any:
    """An array of plain numbers: the same as numpy's own reduction, at half its cost."""
    dtype = array.dtype
    if dtype.kind not in "biufc" or dtype.isbuiltin != 1 or dtype.metadata or not array.flags.c_contiguous:
        return NotImplemented
    return make_array, (pickle.PickleBuffer(array), dtype.str, array.shape)


def make_array(data: Buffer, dtype: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """An array over `data`, in C order."""
    return np.ndarray(shape, dtype, data)


def _reduce_view(view: memoryview) -> tuple[Any, ...]:
    data = view if view.c_contiguous else memoryview(view.tobytes())
    return make_view, (pickle.PickleBuffer(data), view.format, view.shape)


def make_view(data: Buffer, layout: str, shape: tuple[int, ...]) -> memoryview:
    """A memoryview of `data` with the format `layout`, in C order."""
    flat = memoryview(data).cast("B")
    return flat if layout == "B" and len(shape) == 1 else flat.cast(layout, shape)  # type: ignore[call-overload]


_Cached = type(functools.lru_cache(int))


def _reduce_cached(function: Any) -> Any:
    """A function under functools.lru_cache, which pickle knows by name only. Its cache stays here."""
    if reference_of(function):
        return NotImplemented
    return make_cached, (function.__wrapped__, function.cache_parameters())


def make_cached(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    """The function under an empty functools.lru_cache with these parameters."""
    return functools.lru_cache(**parameters)(function)


_Reducers: TypeAlias = dict[type, Callable[[Any], Any]]
_CLOUDPICKLE: _Reducers = {
    kind: reduce
    for kind, reduce in cloudpickle.Pickler.dispatch_table.items()
    if reduce is not copyreg.dispatch_table.get(kind)
}


class ValuePickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Functions that cannot be imported travel with the globals they use.

    reduce_result: reduces what stands for the result of a task, which is known by its method `__hiersched_result__`.
    """

    reduce_result: ReduceResult | None = None
    dispatch_table = copyreg.dispatch_table  # a plain dict, which C looks up at once; cloudpickle's is in `reducers`
    reducers: _Reducers = _CLOUDPICKLE | {
        CodeType: reduce_code,
        memoryview: _reduce_view,
        np.ndarray: _reduce_array,
        _Cached: _reduce_cached,
    }

    def reducer_override(self, value: Any) -> Any:
        """How to pickle `value`; NotImplemented: as pickle would."""
        reduce = self.reducers.get(type(value))
        if reduce is not None:
            return reduce(value)
        if isinstance(value, type):
            if reference_of(value):
                return NotImplemented
            return reduce_class(value, super().reducer_override(value))
        if self.reduce_result is not None and hasattr(type(value), "__hiersched_result__"):
            return self.reduce_result(value)
        return super().reducer_override(value)


# The functions that rebuild things, which most pickles name: known to be importable without a look.
_OURS: frozenset[Any] = frozenset({make_function, complete_function, load_code, make_cell, fill_cell, make_array})


class EnginePickler(ValuePickler):
    """Functions that cannot be imported see the namespace of where they arrive."""

    reducers: _Reducers = ValuePickler.reducers | {CellType: reduce_cell}

    def reducer_override(self, value: Any) -> Any:
        """How to pickle `value`; NotImplemented: as pickle would."""
        if type(value) is not FunctionType:
            return super().reducer_override(value)
        if value in _OURS or reference_of(value):
            return NotImplemented
        if brings_globals(value):
            return super().reducer_override(value)
        return reduce_function(value)


def pickler_for(by_value: bool) -> type[ValuePickler]:
    """The pickler for one of the two ways in which functions travel."""
    return ValuePickler if by_value else EnginePickler
