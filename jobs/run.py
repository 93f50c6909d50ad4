"""Submits a whole network from a checkout: the same as `raytensor run`.

    ray job submit --working-dir . -- python jobs/run.py cluster=laptop paths.runs=/shared/runs ...

Where RayTensor is installed on the nodes: `ray job submit -- raytensor run ...`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from raytensor.cli import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
