"""`raytensor wallet`: create, list, show and restore keys; balance; sign and verify.

In: the command line. Out: key files in Bittensor's format, text or JSON, an exit status. The phrase of a new key is the
only secret that is printed, once and on a terminal only; without a terminal it is written to --phrase-file. Phrases and
passwords are read from files or from a terminal without echo, never from the command line.
"""

import argparse
import functools
import getpass
import os
import re
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

import bittensor_core

from raytensor import disk
from raytensor.arguments import integer
from raytensor.chain import wallet as keys
from raytensor.chain.reads.quotes import prices, stakes
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey, WalletKey
from raytensor.commands import key_swaps, options, output
from raytensor.errors import ConfigError, WalletError

_NO_KEYS = (".lock", "pub.txt")  # ends of names of other files beside hotkeys
ABOUT = """\
Manages Bittensor wallets: the key files of bittensor and btcli, under ~/.bittensor/wallets/<wallet>/.

A wallet has one coldkey, which owns the funds, and hotkeys, which mine and validate. Keep the coldkey off the machines
that mine and validate: they need the hotkey only.
"""
EXAMPLES = """\
  raytensor wallet create -w alice               a coldkey (asks for a password) and the hotkey "default"
  raytensor wallet list
  raytensor wallet balance -w alice --network test

`raytensor wallet ACTION --help` has examples of each action.
"""


def wallet_main(argv: Sequence[str]) -> int:
    """`raytensor wallet ACTION ...`. Returns the exit status."""
    return output.run("wallet", _parser(), argv, lambda args: args.act(args))


def _parser() -> argparse.ArgumentParser:
    parser = options.parser("wallet", ABOUT, EXAMPLES)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    action = functools.partial(options.action, actions, "wallet")

    examples = ("-w w1 --password-file pw --phrase-file phrase", "-w w1 -H miner2 --hotkey-only")
    create = action("create", "create new keys", *examples)
    text = "restore a key from its phrase or seed, or a coldkey's public file from its address"
    examples = (
        "-w w1                       asks for the phrase, without echo",
        "-w w1 --key hotkey --phrase-file phrase",
    )
    public = "-w w1 --ss58 5F...          coldkeypub.txt only: can read balances, can't sign"
    regen = action("regen", text, *examples, public)
    for one in (create, regen):
        one.add_argument("--no-password", action="store_true", help="do not encrypt the coldkey")
        one.add_argument("--encrypt-hotkey", action="store_true", help="encrypt the hotkey too (default: plain)")
        one.add_argument("--overwrite", action="store_true", help="replace existing key files; the old keys are lost")
    which = create.add_mutually_exclusive_group()
    which.add_argument("--hotkey-only", action="store_true", help="create no coldkey")
    which.add_argument("--coldkey-only", action="store_true", help="create no hotkey")
    words = (12, 15, 18, 21, 24)
    create.add_argument(
        "--words", type=integer(12, 24), choices=words, default=12, help="words of a phrase (default 12)"
    )
    text = "write the new phrases to this file (mode 600) instead of showing them"
    create.add_argument("--phrase-file", metavar="FILE", help=text)
    regen.add_argument("--key", choices=("coldkey", "hotkey"), default="coldkey", help="(default coldkey)")
    regen.add_argument("--phrase-file", metavar="FILE", help="file whose first line is the phrase or the 0x seed")
    regen.add_argument("--ss58", metavar=options.ACCOUNT, help="write the coldkey's public file only")

    key_swaps.add_parsers(actions)
    listing = action("list", "list wallets and hotkeys with their addresses", "", "--wallet.path /mnt/keys --json")
    show = action("show", "show a wallet's addresses, encryption and file modes; no secrets", "-w alice")
    text = "show the free TAO and the stake of a coldkey"
    balance = action("balance", text, "-w alice --network test", "--ss58 5F... --json")
    balance.add_argument("--ss58", metavar=options.ACCOUNT, help="the account (default: the wallet's coldkey)")
    sign = action("sign", "sign a message (its UTF-8 bytes)", '-w alice "a message"', '-w alice --coldkey "a message"')
    sign.add_argument("message", help="the text to sign")
    sign.add_argument("--coldkey", action="store_true", help="sign with the coldkey (default: with the hotkey)")
    text = "verify a signature; exit status 0 if it is valid, 1 if not"
    verify = action("verify", text, '"a message" --ss58 5F... --signature 0x...')
    verify.add_argument("message", help="the text that was signed")
    verify.add_argument("--ss58", required=True, metavar=options.ACCOUNT, help="the signer")
    verify.add_argument("--signature", required=True, metavar="HEX", help="64 bytes in hexadecimal digits")

    options.add_network(balance)
    acts = {create: _create, regen: _regen, listing: _list, show: _show, balance: _balance}
    for one, act in {**acts, sign: _sign, verify: _verify}.items():
        options.add_wallet(one)
        options.add_output(one)
        one.set_defaults(act=act)
    return parser


