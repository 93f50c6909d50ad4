"""`raytensor stake`: add, remove, move, swap, transfer and list stake, with limit prices; take and children."""

import argparse
import functools
from collections.abc import Sequence
from typing import Any

from raytensor.chain import calls, intents
from raytensor.chain.reads import impact
from raytensor.chain.reads.quotes import buy, price, prices, sell, stakes
from raytensor.chain.rpc.client import ChainClient
from raytensor.commands import delegation, options, output, rewards, sending, stake_limits, unstake_all
from raytensor.commands.sender import sender_of
from raytensor.commands.stake_limits import Prices
from raytensor.errors import ChainError, ChainRefused, ConfigError

ABOUT = """\
Stake is alpha of a subnet, held by a coldkey on a hotkey. Staking buys alpha with TAO from the subnet's pool, unstaking
sells it, and both change the price. An order carries a limit price: it is refused, here or by the chain, where it would
change the price by more than --slippage. The same number is shown before anything is sent.
"""
EXAMPLES = """\
  raytensor stake list -w alice
  raytensor stake add 10 --netuid 2 --hotkey 5F... --dry-run   price, slippage, fee and the alpha received
  raytensor stake remove --all --netuid 2 -w alice --yes
  raytensor stake take --hotkey 5F...

`raytensor stake ACTION --help` has examples of each action.
"""


def stake_main(argv: Sequence[str]) -> int:
    """`raytensor stake ACTION ...`. Returns the exit status."""
    return output.run("stake", _parser(), argv, lambda args: args.act(args))


def _parser() -> argparse.ArgumentParser:
    parser = options.parser("stake", ABOUT, EXAMPLES)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    action = functools.partial(options.action, actions, "stake")

    own, other, there = "--netuid 2 -w alice -H validator", "--netuid 2 --hotkey 5F...", "--netuid 2 --to-netuid 5"
    add = action("add", "stake TAO on a hotkey", f"10 {other} --dry-run", f"10 {own} --slippage 1%")
    remove = action("remove", "sell alpha for TAO", f"5.5 {own}        5.5 alpha", "--all --netuid 2 -w alice --yes")
    text = "move alpha to another hotkey or subnet of the same coldkey"
    move = action("move", text, f"3 {there} --hotkey 5F... --to-hotkey 5G...")
    text = "move alpha to another subnet on the same hotkey, at a limit price"
    swap = action("swap", text, f"3 {there} --hotkey 5F... --slippage 1%")
    text, give = "give alpha to another coldkey, on the same hotkey", f"3 {other} --to-coldkey"
    transfer = action("transfer", text, f"{give} 5H...", f"{give} bob   to the coldkey of the wallet bob")
    text = "remove all alpha from a hotkey, on every subnet"
    everything = action("unstake-all", text, "--hotkey 5F... --dry-run", "--alpha -w alice --slippage 1%")
    listing = action("list", "list a coldkey's stakes and their value", "-w alice", "--ss58 5F... --json")
    takes, childs = delegation.add_parsers(actions)
    more = rewards.add_parsers(actions)
    for one in (add, remove, move, swap, transfer):
        _add_amount(one, required=one is add)
        one.add_argument("--netuid", type=options.netuid, required=True, help="the subnet")
    for one in (add, remove, swap, move, transfer, everything):
        stake_limits.add_options(one, partial=one not in (transfer, everything))
    swap.add_argument("--to-netuid", type=options.netuid, required=True, help="the subnet to move to")
    for one in (transfer, move):
        one.add_argument("--to-netuid", type=options.netuid, help="the subnet to move to (default: the same)")
    transfer.add_argument("--to-coldkey", metavar=options.ACCOUNT, required=True, help="the new owner")
    move.add_argument("--to-hotkey", metavar=options.HOTKEY, help="the hotkey to move to (default: the same)")
    everything.add_argument("--alpha", action="store_true", help="stake the proceeds on root instead of taking TAO")
    listing.add_argument("--ss58", metavar=options.ACCOUNT, help="the coldkey (default: the wallet's)")
    for one in (add, remove, move, swap, transfer, everything):
        options.add_hotkey(one)
        options.add_sending(one)
    acts = {
        add: _add,
        remove: _remove,
        move: _move,
        swap: _swap,
        transfer: _transfer,
        everything: unstake_all.unstake_all,
    }
    acts |= {takes: delegation.take, childs: delegation.children, listing: _list} | more
    for one, act in acts.items():
        options.add_chain_and_wallet(one)
        one.set_defaults(act=act)
    return parser


def _add_amount(to: argparse.ArgumentParser, *, required: bool) -> None:
    """AMOUNT in TAO, or, where alpha is spent, AMOUNT in alpha or --all."""
    if required:
        to.add_argument("amount", metavar="AMOUNT", type=options.tao, help="TAO, at most nine decimals")
        return
    group = to.add_mutually_exclusive_group(required=True)
    group.add_argument("amount", metavar="AMOUNT", type=options.tao, nargs="?", help="alpha, at most nine decimals")
    group.add_argument("--all", action="store_true", help="all alpha on this hotkey and subnet")


