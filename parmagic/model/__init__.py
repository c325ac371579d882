"""What the floors hand to each other: plans, recordings, timelines.

In: nothing. Out: frozen types, and the words for them. Everybody may import it.
"""
