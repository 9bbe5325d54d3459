"""Every part of a request ends once, with its own answer."""

from __future__ import annotations

import pytest

from hiersched.errors import Bug, EngineLost, RemoteError
from hiersched.simulation.payload import Answer, Argument
from hiersched.simulation.requests import Request, ToldAgain


def call() -> Request:
    request = Request([7, 3], [Argument(0.0, token=5)])
    request.begin([42], now_s=1.0)
    return request


def test_results_stand_in_the_order_of_the_targets():
    request = call()
    assert not request.settle(request.place_of(3), Answer(42, 3, 5), 2.0)
    assert request.settle(request.place_of(7), Answer(42, 7, 5), 3.0)
    assert [answer.rank for answer in request.results] == [7, 3]
    assert request.done()
    assert request.took_s == 2.0


def test_errors_stand_beside_the_good_results():
    request = call()
    request.settle(request.place_of(3), EngineLost, 2.0)
    request.settle(request.place_of(7), Answer(42, 7, 5), 2.0)
    assert request.errors == {3: EngineLost}
    assert request.results == [Answer(42, 7, 5), None]


def test_a_part_that_ends_twice_is_a_bug():
    request = call()
    request.settle(0, EngineLost, 2.0)
    with pytest.raises(Bug, match="ends twice"):
        request.settle(0, Answer(42, 7, 5), 2.0)


@pytest.mark.parametrize("answer", [Answer(41, 7, 5), Answer(42, 3, 5), Answer(42, 7, 6)])
def test_an_answer_that_belongs_elsewhere_is_a_bug(answer: Answer):
    with pytest.raises(Bug, match="wanted"):
        call().settle(0, answer, 2.0)


def test_an_engine_that_was_not_asked_is_a_bug():
    with pytest.raises(Bug, match="not for it"):
        call().place_of(4)


def test_tasks_are_known_by_their_place():
    request = Request(None, [Argument(0.0, token=token) for token in range(3)])
    request.begin([10, 11, 12], now_s=0.0)
    request.settle(1, EngineLost, 1.0)
    request.settle(0, Answer(10, 99, 0), 1.0)
    assert not request.done()
    request.settle(2, Answer(12, 98, 2), 1.0)
    assert request.errors == {1: EngineLost}
    assert request.done()


def test_a_call_on_nobody_is_over_when_it_is_sent():
    request = Request([], [Argument(0.0)])
    assert not request.done()
    request.begin([42], now_s=1.0)
    assert request.done()
    assert request.took_s == 0.0


def test_code_that_raised_is_an_error_if_the_answer_is_its_own():
    request = call()
    request.settle(request.place_of(3), Answer(42, 3, 5, failed=True), 2.0)
    assert request.errors == {3: RemoteError}
    with pytest.raises(Bug, match="wanted"):
        request.settle(request.place_of(7), Answer(42, 7, 6, failed=True), 2.0)


def test_what_one_client_had_the_next_is_told_once_more():
    request = call()
    request.settle(request.place_of(3), Answer(42, 3, 5), 2.0)
    again = ToldAgain()
    again.expect(42, request, -1)
    assert again.expects(42)
    assert not again.take(42, request.place_of(7))
    assert again.take(42, request.place_of(3))
    assert not again.expects(42)
    assert not again.take(42, request.place_of(3))


def test_of_a_batch_of_tasks_only_the_one_in_question_is_told_again():
    request = Request(None, [Argument(0.0, token=token) for token in range(2)])
    request.begin([10, 11], now_s=0.0)
    request.settle(0, Answer(10, 99, 0), 1.0)
    again = ToldAgain()
    again.expect(10, request, 0)
    again.expect(11, request, 1)
    assert again.expects(10, 0)
    assert not again.expects(11)
