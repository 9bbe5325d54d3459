"""Hypothesis strategies for messages, derived from the types in protocol.messages.

Every field is drawn from its declared type and bounds, so that a new message or field is covered without a word here.
"""

from __future__ import annotations

import functools
import operator
from typing import Any, get_args

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from hiersched import limits
from hiersched.protocol import messages as m

INT64_MIN, UINT64_MAX = -(2**63), 2**64 - 1  # the integers that msgpack knows
FRAMES_DRAWN_MAX = 3  # of one item: a test must bring them along
LENGTH_MAX = 4  # items of a list, where its type sets no bound
KINDS: tuple[type[msgspec.Struct], ...] = get_args(m.Message)


def values(kind: inspect.Type) -> st.SearchStrategy[Any]:
    """Values of a type, within its bounds."""
    match kind:
        case inspect.IntType(le=limits.FRAMES_MAX):
            return st.integers(0, FRAMES_DRAWN_MAX)
        case inspect.IntType(ge=least, le=most):
            return st.integers(INT64_MIN if least is None else least, UINT64_MAX if most is None else most)
        case inspect.BoolType():
            return st.booleans()
        case inspect.FloatType():
            return st.floats(allow_nan=False)
        case inspect.NoneType():
            return st.none()
        case inspect.UnionType(types=kinds):
            return st.one_of(*map(values, kinds))
        case inspect.StrType():
            return st.text(max_size=LENGTH_MAX)
        case inspect.BytesType(min_length=least, max_length=most):
            longest = LENGTH_MAX if most is None else min(most, max(LENGTH_MAX, least or 0))
            return st.binary(min_size=least or 0, max_size=longest)
        case inspect.ListType(item_type=item):
            return st.lists(values(item), max_size=LENGTH_MAX)
        case inspect.TupleType(item_types=items):
            return st.tuples(*map(values, items))
        case inspect.DictType(key_type=key, value_type=value):
            return st.dictionaries(values(key), values(value), max_size=LENGTH_MAX)
        case inspect.LiteralType(values=literals):
            return st.sampled_from(literals)
        case inspect.AnyType():
            return st.none() | st.booleans() | st.integers(INT64_MIN, UINT64_MAX) | st.text(max_size=LENGTH_MAX)
        case inspect.StructType(cls=m.Chunk):
            return chunks()
        case inspect.StructType(cls=cls, fields=fields):
            return st.builds(cls, **{field.name: values(field.type) for field in fields})
    raise NotImplementedError(f"no strategy for {kind}")


@st.composite
def chunks(draw: st.DrawFn) -> m.Chunk:
    """Answers that fit their ranks: of one rank in any number of frames, or of several, with sizes, in one."""
    ranks = draw(st.integers(0, 4)), draw(st.binary(min_size=1, max_size=3).filter(any))
    count = int.from_bytes(ranks[1]).bit_count()
    if count == 1 and draw(st.booleans()):
        return m.Chunk(ranks, [], draw(st.integers(0, FRAMES_DRAWN_MAX)))
    return m.Chunk(ranks, draw(st.lists(st.integers(0, 99), min_size=count, max_size=count)), 1)


def of_kind(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Messages of one kind."""
    return values(inspect.type_info(kind))


def messages() -> st.SearchStrategy[m.Message]:
    """Messages of any kind."""
    return functools.reduce(operator.or_, map(of_kind, KINDS))


def announced_frames(message: m.Message) -> int:
    """How many payload frames `message` says will follow it."""
    match message:
        case m.Call(parts=counted) | m.Tasks(tasks=counted) | m.Results(results=counted):
            return sum(item.frames for item in counted)
        case m.Reply():
            return sum(chunk.frames for chunk in message.chunks) + len(message.reports)
        case m.Outputs():
            return len(message.pieces)
        case m.Blob():
            return 1
    return 0
