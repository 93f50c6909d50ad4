"""Rules of a subnet whose author made a mistake."""

from __future__ import annotations

from raytensor.mechanisms.query import QueryMechanism


class Faulty(QueryMechanism):
    """Scores, and then can't reduce."""

    def reduce(self, state, evidence):
        raise RuntimeError("the author of these rules made a mistake")
