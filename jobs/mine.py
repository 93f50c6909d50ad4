"""Submits miners of your own hotkeys from a checkout: the same as `raytensor mine`.

    ray job submit --working-dir . -- python jobs/mine.py netuids=[1] hotkeys=[wallet/hotkey] ...

Where RayTensor is installed on the nodes: `ray job submit -- raytensor mine ...`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from raytensor.cli import main

if __name__ == "__main__":
    sys.exit(main(["mine", *sys.argv[1:]]))
