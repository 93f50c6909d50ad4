"""`raytensor register`: register a hotkey on a subnet, at no more than a given price."""

import argparse
from collections.abc import Sequence

from raytensor.chain.intents import RegisterLimit, RootRegister
from raytensor.chain.reads.quotes import burn_price
from raytensor.chain.rpc.client import ChainClient
from raytensor.commands import options, output, sending
from raytensor.commands.sender import sender_of
from raytensor.errors import ChainRefused

PALLET = "SubtensorModule"
MARGIN = 1.05  # above the current price; each registration raises the price by a factor of 1.26
ABOUT = """\
Registers a hotkey on a subnet. The coldkey pays the subnet's registration price (burn), which rises with each
registration and falls with time. The price is not paid back, even if the hotkey is pruned later. It is limited by
--max-burn, or to 5 % above the current price.
"""
EXAMPLES = """\
  raytensor register --netuid 2 -w alice -H miner1 --dry-run
  raytensor register --netuid 2 -w alice -H miner1 --max-burn 0.5
  raytensor register --netuid 0 -w alice -H validator --yes        the root network: no price
"""


def register_main(argv: Sequence[str]) -> int:
    """`raytensor register --netuid N`. Returns the exit status."""
    parser = options.parser("register", ABOUT, EXAMPLES)
    parser.add_argument("--netuid", type=options.netuid, required=True, help="the subnet; 0 is root")
    options.add_hotkey(parser)
    parser.add_argument("--max-burn", type=options.tao, metavar="TAO", help="the highest price to pay (default: +5 %%)")
    options.add_sending(parser)
    options.add_chain_and_wallet(parser)
    return output.run("register", parser, argv, _register)


def _register(args: argparse.Namespace) -> int:
    key, hotkey = sender_of(args), options.account(args, args.hotkey, hotkey=True)
    signer, intent_id = key.ss58, sending.order_id(args)
    with ChainClient(options.network(args), args.timeout) as client:
        given = {"hotkey": hotkey, **({"netuid": args.netuid} if args.netuid else {})}
        if (status := sending.resume(args, client, key, **given)) is not None:
            return status
        uid = client.query(PALLET, "Uids", [args.netuid, hotkey])
        if uid is not None:
            message = f"{hotkey} is already registered on subnet {args.netuid}, as uid {uid}"
            action = "give up: there is nothing to do"
            raise ChainRefused(message, name="HotKeyAlreadyRegisteredInSubNet", action=action)
        effect = {"netuid": args.netuid, "hotkey": hotkey, "balance_rao": client.balance(signer)}
        if args.netuid == 0:
            intent = RootRegister(signer=signer, intent_id=intent_id, hotkey=hotkey)
            return sending.send(args, client, intent, key, f"register {hotkey} on the root network", effect)
        burn = burn_price(client, args.netuid)
        most = args.max_burn if args.max_burn is not None else round(burn * MARGIN)
        effect |= {"price_rao": burn, "price_at_most_rao": most}
        intent = RegisterLimit(signer=signer, intent_id=intent_id, netuid=args.netuid, hotkey=hotkey, limit_price=most)
        if burn > most:
            costs, limit = output.tao(burn), output.tao(most)
            message = f"registering on subnet {args.netuid} costs {costs} TAO, over --max-burn {limit}"
            action = "wait: until the price falls, or raise --max-burn"
            raise ChainRefused(message, name="RegistrationPriceLimitExceeded", action=action)
        sending.afford(client, intent, cost_rao=burn)  # the limit is a cap, not what is paid
        what = f"register {hotkey} on subnet {args.netuid} for {output.tao(burn)} TAO"
        return sending.send(args, client, intent, key, what, effect)
