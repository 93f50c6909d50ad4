"""The validators' job: the same as `raytensor validate`, for `ray job submit --working-dir . -- python jobs/validate.py ...`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from raytensor.cli import main

if __name__ == "__main__":
    sys.exit(main(["validate", *sys.argv[1:]]))