# Creating and restoring keys


def _create(args: argparse.Namespace) -> None:
    refs = []
    if not args.hotkey_only:
        refs.append(("coldkey", _wallet_key(options.coldkey_ref(args))))
    if not args.coldkey_only:
        refs.append(("hotkey", _wallet_key(options.hotkey_ref(args))))
    shown = sys.stdout.isatty() and not args.json
    if args.phrase_file is None and not shown:
        raise ConfigError("standard output is no terminal, so the new phrase can't be shown: give --phrase-file FILE")
    _refuse_existing(args, [ref.file for _, ref in refs])
    passwords = {kind: _new_password(args, kind) for kind, _ in refs}
    phrases = {kind: keys.new_phrase(args.words) for kind, _ in refs}
    if args.phrase_file is not None:
        _write_new(Path(args.phrase_file).expanduser(), "".join(f"{kind}: {phrases[kind]}\n" for kind, _ in refs))
    made = {}
    try:
        for kind, ref in refs:
            pair = keys.keypair_from(phrases[kind])
            file = keys.write_key(ref, pair, password=passwords[kind], overwrite=args.overwrite)
            made[kind] = {"ss58": pair.ss58_address, "file": str(file), "encrypted": passwords[kind] is not None}
    except WalletError:
        _remove_made(args, made)
        raise
    if args.json:
        output.show_json({"created": made, "phrase_file": args.phrase_file})
        return
    for kind, facts in made.items():
        print(f"{kind:<8} {facts['ss58']}  {facts['file']}{'' if facts['encrypted'] else '  (not encrypted)'}")
    if args.phrase_file is None:
        print("\nWrite these phrases down and keep them secret. They are not shown again:")
        for kind, _ in refs:
            print(f"  {kind:<8} {phrases[kind]}")


def _remove_made(args: argparse.Namespace, made: dict[str, dict]) -> None:
    """Remove the keys of a `create` that failed, so that the next one can start; never a key that replaced another."""
    if args.overwrite:
        return
    for facts in made.values():
        Path(facts["file"]).unlink()
        if Path(facts["file"]).name == "coldkey":
            Path(facts["file"]).with_name("coldkeypub.txt").unlink()
    if args.phrase_file is not None:
        Path(args.phrase_file).expanduser().unlink()


def _regen(args: argparse.Namespace) -> None:
    cold = args.key == "coldkey"
    ref = _wallet_key(options.coldkey_ref(args) if cold else options.hotkey_ref(args))
    if args.ss58 is not None:
        if not cold:
            raise ConfigError("--ss58 writes a coldkey's public file: omit --key hotkey")
        address = options.account(args, args.ss58, hotkey=False)
        _refuse_existing(args, [ref.folder / "coldkeypub.txt"])
        file, encrypted = keys.write_public(ref, address, overwrite=args.overwrite), False
    else:
        _refuse_existing(args, [ref.file])
        pair = keys.keypair_from(_known_phrase(args))
        password = _new_password(args, args.key)
        file, address = keys.write_key(ref, pair, password=password, overwrite=args.overwrite), pair.ss58_address
        encrypted = password is not None
    made = {"ss58": address, "file": str(file), "encrypted": encrypted}
    output.show(args, {"restored": made}, f"{address}  {file}")


