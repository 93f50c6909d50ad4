"""The `raytensor replay` command: the weights of an evidence log, made again.

In: a log, or a folder with logs. Out: whether they are the same to the bit, and the first difference if not; exit
status 0 or 1.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from raytensor.arguments import Parser, integer
from raytensor.errors import ConfigError
from raytensor.validators.evidence_log import Replay, replay
from raytensor.validators.segments import log_of

DESCRIPTION = """Recomputes the weights of an evidence log, with the mechanism and the settings in the log, and compares
them with the logged weights, over all segments. Equal means equal to the bit. Prints the first difference, and exits
with status 1 if there is one."""
EXAMPLES = """\
  raytensor replay runs/demo/evidence                    every log of a run
  raytensor replay validator/netuid2/5F.../evidence.jsonl --until 40
  raytensor replay runs/demo/evidence --json             one object a log, weights included
"""
OTHERS = ("events.jsonl", "audit.jsonl")  # what else lies in a job's folder


def replay_main(argv: Sequence[str]) -> int:
    """`raytensor replay ...`: returns the exit status."""
    parser = Parser("raytensor replay", description=DESCRIPTION, examples=EXAMPLES)
    parser.add_argument("log", type=Path, help="an evidence log, or a folder in which logs (*.jsonl) are looked for")
    parser.add_argument("--until", type=integer(0), metavar="ROUND", help="stop after this round")
    parser.add_argument("--json", action="store_true", help="print one JSON object a log instead of text")
    args = parser.parse_args(argv)
    logs = [args.log]
    if args.log.is_dir():
        logs = sorted({log_of(path) for path in args.log.rglob("*.jsonl") if path.name not in OTHERS})
    if not logs:
        raise ConfigError(f"{args.log} holds no evidence log (*.jsonl)")
    same = True
    for path in logs:
        result = replay(path, until=args.until)
        same = same and not result.difference
        print(_as_json(path, result) if args.json else _as_text(path, result))
    return 0 if same else 1


def _as_json(path: Path, result: Replay) -> str:
    facts = {"log": str(path)} | {
        name: getattr(result, name) for name in ("netuid", "validator", "mechanism", "rounds")
    }
    facts |= {"last_round": result.state.round, "weights_checked": result.weights_checked}
    facts |= {"equal": not result.difference, "difference": result.difference, "weights": result.weights}
    return json.dumps(facts)


def _as_text(path: Path, result: Replay) -> str:
    head = f"{path}\n  subnet {result.netuid}, validator {result.validator}, {result.mechanism}\n"
    head += f"  {result.rounds} rounds to round {result.state.round}: "
    if result.difference:
        return head + f"DIFFERENT\n  {result.difference}"
    lines = [head + f"{result.weights_checked} sets of weights, all equal to the bit"]
    best = sorted(result.weights.items(), key=lambda pair: (-pair[1], pair[0]))
    lines += [f"    {hotkey}  {value:.6f}" for hotkey, value in best[:10]]
    if len(best) > 10:
        lines.append(f"    and {len(best) - 10} more")
    return "\n".join(lines)
