"""An item that fails is tried again, and a try may only take so long."""

from __future__ import annotations

from typing import Any

from parmagic.errors import ItemTimeout, Overdue
from parmagic.model.plan import Plan
from parmagic.model.words import traceback_of
from parmagic.record.items import Call, Guard, Worker
from parmagic.workers.endings import over_time
from parmagic.workers.loop import Wrapped


def tried(call: Call, plan: Plan) -> Call:
    """Return the body as the plan has it tried; the body itself where it asks for nothing of that."""
    return Trying(call, plan.retry, plan.item_timeout) if plan.retry or plan.item_timeout else call


class Trying(Wrapped):
    """Runs a body again where it raised an Exception, up to ``retries`` times; each try may take so many ``seconds``."""

    __slots__ = ("_retries", "_seconds")

    def __init__(self, call: Call, retries: int, seconds: float | None) -> None:
        super().__init__(call)
        self._retries = retries
        self._seconds = seconds

    def __call__(self, item: Any, worker: Worker) -> Any:
        """Run the body; raises what its last try raised, or :class:`ItemTimeout`.

        Tries that ended with a worker before count as well.
        """
        number = worker.item
        tries = worker.tried.get(number, 0)
        while True:
            tries += 1
            if tries > 1:
                worker.tried[number] = tries
            try:
                return self._try(item, worker, tries)
            except Exception:
                if tries > self._retries or worker.is_to_stop:
                    raise

    def _try(self, item: Any, worker: Worker, number: int) -> Any:
        guard = worker.guard
        worker.begin_try(number)
        try:
            return self.function(item, worker) if guard is None else self._within_time(guard, item, worker)
        except Overdue as late:  # it came in the last moment
            raise self._over(late) from None
        finally:
            if guard is not None:
                guard.end()
            worker.end_try()

    def _within_time(self, guard: Guard, item: Any, worker: Worker) -> Any:
        """Run the body; what ends it behind its time is what its time was over, whatever it has made of that."""
        try:
            guard.begin()
            value = self.function(item, worker)
            if not guard.end():
                return value
        except BaseException as error:
            if not guard.end():
                raise
            raise self._over(error) from (None if issubclass(type(error), Overdue) else error)
        raise self._over(None)

    def _over(self, error: BaseException | None) -> ItemTimeout:
        over = ItemTimeout(over_time(self._seconds))
        return over if error is None else over.with_traceback(traceback_of(error))
