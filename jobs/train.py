"""The training job: the same as `raytensor train`, for `ray job submit --working-dir . -- python jobs/train.py ...`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from raytensor.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
