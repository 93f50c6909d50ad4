"""Plans the items of a writer with what its chain allows: limits, costs, native batches, delegates.

In: items. Out: `Planned` extrinsics (batcher.py). Items of an open extrinsic are planned apart, as its rival.
Waits for: the answers of the node; what a runtime allows is read once.
"""

from collections.abc import Iterable, Mapping, Sequence

from raytensor.chain.calls import Call, Intent
from raytensor.chain.intents import SetWeights
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import Signer
from raytensor.chain.writer.batcher import Item, Limits, Planned, plan
from raytensor.chain.writer.extrinsic_table import ExtrinsicTable
from raytensor.chain.writer.limits import Meter, read_limits

# Types of a delegate's proxy that allow setting weights (chain: ProxyType). Of other calls the chain decides.
_FOR_WEIGHTS = {"Any", "NonTransfer", "NonCritical", "NonFungible"}


class Planner:
    """keys: the signers whose own key is here. delegate: a key that is a proxy of (some of) the signers.

    limits  of one extrinsic; None reads them from the chain.
    """

    def __init__(
        self,
        client: ChainClient,
        table: ExtrinsicTable,
        keys: Mapping[str, Signer],
        delegate: Signer | None,
        limits: Limits | None,
    ) -> None:
        any_key = next(iter(keys.values()), delegate)
        assert any_key is not None, "a writer has at least one key"
        self._client, self._table, self._keys, self._delegate = client, table, keys, delegate
        self._limits = limits or read_limits(client)
        self._any_public_key = any_key.public_key
        self._meter = Meter(client, any_key.public_key)
        self._types: dict[str, frozenset[str]] = {}
        self._free_batches: dict[int, bool] = {}  # by spec version

    def can_sign(self, intent: Intent) -> bool:
        """Whether the key of its signer is here, or made the delegate a proxy that may send it."""
        if intent.signer in self._keys:
            return True
        types = self._types_of([intent.signer]).get(intent.signer, frozenset())
        return bool(types & _FOR_WEIGHTS if isinstance(intent, SetWeights) else types)

    def plan_all(self, items: Mapping[str, Item]) -> list[Planned]:
        """The plan; items that are in an open extrinsic are planned with those that share it, as its rival."""
        shared: dict[frozenset[str], list[Item]] = {}
        for intent_id, item in items.items():
            carriers = self._table.carriers(intent_id)
            shared.setdefault(frozenset(x.hash for x in carriers), []).append(item)
        planned = []
        for carriers, group in shared.items():
            parts = self.plan(group)
            planned += parts[:1] if carriers and not all(part.repeatable for part in parts) else parts
        return planned

    def plan(self, items: Sequence[Item]) -> list[Planned]:
        """The plan of these items."""
        runtime = self._client.runtime
        return plan(
            items,
            self._limits,
            delegates=self._delegated(),
            keys=self._keys,
            cost=self._meter,
            native_time=self._meter.per_item,
            native_batch=runtime.has_call("SubtensorModule", "batch_set_weights"),
            native_commits=runtime.has_call("SubtensorModule", "batch_commit_weights"),
            free_batches=self._batches_are_free(items),
        )

    def _batches_are_free(self, items: Sequence[Item]) -> bool:
        """Whether a force_batch of free calls costs nothing on this runtime; read once, when two free calls are due."""
        calls = [item.call for item in items if item.free and item.call is not None]
        if len(calls) < 2:
            return False
        spec = self._client.spec_version
        if spec not in self._free_batches:
            call = Call("Utility", "force_batch", {"calls": calls[:1]})
            self._free_batches[spec] = self._client.fee(call, self._any_public_key)[0] == 0
        return self._free_batches[spec]

    def _delegated(self) -> dict[str, str]:
        """signer -> delegate, for the signers that made the delegate their proxy. Those whose own key is here use it
        for all but weights."""
        if self._delegate is None:
            return {}
        found = self._types_of(self._keys)
        may = (signer for signer, types in found.items() if signer not in self._keys or types & _FOR_WEIGHTS)
        return dict.fromkeys(may, self._delegate.ss58)

    def _types_of(self, signers: Iterable[str]) -> dict[str, frozenset[str]]:
        """signer -> types of the delegate's proxies without delay, of these signers and all before; read once."""
        missing = [address for address in signers if address not in self._types]
        if self._delegate is not None and missing and self._client.runtime.has_storage("Proxy", "Proxies"):
            found = self._client.query_many([("Proxy", "Proxies", [address]) for address in missing])
            for address, (proxies, _deposit) in zip(missing, found):
                own = [p for p in proxies if p["delay"] == 0 and p["delegate"] == self._delegate.ss58]
                if own:  # else it may become one: read again
                    self._types[address] = frozenset(p["proxy_type"] for p in own)
        return self._types
