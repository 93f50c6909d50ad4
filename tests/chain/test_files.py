"""The files that money depends on: their modes, what a full disk leaves, and what is said of damaged ones."""

from __future__ import annotations

import json
import os
import resource
import stat
import subprocess
import sys

import pytest

from raytensor import clock, disk
from raytensor.chain.calls import Call
from raytensor.chain.named_call import NamedCall
from raytensor.chain.wallet import WalletKey, keypair_from, new_phrase, secret_lines, write_key
from raytensor.chain.writer import lease as leases
from raytensor.chain.writer.journal import Journal
from raytensor.chain.writer.lease import FILE, Lease, holders
from raytensor.commands.wallet import wallet_main
from raytensor.errors import ChainRefused, ConfigError, DataError, WalletError

PHRASE = "bottom drive obey lake curtain smoke basket hold race lonely fit walk"
DEV_ROOT = "5DfhGyQdFobKM8NsWvEeAKk5EQQgYe9AydgJ7rMB6E1EqRzV"


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def secret(path, data: bytes):
    path.write_bytes(data)
    path.chmod(0o600)
    return path


# Journal and leases


def open_journal(folder):
    return Journal(folder / "j.db", "0xchain")


def open_lease(folder):
    return Lease(folder, "0xchain", ["5Key"], wait_s=0)


def test_journal_and_leases_are_readable_by_their_owner_only(tmp_path):
    before = os.umask(0o022)
    try:
        journal, lease = open_journal(tmp_path), open_lease(tmp_path)
    finally:
        os.umask(before)
    assert {path.name: mode(path) for path in tmp_path.iterdir()} == dict.fromkeys(
        ["j.db", "j.db-wal", "j.db-shm", FILE, f"{FILE}-wal", f"{FILE}-shm"], 0o600
    )
    lease.release()
    journal.close()
    (tmp_path / "j.db").chmod(0o644)  # as older versions wrote it
    open_journal(tmp_path).close()
    assert mode(tmp_path / "j.db") == 0o600


def garbage(path):
    path.write_bytes(b"no database " * 1000)


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    os.truncate(path, 0)


def overwritten(path):
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)


@pytest.mark.parametrize("damage", [garbage, cut, empty, overwritten])
@pytest.mark.parametrize(
    "name, start, lost",
    [("j.db", open_journal, "Lost are receipts and ids"), (FILE, open_lease, "only the leases are lost")],
)
def test_a_damaged_file_is_one_error_with_the_way_out(tmp_path, damage, name, start, lost):
    opened, path = start(tmp_path), tmp_path / name
    getattr(opened, "close" if name == "j.db" else "release")()
    assert not path.with_name(f"{name}-wal").exists()
    damage(path)
    kept = path.read_bytes()
    with pytest.raises(DataError) as told:
        start(tmp_path)
    assert f"{path}: the " in str(told.value) and " is damaged (" in str(told.value) and lost in str(told.value)
    assert path.read_bytes() == kept, "what can still be rescued is not touched"
    subprocess.run(str(told.value).split("aside: ")[1].split(" (also")[0].split(), check=True)
    start(tmp_path)  # and the advice works


def test_a_file_on_a_network_volume_is_refused_unless_allowed(tmp_path, monkeypatch):
    mounts, volume = tmp_path / "mountinfo", tmp_path / "a volume" / "deep"
    volume.mkdir(parents=True)
    named = str(tmp_path / "a volume").replace(" ", "\\040")
    mounts.write_text(
        "21 1 252:0 / / rw,relatime - ext4 /dev/vda rw\n"
        f"98 21 0:51 / {named} rw,relatime shared:9 - nfs4 server:/export rw,vers=4.2\n"
    )
    monkeypatch.setattr(disk, "MOUNTS", mounts)
    assert disk.network_filesystem(tmp_path) == "" and disk.network_filesystem(volume / "not there") == "nfs4"
    with pytest.raises(ConfigError, match=r"journal can't lie on a network volume \(nfs4\).*RAYTENSOR_NETWORK_STATE=1"):
        open_journal(volume)
    with pytest.raises(ConfigError, match="file of leases can't lie on a network volume"):
        open_lease(volume)
    assert list(volume.iterdir()) == []
    monkeypatch.setenv("RAYTENSOR_NETWORK_STATE", "1")
    open_journal(volume).close()
    for kind, is_network in (("cifs", True), ("fuse.sshfs", True), ("fuse.fuse-overlayfs", False), ("overlay", False)):
        mounts.write_text(f"98 21 0:51 / {named} rw - {kind} x rw\n")
        assert bool(disk.network_filesystem(volume)) is is_network


