"""`raytensor subnets trim|mechanisms`: how many neurons and how many mechanisms a subnet has.

In: a wallet's coldkey, a netuid, numbers. Out: what the chain has, or the extrinsic that changes it. Source: pallet
admin-utils, sudo_trim_to_max_allowed_uids, sudo_set_mechanism_count and sudo_set_mechanism_emission_split.
"""

import argparse
import re
from collections.abc import Callable
from typing import Any

from raytensor.arguments import integer
from raytensor.chain.owner_intents import SetHyperparameter
from raytensor.chain.rpc.client import ChainClient
from raytensor.commands import options, output, sending
from raytensor.commands.sender import Sender, sender_of
from raytensor.errors import ChainRefused, ConfigError

PALLET, U16 = "SubtensorModule", 2**16 - 1

NeedRight = Callable[[argparse.Namespace, ChainClient, int, str], None]  # refuses who is not the owner, or with --sudo


def add_parsers(actions: argparse._SubParsersAction, need_right: NeedRight) -> dict[argparse.ArgumentParser, Any]:
    """The parsers of the two actions -> what they do."""
    text = "keep at most N neurons: those with the lowest emission go, immune ones stay"
    trim = options.action(actions, "subnets", "trim", text, "5 128 -w alice --dry-run")
    trim.add_argument("netuid", metavar="NETUID", type=options.netuid, help="the subnet")
    trim.add_argument("keep", metavar="N", type=integer(1, U16), help="neurons to keep; also its new greatest number")
    text = "show or change the mechanisms of a subnet, which share its emission"
    examples = ("5", "5 --count 2 -w alice", "5 --split 0.7 0.3 -w alice", "5 --split even -w alice")
    parts = options.action(actions, "subnets", "mechanisms", text, *examples)
    parts.add_argument("netuid", metavar="NETUID", type=options.netuid, help="the subnet")
    which = parts.add_mutually_exclusive_group()
    which.add_argument("--count", type=integer(1, 255), metavar="N", help="their number; the split is even again")
    text = "shares of the emission by mechanism, or `even`; they add up to 1"
    which.add_argument("--split", nargs="+", metavar="SHARE", help=text)
    return {trim: lambda args: _trim(args, need_right), parts: lambda args: _mechanisms(args, need_right)}


def _trim(args: argparse.Namespace, need_right: NeedRight) -> int:
    who = sender_of(args)
    with ChainClient(options.network(args), args.timeout) as client:
        reads = [(PALLET, name, [args.netuid]) for name in ("SubnetworkN", "MinAllowedUids", "MaxAllowedUids")]
        now, least, most = client.query_many(reads)
        values = (("max_n", args.keep),)
        order = _order(args, who, "sudo_trim_to_max_allowed_uids", values)
        if (status := _resume(args, client, who, order)) is not None:
            return status
        need_right(args, client, args.netuid, who.ss58)
        if not least <= args.keep <= most:
            message = f"subnet {args.netuid} can keep {least} to {most} neurons, not {args.keep}"
            raise ChainRefused(message, name="InvalidValue", action="fix: give another number")
        effect = {"netuid": args.netuid, "neurons_now": now, "neurons_then": min(now, args.keep)}
        effect["most_now"], effect["most_then"] = most, args.keep
        what = f"trim subnet {args.netuid} to {args.keep} neurons"
        return sending.send(args, client, order, who, what, effect)


def _mechanisms(args: argparse.Namespace, need_right: NeedRight) -> int:
    with ChainClient(options.network(args), args.timeout) as client:
        reads = [(PALLET, name, [args.netuid]) for name in ("MechanismCountCurrent", "MechanismEmissionSplit")]
        count, split = client.query_many([*reads])
        shares = [part / U16 for part in split] if split else [1 / count] * count if count else []
        if args.count is None and args.split is None:
            shown = {"netuid": args.netuid, "mechanisms": count, "split_u16": split and list(split), "shares": shares}
            text = ", ".join(f"{number}: {share:.2%}" for number, share in enumerate(shares))
            output.show(args, shown, f"subnet {args.netuid} has {count} mechanisms, with shares of its emission {text}")
            return 0
        who = sender_of(args)
        if args.count is not None:
            function, values = "sudo_set_mechanism_count", (("mechanism_count", args.count),)
            then = f"{args.count}, with equal shares"
        else:
            parts = _parts(args.split, count)
            function, values = "sudo_set_mechanism_emission_split", (("maybe_split", parts),)
            then = "even" if parts is None else ", ".join(f"{part / U16:.4%}" for part in parts)
        order = _order(args, who, function, values)
        if (status := _resume(args, client, who, order)) is not None:
            return status
        need_right(args, client, args.netuid, who.ss58)
        effect = {"netuid": args.netuid, "now": ", ".join(f"{share:.4%}" for share in shares), "then": then}
        what = f"change the mechanisms of subnet {args.netuid}"
        return sending.send(args, client, order, who, what, effect)


def _order(args: argparse.Namespace, who: Sender, function: str, values: tuple) -> SetHyperparameter:
    fields = {"signer": who.ss58, "intent_id": sending.order_id(args), "netuid": args.netuid, "sudo": args.sudo}
    return SetHyperparameter(**fields, function=f"AdminUtils.{function}", values=values)


def _resume(args: argparse.Namespace, client: ChainClient, who: Sender, order: SetHyperparameter) -> int | None:
    given = {"netuid": order.netuid, "function": order.function, "values": order.values}
    return sending.resume(args, client, who, **given)


def _parts(words: list[str], count: int) -> list[int] | None:
    """Shares as parts of 65535 that add up to it; None for an even split."""
    if words == ["even"]:
        return None
    if len(words) != count or not all(re.fullmatch(r"[01]?\.?\d{1,9}", word, re.ASCII) for word in words):
        raise ConfigError(f"--split: give {count} shares, one for each mechanism, as 0.7 0.3, or `even`")
    shares = [float(word) for word in words]
    if abs(sum(shares) - 1) > 1e-9:
        raise ConfigError(f"--split: the shares add up to {sum(shares):g}, not to 1")
    parts = [int(share * U16) for share in shares]
    parts[0] += U16 - sum(parts)
    return parts
