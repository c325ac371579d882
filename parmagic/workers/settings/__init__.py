"""Settings that the notebook made, of Python and of libraries: workers have them, too.

In: what the notebook has set. Out: the same, in a thread or a process. Imported by: workers.
"""
