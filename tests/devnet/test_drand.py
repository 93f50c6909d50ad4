"""The development beacon: pulses on the chain's clock, commits opened in their epoch, pulses from outside."""

from __future__ import annotations

import pytest
import sr25519
from signing import ALICE, prefixed
from subnetkit import BOB, CHARLIE, Kit, account

from raytensor.chain.writer.timelock import EpochSchedule, reveal_round, seal, weights_payload
from raytensor.devnet.beacon import development_beacon, sign, verify
from raytensor.devnet.chain import Chain
from raytensor.devnet.chain_spec import build_runtime
from raytensor.devnet.pallet import Origin
from raytensor.devnet.pallets.commitments import CommitmentInfo
from raytensor.devnet.pallets.drand import KEPT_PULSES
from raytensor.devnet.pool import PoolError

BEACON = development_beacon()
NOON_MS = 1_750_000_000_000
VALIDATOR, MINER = account(10), account(20)


def clocked(block_time_ms: int = 12_000) -> Kit:
    """A kit on a chain with a clock of these days: its first block has the time NOON_MS."""
    kit = Kit(check=False)
    kit.runtime = build_runtime(block_time_ms=block_time_ms, check=True)
    kit.module = kit.runtime.SubtensorModule
    kit.runtime.next_block(timestamp_ms=NOON_MS)
    return kit


def committed(kit: Kit, tempo: int) -> int:
    """A subnet with commit-reveal, a validator with a permit and a miner; returns the netuid."""
    netuid = kit.subnet(tempo=tempo)
    kit.neuron(netuid, BOB, VALIDATOR, stake_tao=100)
    kit.neuron(netuid, CHARLIE, MINER)
    kit.until(lambda: kit.module.ValidatorPermit[netuid][1])
    kit.admin("commit_reveal_weights_enabled", netuid, True)
    return netuid


def schedule(kit: Kit, netuid: int) -> EpochSchedule:
    module = kit.module
    items = (
        module.Tempo,
        module.LastEpochBlock,
        module.PendingEpochAt,
        module.SubnetEpochIndex,
        module.BlocksSinceLastStep,
    )
    return EpochSchedule(kit.runtime.block_number, *(item[netuid] for item in items))


def commit(kit: Kit, netuid: int, uids, values, *, hotkey: bytes = VALIDATOR, payload_of: bytes | None = None) -> int:
    """Commit in the next block, sealed as a client would; returns the reveal round."""
    drand, block_time_s = kit.runtime.Drand, kit.runtime.block_time_ms / 1000
    period = kit.module.RevealPeriodEpochs[netuid]
    wanted = reveal_round(BEACON, schedule(kit, netuid), period, kit.runtime.timestamp_ms / 1000, block_time_s)
    sealed = seal(weights_payload(payload_of or hotkey, uids, values, 0), wanted, drand.BeaconConfig.get().public_key)
    call = kit.call("commit_timelocked_mechanism_weights", netuid, 0, sealed, wanted, 4)
    assert kit.runtime.next_block([(Origin.signed(hotkey), call)]) == [None]
    return wanted


# --- pulses


def test_every_block_writes_the_pulses_that_were_out_a_block_before():
    kit = clocked()
    drand = kit.runtime.Drand
    newest = BEACON.round_at((NOON_MS - 12_000) / 1000)
    assert kit.events("NewPulse") == [((newest,),)], "the first block starts with the newest"
    assert (drand.OldestStoredRound.get(), drand.LastStoredRound.get()) == (newest, newest)
    kit.blocks()
    assert kit.events("NewPulse") == [(tuple(range(newest + 1, newest + 5)),)], "12 s are four rounds"
    pulse = drand.Pulses[newest + 4]
    assert (pulse.round, pulse.signature) == (newest + 4, sign(newest + 4))
    assert verify(BEACON.public_key, pulse.round, pulse.signature)
    assert not verify(BEACON.public_key, pulse.round + 1, pulse.signature)


