"""`raytensor report`: write the report of a run folder again."""

from collections.abc import Sequence
from pathlib import Path

from raytensor.arguments import Parser
from raytensor.telemetry.report import write_report

ABOUT = """\
Writes report.html of a run folder again, from its events, with neurons.csv, rounds.csv and mechanism.csv beside it.
The run may be finished, stopped, killed or still running.
"""
EXAMPLES = """\
  raytensor report runs/demo
  raytensor report runs/*            every run
"""


def report_main(argv: Sequence[str]) -> int:
    """`raytensor report FOLDER...`: print the path of each report. Returns the exit status."""
    parser = Parser("raytensor report", description=ABOUT, examples=EXAMPLES)
    parser.add_argument("folders", metavar="FOLDER", nargs="+", type=Path, help="a run folder, <paths.runs>/<name>")
    for folder in parser.parse_args(list(argv)).folders:
        print(write_report(folder))
    return 0
