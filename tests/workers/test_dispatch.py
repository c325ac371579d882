"""Who gets which items: paces, decks and what the dead leave, without workers."""

from __future__ import annotations

import threading

import pytest

from parmagic.execute.task import CallItem, Task
from parmagic.model.pace import AIM, Pace
from parmagic.parse.line import parse_models
from parmagic.record.board import NOTHING, OPEN, SINCE, STOP, TRY, blank_board, board_size, claimed_until, item_slot, loading, rank_of
from parmagic.workers.dispatch import COMMON, OWN, Chain, Counter, OwnItem, SharedDeck, Sharing, claimed, lost


def _all(deck):
    claims = []
    while (claim := deck.take()) is not None:
        claims.append(claim)
    return claims


@pytest.mark.parametrize(
    ("line", "items", "claims", "sharing", "of_rank_1"),
    [
        ("threads=2", range(9), None, COMMON, None),
        ("serial", range(9), None, COMMON, None),
        ("serial", range(9), (range(2, 3), range(7, 8)), Sharing("fixed", (range(2, 3), range(7, 8))), (range(2, 3), range(7, 8))),
        ("procs=2", None, None, OWN, (range(1, 2),)),
        ("serial threads=2", None, None, Sharing("common", in_turn=True), None),
        ("serial threads=2", None, (range(1, 2),), Sharing("fixed", (range(1, 2),), in_turn=True), (range(1, 2),)),
    ],
)
def test_how_items_are_shared_out(line, items, claims, sharing, of_rank_1):
    """Items are for all, or only some of them; ranks are a worker's own each, or in turn the items of the only one."""
    plan = parse_models(line)
    found = Task(CallItem(abs), items, plan).sharing(plan.arms[0], claims)
    assert found == sharing
    assert found.together == (found == OWN)
    assert found.claims_of(1) == of_rank_1


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
    counter, board, claims = Counter(1000), blank_board(workers), []

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
    board = blank_board(1)
    deck = SharedDeck(Counter(10), 1, 1, board)
    assert deck.take() == range(1)
    board[STOP] = 1
    assert deck.take() is None


def test_own_items_come_in_order():
    """A worker with claims of its own gets these, in order, and nothing else."""
    assert _all(OwnItem(range(2, 3), range(7, 9))) == [range(2, 3), range(7, 9)]
    assert _all(OwnItem()) == []


def test_a_chain_begins_with_what_was_left():
    """What a dead worker left comes first, then the common counter, whose pace learns."""
    board = blank_board(1)
    chain = Chain(OwnItem(range(8, 9)), SharedDeck(Counter(4), 1, 2, board))
    assert _all(chain) == [range(8, 9), range(2), range(2, 4)]


def test_board_places_do_not_meet():
    """The stop flag and six places per worker tile the board."""
    places = [STOP, *(item_slot(rank) + k for rank in range(5) for k in (0, 1, 2, OPEN, SINCE, TRY))]
    assert sorted(places) == list(range(board_size(5)))
    assert [rank_of(place) for place in sorted(places)[1:]] == [rank for rank in range(5) for _ in range(6)]


def test_a_blank_board():
    """On a new board nobody is on an item, and nothing is claimed; the end of the last claim is found wherever it is."""
    board = blank_board(3)
    assert len(board) == board_size(3)
    assert [board[item_slot(rank)] for rank in range(3)] == [NOTHING] * 3
    assert claimed_until(board, 3) == 0
    board[item_slot(1) + 2] = 7
    assert claimed_until(board, 3) == 7
    assert claimed_until(memoryview(board), 3) == 7


def test_a_claim_of_another_time():
    """A claim that ends before a worker began was made by its predecessor; one that is not committed is empty."""
    board = blank_board(1)
    board[item_slot(0) + 1], board[item_slot(0) + 2] = 4, 9
    assert claimed(board, 0, 0) == range(4, 9)
    assert not claimed(board, 0, 9)
    board[item_slot(0) + 1] = 12
    assert not claimed(board, 0, 0)


LOST = {
    "in the middle of a claim": (5, (range(3, 9),), 3, 5, (range(3, 5), range(6, 9))),
    "in its first item": (3, (range(3, 9),), -1, 3, (range(4, 9),)),
    "in its last one": (8, (range(3, 9),), 3, 8, (range(3, 8),)),
    "while it loaded a claim": (loading(3), (range(3, 9),), 3, 3, (range(4, 9),)),
    "claimed, and not begun": (NOTHING, (range(3, 9),), 3, None, (range(3, 9),)),
    "reported, and nothing new claimed": (8, (range(3, 9),), 9, None, ()),
    "the first item of all": (0, (range(2),), -1, 0, (range(1, 2),)),
    "before anything": (NOTHING, (range(0),), -1, None, ()),
    "in what another one had left": (4, (range(1, 2), range(4, 6), range(9, 9)), 2, 4, (range(5, 6),)),
    "between two parts of what was left": (NOTHING, (range(1, 2), range(4, 6)), 2, None, (range(4, 6),)),
    "in the first part of what was left": (1, (range(1, 2), range(4, 6)), -1, 1, (range(4, 6),)),
    "in a claim behind what was left": (7, (range(1, 2), range(4, 6), range(7, 9)), 6, 7, (range(8, 9),)),
}


@pytest.mark.parametrize("when", LOST)
def test_what_a_dead_worker_leaves(when):
    """The item that it was on is known, and all that it had claimed and not reported is left, in order."""
    mark, had, reported, item, undone = LOST[when]
    assert lost(mark, had, reported) == (item, undone)
