"""Whether the uids in signed rows of weights still belong to the hotkeys that they were looked up for.

In: rows and signed extrinsics, a block. Out: the subnets of which a uid in them has changed hands; the same weights as
new intents, where an extrinsic has landed with such a uid. A uid is valid at one block only: a neuron that registers on
a full subnet takes the uid of another. The hotkeys of uids are compared between the first block of an extrinsic's era,
at which its rows were made, and the block in question, so that nothing has to be kept. Of commits nothing is compared:
the chain leaves out of a revealed row whoever registered after the commit (pallet subtensor, epoch/run_epoch.rs).
Waits for: the answers of the node. Knows nothing of nonces, orders or pools.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from raytensor.chain.calls import Call, call_from_json
from raytensor.chain.intents import SetWeights
from raytensor.chain.reads.preflight import PALLET, SubnetView
from raytensor.chain.rpc.client import ChainClient, Head
from raytensor.chain.rpc.events import item_names
from raytensor.chain.weights import Row
from raytensor.chain.writer.extrinsic_table import Extrinsic
from raytensor.errors import ChainError, ChainUnavailable

log = logging.getLogger(__name__)

PREFIX = "uids-"  # of the ids of weights that are set again
_SINGLE = {f"{PALLET}.set_weights", f"{PALLET}.set_mechanism_weights"}
_BATCH = f"{PALLET}.batch_set_weights"


def uids_of(call: Call) -> set[tuple[int, int]]:
    """(netuid, uid) of every weight above 0 in the rows that a call sets, also within batches and proxies."""
    if call.name in _SINGLE:
        pairs = zip(call.args["dests"], call.args["weights"])
        return {(call.args["netuid"], uid) for uid, value in pairs if value > 0}
    if call.name == _BATCH:
        rows = zip(call.args["netuids"], call.args["weights"])
        return {(netuid, uid) for netuid, row in rows for uid, value in row if value > 0}
    return set().union(*(uids_of(inner) for inner in call.inner()))


class UidCheck:
    """client: of the chain on which the extrinsics are."""

    def __init__(self, client: ChainClient) -> None:
        self._client = client

    def changed(self, extrinsic: Extrinsic, block_hash: str) -> set[int] | None:
        """The subnets of which a uid in a signed extrinsic has another hotkey at this block than when it was signed.

        None where that can't be read any more. Raises ChainUnavailable.
        """
        names = item_names(call_from_json(json.loads(extrinsic.call_json)))
        if not {*names} & {*_SINGLE, _BATCH}:
            return set()
        call = self._client.runtime.call_of(extrinsic.data)
        if call is None:
            return None
        places = sorted(uids_of(call))
        keys = [(PALLET, "Keys", list(place)) for place in places]
        try:
            before = self._client.query_many(keys, self._client.block_hash(extrinsic.birth))
            now = self._client.query_many(keys, block_hash)
        except ChainError as error:
            if isinstance(error, ChainUnavailable) and "discarded" not in str(error):
                raise
            log.warning("the uids of extrinsic %s can't be compared: %s", extrinsic.hash, error)
            return None
        return {netuid for (netuid, _), old, new in zip(places, before, now) if old != new}

    def hold(self, rows: Iterable[Row], views: Mapping[tuple[int, int], SubnetView], read_at: Head) -> bool:
        """Whether the uids of rows that were made of `views` have the same hotkeys at the best block."""
        places = sorted({(row.netuid, uid) for row in rows for uid in row.uids})
        if not places or self._client.head().number == read_at.number:
            return True
        owner = {(netuid, uid): hotkey for (netuid, _), view in views.items() for hotkey, uid in view.uid_of.items()}
        now = self._client.query_many([(PALLET, "Keys", list(place)) for place in places])
        return all(owner.get(place) == hotkey for place, hotkey in zip(places, now))

    def landed_wrong(self, extrinsic: Extrinsic) -> set[int]:
        """The subnets of which the block that has an extrinsic has another hotkey at a uid in it."""
        assert extrinsic.block is not None, "it has landed"
        return self.changed(extrinsic, self._client.block_hash(extrinsic.block)) or set()


def once_more(intents: Iterable[SetWeights], block: int) -> Iterator[SetWeights]:
    """The same weights under new ids, for the hotkeys that have uids then."""
    for intent in intents:
        what = "a uid in the weights of %s had another hotkey in block %d: they are set again"
        log.warning(f"subnet %d: {what}", intent.netuid, intent.signer, block)
        yield replace(intent, intent_id=f"{PREFIX}{block}-{intent.netuid}-{intent.mecid}-{intent.signer}")
