"""A runtime without a node, and the few steps that every SubtensorModule test starts with."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from raytensor.devnet.chain_spec import DEV_ACCOUNTS, build_runtime
from raytensor.devnet.pallet import DispatchError, Origin
from raytensor.devnet.subtensor.ledger import tao_ledger

RAO = 10**9
ALICE, BOB, CHARLIE = (DEV_ACCOUNTS[name] for name in ("Alice", "Bob", "Charlie"))


def account(number: int) -> bytes:
    """A key that no development account has."""
    return number.to_bytes(4, "big") * 8


class Kit:
    """`ok` runs a call that must succeed, `refused` one that must fail by that name; both outside any block's list."""

    def __init__(self, *, check: bool = True) -> None:
        self.runtime = build_runtime(check=check)
        self.module = self.runtime.SubtensorModule

    def call(self, name: str, *args, **named):
        return self.runtime.call(name if "." in name else f"SubtensorModule.{name}", *args, **named)

    def ok(self, signer: bytes, name: str, *args, **named) -> None:
        self.runtime.dispatch(Origin.signed(signer), self.call(name, *args, **named))

    def root(self, name: str, *args, **named) -> None:
        self.runtime.dispatch(Origin.root(), self.call(name, *args, **named))

    def refused(self, signer: bytes | None, error: str, name: str, *args, **named) -> None:
        """`signer` None: by root."""
        origin = Origin.root() if signer is None else Origin.signed(signer)
        before = self.runtime.store.mark()
        with pytest.raises(DispatchError) as caught:
            self.runtime.dispatch(origin, self.call(name, *args, **named))
        assert caught.value.name == error
        assert self.runtime.store.mark() == before, "a refused call leaves nothing behind"

    def admin(self, name: str, *args) -> None:
        self.root(f"AdminUtils.sudo_set_{name}", *args)

    def blocks(self, count: int = 1) -> None:
        for _ in range(count):
            self.runtime.next_block()

    def until(self, done: Callable[[], bool], limit: int = 1_000) -> int:
        """Blocks until `done()`; returns how many it took."""
        for count in range(1, limit + 1):
            self.runtime.next_block()
            if done():
                return count
        raise AssertionError(f"not within {limit} blocks")

    def events(self, name: str) -> list[tuple]:
        """Values of the events of that name that were emitted since the block began."""
        return [values for _, event, values in self.runtime.event_names() if event == name]

    def subnet(
        self, owner: bytes = ALICE, hotkey: bytes = account(1000), *, tempo: int = 10, pool_tao: int = 1_000
    ) -> int:
        """A started subnet with open weights, no rate limits and emission."""
        self.admin("network_rate_limit", 0)
        self.admin("network_min_lock_cost", pool_tao * RAO)
        self.admin("lock_reduction_interval", 1)
        self.blocks(2)
        before = set(self.module.netuids())
        self.ok(owner, "register_network", hotkey)
        (netuid,) = set(self.module.netuids()) - before
        self.ok(owner, "start_call", netuid)
        self.admin("tempo", netuid, tempo)
        self.admin("weights_set_rate_limit", netuid, 0)
        self.admin("commit_reveal_weights_enabled", netuid, False)
        self.admin("subnet_emission_enabled", netuid, True)
        self.admin("max_burn", netuid, RAO)
        return netuid

    def neuron(self, netuid: int, coldkey: bytes, hotkey: bytes, stake_tao: float = 0) -> int:
        self.ok(coldkey, "burned_register", netuid, hotkey)
        if stake_tao:
            self.ok(coldkey, "add_stake", hotkey, netuid, int(stake_tao * RAO))
        return self.module.Uids[netuid, hotkey]

    def assert_books_balance(self) -> None:
        ledger = tao_ledger(self.runtime)
        assert ledger.difference == 0, ledger
        assert ledger.balances == self.runtime.Balances.TotalIssuance.get()
        assert ledger.pools == self.module.TotalStake.get()
        assert ledger.total == self.module.TotalIssuance.get()


# --- a laptop's network: one subnet of Alice's, validators of Bob's, miners of Charlie's

OWNER_HOT = account(1)
VALIDATORS = [account(10 + i) for i in range(3)]
MINERS = [account(20 + i) for i in range(8)]


def laptop(kit: Kit) -> int:
    """Three validators and eight miners of two coldkeys, weights set, better miners weighed more."""
    netuid = kit.netuid
    for i, hotkey in enumerate(VALIDATORS):
        kit.neuron(netuid, BOB, hotkey, stake_tao=50 + 10 * i)
    for hotkey in MINERS:
        kit.neuron(netuid, CHARLIE, hotkey)
    kit.until(lambda: kit.module.ValidatorPermit[netuid][1:4].all())
    for hotkey in VALIDATORS:
        kit.ok(hotkey, "set_weights", netuid, tuple(range(4, 12)), tuple(range(1, 9)), 0)
    return netuid


def epochs(kit: Kit, netuid: int, count: int = 1) -> None:
    """Blocks until `count` more epochs of the subnet have run."""
    target = kit.module.SubnetEpochIndex[netuid] + count
    kit.until(lambda: kit.module.SubnetEpochIndex[netuid] == target)
