"""What code prints is seen while it runs, complete and in order; code that ends soon takes it along with its answer."""

from __future__ import annotations

import threading
from pathlib import Path

from hiersched.data.outcomes import Outcome
from hiersched.data.outputs import Clear, Shown, Text
from hiersched.limits import OUTPUT_PIECE_BYTES_MAX
from hiersched.protocol import messages as m
from tests.nodes import deeds
from tests.nodes.schedulers import Scheduler


def ended(outcome: Outcome | m.Loss) -> Outcome:
    assert isinstance(outcome, Outcome)
    return outcome


def test_a_short_call_takes_its_output_along(above: Scheduler) -> None:
    outcome = ended(above.reply(above.call(print, "all of it")))
    assert outcome.stdout == "all of it\n"
    assert above.pieces == {}


def test_what_a_long_call_prints_is_seen_before_it_ends(above: Scheduler, gate: Path) -> None:
    running = above.call(deeds.talk_and_hold, str(gate), "early")
    outputs, _ = above.expect(m.Outputs)
    assert [piece.request for piece in outputs.pieces] == [running]
    assert above.pieces[running] == [Text("stdout", "early\n")]
    (gate / "go").touch()
    outcome = ended(above.reply(running))
    assert (outcome.value, outcome.stdout) == ("held", "early\n")


def test_what_a_task_prints_is_seen_as_the_tasks(above: Scheduler, gate: Path) -> None:
    _, talking = above.tasks((abs, -1), (deeds.talk_and_hold, str(gate), "early"))
    outputs, _ = above.expect(m.Outputs)
    assert [piece.request for piece in outputs.pieces] == [talking]
    (gate / "go").touch()
    code, outcome = above.result(talking)
    assert (code, outcome.stdout) == (0, "early\n")


def test_much_output_leaves_in_pieces_in_order(above: Scheduler) -> None:
    lines, width = 20_000, 50
    running = above.call(deeds.flood, lines, width)
    outcome = ended(above.reply(running))
    assert outcome.stdout == "".join(f"{number:0{width - 1}d}\n" for number in range(lines))
    pieces = [len(output.text) for output in above.pieces[running]]  # type: ignore[union-attr]
    assert len(pieces) >= lines * width // OUTPUT_PIECE_BYTES_MAX - 1


def test_streams_displays_and_clears_keep_their_order(above: Scheduler, gate: Path) -> None:
    running = above.cell(
        "import sys, time\n"
        "from IPython.display import clear_output, display\n"
        "print('one'); print('two', file=sys.stderr); handle = display(3, display_id='d')\n"
        "clear_output(wait=True); handle.update(4); print('five')"
    )
    outcome = ended(above.reply(running))
    kinds = [type(output) for output in outcome.all_outputs]
    assert kinds == [Text, Text, Shown, Clear, Shown, Text]
    assert (outcome.stdout, outcome.stderr) == ("one\nfive\n", "two\n")


def test_a_cell_is_seen_while_it_runs(above: Scheduler, gate: Path) -> None:
    running = above.cell(f"print('working')\nfrom tests.nodes import deeds\ndeeds.hold({str(gate)!r}, 5)")
    above.expect(m.Outputs)
    assert above.pieces[running] == [Text("stdout", "working\n")]
    (gate / "go").touch()
    assert ended(above.reply(running)).value.execute_result["data"]["text/plain"] == "5"


def test_threads_of_the_users_may_print(above: Scheduler) -> None:
    running = above.call(in_threads, 4, 2_000)
    outcome = ended(above.reply(running))
    words = outcome.stdout.split()
    assert sorted(words) == sorted(f"{name}-{number}" for name in range(4) for number in range(2_000))


def in_threads(threads: int, words: int) -> None:
    """Print from several threads at once."""

    def talk(name: int) -> None:
        for number in range(words):
            print(f"{name}-{number}\n", end="")

    talkers = [threading.Thread(target=talk, args=(name,)) for name in range(threads)]
    for talker in talkers:
        talker.start()
    for talker in talkers:
        talker.join()


def test_what_a_thread_prints_after_its_call_goes_with_the_next(above: Scheduler) -> None:
    first = ended(above.reply(above.call(print_later)))
    second = ended(above.reply(above.call(let_it_print)))
    assert (first.stdout, second.stdout) == ("", "late\n")


_LATER = threading.Event()
_PRINTED = threading.Event()


def print_later() -> None:
    """Leave a thread behind that prints when it is told to."""

    def talk() -> None:
        _LATER.wait(deeds.PATIENCE_S)
        print("late")
        _PRINTED.set()

    threading.Thread(target=talk, daemon=True).start()


def let_it_print() -> None:
    """Let it print, and wait until it has."""
    _LATER.set()
    _PRINTED.wait(deeds.PATIENCE_S)
