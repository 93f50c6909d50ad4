"""The run folder: one process at a time, whole files, no secrets."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
import time
from dataclasses import dataclass, field

import pytest
import yaml

from raytensor.config import compose
from raytensor.errors import RunError
from raytensor.jobs.process import JobLog
from raytensor.telemetry import events
from raytensor.telemetry.event_log import EventLog, read_events
from raytensor.telemetry.redact import redact, redact_text, redacted_keys
from raytensor.telemetry.runfolder import RunFolder, new_name


def test_claims_makes_and_lets_go(tmp_path):
    with RunFolder(tmp_path / "runs" / "demo") as folder:
        assert folder.name == "demo" and folder.checkpoints.is_dir() and not folder.resuming
        assert (folder.path / ".lock").read_text() == f"{os.getpid()}\n"
    with RunFolder(tmp_path / "runs" / "demo"):  # nothing was run in it, so it is free
        pass


def test_two_processes_never_share_a_folder(tmp_path):
    program = (
        "import sys; from raytensor.telemetry.runfolder import RunFolder\n"
        "f = RunFolder(sys.argv[1]); print('in', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "a")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "in\n"
        with pytest.raises(
            RunError,
            match=rf"another run works in it \(process {other.pid}\); wait for it, stop it, or take another name",
        ):
            RunFolder(tmp_path / "a")
        other.kill()
        other.wait(timeout=60)
        RunFolder(tmp_path / "a").close()  # the dead process's claim ended with it
    finally:
        other.kill()
        other.wait(timeout=60)


def test_a_finished_run_is_not_written_over(tmp_path):
    with RunFolder(tmp_path / "demo") as folder:
        folder.events.write_text("")
    with pytest.raises(
        RunError, match="holds a run already; take another name, or resume it with `name=demo resume=auto`"
    ):
        RunFolder(tmp_path / "demo")
    RunFolder(tmp_path / "demo", resume="auto").close()


def test_resume_must_needs_a_state(tmp_path):
    with pytest.raises(RunError, match="no saved state to resume from"):
        RunFolder(tmp_path / "demo", resume="must")
    assert not (tmp_path / "demo").exists()
    with RunFolder(tmp_path / "demo", resume="auto") as folder:
        assert folder.load_state() is None
        folder.save_state({"round": 3})
        folder.save_state({"round": 4, "board": {"5Min": [1.5, None]}})
    with RunFolder(tmp_path / "demo", resume="must") as folder:
        assert folder.resuming and folder.load_state() == {"round": 4, "board": {"5Min": [1.5, None]}}


@pytest.mark.parametrize("text", ["{", "[1]", ""])
def test_a_broken_state_is_named(tmp_path, text):
    with RunFolder(tmp_path / "demo") as folder:
        folder.state.write_text(text)
        with pytest.raises(RunError, match="state.json"):
            folder.load_state()


def test_half_written_files_are_swept(tmp_path):
    with RunFolder(tmp_path / "demo") as folder:
        (folder.path / ".state.json.tmp").write_text('{"rou')
        folder.save_state({"round": 1})
        (folder.path / ".summary.json.tmp").write_text("{")
    with RunFolder(tmp_path / "demo", resume="auto") as folder:
        assert sorted(p.name for p in folder.path.iterdir()) == [".lock", ".rayignore", "checkpoints", "state.json"]


def test_a_place_that_can_not_hold_runs(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="set paths.runs to a folder you may write"):
        RunFolder(tmp_path / "file" / "demo")


def test_summary_refuses_nan_and_keeps_the_old_one(tmp_path):
    with RunFolder(tmp_path / "demo") as folder:
        folder.write_summary({"a": 1})
        with pytest.raises(ValueError):
            folder.write_summary({"a": float("nan")})
        assert folder.summary.read_text() == '{\n  "a": 1\n}\n'


def test_names_from_the_time_never_collide(tmp_path):
    now = time.mktime((2026, 11, 23, 0, 45, 12, 0, 0, -1))
    assert new_name(tmp_path, now) == "run-20261123-004512"
    (tmp_path / "run-20261123-004512").mkdir()
    (tmp_path / "run-20261123-004512-2").mkdir()
    assert new_name(tmp_path, now) == "run-20261123-004512-3"


def test_the_shipped_configuration_is_written_unharmed(tmp_path):
    cfg = compose("run", ["name=demo", "seed=7"])
    with RunFolder(tmp_path / "demo") as folder:
        folder.write_config(cfg)
        text = folder.config.read_text()
    written = yaml.safe_load(text)
    assert (
        written["seed"] == 7
        and written["data"]["tokenizer"] == "bpe"
        and written["miners"]["profiles"][0]["hidden"] == 128
    )
    assert "redacted" not in text


@dataclass
class Login:
    endpoint: str = "wss://user:pw@node.example:443"
    api_key: str = "abc"
    api_key_file: str = "~/.key"
    password_env: str = "BT_PW"
    tokens: list[str] = field(default_factory=lambda: ["t1"])
    tokenizer: str = "bpe"
    seed: int = 3


def test_secrets_are_blotted_out_of_the_configuration(tmp_path):
    with RunFolder(tmp_path / "demo") as folder:
        folder.write_config(Login())
        assert stat.S_IMODE(folder.config.stat().st_mode) == 0o600
        assert yaml.safe_load(folder.config.read_text()) == {
            "endpoint": "wss://[redacted]@node.example:443",
            "api_key": "[redacted]",
            "api_key_file": "~/.key",
            "password_env": "BT_PW",
            "tokens": ["[redacted]"],
            "tokenizer": "bpe",
            "seed": 3,
        }


@pytest.mark.parametrize(
    "secret",
    [
        "0x" + "ab" * 32,
        "cd" * 64,
        "hf_" + "A" * 30,
        "sk-proj-" + "a1B2" * 6,
        "github_pat_" + "A1" * 20,
        "wandb_v1_" + "aB3" * 12,
        "legal winner thank year wave sausage worth useful legal winner thank yellow",
        "legal winner thank year wave sausage worth useful legal winner thank year wave sausage worth",
    ],
)
def test_the_shape_of_a_secret_is_enough(secret):
    assert redact({"note": [secret, 1, None, True]}) == {"note": ["[redacted]", 1, None, True]}


@pytest.mark.parametrize(
    "text",
    [
        "ws://127.0.0.1:9944",
        "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY",
        "raytensor.mechanisms.query.QueryMechanism",
        "/data/*.txt",
        "a plain sentence of english words",
        "~/.cache/huggingface/hub/datasets--a--b/snapshots/" + "0123456789" * 4 + "/a.txt",
        "/hub/blobs/" + "ab" * 32,
        "f" * 40,
        "https://host/datasets/" + "f" * 40,
    ],
)
def test_plain_settings_are_left_alone(text):
    assert redact_text(text) == text == redact({"data": {"files": text}})["data"]["files"]


@pytest.mark.parametrize(
    "text, shown",
    [
        ("WANDB_API_KEY=" + "f" * 40, "WANDB_API_KEY=[redacted]"),
        ("the key: " + "f" * 40, "the key: [redacted]"),
        ("wss://node.example/v1/" + "0a1b" * 8, "wss://node.example/v1/[redacted]"),
        ("wss://user:pw@node.example/x?api_key=abc", "wss://[redacted]@node.example/x?api_key=[redacted]"),
    ],
)
def test_keys_are_found_by_the_words_around_them(text, shown):
    assert redact_text(text) == shown and redacted_keys({"a": [1, {"b": shown}], "c": "d"}) == ["a[1].b"]


KEY = "a1b2c3d4-e5f6-7890-abcd-ef1234567890"


@pytest.mark.parametrize(
    "text, shown",
    [
        (f"wss://api-bittensor-mainnet.n.dwellir.com/{KEY}", "wss://api-bittensor-mainnet.n.dwellir.com/[redacted]"),
        (f"https://api.n.dwellir.com/{KEY}", "https://api.n.dwellir.com/[redacted]"),
        (f"WSS://API.example/{KEY}", "WSS://API.example/[redacted]"),
        (f"'wss://api.example/{KEY}': refused", "'wss://api.example/[redacted]': refused"),
        (f"no answer (wss://api.example/{KEY}); again", "no answer (wss://api.example/[redacted]); again"),
        (f"ws://a:1,wss://b/v1/{KEY}/ws?x=1", "ws://a:1,wss://b/v1/[redacted]/ws?x=1"),
        (f"wss://b/{KEY}/{KEY}", "wss://b/[redacted]/[redacted]"),
        ("wss://x.example/abcDEF123456_xyz9", "wss://x.example/[redacted]"),
        ("https://x.example/v3/0123456789abcdef0123456789abcdef", "https://x.example/v3/[redacted]"),
        ("wss://me:p@ss@host:9944/x", "wss://[redacted]@host:9944/x"),
        ("wss://x/?key=12345&y=1", "wss://x/?key=[redacted]&y=1"),
        (f"wss://x/ws?k={KEY}", "wss://x/ws?k=[redacted]"),
        ("https://hooks.slack.com/services/T0/B0/abc", "https://hooks.slack.com/services/[redacted]"),
        ("https://discord.com/api/webhooks/12/ab-c", "https://discord.com/api/webhooks/[redacted]"),
    ],
)
def test_keys_of_addresses_reach_no_file(tmp_path, text, shown):
    assert redact_text(text) == redact_text(shown) == shown, "and a redacted text stays as it is"
    log = EventLog(tmp_path / "events.jsonl")
    log.append(events.Warned(text=f"because {text}"))
    log.close()
    assert read_events(log.path)[0].text == f"because {shown}"
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600
    with JobLog(tmp_path / "job.log"):
        logging.getLogger("x").error("because %s", text)
    assert f"because {shown}\n" in (tmp_path / "job.log").read_text()
    assert stat.S_IMODE((tmp_path / "job.log").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "text",
    [
        "ws://127.0.0.1:9944",
        "wss://entrypoint-finney.opentensor.ai:443",
        "wss://bittensor-finney.api.onfinality.io/public-ws",
        "https://huggingface.co/datasets/x/resolve/0123456789abcdef0123456789abcdef01234567/a.txt",
        "/home/u/hub/snapshots/0123456789abcdef0123456789abcdef01234567/a.txt",
        "http://127.0.0.1:8265/api/jobs/raysubmit_abcdefghijklmnop",
    ],
)
def test_addresses_without_a_key_are_left_alone(text):
    assert redact_text(text) == text
