"""Key files both ways with the real bittensor 11: coldkey, coldkeypub.txt and hotkey, plain and encrypted.

It lives in an environment of its own; RAYTENSOR_BITTENSOR_PYTHON names its interpreter.
"""

import json
import os
import subprocess
from pathlib import Path

import bittensor_core
import pytest

from raytensor.chain.wallet import WalletKey, keypair_from, new_phrase, write_key
from raytensor.commands.wallet import wallet_main
from raytensor.errors import WalletError

PYTHON = os.environ.get("RAYTENSOR_BITTENSOR_PYTHON")
PEER = Path(__file__).with_name("bittensor11_wallet.py")
WORD = "correct horse"

pytestmark = pytest.mark.skipif(not PYTHON, reason="RAYTENSOR_BITTENSOR_PYTHON names no interpreter with bittensor 11")


def bittensor(path, **asked):
    """What bittensor sees of wallets in a folder."""
    told = json.dumps({"path": str(path), "password": WORD, **asked})
    env = {name: value for name, value in os.environ.items() if not name.startswith("BT_")}
    done = subprocess.run([PYTHON, str(PEER), told], capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("cold_word, hot_word", [(WORD, None), (None, WORD)])
def test_what_we_write_opens_in_bittensor(tmp_path, cold_word, hot_word):
    cold, hot = keypair_from(new_phrase()), keypair_from(new_phrase(24))
    write_key(WalletKey("ours", None, str(tmp_path)), cold, password=cold_word)
    write_key(WalletKey("ours", "hot", str(tmp_path)), hot, password=hot_word)
    seen = bittensor(tmp_path, look=["ours"])["ours"]
    assert (seen["coldkey"], seen["coldkeypub"], seen["hotkey"]) == (cold.ss58_address,) * 2 + (hot.ss58_address,)
    assert seen["encrypted"] == {"coldkey": cold_word is not None, "hotkey": hot_word is not None}
    assert cold.verify(b"from bittensor", bytes.fromhex(seen["signature"]))
    assert seen["listed"] == ["hot"]


@pytest.mark.parametrize("cold_word, hot_word", [(WORD, None), (None, WORD)])
def test_what_bittensor_writes_opens_here(tmp_path, monkeypatch, capsys, cold_word, hot_word):
    for name in [name for name in os.environ if name.startswith("BT_")]:
        monkeypatch.delenv(name)
    seen = bittensor(tmp_path, make=[["theirs", cold_word, hot_word]], look=["theirs"])["theirs"]
    cold, hot = WalletKey("theirs", None, str(tmp_path)), WalletKey("theirs", "hot", str(tmp_path))
    assert cold.ss58 == seen["coldkeypub"]  # from the public file, without a password
    if cold_word:
        with pytest.raises(WalletError, match="is encrypted"):
            cold.open()
    monkeypatch.setenv("BT_WALLET_PASSWORD", WORD)
    assert (cold.open().ss58, hot.open().ss58) == (seen["coldkey"], seen["hotkey"])
    signature = cold.open().sign(b"from here")
    assert bittensor_core.Keypair(ss58_address=seen["coldkey"]).verify(b"from here", signature)
    assert wallet_main(["list", "--wallet.path", str(tmp_path), "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)["wallets"]
    assert [h["name"] for h in listed["hotkeys"]] == ["hot"]
    if hot_word is None:
        assert listed["hotkeys"][0]["ss58"] == seen["hotkey"]
