"""Weights that are committed first and revealed later: how a commit is made, and what is to be done about it at a block.

In: rows of weights, a subnet's schedule, what the chain holds of our commits. Out: commit and reveal calls, digests, and
the next `Step` of each pending commit. A commit of epoch e can be revealed in epoch e + RevealPeriodEpochs and in no
other (pallet subtensor, subnets/weights.rs). The chain is the truth: a commit that it has is there, whatever our
records say. Pure but for `new_salt`; the encryption of timelocked commits is in timelock.py.
"""

from __future__ import annotations

import enum
import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from raytensor.chain.calls import Call
from raytensor.chain.reads.preflight import SubnetView
from raytensor.chain.rpc.codec import account_bytes, encode_compact
from raytensor.chain.weights import Row, storage_index
from raytensor.chain.writer.commit_book import HASH, Commit

PALLET = "SubtensorModule"
MAX_UNREVEALED = 10  # of a hotkey on a mechanism (pallet subtensor)
SALT_LENGTH = 8


class Step(enum.Enum):
    WAIT = "wait"
    REVEAL = "reveal"  # send the reveal now
    OPENED = "opened"  # the chain has opened it: the weights count
    EXPIRED = "expired"  # its reveal epoch has passed
    DROPPED = "dropped"  # the chain took it from its queue and did not set the weights
    LOST = "lost"  # the chain does not have it
    VOID = "void"  # the subnet left commit-reveal


@dataclass(frozen=True, slots=True)
class Held:
    """What the chain holds of our commits at one block.

    epochs   digest -> commit epoch.
    rows     (netuid, mecid, hotkey) -> the row of weights that counts now, ((uid, u16), ...).
    """

    epochs: Mapping[str, int]
    rows: Mapping[tuple[str, int, int], tuple[tuple[int, int], ...]]


def new_salt() -> tuple[int, ...]:
    """u16 values from the system's randomness."""
    return tuple(secrets.randbelow(65536) for _ in range(SALT_LENGTH))


def commit_digest(hotkey: str, row: Row, salt: Iterable[int]) -> str:
    """blake2-256 of SCALE(account, storage index u16, uids, values, salt: Vec<u16>, version key u64), as "0x...".

    Source: pallet subtensor, `get_commit_hash`.
    """
    data = account_bytes(hotkey) + storage_index(row.netuid, row.mecid).to_bytes(2, "little")
    for numbers in (row.uids, row.values, tuple(salt)):
        data += encode_compact(len(numbers)) + b"".join(number.to_bytes(2, "little") for number in numbers)
    data += row.version_key.to_bytes(8, "little")
    return "0x" + hashlib.blake2b(data, digest_size=32).hexdigest()


def commit_call(commit: Commit) -> Call:
    """The call that hands a hash commit in."""
    row = commit.row
    if row.mecid == 0:
        return Call(PALLET, "commit_weights", {"netuid": row.netuid, "commit_hash": commit.digest})
    args = {"netuid": row.netuid, "mecid": row.mecid, "commit_hash": commit.digest}
    return Call(PALLET, "commit_mechanism_weights", args)


def reveal_call(commit: Commit) -> Call:
    """The call that opens a hash commit."""
    row = commit.row
    args = {
        "netuid": row.netuid,
        "uids": list(row.uids),
        "values": list(row.values),
        "salt": list(commit.salt),
        "version_key": row.version_key,
    }
    if row.mecid == 0:
        return Call(PALLET, "reveal_weights", args)
    return Call(PALLET, "reveal_mechanism_weights", {**args, "mecid": row.mecid})


def epoch_after(view: SubnetView) -> int:
    """SubnetEpochIndex as the extrinsics of the next block will find it: an epoch that is due then has run."""
    return view.epoch_index + (0 < view.next_epoch <= view.block + 1)


def reveal_block(view: SubnetView, commit_epoch: int) -> int:
    """The first block in which a commit of this epoch can be revealed, if the schedule stays as it is."""
    ahead = commit_epoch + view.reveal_period - view.epoch_index  # epochs that have to run first
    return view.block + 1 if ahead <= 0 else view.next_epoch + 1 + (ahead - 1) * view.tempo


def next_step(commit: Commit, view: SubnetView, held: Held) -> tuple[Step, int]:
    """What to do about a commit that no extrinsic of ours is working on; for WAIT the block to look again."""
    epoch = held.epochs.get(commit.digest)
    if not view.commit_reveal:
        return Step.VOID, 0
    if epoch is None:
        if commit.epoch is None:
            return Step.LOST, 0
        if commit.kind != HASH and tuple(zip(commit.row.uids, commit.row.values)) == held.rows.get(commit.place):
            return Step.OPENED, 0
        if view.epoch_index > commit.epoch + view.reveal_period:
            return Step.EXPIRED, 0
        return (Step.LOST if commit.kind == HASH else Step.DROPPED), 0
    target = epoch + view.reveal_period
    if view.epoch_index > target:
        return Step.EXPIRED, 0
    if commit.kind == HASH and view.epoch_index == target and epoch_after(view) == target:
        return Step.REVEAL, 0
    if commit.kind == HASH and epoch_after(view) > target:
        return Step.EXPIRED, 0  # this was the last block of its epoch
    return Step.WAIT, max(view.block + 1, reveal_block(view, epoch) - 1)
