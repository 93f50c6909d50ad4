"""docs/devnet_coverage.md is what its command gives: needs an environment with bittensor 11."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from nodes import ROOT

PYTHON = os.environ.get("RAYTENSOR_BITTENSOR_PYTHON", "")
JOB = [sys.executable, "jobs/devnet_coverage.py"]


@pytest.mark.skipif(not PYTHON, reason="RAYTENSOR_BITTENSOR_PYTHON names no interpreter that has bittensor 11")
def test_the_table_of_what_is_there_is_up_to_date():
    ran = subprocess.run([*JOB, "--python", PYTHON, "--check"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, f"run `python jobs/devnet_coverage.py --python {PYTHON}`\n{ran.stdout}{ran.stderr}"


def test_an_interpreter_without_bittensor_is_refused():
    ran = subprocess.run([*JOB, "--python", "/bin/false"], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 1 and "/bin/false has no bittensor 11" in ran.stderr
