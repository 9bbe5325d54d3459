"""What code prints and displays is kept in order, joined where it can be, and bounded."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiersched.data.outputs import Clear, Output, Shown, Text, pack_outputs, unpack_outputs
from hiersched.nodes import transcript as module
from hiersched.nodes.capture import Capture, NoInput
from hiersched.nodes.transcript import Transcript

NOTE = "\n[more output was dropped]\n"


def read(packed: Sequence[msgspec.Raw]) -> list[Output]:
    return unpack_outputs(pack_outputs(packed))


# --- the transcript ---------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.text())))
def test_texts_of_one_stream_are_joined_and_the_order_is_kept(writes: list[tuple[module.Stream, str]]) -> None:
    transcript = Transcript()
    for stream, text in writes:
        transcript.write(stream, text)
    outputs = read(transcript.take())
    streams = [output.stream for output in outputs]  # type: ignore[union-attr]
    assert all(first != second for first, second in pairwise(streams))
    for stream in ("stdout", "stderr"):
        expected = "".join(text for other, text in writes if other == stream)
        escaped = expected.encode("utf-8", "backslashreplace").decode()
        assert "".join(output.text for output in outputs if output.stream == stream) == escaped  # type: ignore


def test_displays_come_between_the_texts_around_them() -> None:
    transcript = Transcript()
    transcript.write("stdout", "a")
    transcript.add(Shown({"text/plain": "x"}))
    transcript.write("stdout", "b")
    transcript.write("stderr", "c")
    transcript.add(Clear())
    assert read(transcript.take()) == [
        Text("stdout", "a"),
        Shown({"text/plain": "x"}),
        Text("stdout", "b"),
        Text("stderr", "c"),
        Clear(),
    ]
    assert transcript.take() == []


def test_what_was_taken_can_be_put_back_in_front() -> None:
    transcript = Transcript()
    transcript.write("stdout", "a")
    taken = transcript.take()
    transcript.write("stdout", "b")
    transcript.put_back(taken)
    assert read(transcript.finish()) == [Text("stdout", "a"), Text("stdout", "b")]


def test_its_listener_hears_when_there_is_enough() -> None:
    transcript = Transcript()
    heard: list[int] = []
    transcript.heard, transcript.alarm = lambda: heard.append(transcript.size), 5
    for text in ("ab", "cd", "\N{EURO SIGN}"):
        transcript.write("stdout", text)
    assert heard == [7]
    transcript.take()
    transcript.write("stdout", "ab")
    assert heard == [7]


@pytest.fixture
def bounded(monkeypatch: pytest.MonkeyPatch) -> Transcript:
    monkeypatch.setattr(module, "OUTPUT_BYTES_MAX", 10)
    return Transcript()


def test_beyond_the_bound_there_is_one_note(bounded: Transcript) -> None:
    for _ in range(3):
        bounded.write("stdout", "12345678")
        bounded.add(Shown({"text/plain": "x" * 20}))
    assert read(bounded.take()) == [Text("stdout", "12345678" + NOTE)]
    bounded.write("stderr", "nothing any more")
    assert bounded.finish() == []
    bounded.write("stdout", "the next")
    assert read(bounded.finish()) == [Text("stdout", "the next")]


def test_a_text_is_cut_where_a_character_ends(bounded: Transcript) -> None:
    bounded.write("stdout", "\N{EURO SIGN}" * 5)  # three bytes each
    assert read(bounded.finish()) == [Text("stdout", "\N{EURO SIGN}" * 3 + NOTE)]


def test_what_was_sent_ahead_counts_too(bounded: Transcript) -> None:
    bounded.write("stdout", "12345678")
    bounded.take()
    bounded.write("stdout", "12345678")
    assert read(bounded.finish()) == [Text("stdout", "12" + NOTE)]


def test_output_without_end_takes_no_memory(bounded: Transcript) -> None:
    for _ in range(1000):
        bounded.write("stdout", "x" * 20)
    assert len(bounded._items) == 1


def test_writers_and_a_taker_lose_nothing() -> None:
    transcript = Transcript()
    writers = [
        threading.Thread(target=lambda: [transcript.write("stdout", "x") for _ in range(2_000)]) for _ in range(4)
    ]
    outputs: list[Output] = []
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        outputs += read(transcript.take())
    outputs += read(transcript.finish())
    assert sum(len(output.text) for output in outputs) == 8_000  # type: ignore[union-attr]


def test_in_a_forked_process_it_prints_to_the_descriptors(capfd: pytest.CaptureFixture[str]) -> None:
    transcript = Transcript()
    transcript.write("stdout", "the engine's own\n")
    transcript.leave()
    transcript.write("stdout", "from the child\n")
    transcript.write("stderr", "its complaint\ud800\n")
    transcript.add(Shown({"text/plain": "a picture"}))
    assert capfd.readouterr() == ("from the child\n", "its complaint\\ud800\n")
    assert transcript.finish() == []


# --- the streams ------------------------------------------------------------------------------------------------------


def test_capture_is_a_text_stream() -> None:
    transcript = Transcript()
    capture = Capture("stdout", transcript)
    assert capture.write("a") == 1
    capture.writelines(["b", "c"])
    print("d", file=capture, flush=True)
    assert capture.writable()
    assert not capture.isatty()
    assert (capture.encoding, capture.errors, capture.name) == ("utf-8", "backslashreplace", "<stdout>")
    assert read(transcript.finish()) == [Text("stdout", "abcd\n")]
    with pytest.raises(TypeError, match="must be str, not bytes"):
        capture.write(b"bytes")  # type: ignore[arg-type]


def test_capture_stays_open() -> None:
    transcript = Transcript()
    capture = Capture("stderr", transcript)
    with capture:
        capture.close()
    print("still", file=capture)
    assert not capture.closed
    assert read(transcript.finish()) == [Text("stderr", "still\n")]


def test_bytes_are_text_however_they_are_cut() -> None:
    transcript = Transcript()
    capture = Capture("stdout", transcript)
    data = "a\N{EURO SIGN}b".encode()
    assert sum(capture.buffer.write(data[place : place + 1]) for place in range(len(data))) == len(data)
    capture.buffer.write(b"\xff")
    capture.buffer.close()
    capture.buffer.write(b".")
    assert read(transcript.finish()) == [Text("stdout", "a\N{EURO SIGN}b\\xff.")]


def test_nobody_answers() -> None:
    stream = NoInput()
    stream.close()
    assert stream.readable()
    assert stream.read() == ""
    with pytest.raises(EOFError, match="nobody answers input"):
        stream.readline()


def test_it_has_no_descriptor() -> None:
    with pytest.raises(OSError, match="fileno"):
        os.fstat(Capture("stdout", Transcript()).fileno())
