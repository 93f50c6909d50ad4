"""Calls and reads made from metadata: every call encodes as in bittensor-core, and words become values."""

from __future__ import annotations

import functools
import json

import bittensor_core
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scalecodec.base import RuntimeConfigurationObject, ScaleBytes
from scalecodec.type_registry import load_type_registry_preset

from raytensor.chain import ss58
from raytensor.chain.calls import Call
from raytensor.chain.named_call import NamedCall
from raytensor.chain.rpc.api_metadata import read_apis
from raytensor.chain.rpc.codec import encode_compact
from raytensor.chain.rpc.runtime import Runtime
from raytensor.chain.rpc.type_text import Reader, type_text
from raytensor.chain.wallet import DevKey
from raytensor.chain.writer.policy import Policy
from raytensor.commands.generated import call_main, read_call, read_main
from raytensor.commands.generated_api import api_main
from raytensor.devnet.chain_spec import build_runtime
from raytensor.errors import ChainError, ConfigError

ACCOUNTS = st.binary(min_size=32, max_size=32).map(ss58.encode)
TEXTS = st.binary(max_size=12).map(lambda raw: "0x" + raw.hex())
REMARK = {"System.remark": {"remark": "0x0102"}}


@functools.cache
def metadata() -> tuple[Runtime, bittensor_core.Runtime]:
    """The embedded chain's metadata in our reader and in bittensor-core's."""
    raw = build_runtime().metadata(14)
    config = RuntimeConfigurationObject(ss58_format=42)
    config.update_type_registry(load_type_registry_preset("core"))
    data = config.create_scale_object("MetadataVersioned", ScaleBytes(bytearray(raw)))
    data.decode()
    return Runtime(data.value, 1, 1), bittensor_core.Runtime(bytes(raw), 1, 1)


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return metadata()[0]


@pytest.fixture(scope="module")
def reader(runtime) -> Reader:
    return Reader(runtime.codec, lambda text: ss58.encode(ss58.decode(text)))


def all_calls(runtime: Runtime) -> list[tuple[str, str]]:
    return [(pallet, name) for pallet in runtime.pallets for name in runtime.call_names(pallet)]


def values(type_id: int, depth: int = 4) -> st.SearchStrategy:
    """JSON values of a type, as a user writes them."""
    definition = metadata()[0].codec.definition(type_id)
    path, (kind, detail) = definition["path"], next(iter(definition["def"].items()))
    if path[-1:] == ["AccountId32"]:
        return ACCOUNTS
    if path[-1:] == ["RuntimeCall"]:
        return st.just(REMARK)
    if path[-1:] == ["MultiAddress"]:
        return ACCOUNTS.map(lambda account: {"Id": account})
    if kind == "compact":
        return values(detail["type"], depth)
    if kind == "primitive":
        name = str(detail).lower()
        if name in ("bool", "str"):
            return st.booleans() if name == "bool" else st.text("abc", max_size=5)
        bits = int(name[1:])
        return st.integers(0, 2**bits - 1) if name[0] == "u" else st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    if kind in ("sequence", "array"):
        of_bytes = metadata()[0].codec.definition(detail["type"])["def"] == {"primitive": "u8"}
        size = (0, 3) if kind == "sequence" else (detail["len"], detail["len"])
        if of_bytes:
            return (
                TEXTS
                if kind == "sequence"
                else st.binary(min_size=size[0], max_size=size[0]).map(lambda b: "0x" + b.hex())
            )
        return st.lists(values(detail["type"], depth - 1), min_size=size[0], max_size=size[1] if depth > 0 else size[0])
    if kind == "tuple":
        return st.tuples(*(values(one, depth - 1) for one in detail)).map(list)
    if kind == "composite":
        return fields_of(detail["fields"], depth)
    variants = detail["variants"]
    if path == ["Option"]:
        some = next(variant for variant in variants if variant["name"] == "Some")
        return st.none() | values(some["fields"][0]["type"], depth - 1)
    made = [variant for variant in variants if not variant["fields"]] if depth <= 0 else variants
    return st.sampled_from(made or variants).flatmap(
        lambda variant: (
            fields_of(variant["fields"], depth - 1).map(lambda inner: {variant["name"]: inner})
            if variant["fields"]
            else st.just(variant["name"])
        )
    )


