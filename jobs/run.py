"""The whole-network job: the same as `raytensor run`, for `ray job submit --working-dir . -- python jobs/run.py ...`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from raytensor.cli import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
