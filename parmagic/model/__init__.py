"""What the floors hand to each other: plans, recordings, timelines, findings; and what a file may hold of them.

In: nothing. Out: types, the words for them, and their plain form. Everybody may import it.
"""
