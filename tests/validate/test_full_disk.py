"""A whole `raytensor validate` whose disk is full for a while: it goes on, it says so, and its weights go on later."""

import os
import subprocess
from contextlib import ExitStack

import netkit
import pytest
from operatorkit import Operator, facts_of, messages


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 24 MiB in memory. Skipped where this user may mount none."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder):
    """Take all space of a file system. Returns the file that has it."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return filler


def test_a_full_disk_is_told_ends_nothing_and_weights_go_on_when_it_has_space(tmp_path, small_disk):
    alarms = tmp_path / "alarms.jsonl"

    def sentences():
        told = messages(alarms.read_text()) if alarms.exists() else []
        return [facts["sentence"] for message in told for facts in facts_of(message)]

    with ExitStack() as stack:
        net = netkit.start(tmp_path, stack, subnets=1, validators=1)
        job = Operator(
            net,
            small_disk,
            f"netuids=[{net.netuids[0]}]",
            "backoff_s=1",
            "backoff_most_s=2",
            f"watch.command=\"sh -c 'cat >> {alarms}'\"",
        )
        stack.callback(lambda: job.process.poll() is None and job.process.kill())
        everyone = {(net.netuids[0], net.validators[0].ss58)}
        job.wait_for("weights", lambda: job.included() >= everyone)
        filler = fill(small_disk)
        job.wait_for("alarm of the disk", lambda: any("files can't be written" in one for one in sentences()))
        since = max(event["block"] for event in job.events("receipt_seen") if event["block"])
        os.unlink(filler)
        job.wait_for("end of the alarm", lambda: any("files can be written again" in one for one in sentences()))
        job.wait_for("new weights", lambda: job.included(since) >= everyone)
        assert job.stop() == 130
