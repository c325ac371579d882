"""The magic line and the cell become a Plan and a Body.

In: text of the user's. Out: ``Plan``, ``Body``, or an error that says where and what to write. Imported by: workers, execute, notebook.
"""
