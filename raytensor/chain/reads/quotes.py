"""What an intent would cost and give, if it ran now.

In: a client and an intent. Out: prices, what a trade on a subnet's pool gives, the TAO an intent spends, its fee and
its slippage. All of it is read at the best block and may have moved when the intent runs: only a limit price binds.
Sources: SwapRuntimeApi (current_alpha_price, sim_swap_*), StakeInfoRuntimeApi, SubnetRegistrationRuntimeApi,
TransactionPaymentApi; storage SubtensorModule.Burn.
Reads only; knows nothing of keys.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from raytensor.chain.calls import (
    AddStake,
    AddStakeLimit,
    BurnedRegister,
    Intent,
    MoveStake,
    RegisterLimit,
    RegisterNetwork,
    RemoveStake,
    RemoveStakeFullLimit,
    RemoveStakeLimit,
    SwapStake,
    SwapStakeLimit,
    Transfer,
    TransferStake,
    UnstakeAll,
)
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.rpc.codec import account_address, account_bytes, decode_compact
from raytensor.errors import ChainRefused


@dataclass(frozen=True, slots=True)
class Trade:
    """A trade on a subnet's pool at one block.

    paid, got  in rao of what is given and of what is received (TAO or alpha).
    fee        of the pool, in rao of what is given.
    slippage   share of the output that is lost against the price before the trade, 0 to 1.
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
    """rao of TAO for one alpha."""
    raw = client.runtime_call("SwapRuntimeApi_current_alpha_price", struct.pack("<H", netuid))
    return int.from_bytes(raw, "little")


def prices(client: ChainClient, block_hash: str | None = None) -> dict[int, int]:
    """rao of TAO for one alpha, by netuid."""
    raw = client.runtime_call("SwapRuntimeApi_current_alpha_price_all", block_hash=block_hash)
    count, at = decode_compact(raw, 0)
    return dict(struct.unpack_from("<HQ", raw, at + 10 * place) for place in range(count))


def buy(client: ChainClient, netuid: int, tao_rao: int) -> Trade:
    """Alpha for TAO. Raises ChainRefused (InsufficientLiquidity) where the pool can't."""
    tao, alpha, fee, _, _, lost = _swap(client, "SwapRuntimeApi_sim_swap_tao_for_alpha", netuid, tao_rao)
    return Trade(tao, alpha, fee, lost / (alpha + lost))


def sell(client: ChainClient, netuid: int, alpha_rao: int) -> Trade:
    """TAO for alpha. Raises ChainRefused (InsufficientLiquidity) where the pool can't."""
    tao, alpha, _, fee, lost, _ = _swap(client, "SwapRuntimeApi_sim_swap_alpha_for_tao", netuid, alpha_rao)
    return Trade(alpha, tao, fee, lost / (tao + lost))


def _swap(client: ChainClient, method: str, netuid: int, amount: int) -> tuple[int, ...]:
    found = struct.unpack("<6Q", client.runtime_call(method, struct.pack("<HQ", netuid, amount)))
    if 0 in found[:2]:
        message = f"the pool of subnet {netuid} can't trade an amount of {amount} rao"
        raise ChainRefused(message, name="InsufficientLiquidity", action="fix: ask for another amount")
    return found


def ratio(client: ChainClient, origin_netuid: int, destination_netuid: int) -> int:
    """Alpha of the destination for 10^9 alpha of the origin at today's prices, in 10^-9."""
    return price(client, origin_netuid) * 10**9 // max(1, price(client, destination_netuid))


def network_cost(client: ChainClient) -> int:
    """What opening a subnet locks, in rao."""
    raw = client.runtime_call("SubnetRegistrationRuntimeApi_get_network_registration_cost")
    return int.from_bytes(raw, "little")


def burn_price(client: ChainClient, netuid: int) -> int:
    """What registering a hotkey on a subnet costs at the best block, in rao."""
    return client.query("SubtensorModule", "Burn", [netuid])


def stakes(client: ChainClient, coldkey: str) -> list[Stake]:
    """All stakes of a coldkey (StakeInfoRuntimeApi_get_stake_info_for_coldkey)."""
    raw = client.runtime_call("StakeInfoRuntimeApi_get_stake_info_for_coldkey", account_bytes(coldkey))
    count, at = decode_compact(raw, 0)
    found = []
    for _ in range(count):
        hotkey = account_address(raw[at : at + 32])
        numbers, at = [], at + 64
        for _ in ("netuid", "stake", "locked", "emission", "tao_emission", "drain"):
            value, at = decode_compact(raw, at)
            numbers.append(value)
        found.append(Stake(hotkey, numbers[0], numbers[1], bool(raw[at])))
        at += 1
    return [stake for stake in found if stake.alpha_rao]


def spend(client: ChainClient, intent: Intent) -> int | None:
    """TAO that leaves the signer's balance, without the fee, in rao; None if it can't be told."""
    if isinstance(intent, Transfer):
        return intent.value
    if isinstance(intent, AddStake):
        return intent.amount_staked
    if isinstance(intent, RegisterLimit):
        return intent.limit_price
    if isinstance(intent, BurnedRegister):
        return burn_price(client, intent.netuid)
    if isinstance(intent, RegisterNetwork):
        return network_cost(client)
    return 0


def slippage(client: ChainClient, intent: Intent) -> float | None:
    """Share that the intent may lose against today's price, 0 to 1; None where nothing bounds it.

    With a limit price, it is what the limit allows (the worst price, so never less than the trade's own slippage).
    """
    if isinstance(intent, AddStakeLimit):
        return max(0.0, 1 - price(client, intent.netuid) / max(1, intent.limit_price))
    if isinstance(intent, AddStake):
        return buy(client, intent.netuid, intent.amount_staked).slippage
    if isinstance(intent, (RemoveStakeLimit, RemoveStakeFullLimit)):
        if intent.limit_price is None:
            return None
        return max(0.0, 1 - intent.limit_price / max(1, price(client, intent.netuid)))
    if isinstance(intent, RemoveStake):
        return sell(client, intent.netuid, intent.amount_unstaked).slippage
    if isinstance(intent, SwapStakeLimit):
        return max(0.0, 1 - intent.limit_price / max(1, ratio(client, intent.origin_netuid, intent.destination_netuid)))
    if isinstance(intent, (MoveStake, SwapStake, TransferStake)):
        return move_slippage(client, intent.origin_netuid, intent.destination_netuid, intent.alpha_amount)
    return None if isinstance(intent, UnstakeAll) else 0.0


def move_slippage(client: ChainClient, origin_netuid: int, destination_netuid: int, alpha_rao: int) -> float:
    """Of selling alpha on one subnet and buying on another with what it gives; 0 on the same subnet."""
    if origin_netuid == destination_netuid:
        return 0.0
    out = sell(client, origin_netuid, alpha_rao)
    return 1 - (1 - out.slippage) * (1 - buy(client, destination_netuid, out.got).slippage)


def fee(client: ChainClient, intent: Intent) -> int:
    """What the chain takes for carrying the intent by itself, in rao."""
    return 0 if intent.free else client.fee(intent.call(), account_bytes(intent.signer))[0]
