"""The command line of the `mine` job. Its work is in work.py, which imports Ray and torch."""

from collections.abc import Sequence

from raytensor import config

HELP = """usage: raytensor mine [--json] [group=choice] [key=value] ...

Mines with your own hotkeys on any subnets: trains a model for each, serves it by signed HTTP, and publishes the address
on the chain, where validators find it. It runs until Ctrl-C. The same name continues from the newest checkpoints, also
after a crash and with another number of hosts. Only hotkeys are read, never a coldkey; they must be registered
(raytensor register).

The view shows each hotkey's rank, incentive, emission of the last tempo, immunity, and after how many registrations it
would be replaced. A lost registration, a hotkey near to being replaced, an axon that is not the address served, an
address that can't be reached and a silent chain raise alarms, as in `raytensor validate`.

examples:
  raytensor mine netuids=[1] hotkeys=[mywallet/hot1] dry_run=true     check everything, print what would run, stop
  raytensor mine netuids=[1] hotkeys=[mywallet/hot1,mywallet/hot2] miners.wire.ip=203.0.113.7
  raytensor mine netuids=[1] hotkeys=[w/h] training=false             serve the newest checkpoint only
  raytensor mine netuids=[1] hotkeys=[w/h] "miners.profiles=[{model: 124M, gpus_per_rank: 1, precision: bf16}]"
  raytensor mine netuids=[1] hotkeys=[//Alice] chain.network=ws://127.0.0.1:9944 miners.wire.ip=127.0.0.2
"""


def mine_main(argv: Sequence[str]) -> int:
    """`raytensor mine ...`: returns the exit status."""
    if config.asks_for_help(argv):
        print(config.help_page("mine", HELP, argv), end="")
        return 0
    from raytensor.jobs.mine import work  # imports Ray and torch, which `--help` does not need

    return work.main(argv)
