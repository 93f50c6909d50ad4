"""Checks weights against the rules of the chain before they are sent.

In: SetWeights intents and the state of their subnets at one block. Out: for each intent the row of weights to send (or
to commit, on a subnet with commit-reveal), or a `Refusal`: the error that the chain would return, and the first block
at which it no longer would. The checks and their order are those of pallet subtensor's `internal_set_weights`; a rate
limit is checked for the block after the one that was read. StakeThreshold is not checked: the node's pool refuses such
weights. A commit is checked like its reveal, since the chain accepts the commit of weights that it refuses later.
Reads only; knows nothing of keys or nonces.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from raytensor.chain.error_actions import Do, action_for
from raytensor.chain.intents import SetWeights
from raytensor.chain.reads.epochs import epoch_blocks
from raytensor.chain.rpc.client import ChainClient, Head
from raytensor.chain.weights import Row, resolve_intent, storage_index

PALLET = "SubtensorModule"
_NUMBERS = {
    "n": "SubnetworkN",
    "tempo": "Tempo",
    "last_epoch": "LastEpochBlock",
    "pending_epoch": "PendingEpochAt",
    "commit_reveal": "CommitRevealWeightsEnabled",
    "version_key": "WeightsVersionKey",
    "min_allowed": "MinAllowedWeights",
    "rate_limit": "WeightsSetRateLimit",
    "owner_hotkey": "SubnetOwnerHotkey",
    "mechanisms": "MechanismCountCurrent",
    "epoch_index": "SubnetEpochIndex",
    "reveal_period": "RevealPeriodEpochs",
    "blocks_since_step": "BlocksSinceLastStep",
}


@dataclass(frozen=True)
class SubnetView:
    """The state that setting weights on one mechanism of a subnet depends on, at one block."""

    netuid: int
    mecid: int
    block: int
    uid_of: dict[str, int]
    permit: np.ndarray  # bool by uid
    last_update: np.ndarray  # block by uid
    commit_reveal: bool = False
    version_key: int = 0
    min_allowed: int = 1
    rate_limit: int = 0
    tempo: int = 0
    next_epoch: int = 0
    owner_hotkey: str = ""
    mechanisms: int = 1
    last_epoch: int = 0
    pending_epoch: int = 0
    epoch_index: int = 0
    reveal_period: int = 1
    blocks_since_step: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an intent is not sent. `until`: first block at which the reason no longer holds, None if unknown."""

    name: str
    until: int | None = None

    @property
    def waits(self) -> bool:
        """Whether the reason ends by itself after some blocks."""
        return action_for(self.name).do is Do.WAIT

    @property
    def action(self) -> str:
        text = str(action_for(self.name))
        return text if self.until is None else f"{text} (block {self.until})"


NetuidMecid = tuple[int, int]


def read_views(client: ChainClient, subnets: Iterable[NetuidMecid], head: Head) -> dict[NetuidMecid, SubnetView]:
    """Read the views of (netuid, mecid) pairs at one block, with two requests in total."""
    runtime = client.runtime
    subnets = sorted(set(subnets))
    fields = {field: name for field, name in _NUMBERS.items() if runtime.has_storage(PALLET, name)}
    numbers = [runtime.storage(PALLET, name) for name in fields.values()]
    permit, last_update = runtime.storage(PALLET, "ValidatorPermit"), runtime.storage(PALLET, "LastUpdate")
    keys = []
    for netuid, mecid in subnets:
        keys += [runtime.key(item, [netuid]) for item in numbers]
        keys += [runtime.key(permit, [netuid]), runtime.key(last_update, [storage_index(netuid, mecid)])]
    raws = client.query_raw(keys, head.hash)
    width = len(numbers) + 2
    read = []
    for place in range(len(subnets)):
        own = raws[place * width : (place + 1) * width]
        values = {field: runtime.value(item, raw) for field, item, raw in zip(fields, numbers, own)}
        read.append((values, runtime.array(permit, own[-2]), runtime.array(last_update, own[-1])))

    places = [(netuid, uid) for (netuid, _), (values, *_) in zip(subnets, read) for uid in range(values["n"])]
    owners = client.query_many([(PALLET, "Keys", [netuid, uid]) for netuid, uid in places], head.hash)
    views, at = {}, 0
    for (netuid, mecid), (values, permits, updates) in zip(subnets, read):
        n = values.pop("n")
        stored = {name: values[field] for field, name in fields.items() if field in values}
        last, epoch = epoch_blocks(stored, netuid, values["tempo"], head.number)
        values["last_epoch"] = last
        uid_of = {hotkey: uid for uid, hotkey in enumerate(owners[at : at + n])}
        facts = netuid, mecid, head.number, uid_of, permits, updates
        views[netuid, mecid] = SubnetView(*facts, next_epoch=epoch, **values)
        at += n
    return views


def check_weights(intent: SetWeights, view: SubnetView) -> Row | Refusal:
    """Return the row to send or to commit, or why the chain would refuse it in the next block."""
    if intent.netuid == 0:
        return Refusal("CanNotSetRootNetworkWeights")
    if not view.uid_of or view.mecid >= view.mechanisms:
        return Refusal("MechanismDoesNotExist")
    uid = view.uid_of.get(intent.signer)
    if uid is None:
        return Refusal("HotKeyNotRegisteredInSubNet")
    if 0 < intent.version_key < view.version_key:
        return Refusal("IncorrectWeightVersionKey")
    row = resolve_intent(intent, view.uid_of, version_key=view.version_key, min_length=view.min_allowed)
    if not row.uids:
        return Refusal("UidVecContainInvalidOne")
    ready = rate_limit_block(view, uid)
    if ready > view.block + 1:
        return Refusal("CommittingWeightsTooFast" if view.commit_reveal else "SettingWeightsTooFast", until=ready)
    permitted = uid < len(view.permit) and bool(view.permit[uid])
    if not permitted and intent.signer != view.owner_hotkey and row.uids != (uid,):
        return Refusal("NeuronNoValidatorPermit", until=view.next_epoch + 1 if view.next_epoch else None)
    return row


def rate_limit_block(view: SubnetView, uid: int) -> int:
    """First block in which this uid may set weights: LastUpdate + WeightsSetRateLimit; 0 if it never set any."""
    last = int(view.last_update[uid]) if uid < len(view.last_update) else 0
    return 0 if last == 0 else last + view.rate_limit
