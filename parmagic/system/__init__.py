"""What the operating system is asked: files, descriptors, limits, CPUs, the GIL, Ctrl-C.

In: nothing of parmagic's but its errors. Out: small answers, and files. Everybody may import it.
"""
