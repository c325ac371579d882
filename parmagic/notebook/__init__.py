"""The magics: a cell is read, run, shown; what it raised is raised.

In: a cell. Out: a ``Run`` on screen. Nobody imports it; it alone imports IPython.
"""
