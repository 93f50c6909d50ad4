"""`raytensor stake take` and `raytensor stake children`: a delegate's take, and its child hotkeys.

In: a hotkey, a share or children. Out: the chain's present value, or the order that changes it. Shares are exact:
a take is a u16 (65535 is 100 %), a child's share a u64. The chain limits how often both change.
"""

import argparse
import re
from fractions import Fraction

from raytensor.chain.intents import DecreaseTake, IncreaseTake, SetChildren
from raytensor.chain.rpc.client import ChainClient
from raytensor.commands import options, output, sending
from raytensor.commands.sender import sender_of
from raytensor.errors import ChainRefused, ConfigError

PALLET = "SubtensorModule"
U16, U64 = 2**16 - 1, 2**64 - 1


def add_parsers(actions: argparse._SubParsersAction) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """The parsers of the two actions."""
    text = "show or change the share of nominators' rewards that a hotkey keeps"
    takes = options.action(actions, "stake", "take", text, "--hotkey 5F...", "9% -w alice -H validator --dry-run")
    text = "as 9%% or 0.09 (default: show it)"
    takes.add_argument("share", metavar="SHARE", nargs="?", type=options.share, help=text)
    text = "show or set the child hotkeys, to which a hotkey delegates shares of its stake"
    examples = ("--hotkey 5F...", "-w alice -H validator 5G...=0.25 5H...=0.5", "-w alice -H validator --none")
    childs = options.action(actions, "stake", "children", text, *(f"--netuid 2 {one}" for one in examples))
    text = "the complete list, at most 5 (default: show the present ones)"
    childs.add_argument("children", metavar="HOTKEY=SHARE", nargs="*", help=text)
    childs.add_argument("--netuid", type=options.netuid, required=True, help="the subnet")
    childs.add_argument("--none", action="store_true", help="remove all children")
    for one in (takes, childs):
        options.add_hotkey(one)
        options.add_sending(one)
    return takes, childs


def take(args: argparse.Namespace) -> int:
    """`raytensor stake take`. Returns the exit status."""
    hotkey = options.account(args, args.hotkey, hotkey=True)
    with ChainClient(options.network(args), args.timeout) as client:
        reads = [(PALLET, "Delegates", [hotkey]), (PALLET, "MinDelegateTake", []), (PALLET, "MaxDelegateTake", [])]
        now, least, most = client.query_many(reads)
        allowed = f"{least / U16:.2%} to {most / U16:.2%} is allowed"
        if args.share is None:
            shown = {"hotkey": hotkey, "take": now, "min_take": least, "max_take": most}
            output.show(args, shown, f"{hotkey} keeps {now / U16:.4%} (from {allowed})")
            return 0
        key, asked = sender_of(args), args.share * U16 // options.MILLION
        if (status := sending.resume(args, client, key, hotkey=hotkey, take=asked)) is not None:
            return status
        if asked == now or not least <= asked <= most:
            name = "DelegateTakeTooHigh" if asked > most else "DelegateTakeTooLow"
            message = f"the take can't be changed to {asked / U16:.4%}: it is {now / U16:.4%}, and {allowed}"
            raise ChainRefused(message, name=name, action="fix: choose another share")
        kind = IncreaseTake if asked > now else DecreaseTake
        intent = kind(signer=key.ss58, intent_id=sending.order_id(args), hotkey=hotkey, take=asked)
        effect = {"hotkey": hotkey, "take_now": f"{now / U16:.4%}", "take_then": f"{asked / U16:.4%}"}
        return sending.send(args, client, intent, key, f"change the take of {hotkey} to {asked / U16:.4%}", effect)


def children(args: argparse.Namespace) -> int:
    """`raytensor stake children`. Returns the exit status."""
    hotkey = options.account(args, args.hotkey, hotkey=True)
    if args.none and args.children:
        raise ConfigError("--none and children: give one of the two")
    with ChainClient(options.network(args), args.timeout) as client:
        now = client.query(PALLET, "ChildKeys", [hotkey, args.netuid]) or ()
        pending, from_block = client.query(PALLET, "PendingChildKeys", [args.netuid, hotkey]) or ((), 0)
        if not args.children and not args.none:
            return _show(args, hotkey, now, pending, from_block)
        key, asked = sender_of(args), tuple(_child(args, text) for text in args.children)
        given = {"hotkey": hotkey, "netuid": args.netuid, "children": asked}
        if sum(share for share, _ in asked) > U64 or len({child for _, child in asked}) != len(asked):
            raise ConfigError("the shares of the children must add up to at most 1, and each child must be named once")
        if (status := sending.resume(args, client, key, **given)) is not None:
            return status
        intent = SetChildren(signer=key.ss58, intent_id=sending.order_id(args), **given)
        effect = {"netuid": args.netuid, "hotkey": hotkey, "children_now": _text(now), "children_then": _text(asked)}
        effect |= {"from": "the first epoch after the cooldown (PendingChildKeyCooldown)"}
        what = f"set {len(asked)} children of {hotkey}, subnet {args.netuid}"
        return sending.send(args, client, intent, key, what, effect)


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
    part = Fraction(share) if re.fullmatch(r"[01]?\.?\d{1,20}", share, re.ASCII) else Fraction(0)
    if not equals or not 0 < part <= 1:
        raise ConfigError(f"{text!r}: give HOTKEY=SHARE, a share above 0 and of at most 1, as 0.25")
    return int(part * U64), options.account(args, name, hotkey=True)


def _text(pairs: tuple) -> str:
    return ", ".join(f"{child} {share / U64:.4%}" for share, child in pairs) or "none"
