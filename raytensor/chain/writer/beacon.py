"""A chain's randomness beacon: whether commits can be timelocked with it, and such commits.

In: a client, a subnet's view. Out: the kind of commit that the chain can reveal, and the timelocked one. Timelocked
commits (version 4) are the rule where the chain stores pulses of its beacon: the chain opens them itself, whether the
validator is alive or not. Where the last pulse is old the beacon is down, or there is none, and a hash commit is made.
Reads at most four values; the encryption is in timelock.py.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from raytensor.chain.calls import Call
from raytensor.chain.reads.preflight import SubnetView
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.rpc.codec import account_bytes
from raytensor.chain.timelock import (
    COMMIT_VERSION,
    QUICKNET,
    Beacon,
    EpochSchedule,
    reveal_round,
    seal,
    weights_payload,
)
from raytensor.chain.weights import Row
from raytensor.chain.writer.commit_book import HASH, TIMELOCKED

PALLET = "SubtensorModule"
STALE_S = 300.0  # pulses come every 3 s: a chain whose newest is older than this can't be relied on to open anything
SPAN_BLOCKS = 20  # over which the time between blocks is measured
OPENED_BY = "SubtensorModule.reveal_timelocked_weights"  # no call: the chain itself, at the start of a block


@dataclass(frozen=True, slots=True)
class ChainBeacon:
    """The beacon that a chain names, and the chain's own clock at one block. block_time_s: mean of the last blocks."""

    beacon: Beacon
    now_s: float
    block_time_s: float


def choose(client: ChainClient, view: SubnetView) -> tuple[str, ChainBeacon | None]:
    """ "timelocked" and the beacon, or "hash"."""
    runtime = client.runtime
    if not runtime.has_call(PALLET, "commit_timelocked_weights") or not runtime.has_storage("Drand", "LastStoredRound"):
        return HASH, None
    there = runtime.has_storage("Drand", "BeaconConfig")
    back = max(1, view.block - SPAN_BLOCKS)
    reads = [(PALLET, "CommitRevealWeightsVersion", []), ("Drand", "LastStoredRound", []), ("Timestamp", "Now", [])]
    reads += [("Drand", "BeaconConfig", [])] if there else []
    at = client.block_hash(view.block)
    version, last, now_ms, *config = client.query_many(reads, at)
    if version != COMMIT_VERSION or not last:
        return HASH, None
    beacon = QUICKNET
    if config and config[0]:
        named = config[0]
        beacon = Beacon(bytes(named["public_key"]), int(named["period"]), int(named["genesis_time"]))
    now_s = now_ms / 1000
    if now_s - (beacon.genesis_s + (last - 1) * beacon.period_s) > STALE_S:
        return HASH, None
    then_ms = client.query("Timestamp", "Now", [], client.block_hash(back)) if back < view.block else now_ms
    block_time_s = (now_ms - then_ms) / 1000 / max(1, view.block - back)
    return TIMELOCKED, ChainBeacon(beacon, now_s, block_time_s)


def encrypt(chain: ChainBeacon, hotkey: str, row: Row, view: SubnetView) -> tuple[bytes, int]:
    """(ciphertext, reveal round) of a row that is committed in the next block."""
    schedule = EpochSchedule(
        view.block, view.tempo, view.last_epoch, view.pending_epoch, view.epoch_index, view.blocks_since_step
    )
    round = reveal_round(chain.beacon, schedule, view.reveal_period, chain.now_s, chain.block_time_s)
    payload = weights_payload(account_bytes(hotkey), row.uids, row.values, row.version_key)
    return seal(payload, round, chain.beacon.public_key), round


def commit_call(row: Row, ciphertext: bytes, round: int) -> Call:
    """The call that hands a timelocked commit in."""
    args = {"netuid": row.netuid, "commit": ciphertext, "reveal_round": round, "commit_reveal_version": COMMIT_VERSION}
    if row.mecid == 0:
        return Call(PALLET, "commit_timelocked_weights", args)
    return Call(PALLET, "commit_timelocked_mechanism_weights", {**args, "mecid": row.mecid})


def digest(ciphertext: bytes) -> str:
    """blake2-256, as the chain's event names a timelocked commit, "0x..."."""
    return "0x" + hashlib.blake2b(ciphertext, digest_size=32).hexdigest()
