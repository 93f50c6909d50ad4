"""Timelocked commits with the randomness beacon of a chain, and whether the chain can open them.

In: a client, a subnet's view, a row of weights. Out: the beacon to use, and the timelocked commit. Timelocked commits
(version 4) are preferred where the chain stores the pulses of its beacon: the chain opens them itself, even if the
validator is down. Where the last pulse is old, or there is no beacon, a hash commit is made instead.
Waits for: the answers of the node, at most five values; the encryption is in timelock.py.
"""

import hashlib
from dataclasses import dataclass

from raytensor.chain import ss58
from raytensor.chain.calls import Call
from raytensor.chain.reads.preflight import SubnetView
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.weights import Row, mechanism_call
from raytensor.chain.writer.timelock import (
    COMMIT_VERSION,
    QUICKNET,
    Beacon,
    EpochSchedule,
    reveal_round,
    seal,
    weights_payload,
)

PALLET = "SubtensorModule"
STALE_S = 300.0  # pulses come every 3 s; with an older newest pulse the chain cannot be relied on to open commits
SPAN_BLOCKS = 20  # blocks over which the block time is averaged
OPENED_BY = "SubtensorModule.reveal_timelocked_weights"  # not a call: the chain itself does it, at the start of a block


@dataclass(frozen=True, slots=True)
class ChainBeacon:
    """The beacon of a chain, and the clock of the chain at one block. block_time_s: mean of the last blocks."""

    beacon: Beacon
    now_s: float
    block_time_s: float


def choose(client: ChainClient, view: SubnetView) -> ChainBeacon | None:
    """The beacon to encrypt a commit for; None where a hash commit is needed."""
    runtime = client.runtime
    if not runtime.has_call(PALLET, "commit_timelocked_weights") or not runtime.has_storage("Drand", "LastStoredRound"):
        return None
    there = runtime.has_storage("Drand", "BeaconConfig")
    back = max(1, view.block - SPAN_BLOCKS)
    reads = [(PALLET, "CommitRevealWeightsVersion", []), ("Drand", "LastStoredRound", []), ("Timestamp", "Now", [])]
    reads += [("Drand", "BeaconConfig", [])] if there else []
    at = client.block_hash(view.block)
    version, last, now_ms, *config = client.query_many(reads, at)
    if version != COMMIT_VERSION or not last:
        return None
    beacon = QUICKNET
    if config and config[0]:
        named = config[0]
        beacon = Beacon(bytes(named["public_key"]), int(named["period"]), int(named["genesis_time"]))
    now_s = now_ms / 1000
    if now_s - (beacon.genesis_s + (last - 1) * beacon.period_s) > STALE_S:
        return None
    then_ms = client.query("Timestamp", "Now", [], client.block_hash(back)) if back < view.block else now_ms
    block_time_s = (now_ms - then_ms) / 1000 / max(1, view.block - back)
    return ChainBeacon(beacon, now_s, block_time_s)


def encrypt(chain: ChainBeacon, hotkey: str, row: Row, view: SubnetView) -> tuple[bytes, int]:
    """(ciphertext, reveal round) of a row whose commit is included in the next block."""
    clock = view.block, view.tempo, view.last_epoch, view.pending_epoch, view.epoch_index, view.blocks_since_step
    schedule = EpochSchedule(*clock)
    round = reveal_round(chain.beacon, schedule, view.reveal_period, chain.now_s, chain.block_time_s)
    payload = weights_payload(ss58.decode(hotkey), row.uids, row.values, row.version_key)
    return seal(payload, round, chain.beacon.public_key), round


def commit_call(row: Row, ciphertext: bytes, round: int) -> Call:
    """The call that submits a timelocked commit."""
    args = {"netuid": row.netuid, "commit": ciphertext, "reveal_round": round, "commit_reveal_version": COMMIT_VERSION}
    return mechanism_call("commit_timelocked_weights", row.mecid, args)


def digest(ciphertext: bytes) -> str:
    """blake2-256 of a ciphertext, "0x...": the name of a timelocked commit in the chain's events."""
    return "0x" + hashlib.blake2b(ciphertext, digest_size=32).hexdigest()