def test_after_a_long_stop_at_most_fifty_pulses_a_block():
    kit = clocked()
    newest = kit.runtime.Drand.LastStoredRound.get()
    kit.runtime.next_block(timestamp_ms=NOON_MS + 200_000)
    assert kit.runtime.Drand.LastStoredRound.get() == newest + 50
    kit.runtime.next_block(timestamp_ms=NOON_MS + 203_000)
    assert kit.runtime.Drand.LastStoredRound.get() == newest + 68


def test_old_pulses_are_pruned_a_hundred_at_a_time():
    kit = clocked()
    drand = kit.runtime.Drand
    newest = drand.LastStoredRound.get()
    drand.OldestStoredRound.set(newest - KEPT_PULSES - 150)
    for expected in (newest - KEPT_PULSES - 50, newest - KEPT_PULSES + 50 - 50 + 8 + 1):
        kit.blocks()
        assert drand.OldestStoredRound.get() == expected


def test_clients_read_beacon_and_pulse_in_the_chains_own_layout():
    kit = clocked()
    drand = kit.runtime.Drand
    config = kit.runtime.codecs("BeaconConfiguration").encode(drand.BeaconConfig.get())
    assert config.startswith(b"\x81\x01" + BEACON.public_key + (3).to_bytes(4, "little"))
    newest = drand.LastStoredRound.get()
    raw = kit.runtime.store.read_raw(drand.Pulses.raw_key(newest))
    assert raw[:8] == newest.to_bytes(8, "little") and raw[8] == 32 << 2 and raw[41] == 48 << 2
    assert raw[42:] == sign(newest)


# --- timelocked weights


def row(kit: Kit, netuid: int) -> list[tuple[int, int]]:
    """The validator's weights as stored."""
    return [(int(uid), int(value)) for uid, value in kit.module.Weights[netuid, 1]]


def reveals(kit: Kit, netuid: int, limit: int) -> tuple[int, int]:
    """Blocks until the commit is opened; returns (block, epoch index after that block)."""
    kit.until(lambda: kit.events("TimelockedWeightsRevealed"), limit)
    assert kit.events("TimelockedWeightsRevealed") == [(netuid, VALIDATOR)]
    return kit.runtime.block_number, kit.module.SubnetEpochIndex[netuid]


def test_a_commit_is_opened_in_its_epoch_on_blocks_of_12_s():
    kit = clocked()
    netuid = committed(kit, tempo=20)
    wanted = commit(kit, netuid, [2], [65_535])
    module, epoch = kit.module, kit.module.SubnetEpochIndex[netuid]
    assert module.TimelockedWeightCommits[netuid, epoch][0][3] == wanted
    first = module.LastEpochBlock[netuid] + 20
    block, opened_in = reveals(kit, netuid, 60)
    assert opened_in == epoch + 1
    # The round is out 3 to 6 s before the third block after `first`, on the chain with the block after the next.
    assert block == first + 5 and wanted <= kit.runtime.Drand.LastStoredRound.get()
    assert row(kit, netuid) == [(2, 65_535)]
    assert not list(module.TimelockedWeightCommits.keys(netuid))
    assert not module.Incentive[netuid].any(), "the epoch that ended its own came before"
    kit.until(lambda: module.SubnetEpochIndex[netuid] == epoch + 2)
    assert module.Incentive[netuid][2] == 65_535


def test_at_fast_blocks_the_epoch_that_opens_a_commit_already_counts_it():
    kit = clocked(250)
    netuid = committed(kit, tempo=40)
    kit.until(lambda: kit.module.BlocksSinceLastStep[netuid] == 5)
    commit(kit, netuid, [2], [65_535])
    due = kit.module.LastEpochBlock[netuid] + 40
    block, _ = reveals(kit, netuid, 60)
    assert block == due and kit.module.LastEpochBlock[netuid] == due
    assert kit.module.Incentive[netuid][2] == 65_535


