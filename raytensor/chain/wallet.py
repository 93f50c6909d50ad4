"""Key references, signers, and the key files of Bittensor wallets.

In: the name of a key (a development URI or a wallet file) and the place of its password. Out: a `Signer` in the process
that signs. References hold names and paths, never a secret, and may be sent to other processes. A `Signer` can't be
pickled, so no private key passes through Ray. Nothing here prints a secret, prompts for one, or creates a key that was
not requested.

Files, in the format of bittensor 11 and its wallet library, under `~/.bittensor/wallets/<wallet>/`:
    coldkey           JSON, usually encrypted ("$NACL": argon2i and secretbox)
    coldkeypub.txt    JSON without private parts
    hotkeys/<hotkey>  JSON, usually plain
"""

import importlib
import os
import re
import stat
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from raytensor import disk
from raytensor.errors import WalletError

bittensor_core: Any = importlib.import_module("bittensor_core")  # a compiled module without type declarations

DEFAULT_PATH = "~/.bittensor/wallets"
PASSWORD_ENV = "BT_WALLET_PASSWORD"
PASSWORD_FILE_ENV = "BT_WALLET_PASSWORD_FILE"


class Keypair(Protocol):
    """What is used of a `bittensor_core.Keypair`."""

    ss58_address: str
    public_key: bytes
    crypto_type: int

    def sign(self, message: bytes) -> bytes: ...


class Signer:
    """A key that can sign, in this process only.

    ss58         address with Bittensor's prefix 42
    public_key   32 bytes
    crypto_type  index of MultiSignature: 1 sr25519, 0 ed25519
    """

    def __init__(self, keypair: Keypair) -> None:
        self._keypair = keypair
        self.ss58: str = keypair.ss58_address
        self.public_key = bytes(keypair.public_key)
        self.crypto_type = int(keypair.crypto_type)
        self.blocking = False  # signs in this process, see `raytensor.wire.auth.Signer`

    def sign(self, message: bytes) -> bytes:
        """The signature of a message, 64 bytes. Raises WalletError if only the public key is here."""
        try:
            return bytes(self._keypair.sign(message))
        except ValueError as error:
            raise WalletError(f"{self.ss58} can't sign: only its public key is here") from error

    def __repr__(self) -> str:
        return f"Signer({self.ss58})"

    def __reduce__(self):
        raise TypeError(f"{self!r} must not leave its process: send a key reference instead")


@dataclass(frozen=True, slots=True)
class DevKey:
    """A key that anyone can derive: "//Alice", "//Alice//miner//3". For development chains only."""

    uri: str

    def __post_init__(self) -> None:
        if not self.uri.startswith("//") or " " in self.uri:
            raise WalletError("a development key is a path like //Alice//miner//3, never a phrase")

    def open(self) -> Signer:
        try:
            return Signer(bittensor_core.Keypair.create_from_uri(self.uri))
        except ValueError as error:
            raise WalletError(f"{self.uri} is not a derivation path: write it like //Alice//miner//3") from error

    @property
    def ss58(self) -> str:
        return self.open().ss58


