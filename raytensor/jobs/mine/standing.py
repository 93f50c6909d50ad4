"""How a miner stands on a subnet: rank, pay, immunity, and how near it is to being replaced. Pure.

In: a metagraph, and the subnet's rules of pruning. Out: a `Standing` per hotkey.
Source: pallet subtensor, subnets/registration.rs, get_neuron_to_prune. Knows nothing of connections.
"""

from bisect import insort
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from raytensor.chain.rpc.client import ChainClient
from raytensor.telemetry.miner_events import Standing
from raytensor.types import Metagraph

PALLET = "SubtensorModule"
_ITEMS = ("ImmunityPeriod", "MaxAllowedUids", "MinNonImmuneUids", "ImmuneOwnerUidsLimit", "SubnetOwnerHotkey")


@dataclass(frozen=True, slots=True)
class PruningRules:
    """What decides which neuron the next registration replaces.

    immunity_blocks    after its registration a neuron is immune for so long.
    min_non_immune     with at most so many neurons that are not immune, an immune one is replaced.
    owner_limit        hotkeys of the subnet's owner that are never replaced, `owner_hotkey` first, then by age.
    """

    immunity_blocks: int
    max_uids: int
    min_non_immune: int
    owner_limit: int
    owner_hotkey: str


def read_rules(client: ChainClient, netuid: int) -> PruningRules:
    """The rules at the best block."""
    values = client.query_many([(PALLET, name, [netuid]) for name in _ITEMS])
    immunity, most, least, limit = (value or 0 for value in values[:4])
    return PruningRules(immunity, most, least, limit, values[4] or "")


def standing(metagraph: Metagraph, left: Mapping[int, int], rules: PruningRules, hotkey: str) -> Standing:
    """The standing of one hotkey. left: the `forecast` of the metagraph."""
    uid, netuid, block = metagraph.uid(hotkey), metagraph.netuid, metagraph.block
    incentive = metagraph.incentive.astype(np.int64)
    # A validator without incentive is no miner; a neuron that never was asked may become one.
    num_miners = int(np.sum((incentive > 0) | ~metagraph.validator_permit))
    if uid is None:
        return Standing(netuid, hotkey, block, num_miners=num_miners)
    mine, registered = int(incentive[uid]), int(metagraph.block_at_registration[uid])
    return Standing(
        netuid,
        hotkey,
        block,
        uid,
        rank=1 + int(np.sum(incentive > mine)) if mine else 0,
        num_miners=num_miners,
        incentive=mine / 65535,
        emission_alpha_rao=int(metagraph.emission_alpha_rao[uid]),
        immune_blocks=max(0, registered + rules.immunity_blocks - block),
        replaced_in=left.get(uid),
        axon=metagraph.axons[uid],
    )


def forecast(metagraph: Metagraph, rules: PruningRules) -> dict[int, int]:
    """uid -> how many registrations it takes until it is replaced, if nothing else changes; no entry: not in sight.

    Registrations first fill the places that are free. Then each replaces the neuron with the least emission, of equal
    ones the longest registered: of those that are not immune while there are more than `min_non_immune` of them, else
    of the immune ones. A newcomer earns nothing; once one of them is the next, the rest keeps its place.
    """
    emission, registered = metagraph.emission_alpha_rao.tolist(), metagraph.block_at_registration.tolist()
    never, now, n = _never_replaced(metagraph, rules), metagraph.block, len(emission)
    order = sorted((emission[uid], registered[uid], uid) for uid in range(n) if uid not in never)
    immune = [one for one in order if now - one[1] < rules.immunity_blocks]
    exposed = [one for one in order if now - one[1] >= rules.immunity_blocks]
    newcomers = immune if rules.immunity_blocks > 0 else exposed
    free = max(0, rules.max_uids - n)
    for uid in range(n, n + free):
        insort(newcomers, (0, now, uid))
    found: dict[int, int] = {}
    new = set(range(n, n + free))
    while queue := exposed if len(exposed) > rules.min_non_immune else immune:
        uid = queue.pop(0)[2]
        if uid in new:
            break
        found[uid] = free + len(found) + 1
        new.add(uid)
        insort(newcomers, (0, now, uid))
    return found


def _never_replaced(metagraph: Metagraph, rules: PruningRules) -> set[int]:
    """The owner's hotkey and its other neurons by age, up to the limit."""
    owner = metagraph.uid(rules.owner_hotkey)
    if owner is None:
        return set()
    cold, at = metagraph.coldkeys[owner], metagraph.block_at_registration.tolist()
    others = [n for n in range(len(at)) if n != owner and metagraph.coldkeys[n] == cold]
    return set([owner, *sorted(others, key=lambda n: (at[n], n))][: rules.owner_limit])
