"""VizTracer's hooks in our threads."""

from __future__ import annotations

import gc
import sys
import threading

import pytest

from parmagic import tracing


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="threads have hooks of their own on 3.11 only")
def test_a_hook_that_is_taken_away_while_it_is_called_stays_alive():
    """3.11 collects garbage between looking a profile function up and calling it: who takes it away then must not free it."""
    recorded = tracing.prepare("full")
    recorded.start()
    failures = []

    def take_it_away(phase, _info):
        if phase == "stop" and sys.getprofile() is not None:
            recorded.switch(on=False)
            keep.extend(set().discard for _ in range(50))  # takes the place of what was freed

    def work():
        try:
            for _ in range(200):
                recorded.switch(on=True)
                recorded.refresh()
                [[] for _ in range(20)]
        except TypeError as error:
            failures.append(error)

    keep = []
    before = gc.get_threshold()
    gc.callbacks.append(take_it_away)
    gc.set_threshold(1)
    try:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(take_it_away)
        recorded.end()
    assert not failures
