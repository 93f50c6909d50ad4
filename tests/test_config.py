"""Configuration: shipped files compose, settings stay as typed, mistakes are refused with value and fix."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest

from raytensor import config
from raytensor.config.checks import Section, allowed, type_hints, without_null
from raytensor.config.compose import ROOTS, groups_of, schema_of
from raytensor.errors import ConfigError

NEEDED = {job: ["netuids=[1]", "hotkeys=[//Alice]"] for job in ("mine", "validate")} | {
    "gateway": ["netuids=[1]"]
}  # what a job does not start without
SHIPPED = [(job, group, choice) for job in ROOTS for group, names in groups_of(job).items() for choice in names]


def compose(job: str, *args: str):
    return config.compose(job, [*NEEDED.get(job, []), *args])


def sections(schema: type[Section], seen: set[type[Section]]) -> set[type[Section]]:
    seen.add(schema)
    for hint in type_hints(schema).values():
        inner = getattr(hint, "__args__", (hint,))[0]
        if isinstance(inner, type) and issubclass(inner, Section) and inner not in seen:
            sections(inner, seen)
    return seen


EVERY_SECTION = sorted(set.union(*(sections(schema_of(job), set()) for job in ROOTS)), key=lambda one: one.__name__)
NUMBERS = [
    (section, item.name)
    for section in EVERY_SECTION
    for item in dataclasses.fields(section)
    if without_null(type_hints(section)[item.name])[0] in (int, float)
]


@pytest.mark.parametrize("job, group, choice", SHIPPED, ids="-".join)
def test_every_shipped_file_composes_in_every_job_that_has_its_group(job, group, choice):
    assert isinstance(compose(job, f"{group}={choice}"), schema_of(job))


def test_no_shipped_file_is_left_out():
    files = {f"{path.parent.name}={path.stem}" for path in config.conf_dir().glob("*/*.yaml")}
    assert files == {f"{group}={choice}" for _, group, choice in SHIPPED}


def test_overrides_reach_their_fields(tmp_path):
    cfg = compose("run", "name=demo", "rounds=1e1", "miners.num_miners=16", "miners.profiles[1].lr=1e-4", "seed=1")
    assert (cfg.name, cfg.rounds, cfg.seed) == ("demo", 10, 1)
    assert (cfg.miners.num_miners, cfg.miners.profiles[1].lr, cfg.miners.profiles[0].steps) == (16, 1e-4, 60)
    cfg = compose("run", "miners={num_miners: 3, num_hosts: null}", "miners.wire.policy.hotkey_rate=5")
    assert (cfg.miners.num_miners, cfg.miners.seq_len, cfg.miners.wire.policy.hotkey_rate) == (3, 32, 5.0)
    cfg = compose("validate", "asking.bounds.max_file_bytes=1024", "mechanism=classic")
    assert (cfg.asking.bounds.max_file_bytes, cfg.mechanism.query.context) == (1024, 256)
    assert compose("run", "mechanism=classic").miners.seq_len == 256


@pytest.mark.parametrize("text", ["20261130_1200", "1e3", "1.50", "007", "true", "0x10", "1_000"])
def test_text_stays_as_typed(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = compose("run", f"name={text}", f"paths.runs={text}", f"miners.profiles=[{{model: {text}}}]")
    assert (cfg.name, cfg.paths.runs, cfg.miners.profiles[0].model) == (text, str(tmp_path / text), text)
    assert compose("validate", f"hotkeys=[{text}, w/{text}]").hotkeys == [text, f"w/{text}"]


@pytest.mark.parametrize(
    "typed, text",
    [
        ("/tmp/a[1].txt", "/tmp/a[1].txt"),
        ("/tmp/{a,b}: c=d.txt", "/tmp/{a,b}: c=d.txt"),
        ("'null'", "null"),
        ('"a, b"', "a, b"),
        ("${oc.env:RAYTENSOR_TEXTS}", "/texts"),
    ],
)
def test_brackets_quotes_and_environment(typed, text, monkeypatch):
    monkeypatch.setenv("RAYTENSOR_TEXTS", "/texts")
    assert compose("run", "data=files", f"data.files={typed}").data.files == text


def test_paths_are_absolute_where_other_processes_read_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    train = compose(
        "train", "data=files", "data.files=texts/*.txt", "training.model=model", "paths.cache=s3://bucket/x"
    )
    assert (train.data.files, train.training.model) == (str(tmp_path / "texts/*.txt"), str(tmp_path / "model"))
    assert train.paths.cache == "s3://bucket/x" and train.paths.runs == str(tmp_path / "runs")
    run = compose("run", "data=files", "data.files=texts", "miners.profiles=[{model: model}, {model: 1M}]")
    assert [profile.model for profile in run.miners.profiles] == [str(tmp_path / "model"), "1M"]
    assert run.data.files == "texts"  # resuming compares it


def test_options_of_a_mechanism_are_free():
    args = ("mechanism.options.rows=64", "+mechanism.options.a.b=x", "mechanism.options.l=[1, 1e-3, a, {b: null}, '2']")
    assert compose("run", *args).mechanism.options == {
        "rows": 64,
        "a": {"b": "x"},
        "l": [1, 1e-3, "a", {"b": None}, "2"],
    }
    space = compose("sweep", "search=own", "search.space.profile.lr={grid: [1e-3, 1e-2]}").search.space
    assert space == {"profile.lr": {"grid": [1e-3, 1e-2]}}


@pytest.mark.parametrize("section, name", NUMBERS, ids=lambda one: getattr(one, "__name__", one))
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, -(10.0**300)])
def test_no_number_is_endless_or_far_below_its_range(section, name, number):
    cfg = section()
    setattr(
        cfg, name, number if without_null(type_hints(section)[name])[0] is float or math.isnan(number) else -(10**300)
    )
    with pytest.raises(ConfigError, match=f"^{name}="):
        config.check(cfg)


def test_every_default_lies_in_its_range():
    needs_values = {"SubnetConfig", "ValidateConfig", "MineConfig", "GatewayConfig"}  # a subnet, a hotkey
    for section in EVERY_SECTION:
        if section.__name__ not in needs_values:
            config.check(section())
        for item in dataclasses.fields(section):
            choices = allowed(item).choices
            assert not choices or isinstance(item.default, str) or item.default is dataclasses.MISSING, item.name


@pytest.mark.parametrize(
    "job, override, told",
    [
        ("run", "miners.num_miner=3", "unknown setting 'miners.num_miner'; did you mean miners.num_miners"),
        ("run", "miners.profiles=[{hiden: 3}]", "unknown setting 'miners.profiles[0].hiden'; did you mean hidden?"),
        ("run", "miners.profiles[7].hiden=3", "'miners.profiles[7].hiden'; did you mean miners.profiles[7].hidden?"),
        ("run", "miners.profiles[8].lr=3", "miners.profiles[8].lr: miners.profiles has 8 entries, numbered from 0"),
        ("run", "miners.profiles=[{lr: x}]", "miners.profiles[0].lr='x': must be a number"),
        ("run", "miners.profiles=[{lr: 1}", "miners.profiles=[{lr: 1}: a ] is missing at the end"),
        ("run", "miners.profiles=[{lr}]", "'lr' has no value; type {lr: value}"),
        ("run", "miners.profiles={lr: 1}", "must be a list; type miners.profiles=[{lr: 1}]"),
        (
            "run",
            "miners=3",
            "miners=3: has settings of its own; type miners.num_miners=VALUE or miners={num_miners: VALUE}",
        ),
        ("run", "rounds=two", "rounds='two': must be a whole number"),
        ("run", "rounds=2.5", "rounds='2.5': must be a whole number"),
        ("run", "rounds=true", "rounds='true': must be a whole number"),
        ("run", "rounds=null", "rounds=null: must have a value"),
        ("run", "rounds=0", "rounds=0: must be greater than 0"),
        ("run", "rounds=[1, 2]", "rounds='[1, 2]': must be a whole number"),
        ("run", "dry_run=maybe", "dry_run='maybe': must be true or false"),
        ("run", "chain.tempo=1", "chain.tempo=1: must lie between 2 and 65535"),
        ("run", "chain.block_time_s=nan", "chain.block_time_s=nan: must be greater than 0"),
        ("run", "mechanism.options.x=nan", "mechanism.options.x=nan: must be finite"),
        ("run", "cluster=lapto", "cluster=lapto: must be one of laptop, local; did you mean laptop?"),
        ("run", "clustr=local", "unknown setting 'clustr'; did you mean cluster?"),
        ("run", "+foo=1", "unknown setting 'foo'"),
        ("run", "hydra.run.dir=x", "unknown setting 'hydra.run.dir'"),
        ("run", "name=", "name='': must be text without line breaks, and not empty"),
        ("run", "name=../x", "name='../x': must be a folder name"),
        ("run", "resume=auto", "resume='auto': needs the name of the run to resume: add name="),
        ("run", "resume=yes", "resume='yes': must be never, auto or must"),
        ("run", "miners.num_miners=5000", "a subnet holds 4096"),
        ("run", "miners.num_hosts=9", "miners.num_hosts=9: must be at most miners.num_miners (8)"),
        ("run", "miners.profiles=[]", "miners.profiles=[]: must hold one profile or more"),
        ("run", "miners.profiles=[{behaviour: kind}]", "must be one of honest, lazy"),
        ("run", "miners.profiles=[{hidden: 100, heads: 3}]", "miners.profiles[0].hidden=100: must be a multiple of"),
        ("run", "mechanism.query.context=4096", "mechanism.query.context=4096: must be at most miners.seq_len (32)"),
        ("run", "mechanism.path=Query", "must be the dotted path of a class"),
        ("run", "chain.endpoint=http://x", "chain.endpoint='http://x': must be a ws:// or wss:// address"),
        ("run", "miners.wire.port=65530", "must leave room for 8 ports up to 65535"),
        ("run", "miners.wire.ip=127.0.0.1", "must be an IP address that the chain takes"),
        ("run", "miners.wire.freshness.max_age_s=90", "retention_s=60.0: must be at least max_age_s + max_skew_s (92)"),
        (
            "run",
            "miners.wire.require_permit=false",
            "miners.wire.require_permit is now miners.wire.policy.require_permit",
        ),
        (
            "run",
            "watch.silent_s=3",
            "unknown setting 'watch.silent_s': it belongs to `raytensor mine`, `raytensor validate`",
        ),
        ("validate", "asking.max_file_mib=3", "asking.max_file_mib is now asking.bounds.max_file_bytes"),
        ("validate", "asking.quorum=0.5", "asking.quorum=0.5: must be above 0.5 and at most 1"),
        ("validate", "validators.num_validators=2", "it belongs to `raytensor run`"),
        ("validate", "validators.stake_tao=2", "it belongs to `raytensor run`"),
        ("validate", "data.heldout_share=2", "data.heldout_share=2.0: must lie between 0 and 1, both excluded"),
        ("validate", "data.vocab_size=3", "data.vocab_size=3: must be 257 or greater"),
        (
            "validate",
            "validators={isolate: true, gpus_per_scorer: 1}",
            "must be false or null where scorers have a GPU",
        ),
        ("validate", "netuids=1", "netuids=1: must be a list; type netuids=[1]"),
        ("validate", "netuids=[0]", "netuids[0]=0: must lie between 1 and 65535"),
        ("validate", "netuids=[]", "netuids=[]: must name one or more: netuids=[1]"),
        ("validate", "subnets=[{netuid: 1}]", "netuids=[1]: must name each once: [1, 1]"),
        (
            "validate",
            "subnets=[{netuid: 5, mechanism: {query: {rows: -3}}}]",
            "subnets[0].mechanism.query.rows=-3: must",
        ),
        ("validate", "chain.network=http://x", "must be finney, test, archive, local or ws(s)://"),
        ("validate", "watch.webhook_env=http://x", "must be the name of an environment variable"),
        ("train", "training.min_lr_share=2", "training.min_lr_share=2.0: must lie between 0 and 1"),
        ("sweep", "scheduler.reduction=1", "scheduler.reduction=1.0: must be greater than 1"),
    ],
)
def test_a_mistake_is_refused_with_the_fix(job, override, told):
    with pytest.raises(ConfigError, match=re.escape(told)):
        compose(job, override)


@pytest.mark.parametrize(
    "args, told",
    [
        (["rounds", "5"], "'rounds 5': a setting is typed as key=value; type rounds=5"),
        (["--rounds=5"], "'--rounds=5': a setting is typed as key=value; type rounds=5"),
        (["--rounds", "5"], "'--rounds 5': a setting is typed as key=value; type rounds=5"),
        (["--dry-run"], "'--dry-run': a setting is typed as key=value; type dry_run=true"),
        (["rounds"], "'rounds': a setting is typed as key=value; type rounds=VALUE"),
        (["rounds", "=", "5"], "'rounds': a setting is typed as key=value; type rounds=VALUE"),
        (["cluster"], "'cluster': a setting is typed as key=value; type cluster=laptop|local"),
        (["~tracker"], "'~tracker': a setting is typed as key=value; type tracker=none|wandb"),
        (["5"], "'5': a setting is typed as key=value, such as name=demo; --help lists the sections"),
        (["a@b=c"], "'a@b=c': a setting is typed as key=value, such as name=demo; --help lists the sections"),
    ],
)
def test_what_is_no_setting_is_answered_with_what_to_type(args, told):
    with pytest.raises(ConfigError) as caught:
        compose("run", *args)
    assert str(caught.value) == told


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        compose("run", "rounds=0", "seed=-1", "data.vocab_size=3")
    assert [line.partition("=")[0] for line in str(caught.value).splitlines()] == ["seed", "data.vocab_size", "rounds"]


@pytest.mark.parametrize("section", EVERY_SECTION, ids=lambda one: one.__name__)
def test_every_field_has_a_comment_above(section):
    assert [key for key, setting in config.settings(section).items() if not setting.comment] == []


@pytest.mark.parametrize("job", ROOTS)
def test_help_is_short_and_can_be_narrowed(job):
    page = config.help_page(job, "usage: what it does\n", ["--help"])
    first = "groups " if groups_of(job) else "settings:"
    assert len(page.splitlines()) < 60 and page.startswith(f"usage: what it does\n\n{first}")
    for name, hint in type_hints(schema_of(job)).items():
        assert re.search(rf"^  {name}[ =]", page, re.MULTILINE), name
        if isinstance(hint, type) and issubclass(hint, Section):
            assert f"  {name}." in config.help_page(job, "", [name, "-h"])
    everything = config.help_page(job, "", ["--help", "all"])
    assert all(f"  {key}=" in everything for key in config.settings(schema_of(job)))


def test_help_of_a_key():
    assert config.help_page("run", "", ["--help", "miners.wire.policy.hotkey_rate"]) == (
        "  miners.wire.policy.hotkey_rate=50.0\n      Requests per second of one hotkey, per replica.\n"
    )
    assert "\n  hidden=128\n" in config.help_page("run", "", ["--help", "miners.profiles"])
    with pytest.raises(ConfigError, match="unknown setting 'minrs'; did you mean miners"):
        config.help_page("run", "", ["--help", "minrs"])
