"""Renews the last good weights of a subnet whose mechanism has stopped making any.

In: the newest weights of each place that took effect, the state of their subnets. Out: weights to set, before the old
ones fall out of the chain's activity cutoff: a validator that is not active earns nothing and counts for nothing, so
that to set nothing is the most expensive answer. Only places that were handed in since the writer started are renewed:
a subnet that was taken out of the settings is left alone.
Waits for: the answers of the node, at most once in `EVERY_BLOCKS`.
Source: pallet subtensor, `is_active`: LastUpdate + cutoff >= block, cutoff = ActivityCutoffFactorMilli x tempo / 1000
where the runtime has that factor, else ActivityCutoff.
"""

import json
import logging
from collections.abc import Callable

from raytensor.chain.intents import SetWeights, intent_from_json
from raytensor.chain.reads.preflight import PALLET, SubnetView, read_views
from raytensor.chain.rpc.client import ChainClient, Head
from raytensor.chain.writer.journal import Journal
from raytensor.chain.writer.orders import Place

log = logging.getLogger(__name__)

RENEW, HOLD, BURN = "renew", "hold", "burn"
EVERY_BLOCKS = 25  # or a sixteenth of the shortest cutoff
SHARE = 0.75  # of the cutoff: at this age weights are renewed
PREFIX = "renewed-"  # of the ids


class Renewal:
    """mode: "renew" sets the last good weights again, "burn" gives all to the subnet's owner, "hold" does nothing.

    places  the places that were handed in since the writer started. waits: whether weights of a place are on their way.
    """

    def __init__(
        self,
        client: ChainClient,
        journal: Journal,
        mode: str,
        places: Callable[[], set[Place]],
        waits: Callable[[Place], bool],
    ) -> None:
        self._client, self._journal, self._mode = client, journal, mode
        self._places, self._waits = places, waits
        self._next_look = 0

    def due(self, head: Head) -> list[SetWeights]:
        """The weights to set now."""
        if self._mode == HOLD or head.number < self._next_look:
            return []
        places = [place for place in sorted(self._places()) if not self._waits(place)]
        if not places:
            return []
        views = read_views(self._client, {(netuid, mecid) for _, netuid, mecid in places}, head)
        cutoffs = self._cutoffs(sorted({netuid for _, netuid, _ in places}), views, head)
        self._next_look = head.number + max(1, min(EVERY_BLOCKS, int(min(cutoffs.values()) / 16)))
        found = []
        for signer, netuid, mecid in places:
            view = views[netuid, mecid]
            uid = view.uid_of.get(signer)
            if uid is None or uid >= len(view.last_update) or not (uid < len(view.permit) and view.permit[uid]):
                continue
            age = head.number - int(view.last_update[uid])
            if age > SHARE * cutoffs[netuid]:
                renewed = self._renewed((signer, netuid, mecid), view, head)
                found += [renewed] if renewed is not None else []
        return found

    def _cutoffs(self, netuids: list[int], views: dict[tuple[int, int], SubnetView], head: Head) -> dict[int, float]:
        by_factor = self._client.runtime.has_storage(PALLET, "ActivityCutoffFactorMilli")
        name = "ActivityCutoffFactorMilli" if by_factor else "ActivityCutoff"
        values = self._client.query_many([(PALLET, name, [netuid]) for netuid in netuids], head.hash)
        tempo = {netuid: view.tempo for (netuid, _), view in views.items()}
        return {n: value * tempo[n] / 1000 if by_factor else value for n, value in zip(netuids, values)}

    def _renewed(self, place: Place, view: SubnetView, head: Head) -> SetWeights | None:
        signer, netuid, mecid = place
        query = (
            "SELECT body FROM intents WHERE signer = ? AND netuid = ? AND call = ? "
            "AND json_extract(body, '$.mecid') = ? AND fate IN ('included', 'revealed') "
            "ORDER BY rowid DESC LIMIT 1"
        )
        rows = self._journal.rows(query, (signer, netuid, SetWeights.name, mecid))
        if not rows:
            return None
        last = intent_from_json(json.loads(rows[0][0]))
        assert isinstance(last, SetWeights), "the query is for weights"
        values = ((view.owner_hotkey, 1.0),) if self._mode == BURN else last.values
        log.warning("subnet %d: no new weights of %s: the last ones are set again (%s)", netuid, signer, self._mode)
        intent_id = f"{PREFIX}{head.number}-{netuid}-{mecid}-{signer}"
        facts = {"netuid": netuid, "mecid": mecid, "version_key": last.version_key}
        return SetWeights(signer=signer, values=values, intent_id=intent_id, **facts)
