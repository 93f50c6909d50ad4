"""`raytensor wallet`: make, list, show, restore keys; balance; sign and verify.

In: the command line. Out: key files of Bittensor's format, text or JSON, an exit status. A secret is printed once only:
the phrase of a new key, on a terminal; where there is no terminal it goes to a file of its own (--phrase-file). Phrases
and passwords are read from files or from a terminal without echo, never from the command line.
"""

from __future__ import annotations

import argparse
import getpass
import os
import re
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

import bittensor_core

from raytensor.chain.reads.quotes import prices, stakes
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import (
    PASSWORD_ENV,
    PASSWORD_FILE_ENV,
    DevKey,
    WalletKey,
    keypair_from,
    new_phrase,
    secret_lines,
    write_key,
)
from raytensor.commands import options, output
from raytensor.errors import ConfigError, WalletError

ABOUT = """\
Bittensor wallets: key files as bittensor and btcli have them, under ~/.bittensor/wallets/<wallet>/.

A wallet has one coldkey, which owns the funds, and hotkeys, which mine and validate. Keep the coldkey off the machines
that mine and validate: they need the hotkey only.
"""
EXAMPLES = """\
  raytensor wallet create -w alice               a coldkey (asks for a password) and the hotkey "default"
  raytensor wallet create -w alice -H miner2 --hotkey-only
  raytensor wallet list
  raytensor wallet balance -w alice --network test
  raytensor wallet sign -w alice "a message"     with the hotkey; --coldkey for the coldkey
  raytensor wallet verify "a message" --ss58 5F... --signature 0x...
"""


def wallet_main(argv: Sequence[str]) -> int:
    """`raytensor wallet ACTION ...`. Returns the exit status."""
    return output.run("wallet", _parser(), argv, lambda args: args.act(args))


def _parser() -> argparse.ArgumentParser:
    parser = options.parser("wallet", ABOUT, EXAMPLES)
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    create = options.subparser(
        actions, "create", "make new keys", "  raytensor wallet create -w w1 --password-file pw --phrase-file phrase\n"
    )
    regen = options.subparser(
        actions,
        "regen",
        "restore a key from its phrase or seed, or a coldkey's public file from its address",
        "  raytensor wallet regen -w w1                       asks for the phrase, without showing it\n"
        "  raytensor wallet regen -w w1 --key hotkey --phrase-file phrase\n"
        "  raytensor wallet regen -w w1 --ss58 5F...          coldkeypub.txt only: to watch, not to sign\n",
    )
    for one in (create, regen):
        one.add_argument("--no-password", action="store_true", help="do not encrypt the coldkey")
        one.add_argument("--encrypt-hotkey", action="store_true", help="encrypt the hotkey too (usually it is plain)")
        one.add_argument(
            "--overwrite", action="store_true", help="replace key files that exist: what they hold is lost"
        )
    which = create.add_mutually_exclusive_group()
    which.add_argument("--hotkey-only", action="store_true", help="make no coldkey")
    which.add_argument("--coldkey-only", action="store_true", help="make no hotkey")
    create.add_argument("--words", type=int, choices=(12, 15, 18, 21, 24), default=12, help="length of the phrases")
    create.add_argument(
        "--phrase-file", metavar="FILE", help="write the new phrases there (mode 600), do not show them"
    )
    regen.add_argument("--key", choices=("coldkey", "hotkey"), default="coldkey")
    regen.add_argument("--phrase-file", metavar="FILE", help="file whose first line is the phrase or the 0x seed")
    regen.add_argument("--ss58", metavar="ADDRESS", help="write the coldkey's public file only")

    listing = options.subparser(actions, "list", "list wallets and hotkeys with their addresses")
    show = options.subparser(actions, "show", "show a wallet's addresses and how its files are kept; no secrets")
    balance = options.subparser(
        actions,
        "balance",
        "show free TAO and stake of a coldkey",
        "  raytensor wallet balance -w alice\n  raytensor wallet balance --ss58 5F... --json\n",
    )
    balance.add_argument("--ss58", metavar="ADDRESS", help="of this address, not of the wallet")
    sign = options.subparser(actions, "sign", "sign a message (its UTF-8 bytes) with the hotkey or coldkey")
    sign.add_argument("message")
    sign.add_argument("--coldkey", action="store_true", help="with the coldkey")
    verify = options.subparser(actions, "verify", "verify a signature; status 0 if it is good, 1 if not")
    verify.add_argument("message")
    verify.add_argument("--ss58", required=True, metavar="ADDRESS", help="who is said to have signed")
    verify.add_argument("--signature", required=True, metavar="HEX")

    options.add_network(balance)
    for one, act in (
        (create, _create),
        (regen, _regen),
        (listing, _list),
        (show, _show),
        (balance, _balance),
        (sign, _sign),
        (verify, _verify),
    ):
        options.add_wallet(one)
        options.add_output(one)
        one.set_defaults(act=act)
    return parser


# Making and restoring keys


