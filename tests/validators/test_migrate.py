"""`raytensor migrate`: the scores of a validator of the subnet template, in the board that `validate` goes on from."""

import json
import pickle
import zipfile

import numpy as np
import pytest

from raytensor import config
from raytensor.chain.wallet import DevKey
from raytensor.cli import main
from raytensor.mechanisms.evidence import Evidence
from raytensor.mechanisms.guard import Guard
from raytensor.mechanisms.query import QueryMechanism
from raytensor.types import Failure, Reason
from raytensor.validators.scoreboard import ScoreBoard

MINERS = [DevKey(f"//miner//{number}").ss58 for number in range(4)]
VALIDATOR = DevKey("//Alice").ss58
QUERY = "raytensor.mechanisms.query.QueryMechanism"


def migrate(tmp_path, *more):
    return main(
        ["migrate", "--state", str(tmp_path / "state.npz"), "--netuid", "5", "--wallet.hotkey", "//Alice"]
        + [f"paths.runs={tmp_path / 'runs'}", *more]
    )


def save(tmp_path, step=120, scores=(0.5, 0.25, np.nan, 0.0), hotkeys=MINERS, **more):
    arrays = {"step": np.int64(step), "scores": np.array(scores, np.float32), "hotkeys": np.array(hotkeys), **more}
    np.savez(tmp_path / "state.npz", **arrays)


def test_scores_go_on_where_they_were(tmp_path, capsys):
    save(tmp_path)
    assert migrate(tmp_path, "--neuron.name", "vali", "--logging.debug") == 0
    said = capsys.readouterr().out
    assert "3 scores after 120 steps, 1 that were not finite are left out" in said
    folder = tmp_path / "runs" / "vali"
    assert (folder / "validate.sh").read_text().splitlines()[-1] == (
        f"exec raytensor validate 'hotkeys=[//Alice]' 'netuids=[5]' name=vali paths.runs={tmp_path / 'runs'}"
    )
    cfg = config.Mechanism()
    mechanism = Guard(QueryMechanism(cfg, np.full(256, -5.5, np.float32), 256, deadline_s=1.0), QUERY)
    board = ScoreBoard(5, VALIDATOR, mechanism, QUERY)
    assert board.restore(folder / "netuid5" / VALIDATOR / "board.json", now=0.0)
    assert board.state.round == 120
    assert board.weights() == {MINERS[0]: 2 / 3, MINERS[1]: 1 / 3, MINERS[3]: 0.0}
    silent = Failure("5/121/x", MINERS[1], Reason.SILENT)
    board.update(Evidence(5, VALIDATOR, 121, (silent,), gone=(MINERS[3],)))
    assert set(board.weights()) == {MINERS[0], MINERS[1]} and board.weights()[MINERS[0]] > 2 / 3


def test_a_mechanism_of_ones_own_names_its_average(tmp_path):
    save(tmp_path)
    own = "mechanism.path=mypackage.rules.Mine"
    assert migrate(tmp_path, own) == 2
    assert migrate(tmp_path, own, "--score", "ema") == 0
    board = json.loads((tmp_path / "runs/validator/netuid5" / VALIDATOR / "board.json").read_text())
    assert board["mechanism"] == "mypackage.rules.Mine"
    assert board["miners"][MINERS[0]] == {"ema": 0.5}


def test_a_dry_run_writes_nothing_and_a_board_is_never_replaced(tmp_path, capsys):
    save(tmp_path)
    assert migrate(tmp_path, "--dry-run") == 0
    assert not (tmp_path / "runs").exists()
    capsys.readouterr()
    assert migrate(tmp_path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["num_not_finite"] == 1
    assert migrate(tmp_path) == 2
    assert "exists: another --neuron.name" in capsys.readouterr().err


class Trap:
    """An object whose unpickling would leave a trace."""

    def __reduce__(self):
        return (print, ("unpickled",))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"hotkeys": MINERS[:3]}, "4 scores for 3 hotkeys"),
        ({"hotkeys": [*MINERS[:3], "miner"]}, "'miner' is no hotkey"),
        ({"hotkeys": [*MINERS[:3], MINERS[0]]}, "twice"),
        ({"scores": (0.5, -0.25, 0.0, 0.0)}, "negative"),
        ({"scores": np.zeros((2, 2))}, "one of each for every uid"),
        ({"step": -1}, "step"),
        ({"hotkeys": np.array([Trap()] * 4, object)}, "nothing in it is unpickled"),
    ],
)
def test_a_file_that_is_none_is_refused_whole(tmp_path, capsys, change, why):
    save(tmp_path, **change)
    assert migrate(tmp_path) == 1
    out = capsys.readouterr()
    assert why in out.err and "unpickled" not in out.out
    assert not (tmp_path / "runs").exists()


def test_other_files_are_refused(tmp_path, capsys):
    file = tmp_path / "state.npz"
    assert migrate(tmp_path) == 1 and "--state FILE" in capsys.readouterr().err
    file.write_bytes(pickle.dumps(Trap()))
    assert migrate(tmp_path) == 1
    out = capsys.readouterr()
    assert "is no state.npz" in out.err and "unpickled" not in out.out
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("scores.npy", bytes(65 * 2**20))
    assert migrate(tmp_path) == 1 and "bytes unpacked" in capsys.readouterr().err
    np.savez(file, step=1)
    assert migrate(tmp_path) == 1 and "lacks the array" in capsys.readouterr().err


def test_the_templates_own_place_is_found(tmp_path, capsys):
    at = tmp_path / "logs" / "cold" / "//Alice".strip("/") / "netuid5" / "vali"
    at.mkdir(parents=True)
    np.savez(at / "state.npz", step=3, scores=np.ones(4), hotkeys=MINERS)
    args = ["migrate", "--netuid", "5", "--wallet.name", "cold", "--wallet.hotkey", "Alice", "--neuron.name", "vali"]
    args += ["--logging.logging_dir", str(tmp_path / "logs"), "--wallet.path", str(tmp_path / "wallets")]
    folder = tmp_path / "wallets" / "cold" / "hotkeys"
    folder.mkdir(parents=True)
    (folder / "Alice").write_text(json.dumps({"ss58Address": VALIDATOR}))
    assert main([*args, f"paths.runs={tmp_path / 'runs'}"]) == 0
    assert (tmp_path / "runs/vali/netuid5" / VALIDATOR / "board.json").exists(), capsys.readouterr()
