"""`raytensor transfer`: send TAO to an account."""

import argparse
from collections.abc import Sequence

from raytensor.chain.intents import Transfer
from raytensor.chain.rpc.client import ChainClient
from raytensor.commands import options, output, sending

ABOUT = """\
Sends TAO from a wallet's coldkey. The existential deposit of 500 rao stays in the sender's account and can't be sent.

Amounts are exact decimals of TAO; 1 TAO is 10^9 rao. A transfer can't be undone: try it with --dry-run first.
"""
EXAMPLES = """\
  raytensor transfer 5F... 1.25 -w alice --dry-run     shows the fee and the balances; sends nothing
  raytensor transfer 5F... 1.25 -w alice               asks, then sends
  raytensor transfer bob 1.25 -w alice                 to the coldkey of the wallet bob
  raytensor transfer 5F... 1.25 --yes --id invoice-7   for scripts: run twice, it is paid once
  raytensor transfer 5F... 1 -w //Alice -n local --yes on a development chain
"""


def transfer_main(argv: Sequence[str]) -> int:
    """`raytensor transfer DEST AMOUNT`. Returns the exit status."""
    parser = options.parser("transfer", ABOUT, EXAMPLES)
    parser.add_argument("dest", metavar="DEST", help="the receiver: an ss58 address, WALLET or WALLET/HOTKEY")
    parser.add_argument("amount", metavar="AMOUNT", type=options.tao, help="TAO, at most nine decimals")
    options.add_sending(parser)
    options.add_chain_and_wallet(parser)
    return output.run("transfer", parser, argv, _transfer)


def _transfer(args: argparse.Namespace) -> int:
    key, dest = options.coldkey_ref(args), options.account(args, args.dest, hotkey=False)
    intent = Transfer(signer=key.ss58, intent_id=sending.order_id(args), dest=dest, value=args.amount)
    with ChainClient(options.network(args), args.timeout) as client:
        if (status := sending.resume(args, client, key, dest=dest, value=args.amount)) is not None:
            return status
        sending.afford(client, intent)
        effect = {"amount_rao": args.amount, "dest": dest, "balance_rao": client.balance(key.ss58)}
        effect["dest_balance_rao"] = client.balance(dest)
        what = f"transfer {output.tao(args.amount)} TAO to {dest}"
        return sending.send(args, client, intent, key, what, effect)
