"""Collaborative training: miners train one shared model, and are paid for how much their updates improve it.

    assigned text -> H local steps -> compressed update -> judged on own and on random text -> rated -> robust mean
                  -> outer step -> the shared model of the next window

    codec      updates as bytes: top-k, two bits a value, error feedback
    layout     parameters as one vector
    likeness   copies
    rating     evidence -> standing -> weights
    aggregate  many updates -> one step
    store      the shared model in a folder
    mechanism  the parts together, as a `Mechanism`

After SparseLoCo (arXiv 2508.15706), DiLoCo (arXiv 2311.08105) and Gauntlet as Templar runs them.
"""

from raytensor.mechanisms.collab.mechanism import CollabMechanism

__all__ = ["CollabMechanism"]
