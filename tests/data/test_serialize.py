"""Calls: one small frame, blobs for what is large, functions by digest, references, and threads."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiersched.data.serialize import DIGEST_BYTES, Packer, Reference, Unpacker, digest_of
from hiersched.errors import PackError, ProtocolError, UnpackError
from hiersched.limits import FUNCTIONS_CACHED_MAX, INLINE_BYTES_MAX
from tests.data.places import Engine, notebook

SMALL = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()


def echo(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What it was called with."""
    return args, kwargs


@given(st.lists(SMALL | st.lists(SMALL)), st.dictionaries(st.text(min_size=1), SMALL | st.sets(SMALL)), st.booleans())
def test_arguments_survive(args: list[Any], kwargs: dict[str, Any], by_value: bool) -> None:
    call = Packer().pack_call(echo, args, kwargs, by_value=by_value)
    assert len(call.frames) == 1
    assert list(call.blobs) == [call.function]
    assert Engine().run(call) == (tuple(args), kwargs)


def test_a_call_without_arguments_is_one_constant_frame() -> None:
    packer = Packer()
    first, second = packer.pack_call(echo), packer.pack_call(len, [], {})
    assert first.frames[0] is second.frames[0]
    assert len(first.frames[0]) < 20
    assert Engine().run(first) == ((), {})


def test_a_blob_is_named_by_its_hash() -> None:
    call = Packer().pack_call(echo, (np.ones(INLINE_BYTES_MAX),))
    assert len(call.blobs) == 2
    for digest, blob in call.blobs.items():
        assert len(digest) == DIGEST_BYTES
        assert digest == digest_of(blob)


def test_large_arguments_become_blobs_and_the_payload_stays_small() -> None:
    array, data, text = np.arange(INLINE_BYTES_MAX), b"d" * INLINE_BYTES_MAX, "t" * INLINE_BYTES_MAX
    call = Packer().pack_call(echo, (array, {"deep": [data]}), {"text": text, "small": 1})
    assert len(call.blobs) == 4
    assert sum(map(len, call.frames)) < 500
    args, kwargs = Engine().run(call)
    assert np.array_equal(args[0], array)
    assert args[1] == {"deep": [data]}
    assert kwargs == {"text": text, "small": 1}


def test_equal_data_is_one_blob_whatever_call_it_belongs_to() -> None:
    packer = Packer()
    first = packer.pack_call(echo, (np.ones(INLINE_BYTES_MAX), np.ones(INLINE_BYTES_MAX)))
    second = packer.pack_call(echo, (), {"x": np.ones(INLINE_BYTES_MAX)})
    assert first.blobs.keys() == second.blobs.keys()
    assert len(first.blobs) == 2


def test_data_changed_after_packing_does_not_change_the_call() -> None:
    array, data = np.zeros(INLINE_BYTES_MAX), bytearray(INLINE_BYTES_MAX)
    call = Packer().pack_call(echo, (array, data))
    array[:] = 1.0
    data[:] = b"x" * len(data)
    (sent_array, sent_data), _ = Engine().run(call)
    assert not sent_array.any()
    assert not any(sent_data)
    assert all(digest == digest_of(blob) for digest, blob in call.blobs.items())


def test_arrays_that_are_blobs_are_read_only_views_and_small_ones_are_writable() -> None:
    call = Packer().pack_call(echo, (np.zeros(INLINE_BYTES_MAX), np.zeros(3)))
    blobs = {digest: bytearray(blob) for digest, blob in call.blobs.items()}
    (large, small), _ = Unpacker({}).arguments(call.frames, blobs)
    assert not large.flags.writeable
    assert any(np.shares_memory(large, np.frombuffer(blob, "u1")) for blob in blobs.values())
    small[0] = 1.0


def test_frames_may_arrive_as_any_kind_of_buffer() -> None:
    call = Packer().pack_call(echo, (1, [2], b"x" * INLINE_BYTES_MAX))
    for kind in (bytes, bytearray, memoryview):
        frames = [kind(frame) for frame in call.frames]
        blobs = {digest: kind(blob) for digest, blob in call.blobs.items()}
        engine = Unpacker({})
        assert engine.function(call.function, blobs[call.function]) is echo
        assert engine.arguments(frames, blobs) == ((1, [2], b"x" * INLINE_BYTES_MAX), {})


def test_a_missing_blob_is_a_key_error_with_its_digest() -> None:
    call = Packer().pack_call(echo, (b"x" * INLINE_BYTES_MAX,))
    data = next(digest for digest in call.blobs if digest != call.function)
    with pytest.raises(KeyError) as missing:
        Unpacker({}).arguments(call.frames, {})
    assert missing.value.args == (data,)