def _known_phrase(args: argparse.Namespace) -> str:
    """The phrase in --phrase-file (its first line, or the key's line if `create` wrote it), or typed."""
    if args.phrase_file is None:
        return _ask("phrase or 0x seed: ", "--phrase-file FILE").strip()
    lines = keys.secret_lines(args.phrase_file)
    pairs = [re.match(r"\s*(coldkey|hotkey)\s*:(.*)", line, re.IGNORECASE) for line in lines]
    named = {pair[1].lower(): pair[2] for pair in pairs if pair}
    if named and args.key not in named:
        raise ConfigError(f"{args.phrase_file} has no phrase of the {args.key}")
    whole = lines[0].strip().startswith("0x") or len(lines[0].split()) >= 12
    return named[args.key] if named else lines[0] if whole else " ".join(lines)  # an editor may have wrapped the line


def _wallet_key(ref: WalletKey | DevKey) -> WalletKey:
    if isinstance(ref, DevKey):
        raise ConfigError(f"{ref.uri} is a development key, which has no files: give a wallet, -w NAME")
    return ref


def _refuse_existing(args: argparse.Namespace, files: list[Path]) -> None:
    for file in files:
        if file.exists() and not args.overwrite:
            raise WalletError(f"{file} exists: --overwrite replaces it, and the old key is lost")


def _new_password(args: argparse.Namespace, kind: str) -> str | None:
    """The password of a new key, None for an unencrypted file."""
    if kind == "hotkey" and not args.encrypt_hotkey or kind == "coldkey" and args.no_password:
        return None
    if args.password_file is not None:
        return keys.secret_lines(args.password_file)[0]
    if keys.PASSWORD_FILE_ENV in os.environ:
        return keys.secret_lines(os.environ[keys.PASSWORD_FILE_ENV])[0]
    if keys.PASSWORD_ENV in os.environ:
        return os.environ[keys.PASSWORD_ENV]
    instead = "--password-file FILE, or --no-password" if kind == "coldkey" else "--password-file FILE"
    password = _ask(f"password for the new {kind}: ", instead)
    if not password or password != _ask("again: ", instead):
        raise ConfigError("the passwords are empty or differ: nothing was written")
    return password


def _ask(prompt: str, instead: str) -> str:
    """A secret typed at the terminal, without echo."""
    if not sys.stdin.isatty():
        raise ConfigError(f"standard input is no terminal: give {instead}")
    return getpass.getpass(prompt)


def _write_new(file: Path, text: str) -> None:
    try:
        disk.create_bytes(file, text.encode(), mode=0o600)
    except OSError as error:
        raise ConfigError(f"--phrase-file {file}: {error.strerror}") from error


# Reading


def _names(path: str) -> dict[str, list[str]]:
    root = Path(path).expanduser()
    found = {}
    for folder in sorted(root.iterdir(), key=_natural) if root.is_dir() else []:
        if folder.is_dir():
            hot = folder / "hotkeys"
            files = sorted(hot.iterdir(), key=_natural) if hot.is_dir() else []
            found[folder.name] = [f.name for f in files if not f.name.startswith(".") and not f.name.endswith(_NO_KEYS)]
    return found