def _add(args: argparse.Namespace) -> int:
    key, hotkey = sender_of(args), options.account(args, args.hotkey, hotkey=True)
    with ChainClient(options.network(args), args.timeout) as client:
        given = {"hotkey": hotkey, "netuid": args.netuid, "amount_staked": args.amount}
        if (status := sending.resume(args, client, key, **given)) is not None:
            return status
        trade, after = (
            buy(client, args.netuid, args.amount),
            impact.price_after_buying(client, args.netuid, args.amount),
        )
        at = Prices(price(client, args.netuid), after, buys=True)
        order = {"signer": key.ss58, "intent_id": sending.order_id(args), **given}
        limit = at.limit(args)
        intent: calls.Intent = intents.AddStake(**order)
        if limit is not None:
            intent = intents.AddStakeLimit(**order, limit_price=limit, allow_partial=args.partial)
        sending.afford(client, intent)
        effect = {"netuid": args.netuid, "hotkey": hotkey, "pays_rao": args.amount, "gets_alpha_rao": trade.got}
        effect |= {"pool_fee_rao": trade.fee, **at.effect(limit), "balance_rao": client.balance(key.ss58)}
        what = f"stake {output.tao(args.amount)} TAO on {hotkey}, subnet {args.netuid}"
        return sending.send(args, client, intent, key, what, effect)


def _remove(args: argparse.Namespace) -> int:
    key, hotkey = sender_of(args), options.account(args, args.hotkey, hotkey=True)
    with ChainClient(options.network(args), args.timeout) as client:
        given = {"hotkey": hotkey, "netuid": args.netuid, **({} if args.all else {"amount_unstaked": args.amount})}
        if (status := sending.resume(args, client, key, **given)) is not None:
            return status
        amount, staked = _amount(args, client, key.ss58, hotkey)
        trade, after = sell(client, args.netuid, amount), impact.price_after_selling(client, args.netuid, amount)
        at = Prices(price(client, args.netuid), after)
        order = {"signer": key.ss58, "intent_id": sending.order_id(args), "hotkey": hotkey, "netuid": args.netuid}
        limit = at.limit(args)
        intent: calls.Intent
        if args.all and not args.partial:  # also takes the rewards that arrive until then
            intent = intents.RemoveStakeFullLimit(**order, limit_price=limit)
        elif limit is None:
            intent = intents.RemoveStake(**order, amount_unstaked=amount)
        else:
            order |= {"amount_unstaked": amount, "allow_partial": args.partial}
            intent = intents.RemoveStakeLimit(**order, limit_price=limit)
        effect = {"netuid": args.netuid, "hotkey": hotkey, "pays_alpha_rao": amount, "gets_rao": trade.got}
        effect |= {"pool_fee_alpha_rao": trade.fee, **at.effect(limit), "stake_alpha_rao": staked}
        what = f"unstake {output.tao(amount)} alpha from {hotkey}, subnet {args.netuid}"
        return sending.send(args, client, intent, key, what, effect)


def _move(args: argparse.Namespace) -> int:
    hotkey = options.account(args, args.hotkey, hotkey=True)
    to_hotkey = hotkey if args.to_hotkey is None else options.account(args, args.to_hotkey, hotkey=True)
    to_netuid = args.netuid if args.to_netuid is None else args.to_netuid
    if (to_hotkey, to_netuid) == (hotkey, args.netuid):
        raise ConfigError("the stake is already there: give --to-hotkey or --to-netuid")
    hotkeys = {"origin_hotkey": hotkey, "destination_hotkey": to_hotkey}
    effect = {"netuid": args.netuid, "hotkey": hotkey, "to_netuid": to_netuid, "to_hotkey": to_hotkey}
    where = f"to {to_hotkey}, subnet {to_netuid}"
    if args.netuid != to_netuid and hotkey == to_hotkey:  # the call with a limit price that every runtime has
        kind = intents.SwapStake if args.no_limit else intents.SwapStakeLimit
        return _send_alpha(args, kind, to_netuid, {"hotkey": hotkey}, effect, ("move", where))
    limited = args.netuid != to_netuid and not args.no_limit
    kind = intents.MoveStakeLimit if limited else intents.MoveStake
    return _send_alpha(args, kind, to_netuid, hotkeys, effect, ("move", where))


def _swap(args: argparse.Namespace) -> int:
    hotkey = options.account(args, args.hotkey, hotkey=True)
    if args.to_netuid == args.netuid:
        raise ConfigError("the stake is already on that subnet: give another --to-netuid")
    effect = {"netuid": args.netuid, "to_netuid": args.to_netuid, "hotkey": hotkey}
    where = f"to subnet {args.to_netuid} on {hotkey}"
    kind = intents.SwapStake if args.no_limit else intents.SwapStakeLimit
    return _send_alpha(args, kind, args.to_netuid, {"hotkey": hotkey}, effect, ("swap", where))


