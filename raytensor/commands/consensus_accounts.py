"""The accounts, the emission and the schedule of a subnet, read from a running chain at one block.

In: `ChainState`. Out: `Accounts`, `Emission` and the block of the next epoch for `raytensor.consensus.forecast`. What
exists is asked of the chain's metadata. Waits for: the chain's answers.
"""

from collections.abc import Sequence
from typing import Any

from raytensor.chain.reads.metagraph import PALLET
from raytensor.chain.rpc.client import ChainClient
from raytensor.consensus.emission import Emission, Pots
from raytensor.consensus.payout import Accounts

ROOT = 0
NOBODY = "5C4hrfjw9DjXZTzV3MwzrrAr9P1MJhSrvWGWqi1eSuyUpnhM"  # the zero account
# since spec 475 root's dividends go into baskets, only with a uid on root, and after the alpha part
_BASKETS = "PendingBasketDeposits"


class ChainState:
    """Storage values of a subnet at one block, with defaults for items that the chain does not have."""

    def __init__(self, client: ChainClient, netuid: int, at: str) -> None:
        self.client, self.netuid, self.at = client, netuid, at

    def has(self, name: str) -> bool:
        return self.client.runtime.has_storage(PALLET, name)

    def get(self, name: str, params: Sequence[Any], default: Any) -> Any:
        return self.many(name, [params], default)[0]

    def many(self, name: str, keys: Sequence[Sequence[Any]], default: Any) -> list[Any]:
        """The values of several keys of one item; `default` for an absent value and for an absent item."""
        if not self.has(name):
            return [default] * len(keys)
        values = self.client.query_many([(PALLET, name, list(key)) for key in keys], self.at)
        return [default if value is None else value for value in values]

    def by_hotkey(self, name: str, hotkeys: Sequence[str], default: Any) -> dict[str, Any]:
        """The values of a map (hotkey, netuid), by hotkey."""
        return dict(zip(hotkeys, self.many(name, [[hotkey, self.netuid] for hotkey in hotkeys], default)))

    def map(self, name: str, params: Sequence[Any]) -> dict[Any, Any]:
        return self.client.query_map(PALLET, name, list(params), self.at) if self.has(name) else {}


def read_accounts(chain: ChainState, hotkeys: tuple[str, ...], coldkeys: tuple[str, ...]) -> Accounts:
    """The keys of the subnet's neurons, of their parents and of its owner, with stakes and takes."""
    netuid = chain.netuid
    parents = _family(chain.by_hotkey("ParentKeys", hotkeys, ()))
    children = _family(chain.by_hotkey("ChildKeys", hotkeys, ()))
    others = sorted({parent for family in parents.values() for _, parent in family} - set(hotkeys))
    known = [*hotkeys, *others]
    owners = chain.many("Owner", [[hotkey] for hotkey in others], NOBODY)
    owner, owner_hotkey = (chain.get(name, [netuid], NOBODY) for name in ("SubnetOwner", "SubnetOwnerHotkey"))
    withheld = {*chain.get("OwnedHotkeys", [owner], ()), owner_hotkey} - {NOBODY}
    auto = chain.many("AutoStakeDestination", [[coldkey, netuid] for coldkey in coldkeys], None)
    root_hotkeys = None
    if chain.has(_BASKETS):
        uids = chain.many("Uids", [[ROOT, hotkey] for hotkey in known], None)
        root_hotkeys = tuple(hotkey for hotkey, uid in zip(known, uids, strict=True) if uid is not None)
    alpha, root = (chain.many("TotalHotkeyAlpha", [[hotkey, at] for hotkey in known], 0) for at in (netuid, ROOT))
    return Accounts(
        hotkeys=hotkeys,
        owner_of=dict(zip(known, [*coldkeys, *owners], strict=True)),
        alpha_rao=dict(zip(known, alpha, strict=True)),
        root_rao=dict(zip(known, root, strict=True)),
        parents=parents,
        children=children,
        takes=dict(zip(known, chain.many("Delegates", [[hotkey] for hotkey in known], 0), strict=True)),
        child_takes=chain.by_hotkey("ChildkeyTake", hotkeys, 0),
        tao_weight=chain.get("TaoWeight", [], 0),
        child_burn=chain.get("CKBurn", [], 0),
        owner=None if owner == NOBODY else owner,
        owner_hotkey=None if owner_hotkey == NOBODY else owner_hotkey,
        withheld=tuple(sorted(withheld)),
        recycles=chain.get("RecycleOrBurn", [netuid], "Burn") == "Recycle",
        auto_stake={coldkey: hotkey for coldkey, hotkey in zip(coldkeys, auto, strict=True) if hotkey is not None},
        root_hotkeys=root_hotkeys,
    )


