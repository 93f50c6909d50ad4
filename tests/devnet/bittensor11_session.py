"""What a founder, a miner and a validator do with bittensor 11's SDK, on an embedded chain; run by its own interpreter.

    python bittensor11_session.py ws://127.0.0.1:PORT

Out: one JSON object on standard output, step -> what the SDK returned. Imports nothing of RayTensor.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from types import SimpleNamespace

import bittensor as bt
from bittensor_core import Keypair
from websockets.sync.client import connect


def wallet(cold: str, hot: str) -> SimpleNamespace:
    coldkey, hotkey = Keypair.create_from_uri(cold), Keypair.create_from_uri(hot)
    return SimpleNamespace(coldkey=coldkey, coldkeypub=coldkey, hotkey=hotkey)


OWNER = wallet("//Alice", "//Alice//owner")
VALIDATOR = wallet("//Bob", "//Bob//validator")
MINER = wallet("//Charlie", "//Charlie//miner")
HOT = VALIDATOR.hotkey.ss58_address


def new_blocks(count: int) -> None:
    """The chain is driven ahead by its own RPC, so that no test waits for an epoch."""
    with connect(sys.argv[1]) as socket:
        socket.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "dev_newBlock", "params": [{"count": count}]}))
        assert "result" in json.loads(socket.recv())


def compact(length: int) -> bytes:
    assert length < 64
    return bytes([length << 2])


def commit_hash(hotkey: bytes, netuid: int, uids: list[int], values: list[int], salt: list[int]) -> str:
    """blake2_256(SCALE(hotkey, netuid, uids, values, salt, version_key 0)), written out."""
    data = hotkey + netuid.to_bytes(2, "little")
    for numbers in (uids, values, salt):
        data += compact(len(numbers)) + b"".join(number.to_bytes(2, "little") for number in numbers)
    return "0x" + hashlib.blake2b(data + bytes(8), digest_size=32).hexdigest()


async def session(client: bt.Client) -> dict:
    said: dict = {}

    async def do(step: str, intent, who, **options) -> None:
        result = await client.execute(intent, who, **options)
        assert result.success, f"{step}: {result.message}"
        said[step] = {"extrinsic": result.extrinsic_id, "shielded": bool((result.data or {}).get("shielded"))}

    async def root(call) -> None:
        result = await client.submit_call(bt.calls.Sudo.sudo(call=await client.compose(call)), OWNER)
        assert result.success, result.message

    async def stake(netuid: int, hotkey: str = HOT) -> int:
        position = await client.read(
            "stake", hotkey_ss58=hotkey, coldkey_ss58=VALIDATOR.coldkey.ss58_address, netuid=netuid
        )
        return position.rao

    dave = Keypair.create_from_uri("//Dave").ss58_address
    before = await client.balances.get(dave)
    await do("transfer", bt.Transfer(dest_ss58=dave, amount_tao=5), OWNER)
    said["received_rao"] = (await client.balances.get(dave)).rao - before.rao

    known = {subnet.netuid for subnet in await client.read("subnets")}
    await do("create", bt.RegisterSubnet(hotkey_ss58=OWNER.hotkey.ss58_address), OWNER)
    (netuid,) = {subnet.netuid for subnet in await client.read("subnets")} - known
    said["netuid"] = netuid
    await do("start", bt.StartCall(netuid=netuid), OWNER)
    await do("hyperparameter", bt.SetHyperparameter(netuid=netuid, name="max_burn", value=10**9), OWNER)
    said["max_burn"] = (await client.read("subnet_hyperparameters", netuid=netuid))["max_burn"]
    await root(bt.calls.AdminUtils.sudo_set_weights_set_rate_limit(netuid=netuid, weights_set_rate_limit=0))
    # No epoch, so that stake moves by nothing but these calls.
    await root(bt.calls.AdminUtils.sudo_set_tempo(netuid=netuid, tempo=50_400))

    for name, who in (("validator", VALIDATOR), ("miner", MINER)):
        # Its own connection: after a shielded call the SDK's nonce of the account is one behind.
        async with bt.Subtensor(sys.argv[1]) as apart:
            burned = bt.BurnedRegister(netuid=netuid, hotkey_ss58=who.hotkey.ss58_address)
            result = await apart.submit_shielded(burned, who)
        assert result.success, f"register {name}: {result.message}"
        said[f"register_{name}"] = await client.read("uid", netuid=netuid, hotkey_ss58=who.hotkey.ss58_address)

    await do("stake_add", bt.AddStake(hotkey_ss58=HOT, netuid=netuid, amount_tao=10), VALIDATOR)
    staked = await stake(netuid)
    limit = bt.AddStakeLimit(hotkey_ss58=HOT, netuid=netuid, amount_tao=1, limit_price_rao=10**12)
    await do("stake_add_limit", limit, VALIDATOR)
    said["limit_added"] = await stake(netuid) > staked
    staked = await stake(netuid)
    low = bt.AddStakeLimit(hotkey_ss58=HOT, netuid=netuid, amount_tao=1, limit_price_rao=1)
    refused = await client.execute(low, VALIDATOR)
    said["limit_refused"] = [refused.success, refused.message, await stake(netuid) == staked]
    await do("stake_add_root", bt.AddStake(hotkey_ss58=HOT, netuid=0, amount_tao=7), VALIDATOR)
    said["root_stake_rao"] = await stake(0)
    await do("stake_remove", bt.RemoveStake(hotkey_ss58=HOT, netuid=netuid, amount_alpha=2), VALIDATOR)
    said["removed_rao"] = staked - await stake(netuid)
    staked = await stake(netuid)
    limit = bt.RemoveStakeLimit(hotkey_ss58=HOT, netuid=netuid, amount_alpha=1, limit_price_rao=1)
    await do("stake_remove_limit", limit, VALIDATOR)
    said["removed_by_limit_rao"] = staked - await stake(netuid)
    other = OWNER.hotkey.ss58_address
    move = bt.MoveStake(
        origin_hotkey_ss58=HOT, origin_netuid=netuid, dest_hotkey_ss58=other, dest_netuid=netuid, amount_alpha=1
    )
    await do("stake_move", move, VALIDATOR)
    said["moved_rao"] = await stake(netuid, other)

    await do("serve", bt.ServeAxon(netuid=netuid, ip="203.0.113.7", port=8091), MINER)
    info = {"fields": [[{"Raw5": b"hello"}]]}
    result = await client.submit_call(
        bt.calls.Commitments.set_commitment(netuid=netuid, info=info), MINER, signer="hotkey"
    )
    assert result.success, f"commit: {result.message}"
    commitment = await client.read("commitment", netuid=netuid, hotkey_ss58=MINER.hotkey.ss58_address)
    said["commitment"] = str(getattr(commitment, "content", commitment))

    async def epoch_index() -> int:
        return await client.query(bt.storage.SubtensorModule.SubnetEpochIndex, [netuid])

    async def next_epoch() -> None:
        before = await epoch_index()
        while await epoch_index() == before:
            new_blocks(1)

    async def weights_now() -> dict:
        rows = await client.read("weights", netuid=netuid)
        return {str(uid): {str(k): v for k, v in row.items()} for uid, row in rows.items()}

    # Permits come with an epoch. A commit that was made right after one waits 50 blocks, several rounds of the beacon.
    await root(bt.calls.AdminUtils.sudo_set_tempo(netuid=netuid, tempo=50))
    await next_epoch()
    await next_epoch()
    miner, validator = said["register_miner"], said["register_validator"]
    await do("weights_timelocked", bt.SetWeights(netuid=netuid, uids=[miner], weights=[1.0]), VALIDATOR)
    said["pending_commits"] = len(await client.read("timelocked_weight_commits", netuid=netuid))
    new_blocks(110)
    said["pending_after_the_reveal_epoch"] = len(await client.read("timelocked_weight_commits", netuid=netuid))
    said["weights_after_timelock"] = await weights_now()

    await next_epoch()  # the commit and the early reveal below have the whole of one
    salt, uids, values = [7, 11, 13], [miner, validator], [65535, 32768]
    digest = commit_hash(bytes(VALIDATOR.hotkey.public_key), netuid, uids, values, salt)
    commit = bt.calls.SubtensorModule.commit_weights(netuid=netuid, commit_hash=digest)
    result = await client.submit_call(commit, VALIDATOR, signer="hotkey")
    assert result.success, f"commit by hash: {result.message}"
    reveal = bt.RevealWeights(netuid=netuid, uids=uids, weights=[1.0, 0.5], salt=salt)
    early = await client.execute(reveal, VALIDATOR)
    said["early_reveal"] = [early.success, early.message]
    await next_epoch()
    await do("weights_reveal", reveal, VALIDATOR)
    said["weights_by_hash"] = await weights_now()

    await root(bt.calls.AdminUtils.sudo_set_commit_reveal_weights_enabled(netuid=netuid, enabled=False))
    await do("weights_set", bt.SetWeights(netuid=netuid, uids=[miner], weights=[1.0]), VALIDATOR)
    said["weights"] = await weights_now()

    metagraph = await client.subnets.metagraph(netuid)
    said["metagraph"] = {neuron.hotkey: [neuron.uid, neuron.axon] for neuron in metagraph.neurons}
    return said


async def main() -> None:
    async with bt.Subtensor(sys.argv[1]) as client:
        print(json.dumps(await session(client)))


asyncio.run(main())