def test_epochs_shorter_than_a_round_still_open_their_commits():
    kit = clocked(250)
    netuid = committed(kit, tempo=10)
    epoch = kit.module.SubnetEpochIndex[netuid]
    commit(kit, netuid, [2], [65_535])
    _, opened_in = reveals(kit, netuid, 25)
    assert opened_in == epoch + 1


def test_what_can_not_be_opened_or_set_is_dropped_without_an_event():
    kit = clocked()
    netuid = committed(kit, tempo=20)
    wanted = commit(kit, netuid, [2], [1], payload_of=MINER)  # somebody else's payload
    call = kit.call("commit_timelocked_mechanism_weights", netuid, 0, b"\1" * 300, wanted, 4)
    uid_out_of_range = seal(weights_payload(VALIDATOR, [99], [1], 0), wanted, BEACON.public_key)
    other = kit.call("commit_timelocked_mechanism_weights", netuid, 0, uid_out_of_range, wanted, 4)
    assert kit.runtime.next_block([(Origin.signed(VALIDATOR), call), (Origin.signed(VALIDATOR), other)]) == [None, None]
    epoch = kit.module.SubnetEpochIndex[netuid]
    assert len(kit.module.TimelockedWeightCommits[netuid, epoch]) == 3
    kit.until(lambda: (netuid, epoch) not in kit.module.TimelockedWeightCommits, 60)
    assert kit.module.SubnetEpochIndex[netuid] == epoch + 1 and not row(kit, netuid)
    assert not kit.events("TimelockedWeightsRevealed")


def test_a_payload_of_the_older_layout_without_a_hotkey_is_still_read():
    kit = clocked()
    netuid = committed(kit, tempo=20)
    wanted = commit(kit, netuid, [0], [7])
    legacy = weights_payload(b"", [2], [9], 0)[1:]
    call = kit.call("commit_timelocked_weights", netuid, seal(legacy, wanted, BEACON.public_key), wanted, 4)
    assert kit.runtime.next_block([(Origin.signed(VALIDATOR), call)]) == [None]
    kit.until(lambda: kit.events("TimelockedWeightsRevealed"), 60)
    assert len(kit.events("TimelockedWeightsRevealed")) == 2
    assert row(kit, netuid) == [(2, 65_535)], "in the order of the queue: the last one stands"


def test_a_commit_for_another_beacon_expires_unopened():
    """What a client gets that encrypts for drand quicknet, as bittensor 11 always does."""
    import bittensor_core

    kit = clocked()
    netuid = committed(kit, tempo=20)
    wanted = commit(kit, netuid, [2], [1])
    theirs, _ = bittensor_core.encrypt_at_round(weights_payload(VALIDATOR, [0], [1], 0), wanted)
    call = kit.call("commit_timelocked_weights", netuid, theirs[2:-8], wanted, 4)
    kit.runtime.next_block([(Origin.signed(VALIDATOR), call)])
    kit.until(lambda: kit.events("TimelockedWeightsRevealed"), 60)
    assert row(kit, netuid) == [(2, 65_535)]
    assert not list(kit.module.TimelockedWeightCommits.keys(netuid))


def test_a_round_that_is_stored_already_is_refused():
    kit = clocked()
    netuid = committed(kit, tempo=20)
    last = kit.runtime.Drand.LastStoredRound.get()
    kit.refused(VALIDATOR, "InvalidRevealRound", "commit_timelocked_weights", netuid, b"\1", last - 1, 4)
    kit.ok(VALIDATOR, "commit_timelocked_weights", netuid, b"\1", last, 4)


