"""A validator that is killed: plays rounds for ever, log first, board after, and prints the number of each."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import evidencekit

if __name__ == "__main__":
    folder, first = Path(sys.argv[1]), int(sys.argv[2])
    board, log = evidencekit.open_validator(folder)
    assert board.state.round + 1 == first
    for number in range(first, 10**6):
        evidence = evidencekit.evidence(number)
        log.append(evidence)
        board.update(evidence)
        log.append_weights(number, board.weights())
        if number % 5 == 0:
            board.save(folder / "board.json", saved_at=time.time())
        print(number, flush=True)
