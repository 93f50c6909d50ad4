"""`raytensor wallet swap-hotkey` and `raytensor wallet swap-coldkey`: a new key in the place of one.

In: the wallet's coldkey, the new key's address. Out: the extrinsic, or what the chain knows of an announced swap. The
key files stay as they are. Source: pallet subtensor, swap/swap_hotkey.rs and swap/swap_coldkey.rs.
"""

import argparse
import hashlib
from typing import Any

from raytensor.chain import ss58
from raytensor.chain.account_intents import (
    AnnounceColdkeySwap,
    ClearColdkeySwap,
    DisputeColdkeySwap,
    SwapColdkeyAnnounced,
    SwapHotkey,
)
from raytensor.chain.rpc.client import ChainClient
from raytensor.commands import options, output, sending
from raytensor.commands.sender import Sender, sender_of
from raytensor.errors import ChainRefused, ConfigError

PALLET = "SubtensorModule"


def add_parsers(actions: argparse._SubParsersAction) -> None:
    """The parsers of the two actions, with what they do."""
    text = "put a new hotkey in the place of one, on one subnet or on all; the chain takes a price"
    hot = options.action(actions, "wallet", "swap-hotkey", text, "5G... -w alice -H miner1 --netuid 2 --dry-run")
    hot.add_argument("new", metavar="NEW", help="the new hotkey: an address, a hotkey of the wallet, or WALLET/HOTKEY")
    hot.add_argument("--netuid", type=options.netuid, help="only on this subnet (default: on all)")
    hot.add_argument("--keep-stake", action="store_true", help="stake and its dividends stay with the old hotkey")
    options.add_hotkey(hot)
    text = "give all that a coldkey has to a new one: announce it, wait some days, execute it; dispute another's"
    examples = ("announce 5G... -w alice", "status -w alice", "execute 5G... -w alice", "dispute -w alice")
    cold = options.action(actions, "wallet", "swap-coldkey", text, *examples)
    cold.add_argument("step", choices=list(STEPS), help="dispute freezes the account until the chain's governance acts")
    cold.add_argument("new", metavar="NEW", nargs="?", help="the new coldkey: an address or a WALLET")
    for one, act in ((hot, _swap_hotkey), (cold, lambda args: STEPS[args.step](args))):
        options.add_sending(one)
        options.add_chain_and_wallet(one)
        one.set_defaults(act=act)


def _swap_hotkey(args: argparse.Namespace) -> int:
    who, old = sender_of(args), options.account(args, args.hotkey, hotkey=True)
    new = options.account(args, args.new, hotkey=True)
    given = {"hotkey": old, "new_hotkey": new, "netuid": args.netuid, "keep_stake": args.keep_stake}
    with ChainClient(options.network(args), args.timeout) as client:
        if (status := sending.resume(args, client, who, **given)) is not None:
            return status
        cost = client.constant(PALLET, "KeySwapCost" if args.netuid is None else "KeySwapOnSubnetCost")
        owner = client.query(PALLET, "Owner", [old])
        if old == new or owner != who.ss58:
            fix = "fix: give another new hotkey, or the wallet whose coldkey owns the old one"
            why = "they are the same key" if old == new else f"{old} belongs to {owner}, not to {who.ss58}"
            raise ChainRefused(f"{old} can't be swapped for {new}: {why}", name="NonAssociatedColdKey", action=fix)
        intent = SwapHotkey(signer=who.ss58, intent_id=sending.order_id(args), cost=cost, **given)
        sending.afford(client, intent)
        where = "all subnets" if args.netuid is None else f"subnet {args.netuid}"
        effect = {**given, "netuid": where, "price_rao": cost, "balance_rao": client.balance(who.ss58)}
        return sending.send(args, client, intent, who, f"swap the hotkey {old} for {new}, on {where}", effect)


def _announced(client: ChainClient, who: Sender) -> dict[str, Any]:
    """What the chain has of a coldkey's swap; nothing announced: from_block is None."""
    names = ("ColdkeySwapAnnouncements", "ColdkeySwapDisputes")
    announced, disputed = client.query_many([(PALLET, name, [who.ss58]) for name in names])
    from_block, digest = announced or (None, None)
    return {"coldkey": who.ss58, "new_coldkey_hash": digest, "from_block": from_block, "disputed_block": disputed}


