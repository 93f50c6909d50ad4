"""The child process that runs wandb for a tracker: `python -m raytensor.telemetry.wandb_child`.

In: lines of JSON on standard input: first {project, mode, name, dir, config}, then {metrics, step} each; the end of
the input ends the wandb run. Out: wandb's own files under `dir`. Catches no errors: the parent reads the exit status
and the traceback on standard error, and no run depends on this process.
"""

import json
import os
import sys
import threading
from typing import Any

FINISH_S = 60.0  # after the end of the input: without a network it must not outlive a killed run for long


def main() -> None:
    head = json.loads(sys.stdin.readline())
    import wandb  # an optional package

    off = ("disable_git", "disable_code", "disable_job_creation", "x_disable_stats", "x_disable_machine_info", "silent")
    switches: dict[str, Any] = dict.fromkeys(off, True) | {"x_save_requirements": False}
    settings = wandb.Settings(console="off", init_timeout=30, **switches)
    run = wandb.init(settings=settings, **head)  # project, name, dir, mode, config
    for line in sys.stdin:
        body = json.loads(line)
        run.log(body["metrics"], step=body["step"])
    overtime = threading.Timer(FINISH_S, os._exit, args=(1,))
    overtime.daemon = True
    overtime.start()
    run.finish()


if __name__ == "__main__":
    main()