def test_timelocked_commitments_are_revealed_as_well():
    kit = clocked()
    netuid = kit.subnet()
    kit.neuron(netuid, BOB, MINER)
    last = kit.runtime.Drand.LastStoredRound.get()
    commitments, codec = kit.runtime.Commitments, kit.runtime.codecs("CommitmentData")

    def field(text: bytes, at: int):
        sealed = seal(text, at, BEACON.public_key)
        return codec.decode(codec.encode(("TimelockEncrypted", {"encrypted": sealed, "reveal_round": at})))

    fields = (field(b"the model's address", last + 4), field(b"", last + 4), field(b"its key", last + 12))
    kit.ok(MINER, "Commitments.set_commitment", netuid, CommitmentInfo(fields))
    assert kit.events("TimelockCommitment") == [(netuid, MINER, last + 4)]
    size = sum(len(item[1].encrypted) for item in fields)
    assert commitments.UsedSpaceOf[netuid, MINER].used_space == size
    kit.until(lambda: kit.events("CommitmentRevealed"), 5)
    first = kit.runtime.block_number
    assert commitments.RevealedCommitments[netuid, MINER] == ((b"the model's address", first),)
    assert commitments.CommitmentOf[netuid, MINER].info.fields == fields[2:]
    kit.until(lambda: kit.events("CommitmentRevealed"), 5)
    assert commitments.RevealedCommitments[netuid, MINER][1] == (b"its key", kit.runtime.block_number)
    assert commitments.CommitmentOf[netuid, MINER] is None and commitments.TimelockedIndex.get() == ()


# --- pulses from outside: root names another beacon, somebody writes its pulses

OTHER_KEY = bytes.fromhex(  # drand quicknet
    "83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d106451"
    "0d1fec758c921cc22b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a"
)
OTHER_SIGNATURE = bytes.fromhex(  # its round 1000
    "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39"
)


def other_beacon(runtime) -> None:
    config = runtime.Drand.BeaconConfig.get()._replace(public_key=OTHER_KEY)
    payload = {"block_number": 0, "config": config, "public": ("Sr25519", ALICE.public_key)}
    call = runtime.call("Drand.set_beacon_config", payload, None)
    runtime.dispatch(Origin.root(), runtime.codecs("RuntimeCall").decode(runtime.codecs("RuntimeCall").encode(call)))


def pulse_extrinsic(runtime, round_number: int, signature: bytes, *, block: int = 0, signed: bool = True) -> bytes:
    """An unsigned write_pulse, its payload signed by Alice."""
    pulse = {"round": round_number, "randomness": bytes(32), "signature": signature}
    payload = {"block_number": block, "pulses": (pulse,), "public": ("Sr25519", ALICE.public_key)}
    raw = runtime.codecs("PulsesPayload").encode(payload)
    proof = sr25519.sign((ALICE.public_key, ALICE.private_key), raw if signed else b"something else")
    return prefixed(b"\4" + bytes((26, 0)) + raw + b"\1\1" + proof)


def test_fed_with_quicknets_pulses_the_chain_opens_what_an_unchanged_client_sealed():
    """bittensor-core seals for quicknet's round 1000, whose signature is known."""
    import bittensor_core

    kit = Kit()
    netuid = committed(kit, tempo=20)
    other_beacon(kit.runtime)
    sealed, _ = bittensor_core.encrypt_at_round(weights_payload(VALIDATOR, [2], [9], 0), 1000)
    kit.ok(VALIDATOR, "commit_timelocked_weights", netuid, sealed[2:-8], 1000, 4)
    epoch = kit.module.SubnetEpochIndex[netuid]
    kit.until(lambda: kit.module.SubnetEpochIndex[netuid] == epoch + 1)
    kit.blocks(2)
    assert not row(kit, netuid), "no pulse yet"
    pulse = {"round": 1000, "randomness": bytes(32), "signature": OTHER_SIGNATURE}
    payload = {"block_number": 0, "pulses": (pulse,), "public": ("Sr25519", ALICE.public_key)}
    call = kit.runtime.codecs("RuntimeCall")
    written = call.decode(call.encode(kit.call("Drand.write_pulse", payload, None)))
    assert kit.runtime.next_block([(Origin(), written)]) == [None]
    kit.blocks()
    assert kit.events("TimelockedWeightsRevealed") == [(netuid, VALIDATOR)] and row(kit, netuid) == [(2, 65_535)]