def fields_of(fields: list[dict], depth: int) -> st.SearchStrategy:
    if fields and fields[0]["name"] is None:
        if len(fields) == 1:
            return values(fields[0]["type"], depth)
        return st.tuples(*(values(field["type"], depth) for field in fields)).map(list)
    return st.fixed_dictionaries({field["name"]: values(field["type"], depth) for field in fields})


def for_bittensor(value):
    """The same JSON value as bittensor-core takes it: calls inside are bytes."""
    if value == REMARK:
        return metadata()[1].compose_call("System", "remark", {"remark": "0x0102"})
    if isinstance(value, dict):
        return {name: for_bittensor(one) for name, one in value.items()}
    return [for_bittensor(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("part", range(4))
def test_every_call_encodes_as_bittensor_core_does(runtime, reader, part):
    for pallet, name in all_calls(runtime)[part::4]:
        same_bytes(runtime, reader, pallet, name)


def same_bytes(runtime: Runtime, reader: Reader, pallet: str, name: str) -> None:
    types = runtime.call_types(pallet, name)

    @settings(max_examples=6, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.fixed_dictionaries({field: values(type_id) for field, type_id in types.items()}))
    def same(made):
        call = Call(pallet, name, {field: reader.value(types[field], value) for field, value in made.items()})
        ours = runtime.encode_call(call)
        assert ours == bytes(metadata()[1].compose_call(pallet, name, for_bittensor(made))), (pallet, name, made)
        # what the journal keeps gives the same bytes
        assert runtime.encode_call(NamedCall.of(DevKey("//Alice").ss58, "x", call).call()) == ours

    same()


def test_there_are_many_calls(runtime):
    calls = all_calls(runtime)
    assert len(calls) > 150 and ("SubtensorModule", "add_stake") in calls


def test_words_become_arguments(runtime, reader):
    alice = DevKey("//Alice").ss58
    given_words = {"hotkey": alice, "netuid": "2", "amount_staked": "1000000000"}
    call = read_call(runtime, "SubtensorModule", "add_stake", given_words, reader)
    assert call.args == {"hotkey": alice, "netuid": 2, "amount_staked": 10**9}
    remark = read_call(runtime, "System", "remark", {"remark": "12"}, reader)
    assert runtime.encode_call(remark).endswith(b"\x0812")
    batch = {"calls": json.dumps([REMARK, {"SubtensorModule.add_stake": dict(call.args)}])}
    encoded = runtime.encode_call(read_call(runtime, "Utility", "batch_all", batch, reader))
    assert encoded.endswith(runtime.encode_call(call))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"hotkey": "x", "netuid": "2"}, "also needs amount_staked=<u64>"),
        ({"hotkeys": "x"}, 'no argument "hotkeys": did you mean hotkey'),
        ({"hotkey": "5F", "netuid": "two", "amount_staked": "1"}, "hotkey"),
        ({"hotkey": DevKey("//Alice").ss58, "netuid": "true", "amount_staked": "1"}, "netuid: true is no u16"),
        ({"hotkey": DevKey("//Alice").ss58, "netuid": "1.5", "amount_staked": "1"}, 'netuid: "1.5" is no u16'),
    ],
)
def test_what_does_not_fit_is_refused_by_name(runtime, words, message):
    def account(text: str) -> str:
        try:
            return ss58.encode(ss58.decode(text))
        except ValueError as error:
            raise ConfigError(str(error)) from None

    with pytest.raises(ConfigError, match=message):
        read_call(runtime, "SubtensorModule", "add_stake", words, Reader(runtime.codec, account))


def test_types_are_described(runtime):
    types = {
        name: type_text(runtime.codec, t) for name, t in runtime.call_types("SubtensorModule", "set_children").items()
    }
    assert types == {"hotkey": "AccountId32", "netuid": "u16", "children": "Vec<(u64, AccountId32)>"}