def test_a_lease_lasts_its_length_whatever_the_clock_says(tmp_path, monkeypatch):
    """Set by two hours either way; the times since the machine's start go on."""
    lease = open_lease(tmp_path)
    for jump_s in (7200.0, -7200.0):
        real = leases.time.time
        monkeypatch.setattr(leases.time, "time", lambda real=real, jump_s=jump_s: real() + jump_s)
        with pytest.raises(ChainRefused, match="two writers with one key"):
            open_lease(tmp_path)
        assert not holders(tmp_path)[0].has_expired
        monkeypatch.undo()
    assert lease.valid
    start = clock.since_boot()
    monkeypatch.setattr(leases, "since_boot", lambda: start + 31)  # as after a suspended half minute
    assert not lease.valid and holders(tmp_path)[0].has_expired
    successor = open_lease(tmp_path)
    assert lease.renew() is not None
    successor.release()
    monkeypatch.undo()
    lease.release()


# Keys

CREATE = """
import resource, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
from raytensor.commands.wallet import wallet_main
sys.exit(wallet_main(sys.argv[2:]))
"""


def test_a_full_disk_leaves_no_part_of_a_key_and_the_next_create_works(tmp_path):
    """RLIMIT_FSIZE: the system itself refuses to write more, at every size at which another file is the first."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    args = ["create", "-w", "w", "--no-password", "--phrase-file", str(tmp_path / "phrase")]
    args += ["--wallet.path", str(tmp_path / "wallets")]
    statuses = []
    for limit in (0, 100, 250, 400, 2**20):
        done = subprocess.run([sys.executable, "-B", "-c", CREATE, str(limit), *args], capture_output=True, text=True)
        statuses.append(done.returncode)
        left = [path for path in tmp_path.rglob("*") if path.is_file()]
        if done.returncode:
            assert left == [] and "can't be written" in done.stderr or "--phrase-file" in done.stderr, done.stderr
            assert "Traceback" not in done.stderr
    assert resource.getrlimit(resource.RLIMIT_FSIZE) == before
    assert statuses[0] != 0 and statuses[-1] == 0 and len(set(statuses)) == 3, "the phrase, the keys, success"
    assert len(left) == 4 and {mode(path) for path in left if path.name != "coldkeypub.txt"} == {0o600}


def test_a_key_that_replaces_another_is_whole_or_the_old_one(tmp_path):
    ref = WalletKey("w", "hot", str(tmp_path))
    file = write_key(ref, keypair_from(PHRASE))
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50, -1))\n"
    code += "from raytensor.chain.wallet import *\n"
    code += f"write_key(WalletKey('w', 'hot', {str(tmp_path)!r}), keypair_from(new_phrase()), overwrite=True)"
    done = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True)
    assert "can't be written (File too large): nothing was changed" in done.stderr
    assert ref.open().ss58 == DEV_ROOT and [path.name for path in file.parent.iterdir()] == ["hot"]


ODD = {
    "empty": b"",
    "null": b"null",
    "list": b"[]",
    "half": b'{"accountId": "0x',
    "binary": b"\xff\xfe\x00\x01",
    "number": b"5",
    "nothing": b"{}",
    "text": b"hello",
}


def test_odd_files_are_each_told_and_the_others_are_listed(tmp_path, capsys):
    path = ["--wallet.path", str(tmp_path)]
    good = write_key(WalletKey("w", "good", str(tmp_path)), keypair_from(PHRASE))
    write_key(WalletKey("w", "locked", str(tmp_path)), keypair_from(new_phrase()), password="pw")
    for name, data in ODD.items():
        secret(good.parent / name, data)
    (good.parent / "folder").mkdir()
    (good.parent / "dangling").symlink_to("nowhere")
    (good.parent / "loop").symlink_to("loop")
    os.mkfifo(good.parent / "pipe")
    for name in (b"\xff\xfe", b"new\nline"):
        os.close(os.open(bytes(good.parent) + b"/" + name, os.O_WRONLY | os.O_CREAT, 0o600))
    (tmp_path / "w" / "coldkey").mkdir()
    (tmp_path / "bare").mkdir()
    assert wallet_main(["list", *path, "--json"]) == 0
    bare, listed = json.loads(capsys.readouterr().out)["wallets"]
    assert (bare["name"], bare["trouble"]) == ("bare", "there is no key file")
    assert listed["trouble"] == "not readable as a key: Is a directory"
    told = {hot["name"]: hot["ss58"] or hot["trouble"] for hot in listed["hotkeys"]}
    assert told.pop("good") == DEV_ROOT and told.pop("locked") == "encrypted"
    assert told.pop("folder") == "not readable as a key: Is a directory" and told.pop("dangling")
    assert told.pop("loop") and told.pop("pipe") == "not readable as a key: it is no regular file"
    assert told.pop("\udcff\udcfe") == told.pop("new\nline") == "not readable as a key: it is empty"
    assert told.pop("empty") == "not readable as a key: it is empty"
    assert set(told) == set(ODD) - {"empty"}
    assert set(told.values()) == {"not readable as a key: it is not a Bittensor key file"}
    assert wallet_main(["list", *path]) == 0 and wallet_main(["show", "-w", "w", *path]) == 0
    said = capsys.readouterr().out
    assert "not readable as a key: Is a directory" in said and "  new\\nline " in said and "\\udcff" in said
    for name in (*ODD, "folder", "pipe"):
        with pytest.raises(WalletError, match="not readable as a key"):
            WalletKey("w", name, str(tmp_path)).open()
        with pytest.raises(WalletError, match="not readable as a key"):
            _ = WalletKey("w", name, str(tmp_path)).ss58


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + PHRASE.encode(),
        PHRASE.encode("utf-16"),
        PHRASE.encode("utf-16-be").join([b"\xfe\xff", b""]),
        PHRASE.upper().encode(),
        PHRASE.title().encode() + b"   \r\n",
        ("  " + PHRASE.replace(" ", "\t ") + " \r\n\r\n").encode(),
        PHRASE.replace(" ", "\u00a0").encode(),
        PHRASE.encode() + b"\r",
        (PHRASE.replace("basket ", "basket\r\n") + "\n").encode(),
        b"\xef\xbb\xbfcoldkey: " + PHRASE.upper().encode() + b"\r\nhotkey: x\r\n",
        ("Coldkey : " + PHRASE).encode(),
    ],
)
def test_a_phrase_is_read_as_editors_write_it(tmp_path, data, capsys):
    file = secret(tmp_path / "phrase", data)
    args = ["regen", "-w", "w", "--phrase-file", str(file), "--no-password", "--wallet.path", str(tmp_path)]
    assert wallet_main([*args, "--json"]) == 0, capsys.readouterr().err
    assert json.loads(capsys.readouterr().out)["restored"]["ss58"] == DEV_ROOT


def test_a_password_is_the_first_line_whatever_ends_it(tmp_path):
    for data in (b"pw \r\nnext", b"\xef\xbb\xbfpw ", b"pw \n", "pw \r\n".encode("utf-16")):
        assert secret_lines(str(secret(tmp_path / "pw", data)))[0] == "pw ", "a space may belong to a password"
    for data, why in ((b"\xff\xff\xff", "is no text"), (b"", "is empty"), (b"\n", "is empty")):
        with pytest.raises(WalletError, match=why):
            secret_lines(str(secret(tmp_path / "pw", data)))


def test_a_journal_and_its_lease_are_written_on_a_full_disk_until_their_reserve_is_used_up(small_disk):
    journal, lease = open_journal(small_disk.folder), open_lease(small_disk.folder)
    assert lease.renew() is None and journal.keep_reserve()
    small_disk.fill()
    written = 0
    with pytest.raises(DataError, match="the disk is full.*\n.*fix: free some space"):
        while True:
            journal.add_intents([transfer(written, "x" * 10_000)])
            assert lease.renew() is None and lease.valid
            written += 1
    assert 300 < written < 600, "10 kB each, in a reserve of 4 MiB and what is left of the log"
    assert journal.intent(f"t{written - 1}") is not None and journal.intent(f"t{written}") is None
    assert not journal.keep_reserve()
    for _ in range(100):  # the lease has a reserve of its own, and its rows need no more space
        assert lease.renew() is None
    small_disk.free()
    journal.add_intents([transfer(written, "x" * 10_000)])
    assert journal.keep_reserve()
    lease.release()
    journal.close()


def transfer(number, padding):
    return NamedCall.of(DEV_ROOT, f"t{number}", Call("System", "remark", {"remark": padding}))


def test_a_reserve_leaves_a_nearly_full_disk_to_others(small_disk):
    small_disk.fill()
    with (small_disk.folder / "filler").open("r+b") as filler:
        filler.truncate(small_disk.folder.joinpath("filler").stat().st_size - (6 << 20))
    journal = open_journal(small_disk.folder)
    assert not journal.keep_reserve()
    assert sum(path.stat().st_size for path in small_disk.folder.glob("j.db*")) < 1 << 20
    journal.close()
