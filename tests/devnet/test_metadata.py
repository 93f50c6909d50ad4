"""The generated metadata: two independent readers take it, and it keeps the rules that clients rely on."""

from __future__ import annotations

import pytest
from scalecodec.base import RuntimeConfigurationObject, ScaleBytes
from scalecodec.type_registry import load_type_registry_preset

from raytensor.devnet.chain import Chain
from raytensor.devnet.chain_spec import DEV_ACCOUNTS, build_runtime
from raytensor.devnet.metadata import EXTENSIONS, own_types
from raytensor.devnet.registry import Types

MAX_BYTES = 80_000


@pytest.fixture(scope="module")
def runtime():
    return build_runtime()


@pytest.fixture(scope="module")
def scalecodec_metadata(runtime):
    """Version 14 as substrate-interface's codec reads it, with its type registry set up."""
    config = RuntimeConfigurationObject(ss58_format=42)
    config.update_type_registry(load_type_registry_preset("core"))
    data = config.create_scale_object("MetadataVersioned", ScaleBytes(bytearray(runtime.metadata(14))))
    data.decode()
    config.add_portable_registry(data)
    return config, data


@pytest.mark.parametrize("version", [14, 15])
def test_metadata_is_lean_and_of_its_version(runtime, version):
    data = runtime.metadata(version)
    assert data[:5] == b"meta" + bytes([version])
    assert len(data) <= MAX_BYTES


def test_scalecodec_reads_every_pallet(runtime, scalecodec_metadata):
    _, metadata = scalecodec_metadata
    pallets = {pallet.value["name"]: pallet for pallet in metadata.pallets}
    assert pallets.keys() == runtime.pallets.keys()
    for name, ours in runtime.pallets.items():
        theirs = pallets[name]
        assert theirs.value["index"] == ours.index
        assert {c.name for c in theirs.calls or ()} == ours.calls.keys()
        # scalecodec adds the storage version, an item that it makes up for every pallet
        assert {s.value["name"] for s in theirs.storage or ()} - {":__STORAGE_VERSION__:"} == ours.storages.keys()
        assert [e.name for e in theirs.errors or ()] == list(ours.errors)
        assert {e.name for e in theirs.events or ()} == ours.events.keys()
        for constant in theirs.constants or ():
            type_, value = ours.constants[constant.value["name"]]
            assert bytes(constant.constant_value) == ours.runtime.codecs(type_).encode(value)


def test_extensions_are_subtensors_in_order(scalecodec_metadata):
    _, metadata = scalecodec_metadata
    theirs = [e.value["identifier"] for e in metadata[1][1]["extrinsic"]["signed_extensions"]]
    assert theirs == [identifier for identifier, _, _ in EXTENSIONS]
    assert "SubtensorTransactionExtension" in theirs and theirs[-1] == "CheckMetadataHash"


def test_every_stored_value_of_the_genesis_decodes_with_scalecodec(runtime, scalecodec_metadata):
    config, metadata = scalecodec_metadata
    pallets = {pallet.value["name"]: pallet for pallet in metadata.pallets}
    num_values = 0
    for item in runtime.store.items.values():
        entry = next(s for s in pallets[item.pallet].storage if s.value["name"] == item.name)
        type_ = entry.get_value_type_string()
        # the default that an absent value decodes to must be the one that pallets read
        if not item.decl.optional:
            config.create_scale_object(type_, ScaleBytes(bytearray(item.codec.encode(item.default)))).decode()
        for value in item.current.values():
            config.create_scale_object(type_, ScaleBytes(bytearray(item.codec.encode(value)))).decode()
            num_values += 1
    assert num_values > 50


def test_bittensor_core_reads_both_versions(runtime):
    core = pytest.importorskip("bittensor_core")
    for version in (14, 15):
        reader = core.Runtime(runtime.metadata(version), runtime.version.spec_version, 1)
        raw = runtime.System.Account.raw_key(DEV_ACCOUNTS["Alice"])
        assert bytes(reader.storage_key("System", "Account", [DEV_ACCOUNTS["Alice"]])) == raw


def test_runtime_api_outputs_are_never_plain_bytes(runtime):
    # Clients take a Vec<u8> output for one of the old APIs, whose types they have by heart.
    outputs = {f"{api.name}_{name}": out for api in runtime.apis.values() for name, (_, out) in api.methods.items()}
    assert outputs and not [name for name, output in outputs.items() if output.replace(" ", "") == "Vec<u8>"]


def test_types_of_one_path_have_the_same_parameters(runtime):
    names: dict[str, set] = {}
    for own in own_types(runtime).values():
        names.setdefault(own.path, set()).add(tuple(name for name, _ in own.params))
    from raytensor.devnet.typedefs import DECLARED

    for definition in DECLARED.values():
        params = tuple(name for name, _ in getattr(definition, "params", ()))
        names.setdefault(definition.path, set()).add(params)
    assert {path: found for path, found in names.items() if len(found) > 1} == {}


def test_every_type_that_pallets_name_is_in_the_registry(runtime):
    types = Types(own_types(runtime))
    for pallet in runtime.pallets.values():
        for spec in pallet.calls.values():
            for type_ in spec.args.values():
                assert types.id(type_) >= 0
                runtime.codecs(type_)


def test_genesis_commits_to_the_metadata():
    base = Chain(build_runtime()).genesis.hash
    assert Chain(build_runtime()).genesis.hash == base
    # another block time means another constant in the metadata, so another chain
    assert Chain(build_runtime(block_time_ms=250)).genesis.hash != base
