"""A network on a development chain for the chain benchmarks, made by ordinary extrinsics: subnets, validators, stake.

In: a client, a writer that holds the bank's and the hotkeys' keys. Out: netuids on which every hotkey is registered,
staked and has a permit. Plain weights, no rate limit, so that only the writer's own work is measured.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from raytensor.chain.bulk_submitter import BulkSubmitter
from raytensor.chain.calls import Call, Intent
from raytensor.chain.intents import AddProxy, AddStake, BurnedRegister, Transfer
from raytensor.chain.owner_intents import RegisterNetwork, StartCall
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey
from raytensor.chain.writer.writer import ChainWriter
from raytensor.types import Fate

RAO, PALLET = 10**9, "SubtensorModule"
BANK = DevKey("//Alice")
NETWORKS_AT_ONCE = 8  # the price of a subnet doubles with each in a row, and is down again two blocks later
TIMEOUT_S = 600.0


def hotkey(number: int) -> DevKey:
    return DevKey(f"//bench//hot//{number}")


def carry_out(writer: ChainWriter, intents: Sequence[Intent]) -> None:
    """All of them, or the reason of the first that failed."""
    bad = [receipt for receipt in writer.submit(list(intents)) if receipt.fate is not Fate.INCLUDED]
    if bad:
        raise SystemExit(f"setting up: {len(bad)} of {len(intents)} failed, the first with {bad[0]}")


def sudo(client: ChainClient, settings: Sequence[tuple[str, list]]) -> None:
    """AdminUtils calls by the sudo key, sixty-four an extrinsic."""
    step, names = BulkSubmitter(client, TIMEOUT_S), client.runtime.call_fields
    calls = [Call("AdminUtils", name, dict(zip(names("AdminUtils", name), args))) for name, args in settings]
    for at in range(0, len(calls), 64):
        batch = Call("Utility", "batch_all", {"calls": calls[at : at + 64]})
        step.add(BANK.open(), Call("Sudo", "sudo", {"call": batch}))
        step.run()


def make_network(
    client: ChainClient,
    writer: ChainWriter,
    num_hotkeys: int,
    num_subnets: int,
    tempo: int,
    *,
    delegate: DevKey | None = None,
) -> list[int]:
    """Subnets on which every hotkey has stake and a permit; their netuids.

    tempo: raised to the number of subnets where it is shorter, since the chain runs one epoch per block.
    delegate: becomes the hotkeys' proxy.
    """
    tempo = max(tempo, num_subnets)
    bank, owner, hotkeys = BANK.ss58, DevKey("//bench//owner").ss58, [hotkey(n).ss58 for n in range(num_hotkeys)]
    sudo(
        client,
        [
            ("sudo_set_network_rate_limit", [0]),
            ("sudo_set_network_min_lock_cost", [100 * RAO]),
            ("sudo_set_lock_reduction_interval", [1]),
        ],
    )
    before = set(client.query_map(PALLET, "NetworksAdded"))
    for at in range(0, num_subnets, NETWORKS_AT_ONCE):
        count = min(NETWORKS_AT_ONCE, num_subnets - at)
        carry_out(writer, [RegisterNetwork(signer=bank, hotkey=owner) for _ in range(count)])
        client.wait_for_block(client.head().number + 2, TIMEOUT_S)
    netuids = sorted(set(client.query_map(PALLET, "NetworksAdded")) - before)
    settings = [
        ("sudo_set_tempo", tempo),
        ("sudo_set_weights_set_rate_limit", 0),
        ("sudo_set_max_burn", RAO),
        ("sudo_set_commit_reveal_weights_enabled", False),
    ]
    sudo(client, [(name, [netuid, value]) for netuid in netuids for name, value in settings])
    carry_out(writer, [StartCall(signer=bank, netuid=netuid) for netuid in netuids])
    places = [(netuid, address) for netuid in netuids for address in hotkeys]
    carry_out(writer, [BurnedRegister(signer=bank, netuid=netuid, hotkey=address) for netuid, address in places])
    carry_out(writer, [AddStake(signer=bank, hotkey=h, netuid=n, amount_staked=RAO) for n, h in places])
    if delegate is not None:
        # Deposits of the proxies; what is proxied pays a fee, which the delegate carries.
        funds = dict.fromkeys(hotkeys, RAO) | {delegate.ss58: 1000 * RAO}
        carry_out(writer, [Transfer(signer=bank, dest=address, value=value) for address, value in funds.items()])
        carry_out(writer, [AddProxy(signer=address, delegate=delegate.ss58) for address in hotkeys])
    wait_for_permits(client, netuids, num_hotkeys)
    return netuids


def wait_for_permits(client: ChainClient, netuids: Sequence[int], num_hotkeys: int) -> None:
    """An epoch gives them; a block runs two epochs at most."""
    deadline = time.monotonic() + TIMEOUT_S
    while missing := sum(
        sum(permits) < num_hotkeys for permits in client.query_many([(PALLET, "ValidatorPermit", [n]) for n in netuids])
    ):
        if time.monotonic() > deadline:
            raise SystemExit(f"setting up: {missing} of {len(netuids)} subnets have no permits after {TIMEOUT_S:g} s")
        client.wait_for_block(client.head().number + 1, TIMEOUT_S)
