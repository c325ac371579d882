"""Recordings become a timeline, seconds, tables, and findings.

In: ``Recording``, ``Timeline``. Out: ``Timeline``, tables, findings, a verdict. Imported by: result, execute.
"""
