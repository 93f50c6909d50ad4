"""One connection that follows many subnets: clocks, metagraphs, commitments; a missing subnet affects no other."""

from __future__ import annotations

import time
from contextlib import ExitStack

import netkit
import pytest
import ray

from raytensor import cli
from raytensor.chain.intents import SetCommitment
from raytensor.chain.reads.commitments import digest_of
from raytensor.chain.reads.follower import Follower, Reads
from raytensor.chain.reads.preflight import unregistered
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey
from raytensor.errors import ConfigError
from raytensor.types import FileCommit

LIMIT_S = 180.0


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    with ExitStack() as stack:
        yield netkit.start(tmp_path_factory.mktemp("net"), stack, subnets=1)


def until(seen):
    end = time.monotonic() + LIMIT_S
    while not seen():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_many_subnets_over_one_connection(net):
    (netuid,), missing = net.netuids, 77
    digest, block = "ab" * 32, 0
    with ChainClient(net.endpoint, 20.0) as client:
        for n, text in enumerate((digest + " https://example.org/model", "somebody's nickname")):
            key = DevKey(f"//validate//0//miner//{n}")
            done, _ = client.send(SetCommitment(signer=key.ss58, netuid=netuid, text=text).call(), key.open())
            block = block or done
    follower = Follower(net.endpoint, [netuid, missing], Reads(2, 2, commitments="metagraph"))
    follower.start()
    try:
        until(lambda: follower.seen(netuid).metagraph is not None and follower.seen(missing).trouble)
        seen = follower.seen(netuid)
        assert f"no subnet {missing}" in follower.seen(missing).trouble and not seen.trouble
        assert seen.commits == {net.miners[netuid][0]: FileCommit(digest, block)}
        assert set(net.miners[netuid]) <= set(seen.metagraph.hotkeys)
        first = seen.metagraph.last_epoch_block
        until(lambda: follower.seen(netuid).metagraph.last_epoch_block > first)
        later = follower.seen(netuid)
        assert later.next_epoch == later.tick.block + later.tick.blocks_until_epoch and later.view.uid_of
        assert follower.silence == (0.0, "")
    finally:
        follower.close()


def test_subnets_that_do_not_exist_and_hotkeys_that_are_not_registered(net):
    (netuid,), (here, there) = net.netuids, net.validators
    stranger = DevKey("//validate//stranger")
    names = {here.ss58: "w/a", stranger.ss58: "w/b"}

    def refused(hotkeys_of):
        with pytest.raises(ConfigError) as error:
            unregistered([net.endpoint], 20.0, hotkeys_of)
        return str(error.value)

    assert unregistered([net.endpoint], 20.0, {netuid: {here.ss58: "w/a", there.ss58: "w/c"}}) == []
    ((what, fix),) = unregistered([net.endpoint], 20.0, {netuid: names})
    assert what == f"hotkey w/b ({stranger.ss58}) is not registered on subnet {netuid}"
    assert fix == f"raytensor register --netuid {netuid} --hotkey {stranger.ss58} -w WALLET --network {net.endpoint}"
    text = refused({netuid: names, 77: names, 78: names})
    assert text.startswith(f"netuids=[77, 78]: no such subnet on {net.endpoint} at block ")
    assert f"which has [1, {netuid}]\n" in text and f"btcli subnets create --network {net.endpoint}" in text
    text = refused({netuid: {stranger.ss58: "w/b"}})
    assert f"nothing can be validated: {what}\n  fix: {fix}" in text


def test_a_dry_run_and_a_start_refuse_what_is_not_on_the_chain(net, tmp_path, capsys):
    common = [f"chain.network={net.endpoint}", f"paths.runs={tmp_path / 'runs'}", f"paths.cache={net.cache}"]
    missing, stranger = ["netuids=[77]", "hotkeys=[//Alice]"], [f"netuids={net.netuids}", "hotkeys=[//Alice//x]"]
    for more in ([], ["dry_run=true"]):
        for settings, what in ((missing, "netuids=[77]: no such subnet"), (stranger, "not registered on subnet")):
            assert cli.main(["validate", *common, *settings, *more]) == 2
            assert what in capsys.readouterr().err
    assert not ray.is_initialized() and not list(tmp_path.glob("runs/*"))
    own = net.hotkeys.replace("]", ",//Alice//x]")
    assert cli.main(["validate", *common, f"netuids={net.netuids}", f"hotkeys={own}", "dry_run=true"]) == 0
    assert "# warning: hotkey //Alice//x (" in capsys.readouterr().out


@pytest.mark.parametrize(
    "field, digest",
    [
        ({"Raw64": "0x" + ("ab" * 32).encode().hex()}, "ab" * 32),
        ([{"Raw64": "cd" * 32}], "cd" * 32),
        ({"Raw70": "0x" + ("ab" * 32 + " where").encode().hex()}, "ab" * 32),
        ({"BlakeTwo256": "0x" + "ef" * 32}, "ef" * 32),
        ({"Raw66": "0x" + ("ab" * 33).encode().hex()}, None),
        ({"Raw5": "0x1234567890"}, None),
        ({"TimelockEncrypted": {"encrypted": "0x00", "reveal_round": 1}}, None),
        ("None", None),
    ],
)
def test_what_a_commitment_says(field, digest):
    assert digest_of(field) == digest
