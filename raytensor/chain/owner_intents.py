"""Intents of a subnet's owner: create it, start it, set its hyperparameters.

As those of intents.py. Knows nothing of encoding, nonces or connections.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from raytensor.chain.calls import Call, Intent


@dataclass(frozen=True, kw_only=True)
class RegisterNetwork(Intent):
    hotkey: str
    name: ClassVar[str] = "SubtensorModule.register_network"
    moves: ClassVar[bool] = True
    spends: ClassVar[str] = "network"


@dataclass(frozen=True, kw_only=True)
class StartCall(Intent):
    netuid: int
    name: ClassVar[str] = "SubtensorModule.start_call"


@dataclass(frozen=True, kw_only=True)
class SetHyperparameter(Intent):
    """Sets a hyperparameter of a subnet, as its owner.

    function  the call, as "AdminUtils.sudo_set_kappa".
    values    ((name, value), ...) of its arguments after the netuid.
    sudo      sent by the chain's sudo key, which has no limits.
    """

    netuid: int
    function: str
    values: tuple[tuple[str, Any], ...]
    sudo: bool = False
    name: ClassVar[str] = "AdminUtils.sudo_set"

    def call(self) -> Call:
        module, function = self.function.split(".")
        call = Call(module, function, {"netuid": self.netuid, **dict(self.values)})
        return Call("Sudo", "sudo", {"call": call}) if self.sudo else call
