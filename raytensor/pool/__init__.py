"""Work over replaceable actors: each item answered exactly once, whatever happens to the actors.

    submit -> [fetch] -> queue -> packed call of an actor -> result | Failure -> poll

    pool      the pool: actors, deadlines, deaths
    items     what waits, and how it is packed into calls
    prefetch  the stage before: submissions on their way into the object store
    isolated  work in a child process, so that a crash costs milliseconds and no model is loaded again

Knows nothing of what an item means.
"""

from raytensor.pool.forked_worker import Isolated
from raytensor.pool.items import Packing
from raytensor.pool.pool import Pool

__all__ = ["Isolated", "Packing", "Pool"]
