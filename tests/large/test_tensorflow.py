"""TensorFlow's random numbers are each worker's own; beside its threads, nothing is forked."""

from __future__ import annotations

import pytest
from alongside import tool

pytest.importorskip("tensorflow")

SCRIPT = """
import multiprocessing
import tensorflow as tf, parmagic
both = multiprocessing.get_context("forkserver").Barrier(2)
tf.random.set_seed(0)
def draw(n):
    both.wait(60)
    return tf.random.uniform((4,)).numpy().tolist()
def run(**options): return parmagic.run(draw, range(2), "procs=2", once=True, chunk=1, **options).results
if __name__ == "__main__":
    for options in ({"start_method": "fork"}, {}):
        one, other = run(**options)
        assert one != other, options
    tf.ones((500, 500)) @ tf.ones((500, 500))
    try:
        run(start_method="fork")
    except parmagic.NotShippable as error:
        assert "TensorFlow" in str(error), error
    print("fine")
"""


def test_every_worker_draws_its_own(tmp_path):
    """Also where a forked worker has the state that the notebook has set; and no run forks where TensorFlow has been at work."""
    (tmp_path / "script.py").write_text(SCRIPT)
    assert tool("script.py", into=tmp_path, TF_CPP_MIN_LOG_LEVEL="3").endswith("fine\n")
