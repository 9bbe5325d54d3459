"""Results are sent in order and remembered until they have been seen, within bounds."""

from __future__ import annotations

from hiersched.core.answers import Answers
from hiersched.limits import TASKS_IN_FLIGHT_PER_CLIENT_MAX
from hiersched.protocol import messages as m
from tests.core.transcript import result


def sent(answers: Answers, *numbers: int) -> None:
    """These results are gathered and sent, as one batch."""
    for number in numbers:
        answers.add(result(number, 0))
    for _ in answers.news() if answers.ended is not None else ():
        pass
    assert [one.id for one in answers.take()[0]] == list(numbers)


def remembered(answers: Answers) -> list[int]:
    return sorted(answers.look_up())


def test_what_has_gathered_is_taken_once_with_its_frames():
    answers = Answers(remembers=True)
    answers.add(result(1, 0, frames=1), [b"one"])
    answers.add(result(2, 0))
    assert answers.take() == ([result(1, 0, frames=1), result(2, 0)], [b"one"])
    assert (answers.results, answers.frames) == ([], [])


def test_results_are_known_until_the_client_has_seen_all_of_their_batch():
    answers = Answers(remembers=True)
    sent(answers, 1, 2)
    sent(answers, 3)
    answers.add(result(4, 0))
    answers.seen(1)
    assert remembered(answers) == [1, 2, 3, 4]
    answers.seen(2)
    assert remembered(answers) == [3, 4]
    answers.take()
    answers.seen(4)
    assert remembered(answers) == []


def test_news_are_told_once_also_those_that_they_lead_to():
    answers = Answers(remembers=True)
    answers.look_up()
    answers.add(result(1, 0, frames=2), [b"ab", b"cde"])
    answers.add(result(2, 0))
    heard = []
    for news, size in answers.news():
        heard.append((news.id, size))
        if news.id == 1:
            answers.add(result(3, 0, frames=1), [b"f"])
    assert heard == [(1, 5), (2, 0), (3, 1)]
    assert list(answers.news()) == []
    assert answers.size_of(1) == 5
    assert remembered(answers) == [1, 2, 3]


def test_a_client_that_never_says_what_it_has_seen_costs_no_more_than_it_may_have_in_flight():
    answers = Answers(remembers=True)
    for first in range(0, 3 * TASKS_IN_FLIGHT_PER_CLIENT_MAX, 1_000):
        sent(answers, *range(first, first + 1_000))
    last = 3 * TASKS_IN_FLIGHT_PER_CLIENT_MAX
    assert remembered(answers) == list(range(last - TASKS_IN_FLIGHT_PER_CLIENT_MAX, last))


def test_the_oldest_lose_their_payloads_when_there_are_too_many_bytes():
    answers = Answers(remembers=True, bytes_max=10)
    for number in range(4):
        sent(answers, number)  # of five bytes each
    ended = answers.look_up()
    assert [ended[number].payload for number in range(4)] == [b"", b"", b"value", b"value"]
    sent(answers, 4)
    assert [ended[number].payload for number in range(5)] == [b"", b"", b"", b"value", b"value"]
    answers.seen(4)
    sent(answers, 5)
    assert [ended[number].payload for number in (4, 5)] == [b"value", b"value"]
    assert {one.code for one in ended.values()} == {0}


def test_a_client_that_joins_again_counts_anew():
    answers = Answers(remembers=True)
    sent(answers, 1, 2)
    answers.seen(2)
    sent(answers, 3)
    sent(answers, 4)
    answers.send_again(3)  # 2, 3 and 4, as it happens
    answers.seen(1)
    assert remembered(answers) == [3, 4]
    answers.seen(2)
    assert remembered(answers) == [4]
    sent(answers, 5)
    answers.seen(4)
    assert remembered(answers) == []


def test_below_the_root_nothing_is_remembered():
    answers = Answers(remembers=False)
    sent(answers, 1)
    assert remembered(answers) == []


def test_how_it_ended_is_known_before_it_is_sent():
    answers = Answers(remembers=True)
    answers.add(m.Result(1, 2, 3, m.RAISED, b"error", 0))
    assert answers.look_up()[1].code == m.RAISED
