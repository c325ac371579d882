"""All that can happen while workers claim, run and report items: the steps are those of the real deck, and of the real book-keeping of deaths.

A worker is where its next step is; between any two steps of its it may be as slow as it likes (others go
on), or be killed. :func:`explore` goes through every state that can be reached, and looks at each of them.

    python tests/claim_model.py        # larger models than the suite has time for: a few minutes
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from parmagic.record.board import NOTHING, STOP, blank_board, item_slot, loading
from parmagic.workers.dispatch import claimed, lost
from parmagic.workers.processes import claims
from parmagic.workers.processes.claims import BoardDeck

Step = Callable[[BoardDeck], None]


PRIVATE = frozenset({"free", "load", "mark", "run", "report", "clear", "dead"})
"""Steps that read and write what no other worker's steps do, unless somebody says stop."""


class Wrong(AssertionError):
    """Something that must not be was reached; it carries the way there."""


@dataclass(frozen=True)
class Worker:
    """A process: where it is, what its deck knows, what it has; and what the notebook knows of it."""

    at: str | int = "free"  # its next step; a number: of the deck's
    deck: tuple[int, int] = (0, 0)
    claim: tuple[int, int] = (0, 0)
    item: int = 0
    ran: frozenset[int] = frozenset()  # and not reported
    to_do: tuple[range, ...] = ()
    left: tuple[range, ...] = ()
    since: int = 0
    reported: int = -1


@dataclass(frozen=True)
class World:
    """A state: all that a step can read or write."""

    board: tuple[int, ...]
    workers: tuple[Worker, ...]
    holder: int | None
    kills: int
    runs: tuple[int, ...]  # how often each item was run,
    allowed: tuple[int, ...]  # and how often it may have been: once, and once more after a death that took its result along
    results: tuple[int, ...]  # how often its result was reported
    failed: frozenset[int] = frozenset()

    def moved(self, rank: int, worker: Worker, **changes: object) -> World:
        """Return the state in which that worker, and these things, are different."""
        return replace(self, workers=(*self.workers[:rank], worker, *self.workers[rank + 1 :]), **changes)  # type: ignore[arg-type]