def _create(args: argparse.Namespace) -> None:
    refs = []
    if not args.hotkey_only:
        refs.append(("coldkey", _real(options.coldkey_ref(args))))
    if not args.coldkey_only:
        refs.append(("hotkey", _real(options.hotkey_ref(args))))
    shown = sys.stdout.isatty() and not args.json
    if args.phrase_file is None and not shown:
        raise ConfigError("a new phrase is shown on a terminal only, and this is none: give --phrase-file FILE")
    _refuse_existing(args, [ref for _, ref in refs])
    passwords = {kind: _new_password(args, kind) for kind, _ in refs}
    phrases = {kind: new_phrase(args.words) for kind, _ in refs}
    if args.phrase_file is not None:
        _write_new(Path(args.phrase_file).expanduser(), "".join(f"{kind}: {phrases[kind]}\n" for kind, _ in refs))
    made = {}
    for kind, ref in refs:
        pair = keypair_from(phrases[kind])
        file = write_key(ref, pair, password=passwords[kind], overwrite=args.overwrite)
        made[kind] = {"ss58": pair.ss58_address, "file": str(file), "encrypted": passwords[kind] is not None}
    if args.json:
        output.show_json({"created": made, "phrase_file": args.phrase_file})
        return
    for kind, facts in made.items():
        print(f"{kind:<8} {facts['ss58']}  {facts['file']}{'' if facts['encrypted'] else '  (not encrypted)'}")
    if args.phrase_file is None:
        print("\nWrite these phrases down and keep them where nobody finds them. They are not shown again:")
        for kind, _ in refs:
            print(f"  {kind:<8} {phrases[kind]}")


def _regen(args: argparse.Namespace) -> None:
    cold = args.key == "coldkey"
    ref = _real(options.coldkey_ref(args) if cold else options.hotkey_ref(args))
    if args.ss58 is not None:
        if not cold:
            raise ConfigError("--ss58 restores a coldkey's public file: leave --key hotkey out")
        address = options.account(args, args.ss58, hotkey=False)
        file = ref.folder / "coldkeypub.txt"
        public = bittensor_core.serialized_keypair_to_keyfile_data(bittensor_core.Keypair(ss58_address=address))
        if file.exists() and not args.overwrite:
            raise WalletError(f"{file} exists: a key is never replaced unless told to (--overwrite)")
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.write_bytes(public)
        encrypted = False
    else:
        _refuse_existing(args, [ref])
        pair = keypair_from(_known_phrase(args))
        password = _new_password(args, args.key)
        file, address = write_key(ref, pair, password=password, overwrite=args.overwrite), pair.ss58_address
        encrypted = password is not None
    made = {"ss58": address, "file": str(file), "encrypted": encrypted}
    if args.json:
        output.show_json({"restored": made})
    else:
        print(f"{address}  {file}")


def _known_phrase(args: argparse.Namespace) -> str:
    """The first line of --phrase-file, or the key's own line in a file that `create` wrote; else what is typed."""
    if args.phrase_file is None:
        return _ask("phrase or 0x seed: ", "--phrase-file FILE").strip()
    lines = secret_lines(args.phrase_file)
    named = dict(line.split(": ", 1) for line in lines if line.startswith(("coldkey: ", "hotkey: ")))
    if named and args.key not in named:
        raise ConfigError(f"{args.phrase_file} has no phrase of the {args.key}")
    return (named[args.key] if named else lines[0]).strip()


def _real(ref: WalletKey | DevKey) -> WalletKey:
    if isinstance(ref, DevKey):
        raise ConfigError(f"{ref.uri} is a development key: it has no files; name a wallet by -w")
    return ref


def _refuse_existing(args: argparse.Namespace, refs: list[WalletKey]) -> None:
    for ref in refs:
        if ref.file.exists() and not args.overwrite:
            raise WalletError(f"{ref.file} exists: a key is never replaced unless told to (--overwrite)")


def _new_password(args: argparse.Namespace, kind: str) -> str | None:
    """The password of a key that is about to be written, None for a plain file."""
    if kind == "hotkey" and not args.encrypt_hotkey or kind == "coldkey" and args.no_password:
        return None
    if args.password_file is not None:
        return secret_lines(args.password_file)[0]
    if PASSWORD_FILE_ENV in os.environ:
        return secret_lines(os.environ[PASSWORD_FILE_ENV])[0]
    if PASSWORD_ENV in os.environ:
        return os.environ[PASSWORD_ENV]
    instead = "--password-file FILE, or --no-password" if kind == "coldkey" else "--password-file FILE"
    password = _ask(f"password for the new {kind}: ", instead)
    if not password or password != _ask("again: ", instead):
        raise ConfigError("the passwords are empty or not the same: nothing was written")
    return password


def _ask(prompt: str, instead: str) -> str:
    """A secret typed at the terminal, without echo."""
    if not sys.stdin.isatty():
        raise ConfigError(f"standard input is no terminal, so nobody can be asked: give {instead}")
    return getpass.getpass(prompt)


def _write_new(file: Path, text: str) -> None:
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(text)
    except OSError as error:
        raise ConfigError(f"--phrase-file {file}: {error.strerror}") from error


# Looking


