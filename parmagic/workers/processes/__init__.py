"""Workers with memory of their own, and the server that starts them.

In: a job, a cargo. Out: recordings and news. Imported by: workers.
"""
