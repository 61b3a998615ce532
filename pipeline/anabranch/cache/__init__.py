"""What layers said before, kept as long as it may be said again.

    keys.py               a question as a hashable tuple, and its digest
    records.py            slots (one layer's result), records (one question) and what a probe gives
    invalidation.py       orders of `control`: which slots are dead, and how many that were
    eviction.py           who has to go when the cache is full
    cross_layer_cache.py  the cache itself
    single_flight.py      identical misses meet: one fetches, the others wait
    statistics.py         what it was good for
    warming.py            what to refresh ahead of expiry
    prefetch.py           what to fetch ahead of being asked
    allowance.py          what those two may spend, and when they are off

Nothing here does I/O or reads a clock: time is passed in, in milliseconds on the broker's clock.
"""
