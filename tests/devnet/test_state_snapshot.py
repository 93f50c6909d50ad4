"""A subnet read over RPC into a file and restored goes on to the bit like the chain it was taken from."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from forkkit import TEMPO, market, neuron_keys, served
from nodes import Node, RawClient
from subnetkit import epochs

from raytensor.chain import ss58
from raytensor.chain.reads.epochs import epoch_blocks
from raytensor.chain.reads.state import read_subnets
from raytensor.chain.reads.state_file import StateSnapshot, read_state, write_state
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey
from raytensor.devnet.chain import Chain
from raytensor.devnet.chain_spec import build_runtime
from raytensor.devnet.cli import devnet_main
from raytensor.devnet.fork.state import FORMER_SHARES, Fork
from raytensor.devnet.fork.tempos import play
from raytensor.devnet.pallet import Origin
from raytensor.devnet.persist import Disk
from raytensor.errors import ChainError, ConfigError, DataError

LEDGER = {"GenesisIssuance", "TotalMinted", "TotalBurned"}


@pytest.fixture(scope="module")
def source():
    """(kit, netuid, snapshot of the subnet, a later snapshot of all subnets)."""
    kit, netuid = market()
    with served(kit.chain) as endpoint, ChainClient(endpoint, timeout_s=60) as client:
        snapshot = read_subnets(client, [netuid])
        before = kit.module.SubnetEpochIndex[netuid]
        epochs(kit, netuid, 2)
        assert kit.module.SubnetEpochIndex[netuid] == before + 2
        earlier = read_subnets(client, [netuid], at=snapshot.block)
        with pytest.raises(ChainError, match="there is no subnet 99"):
            read_subnets(client, [99])
        yield kit, netuid, snapshot, earlier


def fork_of(snapshot: StateSnapshot, replaced: dict | None = None) -> Chain:
    return Chain(build_runtime(check=True), fork=Fork(snapshot, replaced))


def state_of(runtime) -> dict:
    module = runtime.SubtensorModule
    items = [item for item in runtime.store.items.values() if item.pallet == "SubtensorModule"]
    assert len(items) > 150 and module.SubnetworkN[2] > 16
    return {
        (item.name, key): item.codec.encode(value)
        for item in items
        if item.name not in LEDGER
        for key, value in item.current.items()
    }


def blocks_up_to(chain: Chain, number: int) -> None:
    while chain.best.number < number:
        chain.seal(chain.runtime.timestamp_ms + chain.runtime.block_time_ms)


def test_the_next_epochs_equal_those_of_the_original_chain(source):
    kit, netuid, snapshot, _ = source
    chain = fork_of(snapshot)
    assert chain.best.number == snapshot.block and chain.block_hash(snapshot.block - 1) is None
    blocks_up_to(chain, kit.runtime.block_number)
    restored, going = state_of(chain.runtime), state_of(kit.runtime)
    assert kit.module.Incentive[netuid].sum() > 0 and kit.module.RootAlphaDividendsPerSubnet[netuid, neuron_keys(1)[0]]
    about_netuid = {key: value for key, value in going.items() if _is_of(key, netuid)}
    assert len(about_netuid) > 150 and {key: restored.get(key) for key in about_netuid} == about_netuid
    pool = {key: value for key, value in going.items() if key[0] in ("SubnetTAO", "SubnetAlphaIn", "SubnetMovingPrice")}
    assert {key: restored[key] for key in pool} == pool, "the other subnets' pools take part in the emission"


def _is_of(key: tuple, netuid: int) -> bool:
    name, keys = key
    parts = keys if isinstance(keys, tuple) else (keys,)
    if name in ("AlphaV2", "Owner", "TransactionKeyLastBlock"):
        return False
    if name == "RootClaimable":
        return True
    return netuid in parts and not (name == "TotalHotkeyAlpha" and parts[0] == bytes(32))


def test_a_state_of_the_past_is_read_alike(source):
    _, _, snapshot, earlier = source
    assert earlier == snapshot and earlier.digest == snapshot.digest


def test_a_file_keeps_everything_and_refuses_a_changed_one(source, tmp_path):
    *_, snapshot, _ = source
    file = tmp_path / "subnet.state"
    write_state(snapshot, file)
    found = read_state(file)
    assert found.digest == snapshot.digest and Fork(found).digest == Fork(snapshot).digest
    assert state_of(fork_of(found).runtime) == state_of(fork_of(snapshot).runtime)
    data = file.read_bytes()
    file.write_bytes(data.replace(b'"SubtensorModule.Kappa"', b'"SubtensorModule.Kappb"'))
    with pytest.raises(DataError, match="damaged or changed"):
        read_state(file)
    file.write_bytes(data.replace(b"state/1", b"state/9"))
    with pytest.raises(DataError, match="this version reads"):
        read_state(file)
    file.write_bytes(b"\x00 not JSON")
    with pytest.raises(DataError, match="no snapshot"):
        read_state(file)
    with pytest.raises(ConfigError, match="raytensor snapshot"):
        read_state(tmp_path / "none")


def test_a_key_of_ours_takes_the_place_of_a_hotkey(source):
    _, netuid, snapshot, _ = source
    ours, theirs = bytes([7]) * 32, neuron_keys(16)[0]
    replaced = fork_of(snapshot, replaced={theirs: ours})
    module, plain = replaced.runtime.SubtensorModule, fork_of(snapshot).runtime.SubtensorModule
    uid = plain.Uids[netuid, theirs]
    assert module.Uids[netuid, ours] == uid and module.Uids[netuid, theirs] is None
    assert module.TotalHotkeyAlpha[ours, netuid] == plain.TotalHotkeyAlpha[theirs, netuid] > 0
    assert module.Owner[ours] == plain.Owner[theirs] and ours in module.OwnedHotkeys[module.Owner[ours]]
    assert [parent for _, parent in module.ParentKeys[neuron_keys(16)[1], netuid]] == [ours]
    blocks_up_to(replaced, snapshot.block + 12)
    assert module.Incentive[netuid].sum() > 0
    kit_call = replaced.runtime.call("SubtensorModule.set_weights", netuid, (5, 6), (1, 2), 0)
    replaced.runtime.dispatch(Origin.signed(ours), kit_call)
    assert module.Weights[netuid, uid].tolist() == [[5, 32768], [6, 65535]]
    assert replaced.genesis.hash != fork_of(snapshot).genesis.hash


def test_a_fork_on_disk_goes_on_and_refuses_another_snapshot(source, tmp_path):
    _, _, snapshot, _ = source
    disk = Disk(tmp_path)
    chain = Chain(build_runtime(), disk=disk, fork=Fork(snapshot))
    blocks_up_to(chain, snapshot.block + 11)
    expected = state_of(chain.runtime)
    disk.close()
    disk = Disk(tmp_path)
    again = Chain(build_runtime(), disk=disk)
    assert again.best.hash == chain.best.hash and again.genesis.hash == chain.genesis.hash
    assert again.finalized_number == snapshot.block + 11 and state_of(again.runtime) == expected
    with pytest.raises(ValueError, match="is final"):
        again.roll_back(1, keep=True)
    disk.close()
    disk = Disk(tmp_path)
    other = Fork(snapshot, {neuron_keys(1)[0]: bytes([7]) * 32})
    with pytest.raises(ConfigError, match="another snapshot"):
        Chain(build_runtime(), disk=disk, fork=other)
    disk.close()


def test_an_older_layout_is_understood(source):
    """Shares under their former names as U64F64 numbers, wider integers, an unknown item, another default."""
    _, netuid, snapshot, _ = source
    items = dict(snapshot.items)
    for old, new in FORMER_SHARES.items():
        shares = items.pop(new)
        entries = [(keys, {"bits": (share["mantissa"] << 64) // 10**18}) for keys, share in shares.entries]
        items[old] = replace(shares, entries=entries, default={"bits": 0})
    items["SubtensorModule.Gone"] = items["SubtensorModule.Kappa"]
    items["SubtensorModule.Rho"] = replace(items["SubtensorModule.Rho"], default=11, entries=[])
    fork = Fork(replace(snapshot, items=items, spec_version=400))
    chain, plain = Chain(build_runtime(check=True), fork=fork), fork_of(snapshot)
    assert fork.not_restored == ["SubtensorModule.Gone"]
    module, expected = chain.runtime.SubtensorModule, plain.runtime.SubtensorModule
    assert module.Rho[netuid] == 11
    for hotkey in neuron_keys(4):
        owner = module.Owner[hotkey]
        assert module.stake_of(hotkey, owner, netuid) == pytest.approx(expected.stake_of(hotkey, owner, netuid), abs=1)
    for one in (chain, plain):
        blocks_up_to(one, snapshot.block + 12)
    assert module.Emission[netuid].tolist() == expected.Emission[netuid].tolist()
    del items["SubtensorModule.LastEpochBlock"]
    older = Chain(build_runtime(), fork=Fork(replace(snapshot, items=items)))
    _, upcoming = epoch_blocks({}, netuid, TEMPO, snapshot.block)
    blocks_up_to(older, upcoming - 1)
    assert older.runtime.SubtensorModule.LastMechansimStepBlock[netuid] < snapshot.block
    blocks_up_to(older, upcoming)
    assert older.runtime.SubtensorModule.LastMechansimStepBlock[netuid] == upcoming
    broken = replace(items["SubtensorModule.Kappa"], entries=[((netuid,), "many")])
    with pytest.raises(ConfigError, match=r"SubtensorModule.Kappa of the snapshot .spec 400. does not fit"):
        fork_of(replace(snapshot, items=items | {"SubtensorModule.Kappa": broken}, spec_version=400))


def earned_by_blocks(
    snapshot: StateSnapshot, netuid: int, num_tempos: int, change=lambda module: None
) -> dict[str, int]:
    """What `play` says, from a chain of blocks: alpha that was added, and root's dividends of each epoch."""
    chain = fork_of(snapshot)
    module = chain.runtime.SubtensorModule
    change(module)
    held = dict(module.TotalHotkeyAlpha.items())
    claims: dict[bytes, int] = {}
    for _ in range(num_tempos):
        index = module.SubnetEpochIndex[netuid]
        while module.SubnetEpochIndex[netuid] == index:
            blocks_up_to(chain, chain.best.number + 1)
        for hotkey, amount in module.RootAlphaDividendsPerSubnet.items(netuid):
            claims[hotkey] = claims.get(hotkey, 0) + amount
        updated = module.LastUpdate[netuid].copy()
        updated[list(module.Weights.keys(netuid))] += np.uint64(TEMPO)
        module.LastUpdate[netuid] = updated
    grown = {key: alpha - held.get(key, 0) for key, alpha in module.TotalHotkeyAlpha.items() if key[1] == netuid}
    earned = {hotkey: amount + claims.get(hotkey, 0) for (hotkey, _), amount in grown.items()}
    return {ss58.encode(hotkey): amount for hotkey, amount in earned.items() if amount}


