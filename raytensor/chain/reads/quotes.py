"""Prices, and the cost and yield of an intent at the best block.

In: a client and an intent. Out: prices, what a trade on a subnet's pool yields, the TAO that an intent spends, its fee
and its slippage. Everything is read at the best block and may change before the intent runs: only a limit price is
binding.
Sources: SwapRuntimeApi (current_alpha_price, sim_swap_*), StakeInfoRuntimeApi, SubnetRegistrationRuntimeApi,
TransactionPaymentApi; storage SubtensorModule.Burn.
Reads only; knows nothing of keys.
"""

import struct
from dataclasses import dataclass

from raytensor.chain import ss58
from raytensor.chain.calls import Intent
from raytensor.chain.reads.metagraph import alpha_price
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.rpc.connection import RpcError
from raytensor.chain.rpc.scale_reader import ScaleReader
from raytensor.errors import ChainRefused

_RESERVES = ("SubnetTAO", "SubnetAlphaIn", "SubnetMechanism")


@dataclass(frozen=True, slots=True)
class Trade:
    """A trade on a subnet's pool at one block.

    paid, got  amounts given and received, in rao (of TAO or alpha).
    fee        the pool's, in rao of what is given.
    slippage   share of the output lost against the price before the trade, 0 to 1.
    """

    paid: int
    got: int
    fee: int
    slippage: float


@dataclass(frozen=True, slots=True)
class Stake:
    """Alpha (10^-9) of a coldkey on a hotkey and subnet."""

    hotkey: str
    netuid: int
    alpha_rao: int
    registered: bool


def price(client: ChainClient, netuid: int) -> int:
    """rao of TAO for one alpha; by the pool's reserves on runtimes without SwapRuntimeApi."""
    raw = _offered(client, "SwapRuntimeApi_current_alpha_price", struct.pack("<H", netuid))
    return _by_reserves(client, [netuid], None)[netuid] if raw is None else int.from_bytes(raw, "little")


def prices(client: ChainClient, block_hash: str | None = None) -> dict[int, int]:
    """rao of TAO for one alpha, by netuid; by the pools' reserves on runtimes without the call."""
    raw = _offered(client, "SwapRuntimeApi_current_alpha_price_all", b"", block_hash)
    if raw is None:
        there = client.query_map("SubtensorModule", "NetworksAdded", (), block_hash)
        return _by_reserves(client, [netuid for netuid, yes in there.items() if yes], block_hash)
    reader = ScaleReader(raw)
    return {reader.number(2): reader.number(8) for _ in range(reader.compact())}


def _by_reserves(client: ChainClient, netuids: list[int], block_hash: str | None) -> dict[int, int]:
    """Prices from the TAO and alpha in the pools, at equal weights."""
    names = [name for name in _RESERVES if client.runtime.has_storage("SubtensorModule", name)]
    items = [("SubtensorModule", name, [netuid]) for netuid in netuids for name in names]
    values = iter(client.query_many(items, block_hash))
    return {netuid: alpha_price({name: next(values) or 0 for name in names}) for netuid in netuids}


def _offered(client: ChainClient, method: str, data: bytes, block_hash: str | None = None) -> bytes | None:
    """The result of a runtime API method, None if the runtime lacks it."""
    try:
        return client.runtime_call(method, data, block_hash)
    except RpcError as error:
        if error.no_function:
            return None
        raise


def _required(client: ChainClient, method: str, data: bytes = b"") -> bytes:
    """The result of a runtime API method. Raises ChainRefused "MissingRuntimeApi" if the runtime lacks it."""
    raw = _offered(client, method, data)
    if raw is None:
        text = f"runtime {client.spec_version} of {client.endpoint} has no {method}"
        raise ChainRefused(text, name="MissingRuntimeApi", action="fix: use an endpoint with a newer runtime")
    return raw


def buy(client: ChainClient, netuid: int, tao_rao: int) -> Trade:
    """Buying alpha for `tao_rao`. Raises ChainRefused "InsufficientLiquidity" where the pool is too small."""
    tao, alpha, fee, _, _, lost = _swap(client, "SwapRuntimeApi_sim_swap_tao_for_alpha", netuid, tao_rao)
    return Trade(tao, alpha, fee, lost / (alpha + lost))


