"""Submits a sweep from a checkout: the same as `raytensor sweep`.

    ray job submit --working-dir . -- python jobs/sweep.py cluster=laptop paths.runs=/shared/runs ...

Where RayTensor is installed on the nodes: `ray job submit -- raytensor sweep ...`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from raytensor.cli import main

if __name__ == "__main__":
    sys.exit(main(["sweep", *sys.argv[1:]]))
