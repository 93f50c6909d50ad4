"""A chain that was loaded from its raw state behaves to the byte like one that never stopped."""

from __future__ import annotations

from raytensor.devnet.chain_spec import DEV_ACCOUNTS, build_runtime
from raytensor.devnet.pallet import Origin

TAO = 10**9
NETUID = 2


def root(runtime, name: str, **arguments):
    return (Origin.root(), runtime.call(f"AdminUtils.{name}", **arguments))


def busy_subnet(runtime, num_neurons: int = 12) -> None:
    """A subnet with validators' weights, commits, stake, axons and epochs behind it."""
    owner = DEV_ACCOUNTS["Alice"]
    signed = Origin.signed(owner)
    hotkeys = [bytes([i + 1]) * 32 for i in range(num_neurons)]
    serve = {
        "netuid": NETUID,
        "version": 1,
        "ip": 0x01020304,
        "port": 8091,
        "ip_type": 4,
        "protocol": 4,
        "placeholder1": 0,
        "placeholder2": 0,
    }
    steps = [
        [root(runtime, "sudo_set_network_rate_limit", rate_limit=0)],
        [(signed, runtime.call("SubtensorModule.register_network", hotkeys[0]))],
        [(signed, runtime.call("SubtensorModule.start_call", NETUID))],
        [
            root(runtime, "sudo_set_commit_reveal_weights_enabled", netuid=NETUID, enabled=False),
            root(runtime, "sudo_set_weights_set_rate_limit", netuid=NETUID, weights_set_rate_limit=0),
            root(runtime, "sudo_set_tempo", netuid=NETUID, tempo=5),
        ],
        [(signed, runtime.call("SubtensorModule.burned_register", NETUID, key)) for key in hotkeys[1:]],
        [(signed, runtime.call("SubtensorModule.add_stake", key, NETUID, 500 * TAO)) for key in hotkeys[:4]],
        *[[] for _ in range(8)],
        [
            (Origin.signed(key), runtime.call("SubtensorModule.set_weights", NETUID, (5, 6, 7), (i + 1, 20, 30), 0))
            for i, key in enumerate(hotkeys[:4])
        ],
        [(Origin.signed(key), runtime.call("SubtensorModule.serve_axon", **serve)) for key in hotkeys[4:]],
        *[[] for _ in range(8)],
    ]
    for calls in steps:
        errors = [error for error in runtime.next_block(calls) if error is not None]
        assert errors == []


def state(runtime) -> dict[bytes, bytes]:
    return {raw: runtime.store.read_raw(raw) for raw in runtime.store.raw_keys(b"", None, None)}


def test_values_survive_the_disk_and_the_chain_goes_on_the_same():
    going = build_runtime(check=True)
    busy_subnet(going)
    incentive = going.SubtensorModule.Incentive[NETUID]
    assert sum(incentive) > 0, "the subnet never paid anybody: the scenario proves nothing"

    restored = build_runtime(check=True)
    restored.store.load(going.block_number, state(going).items())
    restored.block_number, restored.timestamp_ms = going.block_number, going.timestamp_ms
    assert state(restored) == state(going)
    for _ in range(25):
        going.next_block()
        restored.next_block()
    again = (Origin.signed(b"\1" * 32), going.call("SubtensorModule.set_weights", NETUID, (4, 5), (1, 2), 0))
    assert going.next_block([again]) == [None]
    assert restored.next_block(
        [(again[0], restored.call("SubtensorModule.set_weights", NETUID, (4, 5), (1, 2), 0))]
    ) == [None]
    for _ in range(12):
        going.next_block()
        restored.next_block()
    after = state(going)
    different = [key for key, value in state(restored).items() if after.get(key) != value]
    assert different == [] and state(restored).keys() == after.keys()


def test_past_states_are_what_they_were():
    runtime = build_runtime()
    busy_subnet(runtime)
    block, before = runtime.block_number, state(runtime)
    for _ in range(15):
        runtime.next_block()
    assert state(runtime) != before
    keys = runtime.store.raw_keys(b"", None, None, block)
    assert {key: runtime.store.read_raw(key, block) for key in keys} == before
    now = runtime.api_call("SubnetInfoRuntimeApi_get_metagraph", NETUID.to_bytes(2, "little"))
    then = runtime.api_call("SubnetInfoRuntimeApi_get_metagraph", NETUID.to_bytes(2, "little"), block)
    assert now != then
    assert runtime.api_call("SubnetInfoRuntimeApi_get_metagraph", NETUID.to_bytes(2, "little")) == now


def test_every_runtime_api_answers_the_same_from_a_restored_state():
    going = build_runtime()
    busy_subnet(going)
    # Who loses the permit has bonds of no rows from then on.
    going.next_block([root(going, "sudo_set_max_allowed_validators", netuid=NETUID, max_allowed_validators=2)])
    for _ in range(12):
        going.next_block()
    assert any(len(bonds) == 0 for _, bonds in going.SubtensorModule.Bonds.items(NETUID))
    restored = build_runtime()
    restored.store.load(going.block_number, state(going).items())
    restored.block_number, restored.timestamp_ms = going.block_number, going.timestamp_ms
    asked = 0
    for api in going.apis.values():
        for method, (inputs, _) in api.methods.items():
            if {"RuntimeCall", "UncheckedExtrinsic"} & set(inputs.values()):
                continue
            codecs = [going.codecs(type_) for type_ in inputs.values()]
            data = b"".join(
                NETUID.to_bytes(2, "little") if codec.type in ("u16", "NetUid") else codec.encode(codec.zero)
                for codec in codecs
            )
            name = f"{api.name}_{method}"
            assert restored.api_call(name, data) == going.api_call(name, data), name
            asked += 1
    assert asked > 30
