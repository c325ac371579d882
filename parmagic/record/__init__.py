"""Inside of a worker: what its time went to, which functions it called.

In: items. Out: ``Recording``. Imported by: workers, execute.
"""