def test_frames_that_are_no_call_are_refused() -> None:
    with pytest.raises(ProtocolError):
        Unpacker({}).arguments([b"\x80\x05N.", b"nonsense"], {})
    with pytest.raises(UnpackError):
        Unpacker({}).arguments([b"nonsense"], {})


def test_an_engine_needs_a_functions_bytes_only_once() -> None:
    packer, engine = Packer(), Unpacker({})
    digest, blob = packer.pack_function(notebook("def f(): return 1")["f"])
    assert digest not in engine
    with pytest.raises(KeyError) as missing:
        engine.function(digest)
    assert missing.value.args == (digest,)
    first = engine.function(digest, blob)
    assert digest in engine
    assert engine.function(digest) is first
    assert engine.function(digest, None)() == 1


def test_an_engine_keeps_a_bounded_number_of_functions() -> None:
    packer, engine = Packer(), Unpacker({})
    source = "def maker(n): return lambda: n"
    maker = notebook(source)["maker"]
    packed = [packer.pack_function(maker(n)) for n in range(FUNCTIONS_CACHED_MAX + 10)]
    for digest, blob in packed:
        engine.function(digest, blob)
    with pytest.raises(KeyError):
        engine.function(packed[0][0])
    assert engine.function(packed[-1][0])() == FUNCTIONS_CACHED_MAX + 9


def test_a_client_keeps_a_bounded_number_of_functions() -> None:
    packer = Packer()
    maker = notebook("def maker(n): return lambda: n")["maker"]
    functions = [maker(n) for n in range(FUNCTIONS_CACHED_MAX + 10)]
    alive = [weakref.ref(function) for function in functions]
    for function in functions:
        packer.pack_function(function)
    del functions, function
    gc.collect()
    assert sum(reference() is not None for reference in alive) == FUNCTIONS_CACHED_MAX


def test_a_function_with_mutable_parts_is_not_kept_alive() -> None:
    packer = Packer()
    function = notebook("def f(x=[1]): return x")["f"]
    packer.pack_function(function)
    alive = weakref.ref(function)
    del function
    gc.collect()
    assert alive() is None


def test_a_reference_is_evaluated_in_the_engines_namespace() -> None:
    engine = Engine(data=[1, 2, 3])
    args, kwargs = engine.run(Packer().pack_call(echo, (Reference("data[-1]"), [Reference("len(data)")]), {"k": 1}))
    assert args == (3, [3])
    assert kwargs == {"k": 1}


def test_a_function_may_be_a_reference_and_is_looked_up_at_each_call() -> None:
    packer, engine = Packer(), Engine()
    for number in (1, 2):
        engine.namespace["f"] = eval(f"lambda: {number}")
        assert engine.run(packer.pack_call(Reference("f"))) == number
    client = notebook("def outer(x): return lambda: x")
    for number in (1, 2):
        engine.namespace["n"] = number
        assert engine.run(packer.pack_call(client["outer"](Reference("n")))) == number


def test_a_reference_to_nothing_says_the_name() -> None:
    with pytest.raises(NameError, match="nowhere"):
        Engine().run(Packer().pack_call(echo, (Reference("nowhere"),)))


def test_a_reference_that_is_no_expression_is_refused_at_once() -> None:
    with pytest.raises(SyntaxError):
        Reference("a b")
    assert Reference("a.b") == Reference("a.b") != Reference("a.c")
    assert len({Reference("a"), Reference("a")}) == 1
    assert repr(Reference("a")) == "Reference('a')"


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(PackError, match="5 is not callable"):
        Packer().pack_call(5)


def test_threads_may_share_a_packer() -> None:
    packer, engine = Packer(), Engine()
    maker = notebook("def maker(n): return lambda x: (n, x)")["maker"]
    functions = [maker(n) for n in range(20)]
    wrong: list[Any] = []
    start = threading.Barrier(8)

    def work(thread: int) -> None:
        start.wait()
        for turn in range(200):
            n = (turn * 7 + thread) % len(functions)
            call = packer.pack_call(functions[n], (turn,))
            if engine.run(call) != (n, turn):
                wrong.append((thread, turn))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_change_by_another_thread_is_never_lost() -> None:
    packer, engine = Packer(), Engine()
    function = notebook("def f(x=0): return x")["f"]
    finished = threading.Event()
    errors: list[tuple[int, int]] = []

    def pack_all_the_time() -> None:
        while not finished.is_set():
            packer.pack_function(function)

    packing = threading.Thread(target=pack_all_the_time)
    packing.start()
    for number in range(300):
        function.__defaults__ = (number,)
        answer = engine.run(packer.pack_call(function))
        if answer != number:
            errors.append((number, answer))
    finished.set()
    packing.join()
    assert not errors