def test_tempos_pay_what_a_chain_of_blocks_pays(source, tmp_path):
    _, netuid, snapshot, _ = source
    miner, weights = snapshot.neurons(netuid)[6], tmp_path / "weights.json"
    weights.write_text(json.dumps({miner: 1}))
    found = play(Fork(snapshot), netuid, ["set.kappa=0.9", "set.yuma3=false", f"set.weights.uid:1={weights}"], 3)

    def change(module) -> None:
        module.Kappa[netuid], module.Yuma3On[netuid] = 58981, False
        module.Weights[netuid, 1] = np.array([[6, 65535]], np.uint16)
        module.LastUpdate[netuid] = np.where(np.arange(17) == 1, np.uint64(snapshot.block), module.LastUpdate[netuid])

    assert found.before == earned_by_blocks(snapshot, netuid, 3)
    assert found.after == earned_by_blocks(snapshot, netuid, 3, change)
    assert found.after[miner] > found.before[miner] > 0 and found.rows()[0]["change_rao"] != 0
    with pytest.raises(ConfigError, match="not while tempos are played"):
        play(Fork(snapshot), netuid, ["set.emission=5"], 1)


def test_a_changed_stake_counts_in_consensus(source):
    _, netuid, snapshot, _ = source
    found = play(Fork(snapshot), netuid, ["set.stake.uid:4=5000alpha"], 2)
    (row,) = [row for row in found.rows() if row["uid"] == 4]
    assert row["after_rao"] > 2 * row["before_rao"] > 0


