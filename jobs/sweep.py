"""The sweep job: the same as `raytensor sweep`, for `ray job submit --working-dir . -- python jobs/sweep.py ...`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from raytensor.cli import main

if __name__ == "__main__":
    sys.exit(main(["sweep", *sys.argv[1:]]))