def _family(found: dict[str, Any]) -> dict[str, tuple[tuple[int, str], ...]]:
    return {hotkey: tuple((int(p), other) for p, other in family) for hotkey, family in found.items() if family}


def read_emission(chain: ChainState) -> Emission:
    """What is pending and what each block adds."""
    netuid = chain.netuid
    pots = ("PendingServerEmission", "PendingValidatorEmission", "PendingRootAlphaDivs", "PendingOwnerCut")
    issuance = sum(chain.get(name, [netuid], 0) for name in ("SubnetAlphaIn", "SubnetAlphaOut"))
    if chain.client.runtime.has_storage("Swap", "BalancerAlphaReservoir"):
        issuance += chain.client.query_many([("Swap", "BalancerAlphaReservoir", [netuid])], chain.at)[0]
    emitting = _emitting(chain)
    prices = [_bits(price) for price in chain.many("SubnetMovingPrice", [[other] for other in emitting], 0)]
    cut = chain.get("SubnetOwnerCut", [], 0) if chain.get("OwnerCutEnabled", [netuid], True) else 0
    return Emission(
        pots=Pots(*(chain.get(name, [netuid], 0) for name in pots)),
        issuance_rao=issuance,
        root_tao_rao=chain.get("SubnetTAO", [ROOT], 0),
        tao_weight=chain.get("TaoWeight", [], 0),
        owner_cut=cut,
        injected_rao=chain.get("SubnetAlphaInEmission", [netuid], 0),
        emits=netuid in emitting,
        root_sells=sum(prices) > 1 << 32,
    )


def _emitting(chain: ChainState) -> list[int]:
    """The subnets that have started and are open."""
    netuids = [netuid for netuid, added in chain.map("NetworksAdded", []).items() if added and netuid != ROOT]
    keys = [[netuid] for netuid in netuids]
    started = chain.many("FirstEmissionBlockNumber", keys, None)
    tokens = chain.many("SubtokenEnabled", keys, True)
    is_open = chain.many("NetworkRegistrationAllowed", keys, True)
    flags = zip(netuids, started, tokens, is_open, strict=True)
    return [netuid for netuid, first, token, allowed in flags if first is not None and token and allowed]


def _bits(price: Any) -> int:
    """The raw bits of a fixed-point number."""
    return price["bits"] if isinstance(price, dict) else int(price)


def read_next_epoch_block(chain: ChainState, block: int) -> int | None:
    """The block of the subnet's next epoch; None where the tempo is 0. An epoch that is due runs in the next block."""
    netuid = chain.netuid
    tempo = chain.get("Tempo", [netuid], 0)
    if tempo == 0:
        return None
    if not chain.has("LastEpochBlock"):
        # the schedule of older chains (blocks_until_next_epoch)
        return block + 1 + (tempo - (block + 1 + netuid + 1) % (tempo + 1))
    scheduled = chain.get("LastEpochBlock", [netuid], 0) + tempo
    triggered = chain.get("PendingEpochAt", [netuid], 0)
    return max(min(scheduled, triggered) if triggered else scheduled, block + 1)
