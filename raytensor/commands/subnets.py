"""`raytensor subnets`: the subnets of a chain, all at one block."""

import argparse
import re
from collections.abc import Sequence

from raytensor.chain.reads.epochs import epoch_blocks
from raytensor.chain.reads.quotes import prices
from raytensor.chain.rpc.client import ChainClient
from raytensor.commands import options, output, subnet_owner
from raytensor.errors import ChainError

PALLET = "SubtensorModule"
# key of the JSON -> storage item
_FIELDS = {
    "neurons": "SubnetworkN",
    "max_neurons": "MaxAllowedUids",
    "tempo": "Tempo",
    "burn_rao": "Burn",
    "commit_reveal": "CommitRevealWeightsEnabled",
    "weights_rate_limit": "WeightsSetRateLimit",
    "min_allowed_weights": "MinAllowedWeights",
    "weights_version_key": "WeightsVersionKey",
    "immunity_blocks": "ImmunityPeriod",
    "mechanisms": "MechanismCountCurrent",
    "owner": "SubnetOwner",
    "owner_hotkey": "SubnetOwnerHotkey",
    "started_block": "FirstEmissionBlockNumber",
    "last_epoch_block": "LastEpochBlock",
    "pending_epoch_block": "PendingEpochAt",
}
ABOUT = """\
Lists the subnets: registered neurons, price of a registration, price of alpha, whether weights are committed and
revealed, blocks until the next epoch. `raytensor metagraph` lists the neurons of one subnet.

With an action (create, start, set, show, trim, mechanisms) it does what a subnet's owner does; see
`raytensor subnets ACTION --help`.
"""
EXAMPLES = """\
  raytensor subnets
  raytensor subnets 1 18 64 --network finney
  raytensor subnets create -w alice -H owner --dry-run     what a subnet of your own costs
  raytensor subnets --json | jq '.subnets[] | {netuid, burn_rao}'
"""


def subnets_main(argv: Sequence[str]) -> int:
    """`raytensor subnets [NETUID ...]` or `raytensor subnets ACTION ...`. Returns the exit status."""
    if argv and re.fullmatch("[a-z]+", argv[0]):
        return subnet_owner.owner_main(argv)
    parser = options.parser("subnets", ABOUT, EXAMPLES)
    parser.add_argument("netuids", metavar="NETUID", type=options.netuid, nargs="*", help="only these subnets")
    options.add_output(parser)
    options.add_network(parser)
    return output.run("subnets", parser, argv, _subnets)


def _subnets(args: argparse.Namespace) -> None:
    with ChainClient(options.network(args), args.timeout) as client:
        head = client.head()
        there = sorted(n for n, yes in client.query_map(PALLET, "NetworksAdded", (), head.hash).items() if yes)
        if missing := sorted(set(args.netuids) - set(there)):
            raise ChainError(f"there is no subnet {', '.join(map(str, missing))} at block {head.number}")
        netuids = sorted(set(args.netuids)) or there
        fields = {key: name for key, name in _FIELDS.items() if client.runtime.has_storage(PALLET, name)}
        values = iter(client.query_many([(PALLET, name, [n]) for n in netuids for name in fields.values()], head.hash))
        price = prices(client, head.hash)
        rows = []
        for netuid in netuids:
            row = {"netuid": netuid, **{key: next(values) for key in fields}, "alpha_price_rao": price.get(netuid, 0)}
            stored = {name: row[key] for key, name in fields.items() if name in ("LastEpochBlock", "PendingEpochAt")}
            row.pop("pending_epoch_block", None)
            row["last_epoch_block"], upcoming = epoch_blocks(stored, netuid, row["tempo"], head.number)
            row["next_epoch_block"] = upcoming or None
            rows.append(row)
    if args.json:
        output.show_json({"block": head.number, "subnets": rows})
        return
    print(f"block {head.number}")
    cells = {
        "netuid": lambda r: r["netuid"],
        "neurons": lambda r: f"{r['neurons']}/{r['max_neurons']}",
        "tempo": lambda r: r["tempo"],
        "epoch in": lambda r: output.blocks_until(r["next_epoch_block"], head.number),
        "alpha, TAO": lambda r: output.tao(r["alpha_price_rao"]),
        "register, TAO": lambda r: output.tao(r["burn_rao"]),
        "commit-reveal": lambda r: "yes" if r["commit_reveal"] else "no",
        "started": lambda r: "yes" if r["started_block"] or not r["netuid"] else "no",
        "owner": lambda r: output.short(r["owner"]),
    }
    print(output.columns(rows, cells, left=(8,)))
