"""`raytensor serve`: publish the address of a hotkey's server on the chain."""

import argparse
import ipaddress
import re
from collections.abc import Sequence

from raytensor.arguments import integer
from raytensor.chain.intents import ServeAxon
from raytensor.chain.reads.metagraph import axon_text
from raytensor.chain.rpc.client import ChainClient
from raytensor.commands import options, output, sending
from raytensor.commands.sender import sender_of
from raytensor.config.checks import is_publishable
from raytensor.errors import ChainRefused, ConfigError

PALLET = "SubtensorModule"
ABOUT = """\
Publishes the address at which a hotkey's server listens (serve_axon), where validators find it. The hotkey signs, and
the chain asks no fee. `raytensor mine` does this by itself.
"""
EXAMPLES = """\
  raytensor serve 203.0.113.7:8091 --netuid 2 -w alice -H miner1 --dry-run
  raytensor serve '[2001:db8::7]:8091' --netuid 2 -w alice -H miner1 --yes
"""


def serve_main(argv: Sequence[str]) -> int:
    """`raytensor serve ADDRESS --netuid N`. Returns the exit status."""
    parser = options.parser("serve", ABOUT, EXAMPLES)
    parser.add_argument("address", metavar="IP:PORT", help="the address, [IP]:PORT for IPv6")
    parser.add_argument("--netuid", type=options.netuid, required=True, help="the subnet")
    text = "number of the protocol that the server speaks (default 4)"
    parser.add_argument("--protocol", type=integer(0, 255), default=4, help=text)
    options.add_sending(parser)
    options.add_chain_and_wallet(parser)
    return output.run("serve", parser, argv, _serve)


def _serve(args: argparse.Namespace) -> int:
    ip, port = _address(args.address)
    key, netuid = sender_of(args, hotkey=True), args.netuid
    with ChainClient(options.network(args), args.timeout) as client:
        given = {"netuid": netuid, "ip": ip, "port": port, "protocol": args.protocol}
        if (status := sending.resume(args, client, key, **given)) is not None:
            return status
        items = [("Uids", [netuid, key.ss58]), ("Axons", [netuid, key.ss58]), ("ServingRateLimit", [netuid])]
        uid, before, limit = client.query_many([(PALLET, name, keys) for name, keys in items])
        if uid is None:
            message = f"{key.ss58} is not registered on subnet {netuid}"
            action = f"fix: raytensor register --netuid {netuid} --hotkey {key.ss58}"
            raise ChainRefused(message, name="HotKeyNotRegisteredInSubNet", action=action)
        ready, head = (before["block"] + (limit or 0) if before else 0), client.head().number
        if head + 1 < ready:
            message = f"subnet {netuid} takes a new address of this hotkey from block {ready} on"
            raise ChainRefused(message, name="ServingRateLimitExceeded", action=f"wait: {ready - head} blocks")
        intent = ServeAxon(signer=key.ss58, intent_id=sending.order_id(args), **given)
        now = (axon_text(before) if before else "") or "nothing"
        effect = {"netuid": netuid, "hotkey": key.ss58, "published_now": now, "published_then": args.address}
        return sending.send(args, client, intent, key, f"publish {args.address} on subnet {netuid}", effect)


def _address(text: str) -> tuple[str, int]:
    """IP and port of "203.0.113.7:8091" or "[2001:db8::7]:8091". Raises ConfigError."""
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):(\d{1,5})", text, re.ASCII)
    host, port = (found[1] or found[2], int(found[3])) if found else ("", 0)
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        raise ConfigError(f"{text!r} is no address: give IP:PORT, or [IP]:PORT for IPv6") from None
    if not 0 < port <= 65535 or not is_publishable(str(ip)):
        raise ConfigError(f"{text!r} can't be published: give a port from 1 to 65535, and no loopback or empty address")
    return str(ip), port