@pytest.fixture
def chain():
    runtime = build_runtime(check=True)
    chain = Chain(runtime)
    other_beacon(runtime)
    chain.seal(NOON_MS)
    chain.seal(NOON_MS + 12_000)
    return chain


def test_another_beacons_pulses_come_by_write_pulse(chain):
    runtime = chain.runtime
    assert runtime.Drand.LastStoredRound.get() == 0, "the development beacon is silent now"
    statuses = []
    chain.pool.submit(pulse_extrinsic(runtime, 1000, OTHER_SIGNATURE), statuses.append)
    block = chain.seal(NOON_MS + 24_000)
    assert len(block.extrinsics) == 2 and statuses[-1] == {"finalized": f"0x{block.hash.hex()}"}
    events = [(pallet, event, values) for pallet, event, values in runtime.event_names() if pallet == "Drand"]
    assert events == [("Drand", "NewPulse", ((1000,),))]
    assert runtime.Drand.Pulses[1000].signature == OTHER_SIGNATURE
    assert runtime.Drand.LastStoredRound.get() == runtime.Drand.OldestStoredRound.get() == 1000
    assert len(chain.pool) == 0


def test_a_pulse_that_the_beacon_did_not_sign_is_not_stored(chain):
    runtime = chain.runtime
    chain.pool.submit(pulse_extrinsic(runtime, 1001, OTHER_SIGNATURE))
    chain.seal(NOON_MS + 24_000)
    assert runtime.Drand.LastStoredRound.get() == 0 and ("System", "ExtrinsicSuccess") in [
        (pallet, event) for pallet, event, _ in runtime.event_names()
    ]
    chain.pool.submit(pulse_extrinsic(runtime, 1001, b"\1" * 48))
    chain.seal(NOON_MS + 36_000)
    failed = [values for _, event, values in runtime.event_names() if event == "ExtrinsicFailed"]
    assert failed[0][0][1].error[0] == runtime.Drand.errors.index("PulseVerificationError")


def refusal(chain, raw: bytes) -> str:
    with pytest.raises(PoolError) as caught:
        chain.pool.submit(raw)
    return caught.value.data or caught.value.message


def test_the_pool_takes_only_new_pulses_with_a_signed_payload(chain):
    runtime = chain.runtime
    first = pulse_extrinsic(runtime, 1000, OTHER_SIGNATURE)
    assert refusal(chain, pulse_extrinsic(runtime, 1000, OTHER_SIGNATURE, signed=False)).endswith("a bad signature")
    assert refusal(chain, pulse_extrinsic(runtime, 1000, OTHER_SIGNATURE, block=99)).endswith("valid in the future")
    chain.pool.submit(first)
    again = pulse_extrinsic(runtime, 1000, OTHER_SIGNATURE, block=1)
    assert refusal(chain, again).startswith("The transaction has too low priority"), "one of a round waits at a time"
    chain.seal(NOON_MS + 24_000)
    assert refusal(chain, pulse_extrinsic(runtime, 999, OTHER_SIGNATURE)) == "Transaction is outdated"
    call = runtime.call("Drand.set_oldest_stored_round", 5)
    bare = prefixed(b"\4" + runtime.codecs("RuntimeCall").encode(call))
    assert refusal(chain, bare) == "Transaction call is not expected"


def test_only_root_names_a_beacon(chain):
    runtime = chain.runtime
    payload = {"block_number": 0, "config": runtime.Drand.BeaconConfig.get(), "public": ("Sr25519", ALICE.public_key)}
    kit = Kit.__new__(Kit)
    kit.runtime = runtime
    kit.refused(ALICE.public_key, "BadOrigin", "Drand.set_beacon_config", payload, None)


