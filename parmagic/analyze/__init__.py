"""Recordings become a timeline, seconds, tables, and sentences.

In: ``Recording``, ``Timeline``. Out: ``Timeline``, tables, notes, a verdict. Imported by: result, execute.
"""
