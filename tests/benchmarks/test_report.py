"""Rows keep the format, ratios point one way, tables name what is missing."""

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from benchmarks.report import (
    Case,
    Report,
    Row,
    Target,
    best,
    by_case,
    grid,
    markdown,
    print_report,
    read_results,
    show,
    write_results,
    write_rows,
)

positive = st.floats(min_value=1e-6, max_value=1e9)


def time_row(ours: float | None = 2.0, target: Target | None = None, **peers: float | None) -> Row:
    return Row("no-op on all", "ms", 64, ours, peers, target)


def rate_row(ours: float | None = 2.0, target: Target | None = None, **peers: float | None) -> Row:
    return Row("submit of no-ops", "tasks/s", 4, ours, peers, target)


def printed(report: Report) -> str:
    console = Console(file=io.StringIO(), width=120)
    print_report(report, console)
    return console.file.getvalue()


# --- rows -------------------------------------------------------------------------------------------------------------


def test_row_is_written_with_exactly_six_keys(tmp_path: Path):
    path = tmp_path / "rows.json"
    write_rows([time_row(2.0, Target(ratio_min=12), slow=30.0, gone=None)], path)
    assert json.loads(path.read_text()) == [
        {
            "case": "no-op on all",
            "unit": "ms",
            "n": 64,
            "ours": 2.0,
            "peers": {"slow": 30.0, "gone": None},
            "ratio_to_best_peer": 15.0,
        }
    ]


def test_results_survive_the_file(tmp_path: Path):
    report = Report("broadcast", "One call on all", [time_row(2.0, slow=30.0)], {"ray": "not installed"}, ["a note"])
    write_results({"cores": "2"}, [report], tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == [report]


# --- ratios -----------------------------------------------------------------------------------------------------------


def test_for_times_the_best_peer_is_the_fastest_and_its_time_over_ours_is_the_ratio():
    row = time_row(2.0, quick=10.0, slow=100.0)
    assert (row.best_peer, row.ratio) == (10.0, 5.0)


def test_for_rates_the_best_peer_is_the_highest_and_our_rate_over_its_is_the_ratio():
    row = rate_row(20.0, quick=10.0, slow=1.0)
    assert (row.best_peer, row.ratio) == (10.0, 2.0)


@given(ours=positive, peer=positive)
def test_a_ratio_above_one_always_means_that_ours_is_better(ours: float, peer: float):
    assert (time_row(ours, peer=peer).ratio > 1) == (peer / ours > 1)
    assert (rate_row(ours, peer=peer).ratio > 1) == (ours / peer > 1)


def test_missing_peers_do_not_take_part():
    assert time_row(2.0, gone=None, slow=30.0).ratio == 15.0
    assert rate_row(2.0, gone=None, slow=0.5).ratio == 4.0


def test_there_is_no_ratio_without_ours_or_without_a_peer():
    assert time_row(None, slow=30.0).ratio is None
    assert time_row(2.0, gone=None).ratio is None
    assert time_row(2.0).ratio is None
    assert best([None, None], higher_is_better=True) is None


# --- rows out of races ------------------------------------------------------------------------------------------------


def test_a_row_holds_medians_in_its_unit():
    race = {"ours": [0.001, 0.002, 0.009], "peer": [0.030, 0.010, 0.020]}
    row = Case("call", "ms", 1e3).row(4, ours="ours", peers=["peer"], races=[race])
    assert row.ours == pytest.approx(2.0)
    assert row.peers == {"peer": pytest.approx(20.0)}


def test_ours_is_taken_from_the_race_against_the_best_peer():
    calm = {"ours": [1.0], "slow": [50.0]}
    busy = {"ours": [3.0], "quick": [12.0]}
    row = Case("call", "s").row(1, ours="ours", peers=["slow", "quick"], races=[calm, busy])
    assert (row.ours, row.ratio) == (3.0, 4.0)


def test_a_peer_that_ran_no_race_is_none_and_ours_still_shows():
    row = Case("call", "s").row(1, ours="ours", peers=["gone"], races=[{"ours": [1.0]}])
    assert (row.ours, row.peers, row.ratio) == (1.0, {"gone": None}, None)


def test_ours_that_ran_no_race_is_none_and_the_peer_still_shows():
    row = Case("call", "s").row(1, ours="ours", peers=["peer"], races=[{"peer": [1.0]}])
    assert (row.ours, row.peers, row.ratio) == (None, {"peer": 1.0}, None)


# --- targets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ours", "reached"), [(2.0, True), (3.0, False), (None, None)])
def test_a_ratio_target_is_reached_missed_or_not_decided(ours: float | None, reached: bool | None):
    assert Target(ratio_min=12).reached_by(time_row(ours, peer=24.0)) is reached


def test_a_bound_on_ours_needs_no_peer():
    assert Target(ours_max=12).reached_by(time_row(11.0)) is True
    assert Target(ours_max=12).reached_by(time_row(13.0)) is False


def test_a_target_says_what_it_wants():
    assert str(Target(ratio_min=1 / 1.6)) == ">= 0.625x"
    assert str(Target(ours_max=12)) == "<= 12"


# --- tables -----------------------------------------------------------------------------------------------------------


def test_a_table_has_a_line_per_contender_and_a_column_per_number_of_engines():
    rows = [
        Row("start", "s", 64, 1.0, {"stock": 40.0}, Target(ratio_min=15)),
        Row("start", "s", 4, 0.5, {"stock": 7.0}),
        Row("start", "s", 1000, 5.0, {}),
    ]
    assert grid(rows) == [
        ["start (s)", "n=4", "n=64", "n=1000"],
        ["hiersched", "0.5", "1", "5"],
        ["stock", "7", "40", "-"],
        ["times better than the best peer", "14x", "40x", "-"],
        ["wanted", "-", ">= 15x reached", "-"],
    ]


def test_what_is_missing_says_so_and_never_shows_as_zero():
    lines = grid([time_row(None, gone=None)])
    assert [line[1] for line in lines[1:]] == ["missing", "missing", "missing"]
    assert show(None) == "missing"


def test_cases_keep_their_order_when_rows_of_several_numbers_are_mixed():
    rows = [Row("b", "s", 1, 1.0, {}), Row("a", "s", 1, 1.0, {}), Row("b", "s", 2, 1.0, {})]
    assert {case: [row.n for row in of_case] for case, of_case in by_case(rows).items()} == {"b": [1, 2], "a": [1]}


def test_the_reason_why_a_peer_is_missing_is_printed_and_published():
    report = Report("hop_latency", "One call", [time_row(2.0, ray=None)], {"ray": "No module named 'ray'"})
    assert "missing: ray: No module named 'ray'" in printed(report)
    assert "- missing: ray: No module named 'ray'" in markdown(report)


@pytest.mark.parametrize(
    ("value", "text"), [(0.01234, "0.0123"), (5.678, "5.68"), (99.94, "99.9"), (1482161.0, "1,482,161"), (100.4, "100")]
)
def test_numbers_keep_three_digits_and_stay_readable(value: float, text: str):
    assert show(value) == text