@dataclass(frozen=True, slots=True)
class WalletKey:
    """A key of a Bittensor wallet: the hotkey named, or the coldkey if `hotkey` is None.

    password_file  file whose first line is the password; password_env: name of an environment variable that holds it.
                   Without either, BT_WALLET_PASSWORD_FILE, BT_WALLET_PASSWORD and bittensor's BT_PW_<FILE> are tried.
    """

    wallet: str
    hotkey: str | None = None
    path: str = DEFAULT_PATH
    password_file: str | None = None
    password_env: str | None = None

    @property
    def folder(self) -> Path:
        return Path(self.path).expanduser() / self.wallet

    @property
    def file(self) -> Path:
        return self.folder / "coldkey" if self.hotkey is None else self.folder / "hotkeys" / self.hotkey

    @property
    def ss58(self) -> str:
        """The address, from the public file or an unencrypted key file; needs no password then."""
        public = self.folder / "coldkeypub.txt" if self.hotkey is None else self.file
        if not public.exists():
            public = self.file
        address = stored_address(public)
        return self.open().ss58 if address is None else address

    def open(self) -> Signer:
        """Read the key file, and decrypt it if it is encrypted. Raises WalletError with the fix."""
        data = _read_key(self.file)
        if stat.S_IMODE(self.file.stat().st_mode) & stat.S_IROTH:
            raise WalletError(f"{self.file} is readable by everyone on this machine: chmod 600 {self.file}")
        if bittensor_core.keyfile_data_is_encrypted(data):
            try:
                data = bittensor_core.decrypt_keyfile_data(data, self._password())
            except bittensor_core.WrongPasswordError as error:
                raise WalletError(f"the password does not open {self.file}") from error
            except bittensor_core.KeyfileError as error:
                raise WalletError(f"{self.file} can't be decrypted: {error}") from error
        return Signer(_parse(data, self.file))

    def _password(self) -> str:
        if self.password_file is not None:
            return secret_lines(self.password_file)[0]
        if self.password_env is not None:
            if self.password_env not in os.environ:
                raise WalletError(f"{self.file} is encrypted and the environment has no {self.password_env}")
            return os.environ[self.password_env]
        if PASSWORD_FILE_ENV in os.environ:
            return secret_lines(os.environ[PASSWORD_FILE_ENV])[0]
        if PASSWORD_ENV in os.environ:
            return os.environ[PASSWORD_ENV]
        name = "BT_PW_" + str(self.file).upper().replace("/", "_").replace(".", "_")
        if name in os.environ:
            saved = bittensor_core.get_password_from_environment(name)
            if saved is not None:
                return saved
        raise WalletError(
            f"{self.file} is encrypted: give password_file, password_env, {PASSWORD_FILE_ENV} or {PASSWORD_ENV}"
        )


KeyRef = DevKey | WalletKey


def key_ref(text: str, path: str = DEFAULT_PATH) -> KeyRef:
    """A reference from text: "//Alice//x", "mywallet" (its coldkey) or "mywallet/myhotkey"."""
    if text.startswith("//"):
        return DevKey(text)
    wallet, _, hotkey = text.partition("/")
    if not wallet or "/" in hotkey or text.endswith("/"):
        raise WalletError(f"{text!r} names no key: write //Alice//x, a wallet, or wallet/hotkey")
    return WalletKey(wallet, hotkey or None, path)


def refuse_readable_coldkey(ref: KeyRef) -> None:
    """For roles that need a hotkey only: raises WalletError if this process could read the wallet's coldkey."""
    if isinstance(ref, WalletKey):
        coldkey = ref.folder / "coldkey"
        if coldkey.exists() and os.access(coldkey, os.R_OK):
            fix = "keep the coldkey on another machine, or start with allow_coldkey=true if this one is trusted with it"
            raise WalletError(f"a hotkey-only role can read {coldkey}\n  fix: {fix}")


def write_key(ref: WalletKey, keypair: Keypair, *, password: str | None = None, overwrite: bool = False) -> Path:
    """Write a key file (mode 600), and coldkeypub.txt beside a coldkey. With a password the file is encrypted.

    Each file is written whole or not at all. Raises WalletError if the file exists, unless `overwrite`, and if it can't
    be written.
    """
    data = bittensor_core.serialized_keypair_to_keyfile_data(keypair)
    if password is not None:
        data = bittensor_core.encrypt_keyfile_data(data, password)
    _write(ref.file, data, 0o600, overwrite)
    if ref.hotkey is None:
        public = bittensor_core.Keypair(ss58_address=keypair.ss58_address)
        try:
            public_data = bittensor_core.serialized_keypair_to_keyfile_data(public)
            _write(ref.folder / "coldkeypub.txt", public_data, 0o644, True)
        except WalletError:
            if not overwrite:
                ref.file.unlink(missing_ok=True)
            raise
    return ref.file


