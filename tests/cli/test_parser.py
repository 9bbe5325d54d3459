"""What can be written after `hiersched`, and what a slip of the fingers gets."""

from __future__ import annotations

import pytest

from hiersched.cli.parser import parsed


def mistake(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The line that these words get; nothing runs."""
    with pytest.raises(SystemExit) as caught:
        parsed(words)
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


def test_engines_are_counted_as_ipcluster_counts_them() -> None:
    assert [parsed(["start", *words]).n for words in (["-n", "4"], ["--n", "4"], ["--n=4"], [])] == [4, 4, 4, None]


def test_a_cluster_is_left_running_unless_it_is_said() -> None:
    assert parsed(["start"]).daemonize
    assert parsed(["start", "--daemonize"]).daemonize
    assert not parsed(["start", "--no-daemonize"]).daemonize


def test_a_profile_is_named_or_given_by_its_directory() -> None:
    for command in (["start"], ["stop"], ["status"], ["list"], ["engines"], ["scale", "-n", "1"], ["signal", "INT"]):
        options = parsed([*command, "--profile", "work"])
        assert (options.profile, options.profile_dir) == ("work", None)
        assert parsed([*command, "--profile-dir", "/x"]).profile_dir == "/x"


def test_watching_has_a_period_of_its_own() -> None:
    assert [parsed(["status", *words]).watch for words in ([], ["--watch"], ["--watch", "5"])] == [None, 1.0, 5.0]


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_an_unknown_option_is_told_the_nearest_and_all(capsys: pytest.CaptureFixture[str]) -> None:
    said = mistake("start", "--fanuot", "3", capsys=capsys)
    assert said.startswith("hiersched start: '--fanuot' is unknown: did you mean --fanout? there are -h, --help, -n, ")
    assert "--leaf-engines" in said


def test_an_option_far_from_all_is_told_all(capsys: pytest.CaptureFixture[str]) -> None:
    said = mistake("stop", "--xyz=1", capsys=capsys)
    assert said.startswith("hiersched stop: '--xyz' is unknown: there are -h")


def test_options_are_not_shortened(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean --cluster-id?" in mistake("stop", "--cluster", "x", capsys=capsys)


def test_an_unknown_command_is_told_all(capsys: pytest.CaptureFixture[str]) -> None:
    said = mistake("strat", capsys=capsys)
    assert all(f"'{name}'" in said for name in ("start", "stop", "status", "list", "engines", "scale", "signal"))


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ([], "give a COMMAND: there are start, stop, status"),
        (["start", "-n", "four"], "invalid int value: 'four'"),
        (["start", "--restart", "sometimes"], "invalid choice: 'sometimes'"),
        (["scale"], "-n/--n"),
        (["signal"], "SIGNAL"),
    ],
)
def test_what_is_missing_or_makes_no_sense_is_named(
    words: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert what in mistake(*words, capsys=capsys)
