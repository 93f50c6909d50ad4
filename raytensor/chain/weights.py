"""Weights in the form of the chain: hotkeys and real numbers -> sorted uids and u16 values.

In: a validator's values by hotkey and the uids of a subnet at one block. Out: a `Row`, and the calls that carry rows.
Pure; knows nothing of who signs or when.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raytensor.chain.calls import Call
from raytensor.chain.intents import SetWeights
from raytensor.types import Weights

U16_MAX = 65535
MECHANISM_STRIDE = 4096  # storage index of a mechanism = mecid * 4096 + netuid (pallet subtensor, NetUidStorageIndex)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the weight matrix. uids ascending; values u16, the largest 65535.

    dropped  hotkeys without a uid. zeroed: hotkeys whose weight is above 0 and becomes 0 as u16.
    """

    netuid: int
    mecid: int
    uids: tuple[int, ...]
    values: tuple[int, ...]
    version_key: int
    dropped: tuple[str, ...] = ()
    zeroed: tuple[str, ...] = ()


def max_upscale(values: Sequence[float]) -> list[int]:
    """Scales weights so that the largest is 65535, rounding half to even as the SDK does; all zero stays all zero.

    Formula: round(w / max(w) * 65535), bittensor `convert_weights_and_uids_for_emit`.
    Raises ValueError for a negative or not finite weight.
    """
    for value in values:
        if not math.isfinite(value) or value < 0:
            raise ValueError(f"weight {value!r} can't be set: weights are finite and at least 0")
    top = max(values, default=0.0)
    if top == 0:
        return [0] * len(values)
    return [round(value / top * U16_MAX) for value in values]


def fault_of(values: Sequence[tuple[str, float]]) -> str | None:
    """Why weights can't be set: one that is negative, not finite, no number, or of no hotkey; None if they can."""
    for hotkey, value in values:
        if not isinstance(hotkey, str):
            return f"weights are given by hotkey, not by {hotkey!r}: each is an ss58 address"
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return f"the weight of {hotkey} is {value!r}: weights are numbers"
        if not math.isfinite(value) or value < 0:
            return f"weight {value!r} of {hotkey} can't be set: weights are finite and at least 0"
    return None


def resolve(
    values: Iterable[tuple[str, float]],
    uid_of: Mapping[str, int],
    *,
    netuid: int,
    mecid: int = 0,
    version_key: int = 0,
    min_length: int = 1,
) -> Row:
    """Look up the uids of hotkeys and quantise the values.

    Zeros are left out, unless all are zero. A row shorter than the chain's min(n, MinAllowedWeights) gets zeros for the
    lowest uids that it lacks, which makes no difference to consensus.
    """
    known, dropped = {}, []
    hotkey_of = {uid: hotkey for hotkey, uid in uid_of.items()}
    for hotkey, value in values:
        uid = uid_of.get(hotkey)
        if uid is None:
            dropped.append(hotkey)
        else:
            known[uid] = value
    uids = sorted(known)
    scaled = max_upscale([known[uid] for uid in uids])
    pairs = [(uid, value) for uid, value in zip(uids, scaled) if value > 0]
    if not pairs:
        pairs = list(zip(uids, scaled))
    elif (missing := min(len(uid_of), min_length) - len(pairs)) > 0:
        pairs += [(uid, 0) for uid in sorted(set(uid_of.values()) - {uid for uid, _ in pairs})[:missing]]
        pairs.sort()
    scaled_by_uid = dict(pairs)
    zeroed = tuple(hotkey_of[uid] for uid, value in zip(uids, scaled) if value == 0 and known[uid] > 0)
    values_ = tuple(scaled_by_uid.values())
    return Row(netuid, mecid, tuple(scaled_by_uid), values_, version_key, tuple(dropped), zeroed)


def resolve_intent(intent: SetWeights, uid_of: Mapping[str, int], *, version_key: int, min_length: int = 1) -> Row:
    """`resolve` for an intent, with its own version key; without one (0) it is the chain's."""
    place = {"netuid": intent.netuid, "mecid": intent.mecid}
    version_key = intent.version_key or version_key
    return resolve(intent.values, uid_of, **place, version_key=version_key, min_length=min_length)


def single_call(row: Row) -> Call:
    """The call that sets one row: set_weights, or set_mechanism_weights for a mechanism other than 0."""
    args = {"netuid": row.netuid, "dests": list(row.uids), "weights": list(row.values), "version_key": row.version_key}
    return mechanism_call("set_weights", row.mecid, args)


def mechanism_call(function: str, mecid: int, args: dict[str, Any]) -> Call:
    """A call for one mechanism. Mechanisms other than 0 have calls of their own, such as set_mechanism_weights."""
    if mecid == 0:
        return Call("SubtensorModule", function, args)
    return Call("SubtensorModule", function.replace("_weights", "_mechanism_weights"), {**args, "mecid": mecid})


def batch_call(rows: Sequence[Row]) -> Call:
    """The call that sets rows of one hotkey on several subnets (mechanism 0); each may fail separately."""
    assert all(row.mecid == 0 for row in rows), "the native batch has no mechanism argument"
    assert len({row.netuid for row in rows}) == len(rows), "one row a subnet"
    args = {
        "netuids": [row.netuid for row in rows],
        "weights": [list(zip(row.uids, row.values)) for row in rows],
        "version_keys": [row.version_key for row in rows],
    }
    return Call("SubtensorModule", "batch_set_weights", args)


def storage_index(netuid: int, mecid: int) -> int:
    """Key of a mechanism's weights, bonds, incentive and last update."""
    return mecid * MECHANISM_STRIDE + netuid


def weights_intent(weights: Weights) -> SetWeights:
    """The intent of some weights. The id of weights with `made_at_block` is a hash of their content, so that they are
    set once even if they are submitted twice; other weights get a random id."""
    values = tuple(sorted(weights.values.items()))
    made = {}
    if weights.made_at_block > 0:
        content = [weights.hotkey, weights.netuid, weights.mecid, weights.version_key, weights.made_at_block, values]
        made["intent_id"] = "weights-" + hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
    place = {"netuid": weights.netuid, "mecid": weights.mecid}
    return SetWeights(signer=weights.hotkey, values=values, version_key=weights.version_key, **place, **made)


def intent_of(weights: Weights) -> SetWeights:
    """`weights_intent`; weights that are no numbers by hotkey give an intent that `fault_of` refuses."""
    try:
        return weights_intent(weights)
    except (TypeError, ValueError, AttributeError):
        text = repr((weights.hotkey, weights.netuid, weights.mecid, weights.made_at_block, weights.values))
        digest = hashlib.sha256(text.encode()).hexdigest()[:32]
        values = ((str(weights.hotkey), math.nan),)
        place = {"netuid": weights.netuid, "mecid": weights.mecid}
        return SetWeights(signer=weights.hotkey, values=values, intent_id=f"weights-{digest}", **place)
