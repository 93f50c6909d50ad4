"""Every rao accounted for: a long walk of random extrinsics over many subnets, through epochs.

The walk is seeded. Through it the sum of balances and pools must equal genesis + minted - burned, what was minted must
equal the emission schedule as this test computes it, and nobody may draw more stake than the pools hold.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest
from subnetkit import ALICE, BOB, CHARLIE, RAO, Kit, account

from raytensor.devnet.hashing import blake2_256
from raytensor.devnet.pallet import Call, DispatchError, Origin
from raytensor.devnet.pallets.multisig import Timepoint, multisig_account
from raytensor.devnet.pallets.system import Weight
from raytensor.devnet.subtensor import issuance

U64_MAX = 2**64 - 1


class Walk:
    """Random calls of a dozen coldkeys with three hotkeys each, on `num_subnets` subnets."""

    def __init__(self, seed: int, num_subnets: int) -> None:
        self.rng = random.Random(seed)
        self.kit = kit = Kit(check=False)
        self.module = kit.module
        self.coldkeys = [account(100 + i) for i in range(12)]
        self.hotkeys = {cold: [account(1_000 + 10 * i + j) for j in range(3)] for i, cold in enumerate(self.coldkeys)}
        for cold in self.coldkeys:
            kit.ok(self.rng.choice((ALICE, BOB, CHARLIE)), "Balances.transfer_allow_death", ("Id", cold), 20_000 * RAO)
            for hotkey in self.hotkeys[cold]:
                kit.ok(cold, "try_associate_hotkey", hotkey)
        kit.admin("max_epochs_per_block", 3)
        kit.admin("coldkey_swap_announcement_delay", 0)
        self.netuids = [0]
        for i in range(num_subnets):
            owner = self.coldkeys[i % 12]
            tempo, pool_tao = self.rng.randint(8, 30), self.rng.choice((1, 5, 50))
            netuid = kit.subnet(owner, account(5_000 + i), tempo=tempo, pool_tao=pool_tao)
            kit.root("AdminUtils.sudo_set_min_allowed_uids", netuid, 0)
            kit.admin("max_allowed_uids", netuid, 8)
            kit.admin("immunity_period", netuid, self.rng.randint(1, 50))
            self.netuids.append(netuid)
        self.outcomes: Counter = Counter()
        self.minted = kit.module.TotalMinted.get()

    def step(self) -> None:
        signer, name, args = self._choose()
        try:
            self.kit.runtime.dispatch(Origin.signed(signer), self.kit.call(name, *args))
            self.outcomes[name, "ok"] += 1
            self._follow(signer, name, args)
        except DispatchError as error:
            self.outcomes[name, error.name] += 1

    def block(self) -> None:
        self.minted += issuance.block_emission_rao(self.module.TotalIssuance.get())
        self.kit.blocks(1)

    def _choose(self) -> tuple[bytes, str, tuple]:
        rng, module = self.rng, self.module
        cold, other = rng.choice(self.coldkeys), rng.choice(self.coldkeys)
        hot, own_hot = rng.choice(self.hotkeys[cold]), rng.choice(self.hotkeys[cold])
        other_hot, stranger = rng.choice(self.hotkeys[other]), account(rng.randrange(9_000, 9_050))
        here, there = rng.choice(self.netuids), rng.choice(self.netuids)
        price = max(1, module.alpha_price_rao(here) * rng.randint(50, 150) // 100)
        tao = int(10 ** rng.uniform(5, 11.5))
        partial = rng.random() < 0.5
        n = max(1, module.SubnetworkN[here])
        uids = tuple(rng.sample(range(n), k=min(3, n)))
        values = tuple(rng.randint(0, 65_535) for _ in uids)
        voter = rng.choice(module.hotkeys(here) or [hot])

        # A position that exists, and how much of it to draw: a part, all, or more than there is.
        positions = module.coldkey_stakes(cold)
        at_hot, at, held = rng.choice(positions) if positions and rng.random() < 0.9 else (hot, here, 0)
        drawn = rng.choice((held // 2, held, held + rng.randint(0, 1_000), U64_MAX))
        at_price = max(1, module.alpha_price_rao(at) * rng.randint(50, 110) // 100)

        entry = [
            (cold, "burned_register", (here, own_hot)),
            (cold, "add_stake", (rng.choice((own_hot, other_hot)), here, tao)),
            (cold, "add_stake_limit", (rng.choice((own_hot, other_hot)), here, tao, price, partial)),
        ]
        out = [
            (cold, "remove_stake", (at_hot, at, drawn)),
            (cold, "remove_stake_limit", (at_hot, at, drawn, at_price, partial)),
            (cold, "remove_stake_full_limit", (at_hot, at, rng.choice((None, at_price)))),
            (cold, "move_stake", (at_hot, other_hot, at, there, drawn)),
            (cold, "swap_stake", (at_hot, at, there, drawn)),
            (cold, "swap_stake_limit", (at_hot, at, there, drawn, rng.randint(0, 10**9), partial)),
            (cold, "transfer_stake", (other, at_hot, at, there, drawn)),
            (cold, "recycle_alpha", (at_hot, drawn // 10, at)),
            (cold, "transfer_stake_and_hotkey", (other, at_hot, other_hot, at, there, drawn)),
            (cold, "move_stake_limit", (at_hot, other_hot, at, there, drawn, rng.randint(0, 10**9), partial)),
        ]
        fresh = account(rng.randrange(20_000, 40_000))
        together = tuple(sorted((cold, other))) if cold != other else tuple(sorted((cold, stranger)))
        partner = next(key for key in together if key != cold)
        inner = self.kit.call("Balances.transfer_keep_alive", ("Id", partner), 1)
        keys = [
            (cold, "swap_hotkey", (own_hot, fresh, rng.choice((here, None)))),
            (cold, "swap_hotkey_v2", (own_hot, fresh, rng.choice((here, None)), partial)),
            (cold, "Multisig.approve_as_multi", (2, (partner,), None, rng.randbytes(32), Weight(10**10, 0))),
            (cold, "Multisig.as_multi", (2, (partner,), self._timepoint(together, inner), inner, Weight(10**10, 0))),
            (cold, "Multisig.cancel_as_multi", self._operation_of(cold)),
            (cold, "announce_coldkey_swap", (blake2_256(fresh),)),
        ]
        rare = [
            (cold, "unstake_all", (at_hot,)),
            (cold, "unstake_all_alpha", (at_hot,)),
            (cold, "root_register", (own_hot,)),
            (cold, "claim_root", (tuple(n for n in {here, there} if n) or (1,),)),
            (cold, "claim_root_with_hotkey", (at_hot,)),
            (cold, "set_children", (own_hot, here, ((rng.randrange(U64_MAX), other_hot),))),
            (cold, "Balances.transfer_all", (("Id", other), True)),
            (cold, "Balances.burn", (tao // 10_000, True)),
            (cold, "Balances.transfer_allow_death", (("Id", stranger), rng.randint(1, 900))),
        ]
        fund = (rng.choice((ALICE, BOB, CHARLIE)), "Balances.transfer_keep_alive", (("Id", cold), tao))
        weigh = (voter, "set_weights", (here, uids, values, 0))
        return rng.choice((*entry * 4, *out * 2, *rare, *keys, *[fund] * 4, *[weigh] * 10))

    def _timepoint(self, together: tuple, inner: Call):
        """When the operation of these two on this call began; None when there is none."""
        digest = blake2_256(self.kit.runtime.codecs("RuntimeCall").encode(inner))
        operation = self.kit.runtime.Multisig.Multisigs[multisig_account(list(together), 2), digest]
        return None if operation is None else operation.when

    def _operation_of(self, cold: bytes) -> tuple:
        """Arguments that cancel an operation which this coldkey began, if it began any."""
        for (multi, digest), operation in self.kit.runtime.Multisig.Multisigs.items():
            for other in self.coldkeys:
                pair = sorted((cold, other))
                if operation.depositor == cold != other and multisig_account(pair, 2) == multi:
                    return 2, (other,), operation.when, digest
        return 2, (self.coldkeys[0] if cold != self.coldkeys[0] else self.coldkeys[1],), Timepoint(0, 0), bytes(32)

    def _follow(self, signer: bytes, name: str, args: tuple) -> None:
        """A coldkey whose key was swapped goes on under the new keys."""
        if name in ("swap_hotkey", "swap_hotkey_v2"):
            owned = self.module.OwnedHotkeys[signer]
            self.hotkeys[signer] = list(owned[-3:])
        elif name == "announce_coldkey_swap":
            # The delay is set to nothing, so that the walk goes on with the new key at once.
            new = next(account(n) for n in range(20_000, 40_000) if blake2_256(account(n)) == args[0])
            self.kit.ok(signer, "swap_coldkey_announced", new)
            self.coldkeys[self.coldkeys.index(signer)] = new
            self.hotkeys[new] = self.hotkeys.pop(signer)

    def check(self) -> None:
        kit, module = self.kit, self.module
        kit.assert_books_balance()
        assert module.TotalMinted.get() == self.minted
        staked: Counter = Counter()
        for hotkey, coldkey, netuid in module.AlphaV2.keys():
            staked[hotkey, netuid] += module.stake_of(hotkey, coldkey, netuid)
        for key, total in staked.items():
            assert total <= module.TotalHotkeyAlpha[key], "members own no more than the hotkey's pool"
        held: Counter = Counter()
        for (_, netuid), alpha in module.TotalHotkeyAlpha.items():
            held[netuid] += alpha
        for netuid in module.netuids():
            pending = sum(
                item[netuid]
                for item in (
                    module.PendingServerEmission,
                    module.PendingValidatorEmission,
                    module.PendingRootAlphaDivs,
                    module.PendingOwnerCut,
                )
            )
            owned = held[netuid] + pending + module.SubnetProtocolAlpha[netuid]
            assert owned <= module.SubnetAlphaOut[netuid], f"subnet {netuid}: more alpha is owned than was minted"
        # Root's alpha is TAO itself.
        assert held[0] <= module.SubnetTAO[0]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_walk_of_ten_thousand_extrinsics_over_twenty_subnets(seed):
    walk = Walk(seed, num_subnets=20)
    for i in range(10_000 if seed == 1 else 3_000):
        walk.step()
        if i % 10 == 9:
            walk.block()
        if i % 500 == 499:
            walk.check()
    walk.check()
    done = {name for name, outcome in walk.outcomes if outcome == "ok"}
    tried = {name for name, _ in walk.outcomes}
    assert tried == done, f"never succeeded: {tried - done}"
    ran = sum(walk.module.SubnetEpochIndex[netuid] for netuid in walk.netuids)
    assert ran > 150 and sum(int(walk.module.Incentive[n].any()) for n in walk.netuids) > 3


def test_everyone_leaving_leaves_pools_that_still_add_up():
    walk = Walk(seed=3, num_subnets=3)
    for i in range(600):
        walk.step()
        if i % 5 == 4:
            walk.block()
    for cold in walk.coldkeys:
        for hot in walk.module.StakingHotkeys[cold]:
            if walk.module.hotkey_exists(hot):  # a hotkey that was swapped away leaves its name here
                walk.kit.ok(cold, "unstake_all", hot)
    walk.check()
    left = [stake for cold in walk.coldkeys for *_, stake in walk.module.coldkey_stakes(cold)]
    assert sum(left) < 10**6, "only dust that no trade takes"
