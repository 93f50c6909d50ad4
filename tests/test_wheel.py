"""The wheel works from any folder: it brings the configuration files, and the command finds them."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_a_built_wheel_runs_from_another_folder(tmp_path):
    """`python -m build` makes a wheel; installed without the checkout, `raytensor` finds its configuration."""
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT],
        check=True,
        capture_output=True,
        timeout=300,
    )
    (wheel,) = tmp_path.glob("raytensor-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {path.relative_to(ROOT / "conf").as_posix() for path in (ROOT / "conf").rglob("*.yaml")}
    assert {name.removeprefix("raytensor/_conf/") for name in names if name.startswith("raytensor/_conf/")} == shipped
    assert not [name for name in names if name.startswith(("tests/", "jobs/", "docs/"))]
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", site, wheel]
    subprocess.run(pip, check=True, capture_output=True, timeout=300)
    environment = os.environ | {"PYTHONPATH": str(site), "RAY_AUTH_MODE": "disabled"}
    where = subprocess.run(
        [sys.executable, "-c", "import raytensor.config as c; print(c.conf_dir())"],
        cwd=elsewhere,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert Path(where.stdout.strip()) == site / "raytensor" / "_conf"
    command = [site / "bin" / "raytensor", "run", "experiment=cheats", "dry_run=true"]
    answer = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stderr
    assert "num_miners: 10" in answer.stdout