def sell(client: ChainClient, netuid: int, alpha_rao: int) -> Trade:
    """Selling `alpha_rao` for TAO. Raises ChainRefused "InsufficientLiquidity" where the pool is too small."""
    tao, alpha, _, fee, lost, _ = _swap(client, "SwapRuntimeApi_sim_swap_alpha_for_tao", netuid, alpha_rao)
    return Trade(alpha, tao, fee, lost / (tao + lost))


def _swap(client: ChainClient, method: str, netuid: int, amount: int) -> tuple[int, ...]:
    found = struct.unpack("<6Q", _required(client, method, struct.pack("<HQ", netuid, amount)))
    if 0 in found[:2]:
        message = f"the pool of subnet {netuid} can't trade an amount of {amount} rao"
        raise ChainRefused(message, name="InsufficientLiquidity", action="fix: ask for another amount")
    return found


def ratio(client: ChainClient, origin_netuid: int, destination_netuid: int) -> int:
    """Alpha of the destination for 10^9 alpha of the origin at present prices, in 10^-9."""
    return price(client, origin_netuid) * 10**9 // max(1, price(client, destination_netuid))


def network_cost(client: ChainClient) -> int:
    """TAO that registering a subnet locks, in rao."""
    raw = _required(client, "SubnetRegistrationRuntimeApi_get_network_registration_cost")
    return int.from_bytes(raw, "little")


def burn_price(client: ChainClient, netuid: int, block_hash: str | None = None) -> int:
    """Price of registering a hotkey on a subnet at a block, by default the best one, in rao."""
    return client.query("SubtensorModule", "Burn", [netuid], block_hash)


def stakes(client: ChainClient, coldkey: str) -> list[Stake]:
    """All stakes of a coldkey (StakeInfoRuntimeApi_get_stake_info_for_coldkey)."""
    raw = _required(client, "StakeInfoRuntimeApi_get_stake_info_for_coldkey", ss58.decode(coldkey))
    reader, found = ScaleReader(raw), []
    for _ in range(reader.compact()):
        hotkey = reader.account()
        reader.take(32)  # the coldkey
        netuid, stake, *_ = [reader.compact() for _ in range(6)]  # ..., locked, emission, tao_emission, drain
        found.append(Stake(hotkey, netuid, stake, registered=bool(reader.byte())))
    return [stake for stake in found if stake.alpha_rao]


def spend(client: ChainClient, intent: Intent) -> int:
    """TAO that leaves the signer's balance, without the fee, in rao."""
    if intent.spends == "burn":
        assert intent.subnet is not None
        return burn_price(client, intent.subnet)
    if intent.spends == "network":
        return network_cost(client)
    if intent.spends == "balance":
        return client.balance(intent.signer)
    return getattr(intent, intent.spends) if intent.spends else 0


def slippage(client: ChainClient, intent: Intent) -> float | None:
    """Share that the intent may lose against the present price, 0 to 1; None where nothing bounds it.

    With a limit price it is the loss at the limit, which is never less than the slippage of the trade.
    """
    trade = intent.trades()
    if trade is None:
        return 0.0
    sells, buys, amount, limit = trade.sells_on, trade.buys_on, trade.amount, trade.limit_price
    if limit is not None and sells is None and buys is not None:
        return max(0.0, 1 - price(client, buys) / max(1, limit))
    if limit is not None and sells is not None:
        now = price(client, sells) if buys is None else ratio(client, sells, buys)
        return max(0.0, 1 - limit / max(1, now))
    if amount is None:
        return None
    if sells is not None:
        return sell(client, sells, amount).slippage if buys is None else move_slippage(client, sells, buys, amount)
    assert buys is not None
    return buy(client, buys, amount).slippage


def move_slippage(client: ChainClient, origin_netuid: int, destination_netuid: int, alpha_rao: int) -> float:
    """Slippage of selling alpha on one subnet and buying on another with the proceeds; 0 on the same subnet."""
    if origin_netuid == destination_netuid:
        return 0.0
    out = sell(client, origin_netuid, alpha_rao)
    return 1 - (1 - out.slippage) * (1 - buy(client, destination_netuid, out.got).slippage)


def fee(client: ChainClient, intent: Intent) -> int:
    """Fee of an extrinsic that carries this intent alone, in rao."""
    if intent.free:
        return 0
    return client.fee(intent.call(), ss58.decode(intent.signer), client.account_nonce(intent.signer))[0]
