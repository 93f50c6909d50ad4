"""The limits of one extrinsic, read from the chain, and the cost of a call.

In: a client. Out: `Limits` and a `Meter` for the batcher. Waits for: the answers of the node. Knows nothing of plans.
Source: FRAME constants System.BlockWeights and System.BlockLength, Utility.batched_calls_limit;
TransactionPaymentApi_query_info.
"""

from raytensor.chain.calls import Call, Cost
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.rpc.connection import RpcError
from raytensor.chain.writer.batcher import Limits
from raytensor.errors import ChainError

SHARE = 0.75  # of a block's limit; the rest is for the extrinsics of others
PER_BLOCK = (
    8  # of the heaviest batches in one block: what does not fit behind the others leaves at most an eighth of it
)
_WRAPPERS = {"Proxy.proxy": "call", "Sudo.sudo": "call"}


def read_limits(client: ChainClient) -> Limits:
    """Limits of one extrinsic on this chain. A constant that the runtime lacks leaves the default."""
    default = Limits()
    items, ref_time, length = default.max_items, default.max_ref_time, default.max_length
    try:
        per_class = client.constant("System", "BlockWeights")["per_class"]["normal"]
        if (most := per_class["max_extrinsic"]) is not None:
            ref_time = int(most["ref_time"] * SHARE)
        if (total := per_class["max_total"]) is not None:
            ref_time = min(ref_time, total["ref_time"] // PER_BLOCK)
    except (ChainError, KeyError):
        pass
    try:
        length = int(client.constant("System", "BlockLength")["max"]["normal"] * SHARE)
    except (ChainError, KeyError):
        pass
    try:
        items = int(client.constant("Utility", "batched_calls_limit") * SHARE)
    except ChainError:
        pass
    return Limits(max(1, items), max(1, ref_time), max(1, length))


class Meter:
    """Cost of a call: its encoded length, and the ref_time that the chain reports for that name, read once."""

    def __init__(self, client: ChainClient, public_key: bytes) -> None:
        self._client = client
        self._public_key = public_key
        self._ref_time: dict[tuple[int, str], int] = {}

    def __call__(self, call: Call) -> Cost:
        length = len(self._client.runtime.encode_call(call))
        return Cost(self._time(call), length)

    def _time(self, call: Call) -> int:
        name, inner = call.name, call
        while inner.name in _WRAPPERS:
            inner = inner.args[_WRAPPERS[inner.name]]
            name = f"{name}({inner.name})"
        key = (self._client.spec_version, name)
        if key not in self._ref_time:
            try:
                self._ref_time[key] = self._client.fee(call, self._public_key)[1].ref_time
            except RpcError:  # a chain without the fee API: the pool refuses a batch that is too heavy
                self._ref_time[key] = 0
        return self._ref_time[key]

    def per_item(self, batch: Call) -> int:
        """ref_time that one more item adds to a native batch, by what the chain reports for `batch`, of two items, and
        for its first item alone. Today's runtimes charge each item in full, earlier ones a batch of any length alike.
        """
        key = (self._client.spec_version, f"{batch.name} per item")
        if key not in self._ref_time:
            one = Call(batch.module, batch.function, {name: values[:1] for name, values in batch.args.items()})
            try:
                two = self._client.fee(batch, self._public_key)[1].ref_time
                self._ref_time[key] = max(0, two - self._client.fee(one, self._public_key)[1].ref_time)
            except RpcError:  # as in `_time`
                self._ref_time[key] = 0
        return self._ref_time[key]
