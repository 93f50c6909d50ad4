"""Work over replaceable actors: each item is answered exactly once, whatever happens to the actors.

    submit -> queue -> call of an actor -> result | Failure -> poll

    pool           the pool: dispatch, deadlines, replacement of actors
    items          the queue, and how its items are packed into calls
    forked_worker  work in a forked child process: a crash costs milliseconds, and no model is loaded again

Knows nothing of what an item means.
"""

from raytensor.pool.forked_worker import ForkedWorker
from raytensor.pool.items import Packing
from raytensor.pool.pool import Pool

__all__ = ["ForkedWorker", "Packing", "Pool"]
