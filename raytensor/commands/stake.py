"""`raytensor stake`: add, remove, move, swap, transfer and list stake, with prices that can't surprise; take, children."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from raytensor.chain.calls import (
    AddStake,
    AddStakeLimit,
    Intent,
    MoveStake,
    RemoveStake,
    RemoveStakeFullLimit,
    RemoveStakeLimit,
    SwapStakeLimit,
    TransferStake,
    UnstakeAll,
    UnstakeAllAlpha,
)
from raytensor.chain.reads.quotes import buy, move_slippage, price, prices, ratio, sell, stakes
from raytensor.chain.rpc.client import ChainClient
from raytensor.commands import delegation, options, output, sending
from raytensor.errors import ChainRefused, ConfigError

MILLION = options.MILLION
ABOUT = """\
Stake is alpha of a subnet, held by a coldkey on a hotkey. Staking buys alpha with TAO from the subnet's pool, and
unstaking sells it: the price moves with the amount. A limit price caps what can be lost to others who trade first.
"""
EXAMPLES = """\
  raytensor stake list -w alice
  raytensor stake add 10 --netuid 2 --hotkey 5F... --dry-run   price, slippage, fee and what you would get
  raytensor stake add 10 --netuid 2 -w alice -H validator --slippage 1%
  raytensor stake remove 5.5 --netuid 2 -w alice -H validator  5.5 alpha
  raytensor stake remove --all --netuid 2 -w alice --yes
  raytensor stake move 3 --netuid 2 --to-netuid 5 --hotkey 5F... --to-hotkey 5G...
  raytensor stake swap 3 --netuid 2 --to-netuid 5 --hotkey 5F... --slippage 1%   same hotkey, with a limit price
  raytensor stake transfer 3 --netuid 2 --hotkey 5F... --to-coldkey 5H...        to another owner
  raytensor stake unstake-all --hotkey 5F... --dry-run
  raytensor stake take --hotkey 5F... 9%              what a delegate keeps; without a number it is shown
  raytensor stake children --hotkey 5F... --netuid 2 5G...=0.25 5H...=0.5