@dataclass
class Model:
    """A run of so many workers, items and kills; ``steps`` and ``exclusive`` can be made wrong, to see that it is noticed."""

    n_workers: int
    n_items: int
    chunk: int
    kills: int
    keep_going: bool = True
    steps: Sequence[Step] = claims.STEPS
    exclusive: bool = True
    reduced: bool = False  # of steps that concern nobody else, only one order is looked at (with --keep-going, where nobody is told to stop)
    came_from: dict[World, tuple[World, str]] = field(default_factory=dict)

    def begin(self) -> World:
        """Return the first state."""
        none = (0,) * self.n_items
        return World(tuple(blank_board(self.n_workers)), (Worker(),) * self.n_workers, None, self.kills, none, (1,) * self.n_items, none)

    def next(self, world: World) -> Iterator[tuple[str, World]]:
        """Yield all that can happen in a state."""
        alone = next((rank for rank, worker in enumerate(world.workers) if worker.at in PRIVATE), None) if self.reduced else None
        for rank, worker in enumerate(world.workers):
            if alone not in {None, rank}:
                continue
            if worker.at == "dead":
                yield f"the notebook hears of the death of {rank}", self.bury(world, rank)
            elif worker.at != "gone":
                if worker.at != "lock" or world.holder is None or not self.exclusive:
                    yield f"{rank}: {worker.at}", self.step(world, rank)
                if world.kills:
                    freed = None if world.holder == rank else world.holder
                    yield f"{rank} is killed before {worker.at}", world.moved(rank, replace(worker, at="dead"), holder=freed, kills=world.kills - 1)

    def step(self, world: World, rank: int) -> World:
        """Return what is when a worker has done its next step."""
        worker, slot, at = world.workers[rank], item_slot(rank), world.workers[rank].at
        board = list(world.board)
        if isinstance(at, int):
            deck = self.deck(board, rank, worker)
            self.steps[at](deck)
            following = at + 1 if at + 1 < len(self.steps) else "unlock"
            return world.moved(rank, replace(worker, at=following, deck=(deck.first, deck.last)), board=tuple(board))
        if at == "lock":
            return world.moved(rank, replace(worker, at=0), holder=rank)
        if at == "unlock":
            claim = self.deck(board, rank, worker).claim()
            freed = None if world.holder == rank else world.holder
            return world.moved(rank, _with(worker, claim) if claim else replace(worker, at="gone"), holder=freed)
        if at == "load":
            board[slot] = loading(worker.claim[0])
            return world.moved(rank, replace(worker, at="mark"), board=tuple(board))
        if at == "mark" and not board[STOP]:
            board[slot] = worker.item
            return world.moved(rank, replace(worker, at="run"), board=tuple(board))
        if at == "run":
            item = worker.item
            following = "mark" if item + 1 < worker.claim[1] else "report"
            ran = replace(worker, at=following, item=item + 1, ran=worker.ran | {item})
            return world.moved(rank, ran, runs=_plus(world.runs, {item}))
        if at in {"mark", "report"}:
            told = replace(worker, at="clear", ran=frozenset(), reported=max(worker.reported, worker.item))
            return world.moved(rank, told, results=_plus(world.results, worker.ran))
        if at == "clear":
            board[slot] = NOTHING
            return world.moved(rank, replace(worker, at="free"), board=tuple(board))
        assert at == "free"
        if board[STOP]:
            return world.moved(rank, replace(worker, at="gone"))
        if worker.to_do:
            return world.moved(rank, _with(replace(worker, to_do=worker.to_do[1:]), worker.to_do[0]))
        return world.moved(rank, replace(worker, at="lock"))

    def deck(self, board: list[int], rank: int, worker: Worker) -> BoardDeck:
        """Return a worker's deck as it is in that state."""
        deck = BoardDeck(None, self.n_items, self.n_workers, self.chunk, board, rank)  # type: ignore[arg-type]  # the lock is the model's
        deck.first, deck.last = worker.deck
        return deck

    def bury(self, world: World, rank: int) -> World:
        """Return what is when the notebook has dealt with a death."""
        worker, slot = world.workers[rank], item_slot(rank)
        item, undone = lost(world.board[slot], (*worker.left, claimed(world.board, rank, worker.since)), worker.reported)
        again = {number for part in undone for number in part} & worker.ran
        if again and self.chunk == 1:
            raise Wrong(f"items {again} are run again")
        board = list(world.board)
        failed = world.failed if item is None else world.failed | {item}
        if not self.keep_going:
            board[STOP] = 1
            return world.moved(rank, replace(worker, at="gone"), board=tuple(board), failed=failed)
        board[slot] = NOTHING
        heir = Worker(to_do=undone, left=undone, since=world.board[slot + 2])
        return world.moved(rank, heir, board=tuple(board), failed=failed, allowed=_plus(world.allowed, again))

    def check(self, world: World, happens: Sequence[str]) -> None:
        """Raise where a state is wrong: an item that ran too often; an end at which one did not, or is not told of."""
        for item in range(self.n_items):
            if world.runs[item] > world.allowed[item] or world.results[item] + (item in world.failed) > 1:
                raise Wrong(f"item {item} ran {world.runs[item]} times, not {world.allowed[item]}\n{self.way(world)}")
            told = world.results[item] == 1 or item in world.failed
            if not happens and self.keep_going and not told:
                raise Wrong(f"item {item} was never told of\n{self.way(world)}")
        if not happens and any(worker.at != "gone" for worker in world.workers):
            raise Wrong(f"it hangs\n{self.way(world)}")

    def way(self, world: World) -> str:
        """Return what led to a state."""
        words = []
        while world in self.came_from:
            world, word = self.came_from[world]
            words.append(word)
        return "\n".join(reversed(words))


def _with(worker: Worker, claim: range) -> Worker:
    return replace(worker, at="load", claim=(claim.start, claim.stop), item=claim.start)


def _plus(counts: tuple[int, ...], items: set[int] | frozenset[int]) -> tuple[int, ...]:
    return tuple(count + (item in items) for item, count in enumerate(counts))


def explore(model: Model) -> int:
    """Go through all states; return how many there are. Raises Wrong, with the way there, at the first that must not be."""
    first = model.begin()
    waiting, seen = [first], {first}
    while waiting:
        world = waiting.pop()
        following = list(model.next(world))
        model.check(world, [word for word, _ in following if "is killed" not in word])
        for word, other in following:
            if other not in seen:
                seen.add(other)
                model.came_from[other] = world, word
                waiting.append(other)
    model.came_from.clear()
    return len(seen)


if __name__ == "__main__":
    for model in (
        Model(2, 4, 1, 2), Model(2, 4, 1, 2, keep_going=False), Model(2, 5, 2, 3), Model(3, 3, 1, 1), Model(3, 3, 1, 1, keep_going=False),
        Model(3, 4, 1, 2, reduced=True), Model(3, 4, 2, 3, reduced=True), Model(4, 3, 1, 2, reduced=True),
    ):  # fmt: skip
        print(f"{model.n_workers} workers, {model.n_items} items by {model.chunk}, {model.kills} kills: {explore(model):,} states")
