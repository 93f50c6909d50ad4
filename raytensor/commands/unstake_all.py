"""`raytensor stake unstake-all`: every position of a hotkey is sold at a limit price of its own.

In: the command line. Out: one order per position, in one extrinsic, and a receipt for each. With --alpha the proceeds
are staked on root. `SubtensorModule.unstake_all`, which accepts any price, is used with --no-limit only.
"""

import argparse
from collections.abc import Sequence

from raytensor.chain.calls import Intent
from raytensor.chain.intents import RemoveStakeFullLimit, SwapStakeLimit, UnstakeAll, UnstakeAllAlpha
from raytensor.chain.reads import impact
from raytensor.chain.reads.quotes import Stake, price, sell, stakes
from raytensor.chain.rpc.client import ChainClient
from raytensor.commands import options, sending
from raytensor.commands.sender import sender_of
from raytensor.commands.stake_limits import Prices
from raytensor.errors import ChainRefused


def unstake_all(args: argparse.Namespace) -> int:
    """Returns the exit status."""
    key, hotkey = sender_of(args), options.account(args, args.hotkey, hotkey=True)
    with ChainClient(options.network(args), args.timeout) as client:
        if (status := sending.resume(args, client, key, hotkey=hotkey)) is not None:
            return status
        held = [s for s in stakes(client, key.ss58) if s.hotkey == hotkey and not (args.alpha and s.netuid == 0)]
        if not held:
            message = f"{key.ss58} has no stake on {hotkey}"
            raise ChainRefused(message, name="NotEnoughStake", action="give up: there is nothing to unstake")
        at = {s.netuid: _prices(client, s) for s in held}
        orders: Sequence[Intent]
        if args.no_limit:
            kind = UnstakeAllAlpha if args.alpha else UnstakeAll
            orders = [kind(signer=key.ss58, intent_id=sending.order_id(args), hotkey=hotkey)]
            limits: dict[int, int | None] = {}
        else:
            limits = {s.netuid: _limit(args, s, at[s.netuid]) for s in held}
            order_id = sending.order_id(args)
            orders = [_order(args, key.ss58, f"{order_id}.{s.netuid}", s, limits[s.netuid]) for s in held]
        effect = {"hotkey": hotkey, "netuids": [s.netuid for s in held]}
        effect |= {"gets_rao": sum(sell(client, s.netuid, s.alpha_rao).got if s.netuid else s.alpha_rao for s in held)}
        rows = [_row(s, at[s.netuid], limits.get(s.netuid)) for s in held]
        effect |= {"slippage": f"{max(one.slippage for one in at.values()):.4%}", "positions": rows}
        what = f"unstake everything from {hotkey} {'to root' if args.alpha else 'as TAO'}: {len(held)} subnet(s)"
        return sending.send_all(args, client, orders, key, what, effect)


def _prices(client: ChainClient, stake: Stake) -> Prices:
    if stake.netuid == 0:  # 1 alpha of root is 1 TAO
        return Prices(options.RAO, options.RAO)
    return Prices(price(client, stake.netuid), impact.price_after_selling(client, stake.netuid, stake.alpha_rao))


def _limit(args: argparse.Namespace, stake: Stake, at: Prices) -> int | None:
    try:
        return at.limit(args) if stake.netuid else None
    except ChainRefused as error:
        raise ChainRefused(f"subnet {stake.netuid}: {error}", name=error.name, action=error.action) from None


def _order(args: argparse.Namespace, signer: str, order_id: str, stake: Stake, limit: int | None) -> Intent:
    if not args.alpha:  # also takes the rewards that arrive until then
        place = {"hotkey": stake.hotkey, "netuid": stake.netuid, "limit_price": limit}
        return RemoveStakeFullLimit(signer=signer, intent_id=order_id, **place)
    assert limit is not None, "a stake on root stays there"
    way = {"hotkey": stake.hotkey, "origin_netuid": stake.netuid, "destination_netuid": 0}
    return SwapStakeLimit(signer=signer, intent_id=order_id, **way, alpha_amount=stake.alpha_rao, limit_price=limit)


def _row(stake: Stake, at: Prices, limit: int | None) -> dict:
    row = {"netuid": stake.netuid, "alpha_rao": stake.alpha_rao, "price_rao": at.now, "price_after_rao": at.after}
    return {**row, "price_limit_rao": limit, "slippage": f"{at.slippage:.4%}"}
