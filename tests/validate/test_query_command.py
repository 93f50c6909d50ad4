"""`raytensor query` against miners that are served over the wire: mixed and single answers, streams, clear refusals."""

from __future__ import annotations

import json
from contextlib import ExitStack

import netkit
import numpy as np
import pytest
from omegaconf import OmegaConf

from raytensor import cli, config
from raytensor.chain.wallet import DevKey
from raytensor.commands.query_miners import pick
from raytensor.commands.request_signer import ProcessSigner
from raytensor.telemetry.event_log import EventLog
from raytensor.telemetry.events import NetworkUp, Stopped
from raytensor.wire.errors import MalformedAuth

STRANGER = DevKey("//Bob")


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    with ExitStack() as stack:
        yield netkit.start(tmp_path_factory.mktemp("net"), stack, subnets=1)


def ask(net, capsys, *more: str, key: DevKey | None = None, local: bool = True) -> tuple[int, str, str]:
    who = (key or net.validators[0]).uri
    status = cli.main(
        [
            "query",
            "--netuid",
            str(net.netuids[0]),
            "--network",
            net.endpoint,
            "--wallet.hotkey",
            who,
            *(["--allow-local"] if local else []),
            "--prompt",
            "Return the li",
            *more,
        ]
    )
    told = capsys.readouterr()
    return status, told.out, told.err


def test_mixed_and_single_answers(net, capsys):
    status, out, err = ask(net, capsys, "--tokens", "8", "--json")
    assert status == 0, err
    told = json.loads(out)
    best, worse, silent = net.miners[net.netuids[0]]
    by_hotkey = {one["hotkey"]: one for one in told["answers"]}
    assert len(told["mixed"].encode()) == 8 and by_hotkey.keys() == {best, worse, silent}
    assert by_hotkey[silent]["error"] == "silent: 422 Declined: asleep" and by_hotkey[silent]["text"] is None
    assert by_hotkey[best]["tokens"] == 8 and by_hotkey[best]["median_ms"] > 0 and by_hotkey[best]["error"] is None
    # The best one's bigrams and the worse one's do not go on alike; both go on from their own words.
    assert by_hotkey[best]["text"] != by_hotkey[worse]["text"]
    status, out, _ = ask(net, capsys, "--tokens", "8", "--json", "--miner", best)
    assert json.loads(out)["mixed"] == by_hotkey[best]["text"], "one miner's mixture is its own answer"
    status, out, _ = ask(net, capsys, "--tokens", "3")
    assert status == 0 and out.startswith("Return the li") and "its own answer" in out and "asleep" in out


def test_a_stream_of_the_first_that_talks(net, capsys):
    best, worse, silent = net.miners[net.netuids[0]]
    status, out, err = ask(net, capsys, "--stream", "--miner", silent, "--miner", worse)
    assert status == 0, err
    assert out.startswith(f"Return the li ... said {worse[:6]} ") and "weight" in out


def test_refusals_say_who_and_why(net, capsys):
    status, out, err = ask(net, capsys, key=STRANGER)
    assert status == 1 and "none of the 3 miners that were asked answered" in err
    for hotkey in net.miners[net.netuids[0]]:
        assert hotkey in err
    assert "Refused" in err and "127.0.0.2" in err
    status, _, err = ask(net, capsys, "--stream", key=STRANGER)
    assert status == 1 and "Refused" in err
    silent = net.miners[net.netuids[0]][2]
    status, _, err = ask(net, capsys, "--stream", "--miner", silent)
    assert status == 1 and f"{silent} at 127.0.0.2" in err
    assert "answers no prompts, only tasks (404): ask it without --stream" in err
    status, _, err = ask(net, capsys, "--miner", "99")
    assert status == 2 and "--miner 99: is not on subnet" in err
    status, _, err = ask(net, capsys, "--tokens", "0")
    assert status == 2 and "--tokens: '0': give a whole number from 1 to 65536" in err
    status, _, err = ask(net, capsys, "--netuid", "1")
    assert status == 1 and ("nobody serves" in err or "no subnet 1" in err)


def test_advice_names_options_of_this_command(net, capsys):
    status, _, err = ask(net, capsys, local=False)
    assert status == 1 and "(--allow-local asks such addresses)" in err and "allow_local_addresses" not in err


def test_a_small_temperature_takes_the_likeliest_token(net, capsys):
    best = net.miners[net.netuids[0]][0]
    answers = [
        json.loads(ask(net, capsys, "--tokens", "4", "--json", "--miner", best, "--temperature", text)[1])
        for text in ("0", "0.001", "5e-324")
    ]
    assert answers[0]["mixed"] == answers[1]["mixed"] == answers[2]["mixed"]


def test_a_token_is_drawn_with_the_power_of_its_probability():
    distribution = np.array([0.0, 0.2, 0.5, 0.3])
    for temperature in (0.0, 5e-324, 1e-9, 0.001):
        assert pick(distribution, temperature, np.random.default_rng(1)) == 2
    for temperature in (1.0, 2.0, 100.0):
        expected = distribution ** (1 / temperature) * (distribution > 0)
        counts = np.bincount([pick(distribution, temperature, np.random.default_rng(n)) for n in range(4000)])
        assert counts[0] == 0
        assert np.allclose(counts / 4000, expected / expected.sum(), atol=0.03)


def test_a_run_that_has_ended_is_named_instead_of_an_endpoint(tmp_path, capsys):
    with EventLog(tmp_path / "events.jsonl") as log:
        log.append(NetworkUp("ws://127.0.0.1:9", 2, 1, 10, ()))
        log.append(Stopped("finished"))
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(config.RunConfig)))
    who = ["--wallet.hotkey", "//Alice", "--prompt", "x"]
    assert cli.main(["query", "--run", str(tmp_path), *who]) == 1
    err = capsys.readouterr().err
    assert "the run has ended (finished), and its chain at ws://127.0.0.1:9 with it" in err and "20 s" not in err


def test_the_key_signs_elsewhere_and_requests_only(net):
    signer = ProcessSigner(net.validators[0])
    try:
        assert signer.ss58 == net.validators[0].ss58 and signer.crypto_type == 1
        with pytest.raises(MalformedAuth):
            signer.sign(b"\x05\x00 an extrinsic")
    finally:
        signer.close()
