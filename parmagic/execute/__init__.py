"""A run, from its task to its story: ship, park, run the arms, run the baseline, tell.

In: ``Task``. Out: ``Run``. Imported by: notebook.
"""
