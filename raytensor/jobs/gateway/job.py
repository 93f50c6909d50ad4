"""The command line of the `gateway` job, and of its API keys. The job's work is in work.py."""

import argparse
from collections.abc import Sequence

from raytensor import config
from raytensor.arguments import Parser, integer
from raytensor.commands import output
from raytensor.config.gateway import GatewayConfig
from raytensor.jobs.gateway.keys import KeyFile

HELP = """usage: raytensor gateway [--json] [key=value] ...
       raytensor gateway keys add|list|remove ...

Serves an OpenAI-compatible API in front of the best miners of subnets: /v1/models, /v1/completions,
/v1/chat/completions (also as a stream), /metrics. Each subnet is a model named subnet-NETUID. Your hotkey signs the
requests to miners, who decide whom they serve: most require a validator permit. It listens on 127.0.0.1 and runs until
Ctrl-C.

Miners with more incentive and shorter times are asked first. One that fails is replaced by the next, one that is slow
gets a rival; the first that begins to answer gives the text. Callers need an API key, with quotas of its own;
`keys add` prints a new key once and stores its hash only.

examples:
  raytensor gateway keys add alice --tokens-per-day 100000
  raytensor gateway netuids=[1] hotkey=mywallet/myhotkey
  raytensor gateway netuids=[2] hotkey=//Alice chain.network=local asking.allow_local_addresses=true
  curl http://127.0.0.1:8080/v1/completions -H "Authorization: Bearer $KEY" \\
      -d '{"model": "subnet-1", "prompt": "The list is", "max_tokens": 24}'
"""
QUOTAS = ("requests_per_minute", "tokens_per_minute", "requests_per_day", "tokens_per_day")


def gateway_main(argv: Sequence[str]) -> int:
    """`raytensor gateway ...`: returns the exit status."""
    if argv and argv[0] == "keys":
        return output.run("gateway keys", _keys_parser(), argv[1:], _keys)
    if config.asks_for_help(argv):
        print(config.help_page("gateway", HELP, argv), end="")
        return 0
    from raytensor.jobs.gateway import work  # imports FastAPI and the chain client, which `--help` does not need

    return work.main(argv)


def _keys_parser() -> Parser:
    about = "Adds, lists and removes API keys of `raytensor gateway`. A running gateway sees the change at once."
    examples = "  raytensor gateway keys add alice --tokens-per-day 100000 --requests-per-minute 60\n"
    examples += "  raytensor gateway keys list\n  raytensor gateway keys remove alice\n"
    parser = Parser("raytensor gateway keys", description=about, examples=examples)
    to = parser.add_subparsers(dest="action", required=True, metavar="add|list|remove")
    add = to.add_parser("add", help="make a key, print it once")
    add.add_argument("name", metavar="NAME", help="whose key it is; usage is counted by it")
    for quota in QUOTAS:
        add.add_argument(f"--{quota.replace('_', '-')}", type=integer(1, 2**53), metavar="N", help="default: no limit")
    remove = to.add_parser("remove", help="remove a key")
    remove.add_argument("name", metavar="NAME", help="as given to add")
    for one in (add, remove, to.add_parser("list", help="names and quotas")):
        one.add_argument("--file", default=GatewayConfig().keys, metavar="FILE", help="setting `keys` of the gateway")
        one.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    return parser


def _keys(args: argparse.Namespace) -> None:
    file = KeyFile(args.file)
    if args.action == "add":
        key = file.add(args.name, **{quota: getattr(args, quota) for quota in QUOTAS})
        output.show(args, {"name": args.name, "key": key}, f"{key}\n(shown once; {file.path} has only its hash)")
    elif args.action == "remove":
        file.remove(args.name)
        output.show(args, {"removed": args.name}, f"removed {args.name}")
    else:
        rows = [{"name": one.name} | {quota: getattr(one, quota) for quota in QUOTAS} for one in file.names]
        cells = {"name": lambda row: row["name"]}
        cells |= {quota.replace("_", " "): lambda row, q=quota: row[q] or "no limit" for quota in QUOTAS}
        output.show(args, {"keys": rows}, output.columns(rows, cells))
