"""Submits the training of one model from a checkout: the same as `raytensor train`.

    ray job submit --working-dir . -- python jobs/train.py cluster=laptop paths.runs=/shared/runs ...

Where RayTensor is installed on the nodes: `ray job submit -- raytensor train ...`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from raytensor.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
