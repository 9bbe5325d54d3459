"""The messages fit together: what one bound allows, the types let through."""

from __future__ import annotations

import msgspec
import pytest

from hiersched.kernels import bitset
from hiersched.limits import CLIENTS_MAX, ENGINES_MAX
from hiersched.protocol import messages as m
from hiersched.protocol.framing import decode, encode
from tests.protocol.arbitrary import INT64_MIN, KINDS


def test_every_kind_of_message_has_a_tag_of_its_own():
    tags = [kind.__struct_config__.tag for kind in KINDS]
    assert len(set(tags)) == len(tags)


def test_a_message_is_never_changed_after_it_was_made():
    assert all(kind.__struct_config__.frozen for kind in KINDS)
    with pytest.raises(AttributeError):
        m.Stop("done").reason = "again"


@pytest.mark.parametrize("ranks", [0, 1, 1 << (ENGINES_MAX - 1), bitset.of_range(0, ENGINES_MAX)], ids=bitset.text_of)
def test_every_set_of_ranks_of_the_largest_cluster_can_be_sent(ranks):
    news = m.Members(bitset.to_wire(ranks), bitset.to_wire(0), "")
    received, _ = decode(*encode(news))
    assert bitset.from_wire(received.joined) == ranks


def test_a_scheduler_may_stand_for_all_ranks_of_the_largest_cluster():
    hello = m.Hello("c", "k", "scheduler", "u", 1, "h", 0, ENGINES_MAX)
    assert decode(*encode(hello)) == (hello, [])


def test_task_ids_of_many_sessions_fit_in_an_integer_of_the_wire():
    sessions = 1000 * CLIENTS_MAX
    assert sessions << m.SESSION_SHIFT < -INT64_MIN


def test_a_part_without_answer_has_a_code_of_its_own_and_none_means_success():
    codes = [m.ENGINE_LOST, m.ENGINE_UNKNOWN, m.BLOB_LOST, m.CANCELLED, m.REFUSED]
    assert len(set(codes)) == len(codes)
    assert 0 not in codes


def test_no_function_is_a_digest():
    assert msgspec.convert(m.NO_FUNCTION, m.Digest) == m.NO_FUNCTION
