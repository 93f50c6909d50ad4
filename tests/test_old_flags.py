"""The flags of Bittensor's subnet template, as operators have them in their start scripts."""

import pytest

from raytensor import config
from raytensor.commands import options
from raytensor.config import old_flags
from raytensor.errors import ConfigError

KEYS = ["--wallet.name", "cold", "--wallet.hotkey", "hot1"]


@pytest.mark.parametrize(
    ("typed", "settings"),
    [
        (["--netuid", "5", *KEYS], {"netuids": [5], "hotkeys": ["cold/hot1"]}),
        (["--netuid=5", "--wallet.name=cold"], {"netuids": [5], "hotkeys": ["cold/default"]}),
        (["--netuid", "5", "--wallet.hotkey", "//Alice"], {"hotkeys": ["//Alice"]}),
        (["--netuid", "5", *KEYS, "--subtensor.network", "test"], {"chain.network": "test"}),
        (
            ["--netuid", "5", *KEYS, "--subtensor.network", "finney", "--subtensor.chain_endpoint", "ws://127.0.0.1:9"],
            {"chain.network": "ws://127.0.0.1:9"},
        ),
        (["--netuid", "5", *KEYS, "--neuron.timeout", "12", "rounds=3"], {"validators.deadline_s": 12.0, "rounds": 3}),
        (["--netuid", "5", *KEYS, "--logging.debug", "--neuron.name", "vali"], {"name": "vali"}),
    ],
)
def test_a_validators_flags_are_settings(typed, settings):
    cfg = config.compose("validate", options.typed_settings("validate", typed, {}))
    for key, value in settings.items():
        found = cfg
        for part in key.split("."):
            found = getattr(found, part)
        assert found == value, key


def test_a_miners_flags_are_settings():
    typed = ["--netuid", "5", *KEYS, "--axon.port", "9000", "--axon.external_ip", "203.0.113.7"]
    typed += ["--blacklist.allow_non_registered", "--wallet.path", "/keys"]
    cfg = config.compose("mine", options.typed_settings("mine", typed, {}))
    wire = cfg.miners.wire
    assert (wire.port, wire.ip, wire.policy.require_registered, cfg.wallet_path) == (
        9000,
        "203.0.113.7",
        False,
        "/keys",
    )


def test_what_changes_nothing_is_named(capsys):
    options.typed_settings("validate", ["--netuid", "5", "--logging.debug", "--axon.port", "8091"], {})
    said = capsys.readouterr().err
    assert "--logging.debug is ignored: everything is in job.log" in said
    assert "--axon.port is ignored: a validator serves no axon" in said


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        (["--neuron.disable_set_weights"], "this job always sets weights"),
        (["--mock"], "raytensor run"),
        (["--netuid", "--logging.debug"], "--netuid has no value"),
        (["--netuid"], "--netuid has no value"),
    ],
)
def test_what_can_not_be_had_is_refused(typed, why):
    with pytest.raises(ConfigError, match=why):
        old_flags.translate("validate", typed)


def test_every_flag_has_one_answer_in_each_job():
    for name in {*old_flags.SETTINGS, *old_flags.IGNORED, *old_flags.REFUSED}:
        for job in old_flags.BOTH:
            arg = f"--{name}" if name in old_flags.SWITCHES else f"--{name}=1"
            if name in old_flags.REFUSED:
                with pytest.raises(ConfigError):
                    old_flags.translate(job, [arg])
            else:
                settings, notes = old_flags.translate(job, [arg])
                assert len(settings) + len(notes) == 1
    assert old_flags.translate("run", ["--netuid", "5"]) == (["--netuid", "5"], [])
