"""Sudo (12): one account that may dispatch calls as root.

The error of an inner call is only in `Sudid`; the extrinsic itself succeeds and pays no fee.
The pool refuses every other signer (executive.py, `is_sudo_call`). Source: pallet_sudo.
"""

from __future__ import annotations

from raytensor.devnet.pallet import DispatchError, Origin, Pallet, PostInfo, StorageValue, call


def _inner(position: int):
    return lambda pallet, args: 10_000_000 + pallet.runtime.weight(args[position])


class Sudo(Pallet):
    name, index = "Sudo", 12
    Key = StorageValue("AccountId32", optional=True)
    events = {
        "Sudid": (0, {"sudo_result": "Result<(), DispatchError>"}),
        "KeyChanged": (1, {"old": "Option<AccountId32>", "new": "AccountId32"}),
        "KeyRemoved": (2, ()),
        "SudoAsDone": (3, {"sudo_result": "Result<(), DispatchError>"}),
    }
    errors = ("RequireSudo",)

    def genesis(self, config: dict) -> None:
        if "key" in config:
            self.Key.set(config["key"])

    def _ensure_sudo(self, origin: Origin) -> None:
        if origin.ensure_signed() != self.Key.get():
            raise self.error("RequireSudo")

    def _run(self, origin: Origin, call) -> object:
        try:
            self.runtime.dispatch(origin, call)
            return ("Ok", ())
        except DispatchError as error:
            return ("Err", error.value)

    @call(0, weight=_inner(0))
    def sudo(self, origin: Origin, call: "RuntimeCall"):
        self._ensure_sudo(origin)
        self.emit("Sudid", self._run(Origin.root(), call))
        return PostInfo(pays=False)

    @call(1, weight=lambda pallet, args: args[1].ref_time)
    def sudo_unchecked_weight(self, origin: Origin, call: "RuntimeCall", weight: "Weight"):
        self._ensure_sudo(origin)
        self.emit("Sudid", self._run(Origin.root(), call))
        return PostInfo(pays=False)

    @call(2, weight=135_000_000)
    def set_key(self, origin: Origin, new: "MultiAddress"):
        self._ensure_sudo(origin)
        old, account = self.Key.get(), self.runtime.lookup(new)
        self.Key.set(account)
        self.emit("KeyChanged", old, account)
        return PostInfo(pays=False)

    @call(3, weight=_inner(1))
    def sudo_as(self, origin: Origin, who: "MultiAddress", call: "RuntimeCall"):
        self._ensure_sudo(origin)
        self.emit("SudoAsDone", self._run(Origin.signed(self.runtime.lookup(who)), call))
        return PostInfo(pays=False)

    @call(4, weight=135_000_000)
    def remove_key(self, origin: Origin):
        self._ensure_sudo(origin)
        self.Key.kill()
        self.emit("KeyRemoved")
        return PostInfo(pays=False)