def write_public(ref: WalletKey, address: str, *, overwrite: bool = False) -> Path:
    """Write coldkeypub.txt of a wallet whose coldkey is elsewhere. Raises WalletError as `write_key` does."""
    public = bittensor_core.Keypair(ss58_address=address)
    file = ref.folder / "coldkeypub.txt"
    _write(file, bittensor_core.serialized_keypair_to_keyfile_data(public), 0o644, overwrite)
    return file


def new_phrase(num_words: int = 12) -> str:
    """A new random mnemonic phrase. It is a secret: show it once and store it nowhere."""
    return bittensor_core.Keypair.generate_mnemonic(num_words)


def keypair_from(phrase: str) -> Keypair:
    """The keypair of a mnemonic phrase or a 0x seed. No error contains the text.

    Case, compatibility forms of Unicode (BIP-39 asks for NFKD) and white space between words do not matter.
    """
    phrase = " ".join(unicodedata.normalize("NFKD", phrase).lower().split())
    try:
        if phrase.startswith("0x"):
            return bittensor_core.Keypair.create_from_seed(bytes.fromhex(phrase[2:]))
        return bittensor_core.Keypair.create_from_mnemonic(phrase)
    except ValueError:
        raise WalletError("that is neither a valid mnemonic phrase nor a 0x seed of 64 hex digits") from None


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise WalletError(f"there is no key file {file}: create or restore it first (raytensor wallet)") from error
    except PermissionError as error:
        raise WalletError(f"{file} is not readable by this user") from error
    except OSError as error:  # a folder, a name that is too long, a disk that fails
        raise WalletError(f"{file} is not readable as a key: {error.strerror}") from error


def _read_key(file: Path) -> bytes:
    """As `_read`, of a regular file only: reading a pipe would wait for its writer."""
    if file.exists() and not file.is_file() and not file.is_dir():
        raise WalletError(f"{file} is not readable as a key: it is no regular file")
    return _read(file)


def stored_address(file: Path) -> str | None:
    """The address in a key file; None if the file is encrypted. Raises WalletError if it is not readable as a key."""
    data = _read_key(file)
    return None if bittensor_core.keyfile_data_is_encrypted(data) else _parse(data, file).ss58_address


def _parse(data: bytes, file: Path) -> Keypair:
    try:
        return bittensor_core.deserialize_keypair_from_keyfile_data(data.removeprefix(b"\xef\xbb\xbf"))
    except bittensor_core.KeyfileError:
        what = "it is not a Bittensor key file" if data else "it is empty"
        raise WalletError(f"{file} is not readable as a key: {what}") from None


def secret_lines(file: str) -> list[str]:
    """The lines of a file with a secret, as editors write it: UTF-8 or UTF-16, with or without a byte order mark, any
    line ends. Raises WalletError if it is readable by everyone, is no text, or is empty."""
    path = Path(file).expanduser()
    if not path.exists():
        raise WalletError(f"there is no file {path}")
    if stat.S_IMODE(path.stat().st_mode) & stat.S_IROTH:
        raise WalletError(f"{path} holds a secret and is readable by everyone on this machine: chmod 600 {path}")
    data = _read(path)
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        lines = re.split(r"\r\n|\n|\r", data.decode(encoding))
    except UnicodeDecodeError:
        raise WalletError(f"{path} is no text: save it as UTF-8") from None
    if not lines[0]:
        raise WalletError(f"{path} is empty: its first line is read")
    return lines


def _write(file: Path, data: bytes, mode: int, overwrite: bool) -> None:
    write = disk.write_bytes if overwrite else disk.create_bytes
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write(file, data, mode=mode)
    except FileExistsError as error:
        raise WalletError(f"{file} exists: a key is never replaced unless requested") from error
    except OSError as error:
        raise WalletError(f"{file} can't be written ({error.strerror}): nothing was changed") from error