def _status(args: argparse.Namespace) -> int:
    who = sender_of(args)
    with ChainClient(options.network(args), args.timeout) as client:
        shown = _announced(client, who) | {"block": client.head().number}
    if shown["from_block"] is None:
        text = f"{who.ss58}: no swap is announced"
    else:
        text = f"{who.ss58}: a swap to the coldkey with the hash {shown['new_coldkey_hash']} is announced;"
        text += f" it can be executed from block {shown['from_block']} (now {shown['block']})"
        text += (
            "" if shown["disputed_block"] is None else f"\ndisputed in block {shown['disputed_block']}: it is frozen"
        )
    output.show(args, shown, text)
    return 0


def _announce(args: argparse.Namespace) -> int:
    who, new = sender_of(args), _new(args)
    with ChainClient(options.network(args), args.timeout) as client:
        if (status := sending.resume(args, client, who, new_coldkey=new)) is not None:
            return status
        cost = client.constant(PALLET, "KeySwapCost") if _announced(client, who)["from_block"] is None else 0
        delay = client.query(PALLET, "ColdkeySwapAnnouncementDelay", [])
        intent = AnnounceColdkeySwap(signer=who.ss58, intent_id=sending.order_id(args), new_coldkey=new, cost=cost)
        sending.afford(client, intent)
        effect = {"new_coldkey": new, "price_rao": cost, "balance_rao": client.balance(who.ss58)}
        effect |= {"until_then": "the coldkey can send nothing but steps of the swap", "delay_blocks": delay}
        return sending.send(args, client, intent, who, f"announce the swap of {who.ss58} for {new}", effect)


def _execute(args: argparse.Namespace) -> int:
    who, new = sender_of(args), _new(args)
    with ChainClient(options.network(args), args.timeout) as client:
        if (status := sending.resume(args, client, who, new_coldkey=new)) is not None:
            return status
        found, head = _announced(client, who), client.head().number
        digest = "0x" + hashlib.blake2b(ss58.decode(new), digest_size=32).hexdigest()
        if found["from_block"] is None or found["new_coldkey_hash"] != digest:
            message = f"the swap of {who.ss58} for {new} is not announced"
            action = f"fix: raytensor wallet swap-coldkey announce {new}"
            raise ChainRefused(message, name="ColdkeySwapAnnouncementNotFound", action=action)
        if found["disputed_block"] is not None:
            message = f"the swap of {who.ss58} was disputed in block {found['disputed_block']}"
            raise ChainRefused(message, name="ColdkeySwapDisputed", action="wait: the chain's governance resets it")
        if head + 1 < found["from_block"]:
            message = f"the swap can be executed from block {found['from_block']}; this is block {head}"
            raise ChainRefused(message, name="ColdkeySwapTooEarly", action="wait: until that block")
        intent = SwapColdkeyAnnounced(signer=who.ss58, intent_id=sending.order_id(args), new_coldkey=new)
        effect = {
            "new_coldkey": new,
            "balance_rao": client.balance(who.ss58),
            "moves": "balance, stake, hotkeys, subnets",
        }
        return sending.send(args, client, intent, who, f"give all of {who.ss58} to {new}", effect)


def _dispute(args: argparse.Namespace) -> int:
    return _simple(args, DisputeColdkeySwap, "dispute the announced swap: freeze the account")


def _clear(args: argparse.Namespace) -> int:
    return _simple(args, ClearColdkeySwap, "take back the announced swap")


def _simple(args: argparse.Namespace, kind: type[DisputeColdkeySwap | ClearColdkeySwap], what: str) -> int:
    who = sender_of(args)
    with ChainClient(options.network(args), args.timeout) as client:
        if (status := sending.resume(args, client, who)) is not None:
            return status
        found, delay = _announced(client, who), client.query(PALLET, "ColdkeySwapReannouncementDelay", [])
        if found["from_block"] is None:
            message = f"no swap of {who.ss58} is announced"
            raise ChainRefused(
                message, name="ColdkeySwapAnnouncementNotFound", action="give up: there is nothing to do"
            )
        if kind is ClearColdkeySwap:
            head, earliest = client.head().number, found["from_block"] + delay
            if head + 1 < earliest:
                message = f"the announcement can be taken back from block {earliest}; this is block {head}"
                raise ChainRefused(message, name="ColdkeySwapClearTooEarly", action="wait: until that block")
        else:
            sending.confirm(args, "Nothing can be sent from the account until governance resets it. Dispute?")
        return sending.send(args, client, kind(signer=who.ss58, intent_id=sending.order_id(args)), who, what, found)


def _new(args: argparse.Namespace) -> str:
    if args.new is None:
        raise ConfigError(f"swap-coldkey {args.step}: give the new coldkey")
    return options.account(args, args.new, hotkey=False)


STEPS = {"announce": _announce, "status": _status, "execute": _execute, "dispute": _dispute, "clear": _clear}