"""


def stake_main(argv: Sequence[str]) -> int:
    """`raytensor stake ACTION ...`. Returns the exit status."""
    parser = options.parser("stake", ABOUT, EXAMPLES)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    add = options.subparser(actions, "add", "stake TAO on a hotkey")
    remove = options.subparser(actions, "remove", "take alpha back as TAO")
    move = options.subparser(actions, "move", "move alpha to another hotkey or subnet of the same coldkey")
    swap = options.subparser(actions, "swap", "move alpha to another subnet on the same hotkey, at a limit price")
    transfer = options.subparser(actions, "transfer", "give alpha to another coldkey, on the same hotkey")
    everything = options.subparser(actions, "unstake-all", "take all alpha of a hotkey back, from every subnet")
    listing = options.subparser(actions, "list", "list a coldkey's stakes and what they are worth")
    for one, unit in ((add, "TAO"), (remove, "alpha"), (move, "alpha"), (swap, "alpha"), (transfer, "alpha")):
        amount = one if one is add else one.add_mutually_exclusive_group(required=True)
        amount.add_argument(
            "amount",
            metavar="AMOUNT",
            type=options.tao,
            help=f"{unit}, at most nine decimals",
            **({} if one is add else {"nargs": "?"}),
        )
        if one is not add:
            amount.add_argument("--all", action="store_true", help="all of it on this hotkey and subnet")
        one.add_argument("--netuid", type=options.netuid, required=True)
        one.add_argument("--hotkey", metavar="NAME|ADDRESS", help="the hotkey (default: the wallet's)")
        options.add_sending(one)
    for one in (add, remove, swap):
        one.add_argument(
            "--slippage",
            type=options.share,
            default=50_000,
            metavar="SHARE",
            dest="slippage_ppm",
            help="the worst price that is accepted, from today's (default 5%%)",
        )
        one.add_argument("--partial", action="store_true", help="take what the limit price allows, not all or nothing")
    for one in (add, remove):
        one.add_argument("--no-limit", action="store_true", help="accept any price")
    swap.add_argument("--to-netuid", type=options.netuid, required=True)
    transfer.add_argument("--to-coldkey", metavar="ADDRESS", required=True, help="who gets it")
    transfer.add_argument("--to-netuid", type=options.netuid, help="default: the same subnet")
    everything.add_argument("--hotkey", metavar="NAME|ADDRESS", help="the hotkey (default: the wallet's)")
    everything.add_argument("--alpha", action="store_true", help="stake what it gives on root, instead of taking TAO")
    options.add_sending(everything)
    takes, childs = delegation.add_parsers(actions)
    move.add_argument("--to-netuid", type=options.netuid, help="default: the same subnet")
    move.add_argument("--to-hotkey", metavar="NAME|ADDRESS", help="default: the same hotkey")
    listing.add_argument("--ss58", metavar="ADDRESS", help="of this coldkey, not of the wallet's")
    for one, act in (
        (add, _add),
        (remove, _remove),
        (move, _move),
        (swap, _swap),
        (transfer, _transfer),
        (everything, _unstake_all),
        (takes, delegation.take),
        (childs, delegation.children),
        (listing, _list),
    ):
        options.add_output(one)
        options.add_network(one)
        options.add_wallet(one)
        one.set_defaults(act=act)
    return output.run("stake", parser, argv, lambda args: args.act(args))


def _add(args: argparse.Namespace) -> int:
    key, hotkey = options.coldkey_ref(args), options.account(args, args.hotkey, hotkey=True)
    with ChainClient(options.network(args), args.timeout) as client:
        given = {"hotkey": hotkey, "netuid": args.netuid, "amount_staked": args.amount}
        if (status := sending.resume(args, client, key, **given)) is not None:
            return status
        now, trade = price(client, args.netuid), buy(client, args.netuid, args.amount)
        order = {"signer": key.ss58, "intent_id": sending.order_id(args), **given}
        limit = None if args.no_limit else now * (MILLION + args.slippage_ppm) // MILLION
        intent: Intent = AddStake(**order)
        if limit is not None:
            intent = AddStakeLimit(**order, limit_price=limit, allow_partial=args.partial)
        sending.afford(client, intent)
        effect = {
            "netuid": args.netuid,
            "hotkey": hotkey,
            "pays_rao": args.amount,
            "gets_alpha_rao": trade.got,
            "pool_fee_rao": trade.fee,
            "slippage": f"{trade.slippage:.4%}",
            "price_rao": now,
            "price_limit_rao": limit,
            "balance_rao": client.balance(intent.signer),
        }
        what = f"stake {output.tao(args.amount)} TAO on {hotkey}, subnet {args.netuid}"
        return sending.send(args, client, intent, key, what, _without_none(effect))


def _remove(args: argparse.Namespace) -> int:
    key, hotkey = options.coldkey_ref(args), options.account(args, args.hotkey, hotkey=True)
    with ChainClient(options.network(args), args.timeout) as client:
        given = {"hotkey": hotkey, "netuid": args.netuid, **({} if args.all else {"amount_unstaked": args.amount})}
        if (status := sending.resume(args, client, key, **given)) is not None:
            return status
        amount, held = _amount(args, client, key.ss58, hotkey)
        now, trade = price(client, args.netuid), sell(client, args.netuid, amount)
        order = {"signer": key.ss58, "intent_id": sending.order_id(args), "hotkey": hotkey, "netuid": args.netuid}
        limit = None if args.no_limit else now * (MILLION - args.slippage_ppm) // MILLION
        intent: Intent
        if args.all and not args.partial:  # rewards come in between now and then: this takes them too
            intent = RemoveStakeFullLimit(**order, limit_price=limit)
        elif limit is None:
            intent = RemoveStake(**order, amount_unstaked=amount)
        else:
            intent = RemoveStakeLimit(**order, amount_unstaked=amount, limit_price=limit, allow_partial=args.partial)
        effect = {
            "netuid": args.netuid,
            "hotkey": hotkey,
            "pays_alpha_rao": amount,
            "gets_rao": trade.got,
            "pool_fee_alpha_rao": trade.fee,
            "slippage": f"{trade.slippage:.4%}",
            "price_rao": now,
            "price_limit_rao": limit,
            "stake_alpha_rao": held,
        }
        what = f"unstake {output.tao(amount)} alpha from {hotkey}, subnet {args.netuid}"
        return sending.send(args, client, intent, key, what, _without_none(effect))


def _move(args: argparse.Namespace) -> int:
    key, hotkey = options.coldkey_ref(args), options.account(args, args.hotkey, hotkey=True)
    to_hotkey = hotkey if args.to_hotkey is None else options.account(args, args.to_hotkey, hotkey=True)
    to_netuid = args.netuid if args.to_netuid is None else args.to_netuid
    if (to_hotkey, to_netuid) == (hotkey, args.netuid):
        raise ConfigError("the stake is there already: give --to-hotkey or --to-netuid")
    with ChainClient(options.network(args), args.timeout) as client:
        given = {
            "origin_hotkey": hotkey,
            "destination_hotkey": to_hotkey,
            "origin_netuid": args.netuid,
            "destination_netuid": to_netuid,
        }
        asked = {} if args.all else {"alpha_amount": args.amount}
        if (status := sending.resume(args, client, key, **given, **asked)) is not None:
            return status
        amount, held = _amount(args, client, key.ss58, hotkey)
        intent = MoveStake(signer=key.ss58, intent_id=sending.order_id(args), **given, alpha_amount=amount)
        lost = move_slippage(client, args.netuid, to_netuid, amount)
        effect = {
            "netuid": args.netuid,
            "hotkey": hotkey,
            "to_netuid": to_netuid,
            "to_hotkey": to_hotkey,
            "moves_alpha_rao": amount,
            "slippage": f"{lost:.4%}",
            "stake_alpha_rao": held,
        }
        what = f"move {output.tao(amount)} alpha of subnet {args.netuid} to {to_hotkey}, subnet {to_netuid}"
        return sending.send(args, client, intent, key, what, effect)


def _swap(args: argparse.Namespace) -> int:
    key, hotkey = options.coldkey_ref(args), options.account(args, args.hotkey, hotkey=True)
    if args.to_netuid == args.netuid:
        raise ConfigError("the stake is on that subnet already: give another --to-netuid")
    with ChainClient(options.network(args), args.timeout) as client:
        given = {"hotkey": hotkey, "origin_netuid": args.netuid, "destination_netuid": args.to_netuid}
        asked = {} if args.all else {"alpha_amount": args.amount}
        if (status := sending.resume(args, client, key, **given, **asked)) is not None:
            return status
        amount, held = _amount(args, client, key.ss58, hotkey)
        now = ratio(client, args.netuid, args.to_netuid)
        limit = now * (MILLION - args.slippage_ppm) // MILLION
        intent = SwapStakeLimit(
            signer=key.ss58,
            intent_id=sending.order_id(args),
            **given,
            alpha_amount=amount,
            limit_price=limit,
            allow_partial=args.partial,
        )
        lost = move_slippage(client, args.netuid, args.to_netuid, amount)
        effect = {
            "netuid": args.netuid,
            "to_netuid": args.to_netuid,
            "hotkey": hotkey,
            "moves_alpha_rao": amount,
            "gets_alpha_rao": round(amount * now / options.RAO * (1 - lost)),
            "slippage": f"{lost:.4%}",
            "price_alpha_rao": now,
            "price_limit_alpha_rao": limit,
            "stake_alpha_rao": held,
        }
        what = f"swap {output.tao(amount)} alpha of subnet {args.netuid} to subnet {args.to_netuid} on {hotkey}"
        return sending.send(args, client, intent, key, what, effect)


def _transfer(args: argparse.Namespace) -> int:
    key, hotkey = options.coldkey_ref(args), options.account(args, args.hotkey, hotkey=True)
    dest = options.account(args, args.to_coldkey, hotkey=False)
    to_netuid = args.netuid if args.to_netuid is None else args.to_netuid
    with ChainClient(options.network(args), args.timeout) as client:
        given = {
            "destination_coldkey": dest,
            "hotkey": hotkey,
            "origin_netuid": args.netuid,
            "destination_netuid": to_netuid,
        }
        asked = {} if args.all else {"alpha_amount": args.amount}
        if (status := sending.resume(args, client, key, **given, **asked)) is not None:
            return status
        amount, held = _amount(args, client, key.ss58, hotkey)
        intent = TransferStake(signer=key.ss58, intent_id=sending.order_id(args), **given, alpha_amount=amount)
        lost = move_slippage(client, args.netuid, to_netuid, amount)
        effect = {
            "netuid": args.netuid,
            "to_netuid": to_netuid,
            "hotkey": hotkey,
            "to_coldkey": dest,
            "gives_alpha_rao": amount,
            "slippage": f"{lost:.4%}",
            "stake_alpha_rao": held,
        }
        what = f"give {output.tao(amount)} alpha of subnet {args.netuid} on {hotkey} to {dest}"
        return sending.send(args, client, intent, key, what, effect)


def _unstake_all(args: argparse.Namespace) -> int:
    key, hotkey = options.coldkey_ref(args), options.account(args, args.hotkey, hotkey=True)
    with ChainClient(options.network(args), args.timeout) as client:
        if (status := sending.resume(args, client, key, hotkey=hotkey)) is not None:
            return status
        held = [
            stake
            for stake in stakes(client, key.ss58)
            if stake.hotkey == hotkey and not (args.alpha and not stake.netuid)
        ]
        if not held:
            message = f"{key.ss58} has no stake on {hotkey}"
            raise ChainRefused(message, name="NotEnoughStake", action="give up: there is nothing to take")
        trades = {s.netuid: sell(client, s.netuid, s.alpha_rao) if s.netuid else None for s in held}
        kind = UnstakeAllAlpha if args.alpha else UnstakeAll
        intent = kind(signer=key.ss58, intent_id=sending.order_id(args), hotkey=hotkey)
        effect = {
            "hotkey": hotkey,
            "netuids": [s.netuid for s in held],
            "gets_rao": sum(trades[s.netuid].got if trades[s.netuid] else s.alpha_rao for s in held),
            "slippage": f"{max((t.slippage for t in trades.values() if t), default=0.0):.4%}",
            "price_limit": "none",
        }
        where = "to root" if args.alpha else "as TAO"
        what = f"unstake everything from {hotkey} {where}: {len(held)} subnet(s)"
        return sending.send(args, client, intent, key, what, effect)


def _amount(args: argparse.Namespace, client: ChainClient, coldkey: str, hotkey: str) -> tuple[int, int]:
    """(what is asked for, what there is), in rao of alpha."""
    held = sum(s.alpha_rao for s in stakes(client, coldkey) if (s.hotkey, s.netuid) == (hotkey, args.netuid))
    amount = held if args.all else args.amount
    if amount > held or not amount:
        message = f"{coldkey} has {output.tao(held)} alpha on {hotkey}, subnet {args.netuid}"
        raise ChainRefused(message, name="NotEnoughStake", action="fix: ask for no more than is staked")
    return amount, held


def _list(args: argparse.Namespace) -> None:
    address = options.account(args, args.ss58, hotkey=False)
    with ChainClient(options.network(args), args.timeout) as client:
        head, held, now = client.head(), stakes(client, address), prices(client)
    rows = [
        {
            "netuid": s.netuid,
            "hotkey": s.hotkey,
            "alpha_rao": s.alpha_rao,
            "price_rao": now.get(s.netuid, 0),
            "value_rao": s.alpha_rao * now.get(s.netuid, 0) // options.RAO,
            "registered": s.registered,
        }
        for s in sorted(held, key=lambda s: (s.netuid, s.hotkey))
    ]
    if args.json:
        output.show_json({"ss58": address, "block": head.number, "stakes": rows})
        return
    print(f"{address} at block {head.number}")
    cells = [
        (r["netuid"], r["hotkey"], output.tao(r["alpha_rao"]), output.tao(r["price_rao"]), output.tao(r["value_rao"]))
        for r in rows
    ]
    print(output.table(("netuid", "hotkey", "alpha", "price", "worth, TAO"), cells, left=(1,)) if rows else "no stake")


def _without_none(effect: dict) -> dict:
    return {name: value for name, value in effect.items() if value is not None}
