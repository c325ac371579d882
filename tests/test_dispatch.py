"""Who gets which items: paces, decks and the token, without workers."""

from __future__ import annotations

import os
import select
import threading

import pytest

from parmagic.dispatch import AIM, Chain, Counter, OwnItem, Pace, PipeDeck, SharedDeck, put_token, take_token
from parmagic.recorder import STOP, board_size, item_slot


@pytest.fixture
def pipe():
    """Return a pipe, and close it again."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def _all(deck):
    claims = []
    while (claim := deck.take()) is not None:
        claims.append(claim)
    return claims


def test_a_chunk_grows_at_most_fourfold():
    """However fast items are, the next chunk is at most four times the last one."""
    pace = Pace(2, None)
    sizes = []
    for _ in range(5):
        sizes.append(pace.size(10**9))
        pace.took(sizes[-1], 1e-9)
    assert sizes == [1, 4, 16, 64, 256]


def test_a_chunk_aims_at_its_time():
    """Items of a tenth of the aim go out ten at a time, longer ones one by one."""
    pace = Pace(2, None)
    pace.took(8, 8 * AIM / 10)
    assert pace.size(10**6) == 10
    pace.took(10, 100 * AIM)
    assert pace.size(10**6) == 1


def test_a_chunk_leaves_enough_for_the_others():
    """A chunk is at most half of an even share of what is left, at least one, and none of nothing."""
    pace = Pace(4, None)
    pace.took(1000, 1e-9)
    assert [pace.size(left) for left in (800, 80, 8, 7, 1, 0)] == [100, 10, 1, 1, 1, 0]


def test_a_fixed_chunk_learns_nothing():
    """With --chunk the size is what was asked for, and the rest at the end."""
    pace = Pace(2, 5)
    pace.took(5, 1000.0)
    assert [pace.size(left) for left in (100, 5, 3, 0)] == [5, 5, 3, 0]


def test_an_empty_claim_teaches_nothing():
    """A claim that ran no item leaves the pace as it was."""
    pace = Pace(1, None)
    pace.took(0, 1.0)
    assert pace.size(100) == 1


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_threads_share_one_counter(workers):
    """Every item number is claimed once, whoever takes it."""
    counter, board, claims = Counter(1000), [0] * board_size(workers), []

    def drain():
        deck = SharedDeck(counter, workers, None, board)
        for claim in iter(deck.take, None):
            claims.append(claim)
            deck.took(len(claim), 1e-6)

    threads = [threading.Thread(target=drain) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for claim in claims for number in claim) == list(range(1000))


def test_stop_ends_the_shared_deck():
    """Nothing is handed out once the board says stop."""
    board = [0] * board_size(1)
    deck = SharedDeck(Counter(10), 1, 1, board)
    assert deck.take() == range(1)
    board[STOP] = 1
    assert deck.take() is None


def test_processes_pass_the_token(pipe):
    """Each claim starts where the token stood, is on the board, and moves the token."""
    board = [0] * board_size(2)
    put_token(pipe, 0)
    one, two = (PipeDeck(pipe, 10, 2, 3, board, rank) for rank in (0, 1))
    assert [one.take(), two.take(), one.take(), two.take(), one.take()] == [range(3), range(3, 6), range(6, 9), range(9, 10), None]
    assert board[item_slot(1) + 1 : item_slot(1) + 3] == [9, 10]
    assert board[item_slot(0) + 1 : item_slot(0) + 3] == [10, 10]
    assert take_token(pipe) == 10


def test_stop_leaves_the_token(pipe):
    """A worker that is told to stop does not even touch the token."""
    board = [0] * board_size(1)
    put_token(pipe, 4)
    board[STOP] = 1
    assert PipeDeck(pipe, 10, 1, None, board, 0).take() is None
    assert select.select([pipe[0]], [], [], 0)[0]
    assert take_token(pipe) == 4


def test_own_items_come_in_order():
    """A worker with claims of its own gets these, in order, and nothing else."""
    assert _all(OwnItem(range(2, 3), range(7, 9))) == [range(2, 3), range(7, 9)]
    assert _all(OwnItem()) == []


def test_a_chain_begins_with_what_was_left():
    """What a dead worker left comes first, then the common counter, whose pace learns."""
    board = [0] * board_size(1)
    chain = Chain(OwnItem(range(8, 9)), SharedDeck(Counter(4), 1, 2, board))
    assert _all(chain) == [range(8, 9), range(2), range(2, 4)]


def test_board_places_do_not_meet():
    """The stop flag and three places per worker tile the board."""
    places = [STOP, *(item_slot(rank) + k for rank in range(5) for k in range(3))]
    assert sorted(places) == list(range(board_size(5)))
