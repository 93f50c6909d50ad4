"""The rules of commit-reveal: how a commit is made, and the next step for it at a block.

In: rows of weights, a subnet's schedule, what the chain has of our commits. Out: commit and reveal calls, digests, and
the next `Step` of each pending commit. A commit of epoch e can be revealed in epoch e + RevealPeriodEpochs and in no
other (pallet subtensor, subnets/weights.rs). The chain decides whether a commit exists, not our records. Pure except
for `new_salt`; the encryption of timelocked commits is in timelock.py.
"""

import enum
import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from raytensor.chain import ss58
from raytensor.chain.calls import Call
from raytensor.chain.reads.preflight import SubnetView
from raytensor.chain.rpc.codec import encode_compact
from raytensor.chain.weights import Row, mechanism_call, storage_index
from raytensor.chain.writer.commit_book import HASH, WeightCommit

PALLET = "SubtensorModule"
MAX_UNREVEALED = 10  # of a hotkey on a mechanism (pallet subtensor)
SALT_LENGTH = 8


class Step(enum.Enum):
    WAIT = "wait"
    REVEAL = "reveal"  # send the reveal now
    OPENED = "opened"  # the chain has opened it: the weights are in force
    EXPIRED = "expired"  # its reveal epoch has passed
    DROPPED = "dropped"  # the chain removed it from its queue without setting the weights
    LOST = "lost"  # the chain does not have it (any more)
    VOID = "void"  # the subnet no longer uses commit-reveal


@dataclass(frozen=True, slots=True)
class OnChain:
    """What the chain has of our commits at one block.

    epochs  digest -> commit epoch.
    rows    (hotkey, netuid, mecid) -> the row of weights in force, ((uid, u16), ...).
    """

    epochs: Mapping[str, int]
    rows: Mapping[tuple[str, int, int], tuple[tuple[int, int], ...]]


def new_salt() -> tuple[int, ...]:
    """Random u16 values from the system's generator."""
    return tuple(secrets.randbelow(65536) for _ in range(SALT_LENGTH))


def commit_digest(hotkey: str, row: Row, salt: Iterable[int]) -> str:
    """blake2-256 of SCALE(account, storage index u16, uids, values, salt: Vec<u16>, version key u64), as "0x...".

    Source: pallet subtensor, `get_commit_hash`.
    """
    data = ss58.decode(hotkey) + storage_index(row.netuid, row.mecid).to_bytes(2, "little")
    for numbers in (row.uids, row.values, tuple(salt)):
        data += encode_compact(len(numbers)) + b"".join(number.to_bytes(2, "little") for number in numbers)
    data += row.version_key.to_bytes(8, "little")
    return "0x" + hashlib.blake2b(data, digest_size=32).hexdigest()


def commit_call(commit: WeightCommit) -> Call:
    """The call that submits a hash commit."""
    args = {"netuid": commit.row.netuid, "commit_hash": commit.digest}
    return mechanism_call("commit_weights", commit.row.mecid, args)


def reveal_call(commit: WeightCommit) -> Call:
    """The call that reveals a hash commit."""
    row = commit.row
    args = {"netuid": row.netuid, "uids": list(row.uids), "values": list(row.values), "version_key": row.version_key}
    return mechanism_call("reveal_weights", row.mecid, {**args, "salt": list(commit.salt)})


def epoch_after(view: SubnetView) -> int:
    """SubnetEpochIndex as the extrinsics of the next block see it: an epoch that is due then has run before them."""
    return view.epoch_index + (0 < view.next_epoch <= view.block + 1)


def reveal_block(view: SubnetView, commit_epoch: int) -> int:
    """The first block in which a commit of this epoch can be revealed, if the schedule does not change."""
    ahead = commit_epoch + view.reveal_period - view.epoch_index  # epochs that have to run first
    return view.block + 1 if ahead <= 0 else view.next_epoch + 1 + (ahead - 1) * view.tempo


def next_step(commit: WeightCommit, view: SubnetView, on_chain: OnChain) -> tuple[Step, int]:
    """The step for a commit without an extrinsic in flight; with WAIT, the block at which to look again."""
    epoch = on_chain.epochs.get(commit.digest)
    if not view.commit_reveal:
        return Step.VOID, 0
    if epoch is None:
        if commit.epoch is None:
            return Step.LOST, 0
        if commit.kind != HASH and tuple(zip(commit.row.uids, commit.row.values)) == on_chain.rows.get(commit.place):
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
        return Step.EXPIRED, 0  # its reveal epoch ends with this block
    return Step.WAIT, max(view.block + 1, reveal_block(view, epoch) - 1)
