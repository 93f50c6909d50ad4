"""A whole `raytensor validate` whose disk is full for a while: it goes on, it says so, and its weights go on later."""

from contextlib import ExitStack

import netkit
from operatorkit import Operator, facts_of, messages


def test_a_full_disk_is_told_ends_nothing_and_weights_go_on_when_it_has_space(tmp_path, small_disk, joining):
    alarms = tmp_path / "alarms.jsonl"

    def sentences():
        told = messages(alarms.read_text()) if alarms.exists() else []
        return [facts["sentence"] for message in told for facts in facts_of(message)]

    with ExitStack() as stack:
        net = netkit.start(tmp_path, stack, subnets=1, validators=1)
        job = Operator(
            net,
            small_disk.folder,
            f"netuids=[{net.netuids[0]}]",
            "backoff_s=1",
            "backoff_most_s=2",
            f"watch.command=\"sh -c 'cat >> {alarms}'\"",
            env=joining(),
        )
        stack.callback(lambda: job.process.poll() is None and job.process.kill())
        everyone = {(net.netuids[0], net.validators[0].ss58)}
        job.wait_for("weights", lambda: job.included() >= everyone)
        small_disk.fill()
        job.wait_for("alarm of the disk", lambda: any("files can't be written" in one for one in sentences()))
        since = max(event["block"] for event in job.events("receipt_seen") if event["block"])
        small_disk.free()
        job.wait_for("end of the alarm", lambda: any("files can be written again" in one for one in sentences()))
        job.wait_for("new weights", lambda: job.included(since) >= everyone)
        assert job.stop() == 130