def _names(path: str) -> dict[str, list[str]]:
    root = Path(path).expanduser()
    found = {}
    for folder in sorted(root.iterdir(), key=_natural) if root.is_dir() else []:
        if folder.is_dir():
            hot = folder / "hotkeys"
            files = sorted(hot.iterdir(), key=_natural) if hot.is_dir() else []
            found[folder.name] = [f.name for f in files if f.is_file() and not f.name.endswith((".lock", "pub.txt"))]
    return found


def _natural(path: Path) -> list:
    return [
        (0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", path.name.casefold()) if part
    ]


def _address(ref: WalletKey) -> str | None:
    """None for an encrypted key without a public file, and for what is no key."""
    file = ref.folder / "coldkeypub.txt" if ref.hotkey is None else ref.file
    file = file if file.exists() else ref.file
    try:
        data = file.read_bytes()
        if bittensor_core.keyfile_data_is_encrypted(data):
            return None
        return bittensor_core.deserialize_keypair_from_keyfile_data(data).ss58_address
    except (OSError, bittensor_core.KeyfileError):
        return None


def _list(args: argparse.Namespace) -> None:
    path = options.wallets_path(args)
    wallets = [
        {
            "name": name,
            "ss58": _address(WalletKey(name, None, path)),
            "hotkeys": [{"name": hot, "ss58": _address(WalletKey(name, hot, path))} for hot in hotkeys],
        }
        for name, hotkeys in _names(path).items()
    ]
    if args.json:
        output.show_json({"path": str(Path(path).expanduser()), "wallets": wallets})
        return
    if not wallets:
        print(f"no wallets in {Path(path).expanduser()}: `raytensor wallet create` makes one")
    for wallet in wallets:
        print(f"{wallet['name']:<20} {wallet['ss58'] or '-'}")
        for hot in wallet["hotkeys"]:
            print(f"  {hot['name']:<18} {hot['ss58'] or 'encrypted'}")


def _show(args: argparse.Namespace) -> None:
    cold = _real(options.coldkey_ref(args))
    if not cold.folder.is_dir():
        raise WalletError(f"there is no wallet {cold.folder}: `raytensor wallet list` shows those that there are")
    refs = [("coldkey", cold)]
    refs += [(f"hotkeys/{hot}", WalletKey(cold.wallet, hot, cold.path)) for hot in _names(cold.path)[cold.wallet]]
    keys = []
    for name, ref in refs:
        there = ref.file.exists()
        data = ref.file.read_bytes() if there and os.access(ref.file, os.R_OK) else b""
        keys.append(
            {
                "key": name,
                "ss58": _address(ref),
                "file": str(ref.file) if there else None,
                "encrypted": bittensor_core.keyfile_data_is_encrypted(data) if data else None,
                "mode": f"{stat.S_IMODE(ref.file.stat().st_mode):o}" if there else None,
            }
        )
    if args.json:
        output.show_json({"wallet": cold.wallet, "keys": keys})
        return
    kept = {True: "encrypted", False: "plain", None: "public part only"}
    rows = [(k["key"], k["ss58"] or "-", kept[k["encrypted"]], k["mode"] or "-") for k in keys]
    print(output.table(("key", "address", "kept", "mode"), rows, left=(0, 1, 2)))


def _balance(args: argparse.Namespace) -> None:
    address = options.account(args, args.ss58, hotkey=False)
    with ChainClient(options.network(args), args.timeout) as client:
        head = client.head()
        free = client.balance(address, head.hash)
        held, price = stakes(client, address), prices(client)
    worth = sum(one.alpha_rao * price.get(one.netuid, 0) // output.RAO for one in held)
    if args.json:
        output.show_json(
            {
                "ss58": address,
                "block": head.number,
                "free_rao": free,
                "staked_value_rao": worth,
                "total_rao": free + worth,
            }
        )
        return
    print(f"{address} at block {head.number}")
    rows = [
        ("free", output.tao(free)),
        ("staked, at today's prices", output.tao(worth)),
        ("total", output.tao(free + worth)),
    ]
    print(output.table(("", "TAO"), rows))


# Signing


def _sign(args: argparse.Namespace) -> None:
    signer = (options.coldkey_ref(args) if args.coldkey else options.hotkey_ref(args)).open()
    signature = "0x" + signer.sign(args.message.encode()).hex()
    if args.json:
        output.show_json({"ss58": signer.ss58, "signature": signature})
    else:
        print(f"{signer.ss58}\n{signature}")


def _verify(args: argparse.Namespace) -> int:
    address = options.account(args, args.ss58, hotkey=False)
    try:
        signature = bytes.fromhex(args.signature.removeprefix("0x"))
    except ValueError:
        raise ConfigError("--signature: write hexadecimal digits, with or without 0x") from None
    try:
        good = len(signature) == 64 and bittensor_core.Keypair(ss58_address=address).verify(
            args.message.encode(), signature
        )
    except ValueError:
        good = False
    if args.json:
        output.show_json({"ss58": address, "valid": bool(good)})
    else:
        print("the signature is good" if good else "the signature is not of this address and message")
    return 0 if good else 1