def test_a_policy_must_allow_calls_by_name():
    intent = NamedCall.of(DevKey("//Alice").ss58, "x", Call("System", "remark", {"remark": "0x"}))
    assert "calls = false" in (Policy().forbids(intent) or "")
    assert Policy(calls=True).forbids(intent) is None
    assert "limits" in (Policy(calls=True, max_spend_rao=1).forbids(intent) or "")


def test_the_apis_are_those_that_bittensor_core_reads():
    raw = bytes(build_runtime().metadata(15))
    apis = read_apis(b"\1" + encode_compact(len(raw)) + raw)
    theirs = bittensor_core.Runtime(raw, 1, 1).runtime_api_map()
    found = {name: {m: list(method.inputs) for m, method in methods.items()} for name, methods in apis.methods.items()}
    assert found == {
        name: {m: [i[0] for i in d["inputs"]] for m, d in methods.items()} for name, methods in theirs.items()
    }
    assert sum(map(len, found.values())) > 40
    with pytest.raises(ChainError, match="no metadata V15"):
        read_apis(b"\0")
    with pytest.raises(ChainError, match="can't be read"):
        read_apis(b"\1" + encode_compact(len(raw)) + raw[:2000])


def command(main, capsys, *argv: str) -> tuple[int, dict]:
    status = main([*argv, "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_the_commands_against_a_chain(client, capsys, tmp_path):
    chain = ("--network", client.endpoint)
    status, found = command(read_main, capsys, "SubtensorModule.Tempo", "1", *chain)
    assert status == 0 and found["value"] == client.query("SubtensorModule", "Tempo", [1]) and found["type"] == "u16"
    status, found = command(read_main, capsys, "System.Account", "//Alice", "--block", str(found["block"]), *chain)
    assert found["value"]["data"]["free"] > 0
    status, found = command(read_main, capsys, "System.Account", "--limit", "2", *chain)
    assert len(found["entries"]) == 2 and found["more"]
    status, found = command(call_main, capsys, "SubtensorModule.add_stake", "--describe", *chain)
    assert found["arguments"] == {"hotkey": "AccountId32", "netuid": "u16", "amount_staked": "u64"}
    assert "System" in command(call_main, capsys, *chain)[1]["calls"]
    status, found = command(api_main, capsys, "SubnetInfoRuntimeApi.get_next_epoch_start_block", "1", *chain)
    at = client.block_hash(found["block"])
    last, tempo = (client.query("SubtensorModule", name, [1], at) for name in ("LastEpochBlock", "Tempo"))
    assert status == 0 and found["type"] == "Option<u64>" and found["value"] == last + tempo
    described = command(api_main, capsys, "AccountNonceApi.account_nonce", "--describe", *chain)[1]
    assert described["inputs"] == {"account": "AccountId32"} and described["output"] == "u32"
    assert command(api_main, capsys, "AccountNonceApi.account_nonce", "//Charlie", *chain)[1]["value"] >= 0
    assert api_main(["AccountNonceApi.account_nonce", *chain]) == 2
    assert "takes account=<AccountId32>: 0 were given" in capsys.readouterr().err
    words = ("System.remark", "remark=hello", "-w", "//Alice", "--state", str(tmp_path), *chain)
    status, found = command(call_main, capsys, *words, "--dry-run")
    assert status == 0 and found["receipt"] is None and found["plan"]["fee_rao"] > 0
    encoded = client.runtime.encode_call(Call("System", "remark", {"remark": b"hello"}))
    assert found["plan"]["effect"]["encoded"] == "0x" + encoded.hex()
    status, found = command(call_main, capsys, *words, "--yes", "--id", "one")
    assert status == 0 and found["receipt"]["fate"] == "included"
    assert command(call_main, capsys, *words, "--yes", "--id", "one")[1]["receipt"] == found["receipt"]
    assert call_main(["System.remrk", *chain]) == 2
    assert "did you mean System.remark" in capsys.readouterr().err
