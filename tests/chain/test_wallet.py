"""Key references, Bittensor's key files, and that secrets stay where they are."""

import json
import os
import pickle
import stat

import bittensor_core
import pytest

from raytensor.chain.wallet import (
    DevKey,
    WalletKey,
    key_ref,
    keypair_from,
    new_phrase,
    refuse_readable_coldkey,
    write_key,
)
from raytensor.errors import WalletError

ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
PHRASE = "bottom drive obey lake curtain smoke basket hold race lonely fit walk"  # the development phrase
DEV_ROOT = "5DfhGyQdFobKM8NsWvEeAKk5EQQgYe9AydgJ7rMB6E1EqRzV"


@pytest.fixture(autouse=True)
def no_passwords(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("BT_WALLET", "BT_PW")):
            monkeypatch.delenv(name)


def wallet(tmp_path, hotkey=None, **changes):
    return WalletKey("cold", hotkey, path=str(tmp_path), **changes)


def test_development_keys():
    assert DevKey("//Alice").ss58 == ALICE
    signer = DevKey("//Alice").open()
    assert bittensor_core.Keypair(ss58_address=ALICE).verify(b"message", signer.sign(b"message"))
    for bad in ("Alice", PHRASE, PHRASE + "//Alice"):
        with pytest.raises(WalletError):
            DevKey(bad)


def test_a_signer_stays_in_its_process_and_shows_only_its_address():
    signer = DevKey("//Alice").open()
    assert repr(signer) == f"Signer({ALICE})"
    with pytest.raises(TypeError, match="must not leave"):
        pickle.dumps(signer)


def test_references_from_text(tmp_path):
    assert key_ref("//Alice//miner//3") == DevKey("//Alice//miner//3")
    assert key_ref("w", str(tmp_path)) == WalletKey("w", None, str(tmp_path))
    assert key_ref("w/h").file.name == "h"
    for bad in ("", "w/", "a/b/c", "/h"):
        with pytest.raises(WalletError):
            key_ref(bad)


def test_plain_files_read_back_and_have_the_known_address(tmp_path):
    file = write_key(wallet(tmp_path, "hot"), keypair_from(PHRASE))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    data = json.loads(file.read_bytes())
    assert data["ss58Address"] == DEV_ROOT and data["secretPhrase"] == PHRASE
    ref = wallet(tmp_path, "hot")
    assert ref.ss58 == ref.open().ss58 == DEV_ROOT
    assert PHRASE.split()[0] not in repr(ref) and pickle.loads(pickle.dumps(ref)) == ref


def test_encrypted_files_open_by_file_by_name_and_by_bittensors_names(tmp_path, monkeypatch):
    file = write_key(wallet(tmp_path), keypair_from(PHRASE), password="secret word")
    assert file.read_bytes().startswith(b"$NACL")
    assert "secretPhrase" not in (tmp_path / "cold" / "coldkeypub.txt").read_text()
    assert wallet(tmp_path).ss58 == DEV_ROOT  # from the public file: no password

    with pytest.raises(WalletError, match="is encrypted: give password_file"):
        wallet(tmp_path).open()
    monkeypatch.setenv("MY_WORD", "wrong")
    with pytest.raises(WalletError, match="does not open"):
        wallet(tmp_path, password_env="MY_WORD").open()
    monkeypatch.setenv("MY_WORD", "secret word")
    assert wallet(tmp_path, password_env="MY_WORD").open().ss58 == DEV_ROOT
    word = tmp_path / "word"
    word.write_text("secret word\n")
    word.chmod(0o600)
    assert wallet(tmp_path, password_file=str(word)).open().ss58 == DEV_ROOT
    monkeypatch.setenv("BT_WALLET_PASSWORD_FILE", str(word))
    assert wallet(tmp_path).open().ss58 == DEV_ROOT


def test_files_that_can_not_be_used_say_why(tmp_path):
    with pytest.raises(WalletError, match="there is no key file"):
        wallet(tmp_path).open()
    file = write_key(wallet(tmp_path, "hot"), keypair_from(PHRASE))
    file.chmod(0o644)
    with pytest.raises(WalletError, match="chmod 600"):
        wallet(tmp_path, "hot").open()
    file.chmod(0o600)
    file.write_text("not a key")
    with pytest.raises(WalletError, match="not a Bittensor key file"):
        wallet(tmp_path, "hot").open()
    with pytest.raises(WalletError, match="MISSING"):
        file.write_bytes(bittensor_core.encrypt_keyfile_data(b'{"x":1}', "pw"))
        wallet(tmp_path, "hot", password_env="MISSING").open()


def test_a_key_is_never_replaced_by_surprise(tmp_path):
    write_key(wallet(tmp_path, "hot"), keypair_from(PHRASE))
    with pytest.raises(WalletError, match="never replaced"):
        write_key(wallet(tmp_path, "hot"), keypair_from(new_phrase()))
    assert wallet(tmp_path, "hot").ss58 == DEV_ROOT


def test_a_bad_phrase_is_not_repeated_in_the_error():
    with pytest.raises(WalletError) as caught:
        keypair_from("correct horse battery staple")
    assert "horse" not in str(caught.value) and caught.value.__cause__ is None
    with pytest.raises(WalletError):
        keypair_from("0x1234")
    assert keypair_from("0x" + "11" * 32).ss58_address == keypair_from("0x" + "11" * 32).ss58_address


def test_hotkey_only_roles_refuse_a_coldkey_in_reach(tmp_path):
    write_key(wallet(tmp_path, "hot"), keypair_from(PHRASE))
    refuse_readable_coldkey(wallet(tmp_path, "hot"))
    refuse_readable_coldkey(DevKey("//Alice"))
    write_key(wallet(tmp_path), keypair_from(new_phrase()))
    with pytest.raises(WalletError, match="hotkey-only") as refused:
        refuse_readable_coldkey(wallet(tmp_path, "hot"))
    assert str(wallet(tmp_path).file) in str(refused.value) and "allow_coldkey=true" in str(refused.value)