def _transfer(args: argparse.Namespace) -> int:
    hotkey = options.account(args, args.hotkey, hotkey=True)
    dest = options.account(args, args.to_coldkey, hotkey=False)
    to_netuid = args.netuid if args.to_netuid is None else args.to_netuid
    keys = {"destination_coldkey": dest, "hotkey": hotkey}
    effect = {"netuid": args.netuid, "to_netuid": to_netuid, "hotkey": hotkey, "to_coldkey": dest}
    if to_netuid != args.netuid and not args.no_limit:
        message = "the chain has no call that gives stake to another coldkey and subnet at a limit price"
        action = "fix: swap it to the subnet first, then give it there; or accept any price with --no-limit"
        raise ChainRefused(message, name="NoLimitPrice", action=action)
    return _send_alpha(args, intents.TransferStake, to_netuid, keys, effect, ("give", f"on {hotkey} to {dest}"))


def _send_alpha(
    args: argparse.Namespace,
    kind: type[intents.MoveStake] | type[intents.SwapStake] | type[intents.TransferStake],
    to_netuid: int,
    keys: dict[str, str],
    effect: dict[str, Any],
    words: tuple[str, str],
) -> int:
    """Send an order that takes alpha of --netuid elsewhere. keys: the order's hotkeys and coldkeys by field name.

    words: (verb, destination), for people.
    """
    key, (verb, where) = sender_of(args), words
    given = {**keys, "origin_netuid": args.netuid, "destination_netuid": to_netuid}
    with ChainClient(options.network(args), args.timeout) as client:
        asked = {} if args.all else {"alpha_amount": args.amount}
        if (status := sending.resume(args, client, key, **given, **asked)) is not None:
            return status
        _refuse_missing(client, kind)
        amount, staked = _amount(args, client, key.ss58, effect["hotkey"])
        effect |= {"gives_alpha_rao" if verb == "give" else "moves_alpha_rao": amount}
        limits: dict[str, Any] = {}
        at = Prices(*impact.move_change(client, args.netuid, to_netuid, amount), unit="alpha_")
        if to_netuid != args.netuid:
            effect |= {"gets_alpha_rao": buy(client, to_netuid, sell(client, args.netuid, amount).got).got}
            if (limit := at.limit(args)) is not None:
                limits = {"limit_price": limit, "allow_partial": args.partial}
            effect |= at.effect(limit)
        else:
            effect |= {"slippage": "0.0000%"}
        order = {**given, "alpha_amount": amount, **limits}
        intent = kind(signer=key.ss58, intent_id=sending.order_id(args), **order)
        effect |= {"stake_alpha_rao": staked}
        what = f"{verb} {output.tao(amount)} alpha of subnet {args.netuid} {where}"
        return sending.send(args, client, intent, key, what, effect)


def _refuse_missing(client: ChainClient, kind: type[calls.Intent]) -> None:
    """Raise ChainRefused for a call that the chain's runtime does not have."""
    module, function = kind.name.split(".")
    try:
        client.runtime.call_fields(module, function)
    except ChainError as error:
        action = (
            "fix: move it in two steps, each at a limit price: `stake swap` to the subnet, then `stake move` on it;"
        )
        raise ChainRefused(
            f"{error}", name="NoLimitPrice", action=f"{action} or accept any price with --no-limit"
        ) from None


def _amount(args: argparse.Namespace, client: ChainClient, coldkey: str, hotkey: str) -> tuple[int, int]:
    """(the amount of the order, the amount staked), in rao of alpha. Raises ChainRefused if the first is larger."""
    staked = sum(s.alpha_rao for s in stakes(client, coldkey) if (s.hotkey, s.netuid) == (hotkey, args.netuid))
    amount = staked if args.all else args.amount
    if amount > staked or not amount:
        message = f"{coldkey} has {output.tao(staked)} alpha on {hotkey}, subnet {args.netuid}"
        action = "fix: give an amount above 0 and of at most the stake"
        raise ChainRefused(message, name="NotEnoughStake", action=action)
    return amount, staked


def _list(args: argparse.Namespace) -> None:
    address = options.account(args, args.ss58, hotkey=False)
    with ChainClient(options.network(args), args.timeout) as client:
        head, staked, now = client.head(), stakes(client, address), prices(client)
    rows = []
    for s in sorted(staked, key=lambda s: (s.netuid, s.hotkey)):
        price_rao = now.get(s.netuid, 0)
        row = {"netuid": s.netuid, "hotkey": s.hotkey, "alpha_rao": s.alpha_rao, "price_rao": price_rao}
        rows.append({**row, "value_rao": s.alpha_rao * price_rao // options.RAO, "registered": s.registered})
    if args.json:
        output.show_json({"ss58": address, "block": head.number, "stakes": rows})
        return
    print(f"{address} at block {head.number}")
    amounts = ("alpha_rao", "price_rao", "value_rao")
    cells = [(r["netuid"], r["hotkey"], *(output.tao(r[name]) for name in amounts)) for r in rows]
    print(output.table(("netuid", "hotkey", "alpha", "price", "worth, TAO"), cells, left=(1,)) if rows else "no stake")
