"""What layers said before, kept as long as it may be said again.

    keys.py               a question as a hashable tuple, and its digest
    slots.py              a slot (one layer's result), and what a probe gives
    records.py            a record (one question): its slots packed, and the latest full hit
    slot_store.py         records within bounds of entries and bytes, and the exact account of them
    sizes.py              what all that takes of memory
    invalidation.py       orders of `control`: which slots are dead, and how many that were
    eviction.py           who has to go when the cache is full
    cross_layer_cache.py  the cache itself
    single_flight.py      identical misses meet: one fetches, the others wait
    statistics.py         what it was good for
    warming.py            what to refresh ahead of expiry
    prefetch.py           what to fetch ahead of being asked
    budget.py             what those two may spend, and when they are off

Nothing here does I/O or reads a clock: time is passed in, in milliseconds on the broker's clock.
"""
