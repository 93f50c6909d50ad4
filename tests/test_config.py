"""Configuration: every shipped file composes, and every mistake is refused with the value and the fix."""

from __future__ import annotations

import re

import pytest

from raytensor import config
from raytensor.errors import ConfigError

GROUPS = sorted(path.relative_to(config.conf_dir()) for path in config.conf_dir().glob("*/*.yaml"))


@pytest.mark.parametrize("file", GROUPS, ids=str)
def test_every_shipped_file_composes(file):
    cfg = config.compose("run", [f"{file.parent}={file.stem}"] if file.parent.name != "search" else [])
    assert isinstance(cfg, config.RunConfig)


def test_overrides_reach_their_fields(tmp_path):
    cfg = config.compose(
        "run",
        [
            "name=demo",
            "rounds=20",
            "miners.num_miners=16",
            "validators.num_validators=4",
            "seed=1",
            f"paths.runs={tmp_path}",
        ],
    )
    assert (cfg.name, cfg.rounds, cfg.seed, cfg.paths.runs) == ("demo", 20, 1, str(tmp_path))
    assert (cfg.miners.num_miners, cfg.validators.num_validators) == (16, 4)


@pytest.mark.parametrize(
    "override, words",
    [
        ("miners.num_miner=3", "did you mean miners.num_miners"),
        ("rounds=two", "'two' of type 'str' could not be converted to Integer"),
        ("rounds=0", "rounds=0: must be greater than 0"),
        ("chain.tempo=1", "chain.tempo=1: must lie between 2 and 65535"),
        ("chain.block_time_s=nan", "chain.block_time_s=nan"),
        ("cluster=foo", "laptop"),
        ("+foo=1", "unknown setting 'foo'"),
        ("rounds", "missing EQUAL"),
        ("name=../x", "folder name"),
        ("resume=auto", "add name="),
        ("resume=yes", "never, auto or must"),
        ("miners.num_miners=5000", "at most 4096"),
        ("miners.num_hosts=9", "at most miners.num_miners (8)"),
        ("miners.profiles=[]", "one profile or more"),
        ("miners.profiles=[{behaviour: kind}]", "honest, lazy"),
        ("miners.profiles=[{hidden: 100, heads: 3}]", "multiple of 2 * heads (6)"),
        ("mechanism.query.context=4096", "longest text"),
        ("chain.endpoint=http://x", "ws://"),
        ("data.heldout_share=1.5", "between 0 and 1"),
    ],
)
def test_a_mistake_is_refused_with_the_fix(override, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        config.compose("run", [override])


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        config.compose("run", ["rounds=0", "seed=-1"])
    assert str(caught.value).splitlines() == ["rounds=0: must be greater than 0", "seed=-1: must be 0 or greater"]


@pytest.mark.parametrize("schema", [config.RunConfig, config.MinerProfile])
def test_every_field_has_a_comment_above(schema):
    found = config.settings(schema)
    assert len(found) >= 6
    assert [key for key, setting in found.items() if not setting.comment] == []
