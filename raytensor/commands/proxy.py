"""`raytensor proxy`: which keys may act for an account, and with what."""

import argparse
from collections.abc import Sequence

from raytensor.arguments import integer
from raytensor.chain.intents import AddProxy, RemoveProxy
from raytensor.chain.rpc.client import ChainClient
from raytensor.commands import options, output, sending
from raytensor.commands.sender import sender_of
from raytensor.errors import ChainRefused, ConfigError

ABOUT = """\
A proxy is a key that may act for an account: keep the coldkey offline, and let a key that can only stake do the work.
Each order then carries --proxy-for, is signed by the proxy, and its fee is the proxy's; amounts are the account's.

A proxy's type says what it may do (Any, NonTransfer, Staking, Registration, ...; `raytensor proxy types` lists those of
the chain); its delay, how many blocks an order must be announced before. A deposit is reserved for each proxy, and
comes back when it is removed.
"""
EXAMPLES = """\
  raytensor proxy types
  raytensor proxy add 5F... --type Staking -w alice --dry-run
  raytensor stake add 10 --netuid 2 --hotkey 5G... -w helper --proxy-for alice
  raytensor proxy list -w alice
  raytensor proxy remove 5F... --type Staking -w alice
"""


def proxy_main(argv: Sequence[str]) -> int:
    """`raytensor proxy list|types|add|remove`. Returns the exit status."""
    parser = options.parser("proxy", ABOUT, EXAMPLES)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listing = options.action(actions, "proxy", "list", "show the proxies of an account and the deposit", "-w alice")
    listing.add_argument("account", metavar="ACCOUNT", nargs="?", help="default: the wallet's coldkey")
    listing.set_defaults(act=_list)
    types = options.action(actions, "proxy", "types", "list the types that the chain has", "-n finney")
    types.set_defaults(act=_types)
    add = options.action(actions, "proxy", "add", "let a key act for the account", "5F... --type Staking -w alice")
    add.set_defaults(act=lambda args: _change(args, AddProxy))
    remove = options.action(actions, "proxy", "remove", "take that right away", "5F... --type Staking -w alice")
    remove.set_defaults(act=lambda args: _change(args, RemoveProxy))
    for one in (add, remove):
        one.add_argument("delegate", metavar="KEY", help="the proxy: an ss58 address, WALLET or WALLET/HOTKEY")
        one.add_argument("--type", required=True, metavar="TYPE", help="what it may do")
        one.add_argument(
            "--delay", type=integer(0, 2**32 - 1), default=0, metavar="BLOCKS", help="default 0: acts at once"
        )
        options.add_sending(one)
    for one in (listing, types, add, remove):
        options.add_chain_and_wallet(one)
    return output.run("proxy", parser, argv, lambda args: args.act(args))


def _types_there(client: ChainClient) -> list[str]:
    runtime = client.runtime
    return [
        one["name"] for one in runtime.codec.variants(runtime.call_types("Proxy", "add_proxy")["proxy_type"]).values()
    ]


def _types(args: argparse.Namespace) -> int:
    with ChainClient(options.network(args), args.timeout) as client:
        types = _types_there(client)
    output.show(args, {"types": types}, "\n".join(types))
    return 0


def _list(args: argparse.Namespace) -> int:
    account = options.account(args, args.account, hotkey=False)
    with ChainClient(options.network(args), args.timeout) as client:
        proxies, deposit = client.query("Proxy", "Proxies", [account])
    rows = [{"proxy": one["delegate"], "type": one["proxy_type"], "delay_blocks": one["delay"]} for one in proxies]
    text = output.table(("proxy", "type", "delay"), [list(row.values()) for row in rows], left=(0, 1))
    shown = {"account": account, "proxies": rows, "deposit_rao": deposit}
    output.show(args, shown, f"{account}: deposit {output.tao(deposit)} TAO\n{text}" if rows else "no proxies")
    return 0


def _change(args: argparse.Namespace, kind: type[AddProxy]) -> int:
    who, delegate = sender_of(args), options.account(args, args.delegate, hotkey=False)
    given = {"delegate": delegate, "proxy_type": args.type, "delay": args.delay}
    with ChainClient(options.network(args), args.timeout) as client:
        if args.type not in (there := _types_there(client)):
            raise ConfigError(f"--type {args.type!r}: the chain has {', '.join(there)}")
        if (status := sending.resume(args, client, who, **given)) is not None:
            return status
        proxies, deposit = client.query("Proxy", "Proxies", [who.ss58])
        present, adds = given in proxies, kind is AddProxy
        if adds is present:
            name, action = ("Duplicate", "give up") if present else ("NotFound", "fix: see `raytensor proxy list`")
            message = f"{delegate} is {'already' if present else 'no'} {args.type} proxy of {who.ss58}"
            raise ChainRefused(message, name=name, action=action)
        base, each = (client.constant("Proxy", f"ProxyDeposit{part}") for part in ("Base", "Factor"))
        count = len(proxies) + (1 if adds else -1)
        effect = {**given, "account": who.ss58, "deposit_now_rao": deposit}
        effect["deposit_then_rao"] = base + each * count if count else 0
        intent = kind(signer=who.ss58, intent_id=sending.order_id(args), **given)
        what = f"{'let' if adds else 'no longer let'} {delegate} act for {who.ss58} ({args.type})"
        return sending.send(args, client, intent, who, what, effect)
