"""`raytensor stake take` and `raytensor stake children`: what a delegate keeps, and whom its stake stands for.

In: a hotkey, a share or children. Out: what the chain has now, or the order that changes it. Shares are exact: a take is
u16 (65535 = 100 %), a child's share is u64. Changes are limited by the chain in number and in time.
"""

from __future__ import annotations

import argparse
from fractions import Fraction

from raytensor.chain.calls import DecreaseTake, IncreaseTake, SetChildren
from raytensor.chain.rpc.client import ChainClient
from raytensor.commands import options, output, sending
from raytensor.errors import ChainRefused, ConfigError

PALLET = "SubtensorModule"
U16, U64 = 2**16 - 1, 2**64 - 1


def add_parsers(actions: argparse._SubParsersAction) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """The parsers of the two actions."""
    takes = options.subparser(actions, "take", "show or change the share of others' rewards that a hotkey keeps")
    takes.add_argument("share", metavar="SHARE", nargs="?", type=options.share, help="as 9%% or 0.09; none: show it")
    childs = options.subparser(
        actions, "children", "show or set the hotkeys for which shares of a hotkey's stake stand"
    )
    childs.add_argument("children", metavar="HOTKEY=SHARE", nargs="*", help="all of them, at most 5; none: show them")
    childs.add_argument("--netuid", type=options.netuid, required=True)
    childs.add_argument("--none", action="store_true", help="set no children")
    for one in (takes, childs):
        one.add_argument("--hotkey", metavar="NAME|ADDRESS", help="the hotkey (default: the wallet's)")
        options.add_sending(one)
    return takes, childs


def take(args: argparse.Namespace) -> int:
    hotkey = options.account(args, args.hotkey, hotkey=True)
    with ChainClient(options.network(args), args.timeout) as client:
        names = ("Delegates", "MinDelegateTake", "MaxDelegateTake")
        now, least, most = client.query_many(
            [(PALLET, name, [hotkey] if name == "Delegates" else []) for name in names]
        )
        if args.share is None:
            shown = {"hotkey": hotkey, "take": now, "min_take": least, "max_take": most}
            if args.json:
                output.show_json(shown)
            else:
                print(f"{hotkey} keeps {now / U16:.4%} (from {least / U16:.2%} to {most / U16:.2%} is allowed)")
            return 0
        key, asked = options.coldkey_ref(args), args.share * U16 // options.MILLION
        if (status := sending.resume(args, client, key, hotkey=hotkey, take=asked)) is not None:
            return status
        if asked == now or not least <= asked <= most:
            name = "DelegateTakeTooHigh" if asked > most else "DelegateTakeTooLow"
            message = f"a take of {asked / U16:.4%}: it is {now / U16:.4%}, and {least / U16:.2%} to {most / U16:.2%} is allowed"
            raise ChainRefused(message, name=name, action="fix: choose another share")
        kind = IncreaseTake if asked > now else DecreaseTake
        intent = kind(signer=key.ss58, intent_id=sending.order_id(args), hotkey=hotkey, take=asked)
        effect = {"hotkey": hotkey, "take_now": f"{now / U16:.4%}", "take_then": f"{asked / U16:.4%}"}
        return sending.send(args, client, intent, key, f"change the take of {hotkey} to {asked / U16:.4%}", effect)


def children(args: argparse.Namespace) -> int:
    hotkey = options.account(args, args.hotkey, hotkey=True)
    if args.none and args.children:
        raise ConfigError("--none and children: give one of the two")
    with ChainClient(options.network(args), args.timeout) as client:
        now = client.query(PALLET, "ChildKeys", [hotkey, args.netuid]) or ()
        pending, from_block = client.query(PALLET, "PendingChildKeys", [args.netuid, hotkey]) or ((), 0)
        if not args.children and not args.none:
            return _show(args, hotkey, now, pending, from_block)
        key, asked = options.coldkey_ref(args), tuple(_child(args, text) for text in args.children)
        if sum(share for share, _ in asked) > U64 or len({child for _, child in asked}) != len(asked):
            raise ConfigError("shares of the children add up to at most 1, and each child is named once")
        if (status := sending.resume(args, client, key, hotkey=hotkey, netuid=args.netuid, children=asked)) is not None:
            return status
        intent = SetChildren(
            signer=key.ss58, intent_id=sending.order_id(args), hotkey=hotkey, netuid=args.netuid, children=asked
        )
        effect = {
            "netuid": args.netuid,
            "hotkey": hotkey,
            "children_now": _text(now),
            "children_then": _text(asked),
            "from": "the first epoch after the chain's cooldown (PendingChildKeyCooldown)",
        }
        return sending.send(
            args, client, intent, key, f"set {len(asked)} children of {hotkey}, subnet {args.netuid}", effect
        )


def _show(args: argparse.Namespace, hotkey: str, now: tuple, pending: tuple, from_block: int) -> int:
    if args.json:
        rows = {
            name: [{"hotkey": child, "share": share / U64, "share_u64": share} for share, child in pairs]
            for name, pairs in (("children", now), ("pending", pending))
        }
        output.show_json({"hotkey": hotkey, "netuid": args.netuid, **rows, "pending_from_block": from_block or None})
        return 0
    print(f"{hotkey}, subnet {args.netuid}: {_text(now)}")
    if from_block:
        print(f"from the first epoch after block {from_block}: {_text(pending)}")
    return 0


def _child(args: argparse.Namespace, text: str) -> tuple[int, str]:
    name, equals, share = text.partition("=")
    try:
        part = Fraction(share)
    except (ValueError, ZeroDivisionError):
        part = Fraction(-1)
    if not equals or not 0 < part <= 1:
        raise ConfigError(f"{text!r}: write HOTKEY=SHARE, a share over 0 and at most 1, as 0.25")
    return int(part * U64), options.account(args, name, hotkey=True)


def _text(pairs: tuple) -> str:
    return ", ".join(f"{child} {share / U64:.4%}" for share, child in pairs) or "none"