# --- over a socket, as a client does it


def test_a_client_commits_and_finds_its_weights_revealed(manual):
    """substrate-interface reads the beacon, the schedule and the clock, commits, and hears of the reveal."""
    from substrateinterface import Keypair, SubstrateInterface

    with SubstrateInterface(manual.endpoint) as client:

        def read(pallet, name, *keys):
            return client.query(pallet, name, list(keys)).value

        def send(name, signer, **args):
            pallet, _, function = name.partition(".")
            call = client.compose_call(pallet, function, args)
            client.submit_extrinsic(client.create_signed_extrinsic(call, signer))
            blocks(1)

        def root(name, **args):
            pallet, _, function = name.partition(".")
            call = client.compose_call(pallet, function, args)
            send("Sudo.sudo", ALICE, call=call.value)

        def blocks(count):
            assert "result" in client.rpc_request("dev_newBlock", [{"count": count}])

        netuid = 1
        validator, miner = Keypair.create_from_uri("//Dave"), Keypair.create_from_uri("//Eve")
        blocks(1)
        for hotkey in (validator, miner):
            send("SubtensorModule.burned_register", ALICE, netuid=netuid, hotkey=hotkey.ss58_address)
        root("AdminUtils.sudo_set_subtoken_enabled", netuid=netuid, subtoken_enabled=True)
        send("SubtensorModule.add_stake", ALICE, hotkey=validator.ss58_address, netuid=netuid, amount_staked=10**9)
        root("AdminUtils.sudo_set_weights_set_rate_limit", netuid=netuid, weights_set_rate_limit=0)
        root("AdminUtils.sudo_set_tempo", netuid=netuid, tempo=20)
        blocks(21)
        uid = read("SubtensorModule", "Uids", netuid, validator.ss58_address)
        assert read("SubtensorModule", "ValidatorPermit", netuid)[uid]

        config = read("Drand", "BeaconConfig")
        key = config["public_key"]
        key = bytes.fromhex(key[2:]) if isinstance(key, str) else bytes(key)
        beacon = BEACON._replace(public_key=key, period_s=config["period"], genesis_s=config["genesis_time"])
        assert beacon == BEACON
        items = ("Tempo", "LastEpochBlock", "PendingEpochAt", "SubnetEpochIndex", "BlocksSinceLastStep")
        at = EpochSchedule(
            client.get_block_number(client.get_chain_head()), *(read("SubtensorModule", item, netuid) for item in items)
        )
        now_s, block_s = read("Timestamp", "Now") / 1000, client.get_constant("Aura", "SlotDuration").value / 1000
        wanted = reveal_round(beacon, at, read("SubtensorModule", "RevealPeriodEpochs", netuid), now_s, block_s)
        target = read("SubtensorModule", "Uids", netuid, miner.ss58_address)
        sealed = seal(weights_payload(validator.public_key, [target], [1], 0), wanted, beacon.public_key)
        send(
            "SubtensorModule.commit_timelocked_mechanism_weights",
            validator,
            netuid=netuid,
            mecid=0,
            commit="0x" + sealed.hex(),
            reveal_round=wanted,
            commit_reveal_version=4,
        )
        assert len(read("SubtensorModule", "TimelockedWeightCommits", netuid, at.epoch_index)) == 1
        revealed = None
        while revealed is None and client.get_block_number(client.get_chain_head()) < at.block + 60:
            blocks(1)
            for event in client.get_events():
                if event.value["event_id"] == "TimelockedWeightsRevealed":
                    revealed = event.value["attributes"]
        assert revealed == (netuid, validator.ss58_address)
        assert read("SubtensorModule", "SubnetEpochIndex", netuid) == at.epoch_index + 1
        assert read("SubtensorModule", "Weights", netuid, uid) == [(target, 65_535)]
        pulse = read("Drand", "Pulses", wanted)
        assert pulse["signature"] == "0x" + sign(wanted).hex()
