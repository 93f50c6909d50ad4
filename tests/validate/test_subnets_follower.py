"""One connection that follows many subnets: clocks, metagraphs, commitments; a missing subnet affects no other."""

from __future__ import annotations

import re
import time
from contextlib import ExitStack

import bittensor_core
import netkit
import pytest
import ray

from raytensor import cli
from raytensor.chain.intents import SetCommitment
from raytensor.chain.reads.commitments import digest_of
from raytensor.chain.reads.follower import Follower, Reads
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey, WalletKey, write_key
from raytensor.errors import ConfigError
from raytensor.jobs.hotkeys import all_uids, registrations
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


def test_subnets_that_do_not_exist_and_hotkeys_that_are_not_registered(net, tmp_path):
    (netuid,), (here, there) = net.netuids, net.validators
    stranger, unknown = DevKey("//validate//stranger"), WalletKey("my w", "hot", str(tmp_path))
    write_key(unknown, bittensor_core.Keypair.create_from_uri("//validate//unknown"))
    known, both = {"w/a": here, "w/c": there}, {"w/a": here, "w/b": stranger}
    with ChainClient(net.endpoint, 20.0) as client:
        places = [(netuid, key.ss58) for key in (here, there)]
        uids = {place: client.query("SubtensorModule", "Uids", list(place)) for place in places}

    def look(refs_of):
        return registrations([net.endpoint], 20.0, refs_of, net.endpoint)

    def refused(refs_of, call=look):
        with pytest.raises(ConfigError) as error:
            call(refs_of)
        return re.sub(r"--max-burn [\d.]+", "--max-burn X", str(error.value))  # the price falls with each block

    assert look({netuid: known}).uids == uids and look({netuid: known}).missing == []
    found = look({netuid: both})
    assert set(found.uids) == {(netuid, here.ss58)}, "a validator starts with those that are registered"
    ((what, fix),) = found.missing
    assert what == f"hotkey w/b ({stranger.ss58}) is not registered on subnet {netuid}"
    start = f"raytensor register --netuid {netuid}"
    assert re.fullmatch(rf"{start} --hotkey {stranger.ss58} -n {net.endpoint} --max-burn [\d.]+", fix)
    fix = re.sub(r"[\d.]+$", "X", fix)
    assert refused({netuid: {"w/b": stranger}}) == f"hotkeys: {what}\n  fix: {fix}"
    two = refused({netuid: {"w/b": stranger, "x/y": unknown}})
    assert f"{what}, and 1 more like it\n  fix: {fix}\n       {start} -w 'my w' -H hot --wallet.path {tmp_path}" in two
    everyone = refused(both, lambda refs: all_uids([net.endpoint], 20.0, [netuid], refs, net.endpoint))
    assert everyone == f"hotkeys: {what}\n  fix: {fix}", "a miner needs all of them"
    text = refused({netuid: both, 77: both, 78: both})
    assert text.startswith(f"netuids=[77, 78]: no such subnet on {net.endpoint} at block ")
    assert f"which has 1, {netuid}\n  fix: " in text and f"raytensor subnets create -n {net.endpoint}" in text


def test_a_dry_run_and_a_start_refuse_what_is_not_on_the_chain(net, tmp_path, capsys):
    common = [f"chain.network={net.endpoint}", f"paths.runs={tmp_path / 'runs'}", f"paths.cache={net.cache}"]
    missing, stranger = ["netuids=[77]", "hotkeys=[//Alice]"], [f"netuids={net.netuids}", "hotkeys=[//Alice//x]"]
    before = ray.is_initialized()  # by another test
    for more in ([], ["dry_run=true"]):
        for settings, what in ((missing, "netuids=[77]: no such subnet"), (stranger, "not registered on subnet")):
            assert cli.main(["validate", *common, *settings, *more]) == 2
            assert what in capsys.readouterr().err
    assert ray.is_initialized() == before and not list(tmp_path.glob("runs/*"))
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
