"""A run, replayed: what its items had to do, done once more by simulated workers, as they were or as they might be.

In: ``Work``, ``Crew``, ``Machine``. Out: ``Replayed``. Imported by: analyze.
"""