def _printable(name: str) -> str:
    """A file's name with escapes in place of line ends, control characters and bytes that are no text."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in name)


def _natural(path: Path) -> list:
    parts = re.split(r"(\d+)", path.name.casefold())
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts if part]


def _address(ref: WalletKey) -> dict[str, str | None]:
    """{"ss58": the address, None where it is not known, "trouble": why it is not}."""
    file = ref.folder / "coldkeypub.txt" if ref.hotkey is None else ref.file
    file = file if file.exists() else ref.file
    try:
        address = keys.stored_address(file)
    except WalletError as error:
        why = str(error) if file.exists() else "there is no key file"
        return {"ss58": None, "trouble": why.removeprefix(f"{file} is ")}
    return {"ss58": address, "trouble": None if address else "encrypted"}


def _list(args: argparse.Namespace) -> None:
    path = options.wallets_path(args)
    wallets = []
    for name, names in _names(path).items():
        hotkeys = [{"name": hot, **_address(WalletKey(name, hot, path))} for hot in names]
        wallets.append({"name": name, **_address(WalletKey(name, None, path)), "hotkeys": hotkeys})
    if args.json:
        output.show_json({"path": str(Path(path).expanduser()), "wallets": wallets})
        return
    if not wallets:
        print(f"no wallets in {Path(path).expanduser()}: `raytensor wallet create` creates one")
    for wallet in wallets:
        print(f"{_printable(wallet['name']):<20} {wallet['ss58'] or wallet['trouble']}")
        for hot in wallet["hotkeys"]:
            print(f"  {_printable(hot['name']):<18} {hot['ss58'] or hot['trouble']}")


def _show(args: argparse.Namespace) -> None:
    cold = _wallet_key(options.coldkey_ref(args))
    if not cold.folder.is_dir():
        raise WalletError(f"there is no wallet {cold.folder}: `raytensor wallet list` lists the wallets")
    refs = [("coldkey", cold)]
    refs += [(f"hotkeys/{hot}", WalletKey(cold.wallet, hot, cold.path)) for hot in _names(cold.path)[cold.wallet]]
    found = []
    for name, ref in refs:
        exists = ref.file.exists()
        data = ref.file.read_bytes() if ref.file.is_file() and os.access(ref.file, os.R_OK) else b""
        encrypted = bittensor_core.keyfile_data_is_encrypted(data) if data else None
        mode = f"{stat.S_IMODE(ref.file.stat().st_mode):o}" if exists else None
        row = {"key": name, **_address(ref), "file": str(ref.file) if exists else None}
        found.append({**row, "encrypted": encrypted, "mode": mode})
    if args.json:
        output.show_json({"wallet": cold.wallet, "keys": found})
        return
    kept = {True: "encrypted", False: "plain", None: "public part only"}
    rows = [
        (
            _printable(k["key"]),
            k["ss58"] or k["trouble"],
            kept[k["encrypted"]] if k["ss58"] or k["encrypted"] else "-",
            k["mode"] or "-",
        )
        for k in found
    ]
    print(output.table(("key", "address", "kept", "mode"), rows, left=(0, 1, 2)))


def _balance(args: argparse.Namespace) -> None:
    address = options.account(args, args.ss58, hotkey=False)
    with ChainClient(options.network(args), args.timeout) as client:
        head = client.head()
        free = client.balance(address, head.hash)
        held, price = stakes(client, address), prices(client)
    worth = sum(one.alpha_rao * price.get(one.netuid, 0) // output.RAO for one in held)
    if args.json:
        amounts = {"free_rao": free, "staked_value_rao": worth, "total_rao": free + worth}
        output.show_json({"ss58": address, "block": head.number, **amounts})
        return
    print(f"{address} at block {head.number}")
    shown = {"free": free, "stake, at present prices": worth, "total": free + worth}
    print(output.table(("", "TAO"), [(name, output.tao(rao)) for name, rao in shown.items()]))


# Signing


def _sign(args: argparse.Namespace) -> None:
    signer = (options.coldkey_ref(args) if args.coldkey else options.hotkey_ref(args)).open()
    signature = "0x" + signer.sign(args.message.encode()).hex()
    output.show(args, {"ss58": signer.ss58, "signature": signature}, f"{signer.ss58}\n{signature}")


def _verify(args: argparse.Namespace) -> int:
    address = options.account(args, args.ss58, hotkey=False)
    try:
        signature = bytes.fromhex(args.signature.removeprefix("0x"))
    except ValueError:
        raise ConfigError("--signature: give hexadecimal digits, with or without 0x") from None
    try:
        public = bittensor_core.Keypair(ss58_address=address)
        valid = len(signature) == 64 and bool(public.verify(args.message.encode(), signature))
    except ValueError:
        valid = False
    text = "the signature is valid" if valid else "the signature is not valid for this address and message"
    output.show(args, {"ss58": address, "valid": valid}, text)
    return 0 if valid else 1
