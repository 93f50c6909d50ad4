"""The newest checkpoint is damaged, cut off or half written: one line says so, and the training goes on from an older
one.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_train_job import ROOT, environment, settings

from raytensor.training import loop
from raytensor.training.ranks import alone

KEPT = ["step-0000025", "step-0000030"]


def run(cfg, folder: Path) -> tuple[dict[int, float], list[str]]:
    """Losses by step, and what was told."""
    found: dict[int, float] = {}
    told: list[str] = []
    loop.run(cfg, alone(), folder, lambda progress: found.update({progress.step: progress.loss}), told.append)
    return found, told


def names(points: Path) -> list[str]:
    return sorted(path.name for path in points.iterdir())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(folder of a run of 30 steps with its checkpoints of 25 and 30, losses of the steps 35 and 40 that follow)."""
    place = tmp_path_factory.mktemp("whole")
    cfg = settings(place, schedule="constant")
    run(cfg, place / "run")
    shutil.copytree(place / "run", place / "on")
    cfg.training.steps = 40
    rest, told = run(cfg, place / "on")
    assert list(rest) == [35, 40] and told == [] and names(place / "run" / "checkpoints") == KEPT
    return place / "run", rest


def cut(point: Path) -> str:
    file = point / "model.safetensors"
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[: size // 2])
    return f"model.safetensors is damaged: it has {size // 2} bytes of the {size} that were written"


def flip(point: Path) -> str:
    file = point / "optimizer.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)
    return "optimizer.safetensors is damaged: its hash is not the one that was written"


def remove(point: Path) -> str:
    (point / "optimizer.safetensors").unlink()
    return "optimizer.safetensors is missing: the part of one of the 1 ranks that wrote it"


def empty(point: Path) -> str:
    (point / "engine.json").write_text("")
    return "engine.json is damaged: JSONDecodeError('Expecting value: line 1 column 1 (char 0)')"


@pytest.mark.parametrize("damage", [cut, flip, remove, empty])
def test_an_older_checkpoint_takes_its_place(whole, tmp_path, damage):
    made, rest = whole
    points = tmp_path / "run" / "checkpoints"
    shutil.copytree(made, tmp_path / "run")
    why = damage(points / KEPT[-1])
    cfg = settings(tmp_path, schedule="constant", steps=40)
    found, told = run(cfg, tmp_path / "run")
    assert told == [f"the checkpoint {points / KEPT[-1]} can't be loaded: {why}; continuing from step-0000025"]
    assert list(found) == [30, 35, 40] and {step: found[step] for step in rest} == rest  # bit for bit
    assert names(points) == ["damaged-step-0000030", "step-0000035", "step-0000040"]


def test_when_none_is_whole_it_is_refused_and_nothing_is_touched(whole, tmp_path):
    made, _ = whole
    points = tmp_path / "run" / "checkpoints"
    shutil.copytree(made, tmp_path / "run")
    reasons = [
        f"the checkpoint {points / name} can't be loaded: {damage(points / name)}"
        for name, damage in zip(reversed(KEPT), (remove, cut), strict=True)
    ]
    with pytest.raises(loop.CannotResume) as caught:
        run(settings(tmp_path, schedule="constant", steps=40), tmp_path / "run")
    fix = "put back a copy of one of them, or begin anew under another name"
    assert str(caught.value) == f"no checkpoint is whole: {reasons[0]}; {reasons[1]}. Fix: {fix}"
    assert names(points) == KEPT


CHILD = """
import sys
from pathlib import Path
from test_train_job import settings
from raytensor.training import loop
from raytensor.training.ranks import alone
place = Path(sys.argv[1])
cfg = settings(place, schedule="constant", checkpoint_every=1, model="5M", steps=300)
loop.run(cfg, alone(), place / "run", lambda progress: None)
"""


def test_kill_9_in_the_middle_of_a_write(tmp_path):
    """What was being written is never taken for a checkpoint; the one before it is whole."""
    points = tmp_path / "run" / "checkpoints"
    env = environment() | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'training'}"}
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], env=env)
    try:
        end, half = time.monotonic() + 120, False
        while not half and time.monotonic() < end and child.poll() is None:
            if list(points.glob(".step-*/*.safetensors")) and list(points.glob("step-*")):
                child.send_signal(signal.SIGSTOP)  # looked at again while nothing moves: the write may be over by now
                torn = [path for path in points.glob(".step-*") if not (path / "engine.json").exists()]
                half = any(list(path.glob("*.safetensors")) for path in torn)
                child.send_signal(signal.SIGCONT if not half else signal.SIGSTOP)
            time.sleep(0.001)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait(timeout=60)
    (torn,) = points.glob(".step-*")
    assert half and not (torn / "engine.json").exists()
    newest = max(int(path.name[5:]) for path in points.glob("step-*"))
    assert torn.name.startswith(f".step-{newest + 1:07d}-")
    cfg = settings(tmp_path, schedule="constant", checkpoint_every=1, log_every=1, model="5M", steps=newest + 2)
    found, told = run(cfg, tmp_path / "run")
    assert list(found) == [newest + 1, newest + 2] and told == []
    assert names(points) == [f"step-{newest + 1:07d}", f"step-{newest + 2:07d}"]  # what was torn is gone as well
