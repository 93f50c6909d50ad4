"""The protocols that the wire speaks, by the name that a configuration gives them."""

from __future__ import annotations

from raytensor.wire.axon_v10 import AxonV10
from raytensor.wire.dialect import BtAuth, Dialect
from raytensor.wire.epistula import Epistula
from raytensor.wire.settings import PROTOCOLS

_CLASSES: dict[str, type[Dialect]] = {kind.name: kind for kind in (BtAuth, Epistula, AxonV10)}
assert set(_CLASSES) == set(PROTOCOLS)


def dialect(name: str) -> Dialect:
    """The protocol of a name out of `settings.PROTOCOLS`."""
    return _CLASSES[name]()