def test_the_commands_say_what_is_wrong_and_print_who_earns(source, tmp_path, capsys):
    _, netuid, snapshot, _ = source
    file = tmp_path / "subnet.state"
    write_state(snapshot, file)
    assert devnet_main(["--from", str(file), "--tempos", "1", "--json", "set.kappa=0.9"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["num_tempos"] == 1 and found["neurons"][0]["hotkey"].startswith("5")
    assert devnet_main(["--from", str(file), "--tempos", "1", "--top", "2"]) == 0
    printed = capsys.readouterr().out
    assert f"subnet {netuid}, 1 tempos" in printed and "more; --top" in printed and "total earned" in printed
    for wrong, message in (
        (["--tempos", "1"], "need --from FILE"),
        (["--from", str(file), "set.kappa=1"], "changes need --tempos"),
        (["--from", str(file), "--tempos", "1", "--netuid", "7"], "name one subnet with --netuid"),
        (["--from", str(file), "--tempos", "1", "--key", "uid:99=//Miner"], "has 17 neurons"),
        (["--from", str(file), "--tempos", "1", "--key", "uid:1"], "write WHO=KEY"),
        (["--from", str(file), "--tempos", "1", "--key", "uid:1=//A", "--key", "uid:2=//A"], "same key"),
        (["--fork", "ws://127.0.0.1:1"], "name the subnet with --netuid"),
    ):
        assert devnet_main(wrong) == 2
        assert message in capsys.readouterr().err


def test_a_node_serves_a_fork_with_our_key(source, tmp_path):
    _, netuid, snapshot, _ = source
    file, miner = tmp_path / "subnet.state", DevKey("//OurMiner")
    write_state(snapshot, file)
    node = Node("--from", str(file), "--block-time", "manual", "--key", "uid:6=//OurMiner")
    with ChainClient(node.endpoint, timeout_s=60) as client:
        assert client.head().number == snapshot.block == client.finalized().number
        assert client.query("SubtensorModule", "Uids", [netuid, miner.ss58]) == 6
        raw = RawClient(node.endpoint)
        raw.call("dev_newBlock", [{"count": TEMPO + 1}])
        raw.close()
        assert client.head().number == snapshot.block + TEMPO + 1
        again = read_subnets(client, [netuid])
    node.stop()
    assert again.neurons(netuid)[6] == miner.ss58
    assert again.value("SubtensorModule.TotalHotkeyAlpha", miner.ss58, netuid) > snapshot.value(
        "SubtensorModule.TotalHotkeyAlpha", snapshot.neurons(netuid)[6], netuid
    )
