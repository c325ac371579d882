"""The ways to run a body, for tests of what holds in all of them."""

MODELS = ["serial", "threads=2", "procs=2", "procs=2 --start-method spawn", "procs=2 --start-method fork"]
