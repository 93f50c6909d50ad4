"""`raytensor stake auto` and `raytensor stake claim`: where mining rewards are staked, and dividends of root stake.

In: a coldkey. Out: what the chain has, or the extrinsic that changes it. Source: pallet subtensor,
staking/claim_root.rs and staking/set_coldkey_auto_stake_hotkey.
"""

import argparse

from raytensor.chain import ss58
from raytensor.chain.account_intents import ClaimRoot, SetAutoStake
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.rpc.scale_reader import ScaleReader
from raytensor.commands import options, output, sending
from raytensor.commands.sender import sender_of
from raytensor.errors import ChainError, ChainRefused

PALLET = "SubtensorModule"
OWED = "BetaBasketRuntimeApi_get_root_basket_positions"


def add_parsers(actions: argparse._SubParsersAction) -> dict[argparse.ArgumentParser, object]:
    """The parsers of the two actions -> what they do."""
    text = "show or set the hotkey on which the coldkey's mining rewards of a subnet are staked"
    auto = options.action(actions, "stake", "auto", text, "--netuid 2 -w alice", "5F... --netuid 2 -w alice --dry-run")
    auto.add_argument("to", metavar="HOTKEY", nargs="?", help="the hotkey (default: show the present one)")
    auto.add_argument("--netuid", type=options.netuid, required=True, help="the subnet")
    text = "show the dividends of stake on root, or claim those of one hotkey: sold, and the TAO staked on root"
    claim = options.action(actions, "stake", "claim", text, "-w alice", "--hotkey 5F... -w alice")
    claim.add_argument("--hotkey", metavar=options.HOTKEY, help="claim what is owed on this hotkey (default: show all)")
    for one in (auto, claim):
        options.add_sending(one)
    return {auto: _auto, claim: _claim}


def _auto(args: argparse.Namespace) -> int:
    who = sender_of(args)
    with ChainClient(options.network(args), args.timeout) as client:
        now = client.query(PALLET, "AutoStakeDestination", [who.ss58, args.netuid])
        if args.to is None:
            shown = {"coldkey": who.ss58, "netuid": args.netuid, "hotkey": now}
            output.show(
                args, shown, f"rewards of {who.ss58} on subnet {args.netuid} are staked on {now or 'their own hotkeys'}"
            )
            return 0
        given = {"netuid": args.netuid, "hotkey": options.account(args, args.to, hotkey=True)}
        if (status := sending.resume(args, client, who, **given)) is not None:
            return status
        if given["hotkey"] == now:
            message = f"{now} is set already"
            raise ChainRefused(message, name="SameAutoStakeHotkeyAlreadySet", action="give up: there is nothing to do")
        if client.query(PALLET, "Uids", [args.netuid, given["hotkey"]]) is None:
            message = f"{given['hotkey']} is not registered on subnet {args.netuid}"
            raise ChainRefused(message, name="HotKeyNotRegisteredInSubNet", action="fix: choose one of the subnet")
        intent = SetAutoStake(signer=who.ss58, intent_id=sending.order_id(args), **given)
        effect = {"netuid": args.netuid, "hotkey_now": now or "their own", "hotkey_then": given["hotkey"]}
        return sending.send(args, client, intent, who, "set where mining rewards are staked", effect)


def owed(client: ChainClient, coldkey: str) -> dict[str, int]:
    """hotkey -> rao of TAO that a claim would stake on root now (BetaBasketRuntimeApi)."""
    raw = client.runtime_call(OWED, ss58.decode(coldkey))
    reader, found = ScaleReader(raw), {}
    for _ in range(reader.compact()):
        hotkey = reader.account()
        reader.number(8)  # beta, the share of the validator's basket
        found[hotkey] = reader.number(8)
    return found


def _claim(args: argparse.Namespace) -> int:
    who = sender_of(args)
    with ChainClient(options.network(args), args.timeout) as client:
        if not client.runtime.has_call(PALLET, "claim_root_with_hotkey"):
            raise ChainError(f"the runtime of {client.endpoint} (spec {client.spec_version}) has no claim per hotkey")
        found = owed(client, who.ss58)
        if args.hotkey is None:
            rows = [{"hotkey": hotkey, "owed_rao": rao} for hotkey, rao in found.items()]
            cells = [(row["hotkey"], output.tao(row["owed_rao"])) for row in rows]
            text = output.table(("hotkey", "owed, TAO"), cells, left=(0,)) if rows else "nothing is owed"
            output.show(args, {"coldkey": who.ss58, "owed": rows}, text)
            return 0
        hotkey = options.account(args, args.hotkey, hotkey=True)
        if (status := sending.resume(args, client, who, hotkey=hotkey)) is not None:
            return status
        if not found.get(hotkey):
            message = f"nothing is owed to {who.ss58} on {hotkey}"
            raise ChainRefused(message, name="NothingOwed", action="see: raytensor stake claim, without a hotkey")
        intent = ClaimRoot(signer=who.ss58, intent_id=sending.order_id(args), hotkey=hotkey)
        effect = {"hotkey": hotkey, "about_rao": found[hotkey], "balance_rao": client.balance(who.ss58)}
        return sending.send(args, client, intent, who, f"claim the root dividends on {hotkey}", effect)
