"""`raytensor transfer`: send TAO to an account."""

import argparse
from collections.abc import Sequence

from raytensor.chain.intents import Transfer, TransferAll
from raytensor.chain.reads.quotes import fee
from raytensor.chain.rpc.client import ChainClient
from raytensor.commands import options, output, sending
from raytensor.commands.sender import Sender, sender_of
from raytensor.errors import ChainRefused, ConfigError

ABOUT = """\
Sends TAO from a wallet's coldkey. The existential deposit of 500 rao stays in the sender's account.

--all sends everything that is free, less the fee and the deposit, exact to the rao when it runs. With --allow-death the
deposit goes too, and the chain deletes the empty account.

Amounts are exact decimals of TAO; 1 TAO is 10^9 rao. A transfer can't be undone: try it with --dry-run first.
"""
EXAMPLES = """\
  raytensor transfer 5F... 1.25 -w alice --dry-run     shows the fee and the balances; sends nothing
  raytensor transfer 5F... 1.25 -w alice               asks, then sends
  raytensor transfer bob 1.25 -w alice                 to the coldkey of the wallet bob
  raytensor transfer 5F... --all -w alice              everything but the fee and the deposit
  raytensor transfer 5F... 1.25 -w alice --finalized   returns when the block is final
  raytensor transfer 5F... 1.25 --yes --id invoice-7   for scripts: run twice, it is paid once
  raytensor transfer 5F... 1 -w //Alice -n local --yes on a development chain
"""


def transfer_main(argv: Sequence[str]) -> int:
    """`raytensor transfer DEST AMOUNT`. Returns the exit status."""
    parser = options.parser("transfer", ABOUT, EXAMPLES)
    parser.add_argument("dest", metavar="DEST", help="the receiver: an ss58 address, WALLET or WALLET/HOTKEY")
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("amount", metavar="AMOUNT", type=options.tao, nargs="?", help="TAO, at most nine decimals")
    group.add_argument("--all", action="store_true", help="all that is free, less the fee and the deposit")
    parser.add_argument(
        "--allow-death", action="store_true", help="with --all: the deposit too; the account is deleted"
    )
    options.add_sending(parser)
    options.add_chain_and_wallet(parser)
    return output.run("transfer", parser, argv, _transfer)


def _transfer(args: argparse.Namespace) -> int:
    key, dest = sender_of(args), options.account(args, args.dest, hotkey=False)
    if args.all:
        return _transfer_all(args, key, dest)
    if args.allow_death:
        raise ConfigError("--allow-death: give it with --all, which leaves nothing behind")
    intent = Transfer(signer=key.ss58, intent_id=sending.order_id(args), dest=dest, value=args.amount)
    with ChainClient(options.network(args), args.timeout) as client:
        if (status := sending.resume(args, client, key, dest=dest, value=args.amount)) is not None:
            return status
        sending.afford(client, intent)
        effect = {"amount_rao": args.amount, "dest": dest, "balance_rao": client.balance(key.ss58)}
        effect["dest_balance_rao"] = client.balance(dest)
        what = f"transfer {output.tao(args.amount)} TAO to {dest}"
        return sending.send(args, client, intent, key, what, effect)


def _transfer_all(args: argparse.Namespace, key: Sender, dest: str) -> int:
    given = {"dest": dest, "keep_alive": not args.allow_death}
    intent = TransferAll(signer=key.ss58, intent_id=sending.order_id(args), **given)
    with ChainClient(options.network(args), args.timeout) as client:
        if (status := sending.resume(args, client, key, **given)) is not None:
            return status
        free, deposit = client.balance(key.ss58), client.constant("Balances", "ExistentialDeposit")
        left = 0 if args.allow_death else deposit
        amount = free - fee(client, intent) - left
        if dest == key.ss58:
            raise ConfigError("the account would pay itself: give another DEST")
        if amount <= 0:
            message = f"{key.ss58} has {output.tao(free)} TAO: nothing remains after the fee and the deposit"
            raise ChainRefused(message, name="InsufficientBalance", action="fix: fund the signing account")
        effect = {"amount_rao": amount, "dest": dest, "balance_rao": free, "balance_after_rao": left}
        effect["dest_balance_rao"] = client.balance(dest)
        return sending.send(args, client, intent, key, f"transfer all, {output.tao(amount)} TAO, to {dest}", effect)
