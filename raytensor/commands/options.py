"""The options that commands share, and how their values are read.

In: an argparse parser, environment variables (BT_* and RAYTENSOR_*). Out: endpoints, key references, addresses,
amounts in rao. An option has one name in all commands; Bittensor's spellings (--wallet-name, --subtensor.network) are
accepted too. Amounts are read digit by digit, never as floats. Raises ConfigError or argparse's errors; opens no
connection.
"""

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from raytensor import disk
from raytensor.arguments import Parser, integer, number
from raytensor.chain import ss58
from raytensor.chain.rpc.connection import NETWORKS
from raytensor.chain.wallet import DEFAULT_PATH, DevKey, KeyRef, WalletKey
from raytensor.config import old_flags
from raytensor.errors import ConfigError

RAO = 10**9
MILLION = 10**6
MAX_RAO = 2**64 - 1
POLICY_ENV = "RAYTENSOR_POLICY"
ACCOUNT = "ADDRESS|WALLET"  # metavar of an option that `account` reads
HOTKEY = "ADDRESS|[WALLET/]HOTKEY"

# argparse types
netuid = integer(0, 65535)
mecid = integer(0, 15)  # a storage index is netuid + 4096 * mecid, a u16
count = integer(1, 10**6)
seconds = number(above=0, maximum=86_400)


def parser(command: str, description: str, examples: str) -> Parser:
    """The parser of a command; its help ends with the examples."""
    return Parser(f"raytensor {command}", description=description, examples=examples)


def action(to: argparse._SubParsersAction, command: str, name: str, text: str, *examples: str) -> Parser:
    """The parser of one action of a command; each example is what follows "raytensor COMMAND NAME"."""
    lines = "".join(f"  raytensor {command} {name} {one}".rstrip() + "\n" for one in examples)
    return to.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", examples=lines)


def add_chain_and_wallet(to: argparse.ArgumentParser) -> None:
    """--json, and the groups chain and wallet."""
    add_output(to)
    add_network(to)
    add_wallet(to)


def add_output(to: argparse.ArgumentParser) -> None:
    to.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def add_hotkey(to: argparse.ArgumentParser) -> None:
    """--hotkey, for a command about a hotkey that signs nothing."""
    to.add_argument("--hotkey", metavar=HOTKEY, help="the hotkey (default: the wallet's)")


def add_network(to: argparse.ArgumentParser) -> None:
    group = to.add_argument_group("chain")
    text = "finney, test, archive, local, or ws://host:port; several, separated by commas, are tried in order"
    text += " (default: BT_NETWORK, BT_CHAIN_ENDPOINT, else finney)"
    group.add_argument("--network", "-n", metavar="NAME|URL", help=text)
    _add_aliases(group, "network", "--endpoint", "--subtensor.network", "--subtensor.chain_endpoint")
    text = "limit for each answer of the node (default 20)"
    group.add_argument("--timeout", type=seconds, default=20.0, metavar="SECONDS", help=text)


def add_wallet(to: argparse.ArgumentParser) -> None:
    group = to.add_argument_group("wallet")
    text = "wallet, or a development key like //Alice (default: BT_WALLET_NAME, BT_WALLET, else default)"
    group.add_argument("--wallet.name", "-w", dest="wallet_name", metavar="NAME", help=text)
    text = "hotkey in the wallet (default: BT_WALLET_HOTKEY, else default)"
    group.add_argument("--wallet.hotkey", "-H", dest="wallet_hotkey", metavar="NAME", help=text)
    text = f"folder of the wallets (default: BT_WALLET_PATH, else {DEFAULT_PATH})"
    group.add_argument("--wallet.path", dest="wallet_path", metavar="DIR", help=text)
    _add_aliases(group, "wallet_name", "--wallet-name", "--wallet")
    _add_aliases(group, "wallet_hotkey", "--wallet-hotkey")
    _add_aliases(group, "wallet_path", "--wallet-path")
    text = "prefix of the addresses that you give (default 42, Bittensor's)"
    group.add_argument("--ss58-prefix", type=integer(0, ss58.MAX_PREFIX), default=ss58.PREFIX, metavar="N", help=text)
    text = "accept public keys as 0x and 64 hex digits in place of addresses; they have no checksum"
    group.add_argument("--hex-keys", action="store_true", help=text)
    text = "file whose first line is the password of the key"
    text += " (default: BT_WALLET_PASSWORD_FILE, BT_WALLET_PASSWORD, or bittensor's BT_PW_...)"
    group.add_argument("--password-file", metavar="FILE", help=text)


def add_sending(to: argparse.ArgumentParser, *, for_others: bool = True) -> None:
    """for_others: whether the command can act for an account other than the wallet's own."""
    group = to.add_argument_group("sending")
    group.add_argument("--dry-run", action="store_true", help="print the fee and the effect; send nothing, open no key")
    group.add_argument("--yes", "-y", action="store_true", help="do not ask; required where there is no terminal")
    group.add_argument("--id", metavar="TEXT", help="name of this order: an order is carried out once per name")
    group.add_argument("--policy", metavar="FILE", help="spending limits in TOML (default: RAYTENSOR_POLICY)")
    to.set_defaults(proxy_for=None, multisig=None)
    if for_others:
        _add_others(group)
    text = "limit for inclusion in a block (default 60)"
    group.add_argument("--wait", type=seconds, default=60.0, metavar="SECONDS", help=text)
    text = "then also wait for the block to be final, as long again; until then a reorganization may take it back"
    group.add_argument("--finalized", action="store_true", help=text)
    add_state(group)


def _add_others(group: argparse._ArgumentGroup) -> None:
    text = "act for this account, which made the wallet's key its proxy (`raytensor proxy add`)"
    group.add_argument("--proxy-for", metavar="ACCOUNT", help=text)
    text = "act for a multisig account: approvals needed, and all signatories, as 2:alice,5F...,5G..."
    group.add_argument("--multisig", metavar="N:ACCOUNT,...", help=text)


def add_state(to: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    text = "folder of the journals and the audit log (default: RAYTENSOR_HOME, else ~/.raytensor)"
    to.add_argument("--state", metavar="DIR", help=text)


def _add_aliases(to: argparse._ArgumentGroup, dest: str, *names: str) -> None:
    """Other spellings of an option, which its help does not show."""
    to.add_argument(*names, dest=dest, default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def network(args: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Endpoints in order of preference, from --network or the environment."""
    if args.network:
        return [part.strip() for part in args.network.split(",") if part.strip()]
    return [environment_network(environ) or "finney"]


def environment_network(environ: Mapping[str, str] = os.environ) -> str:
    """The network of BT_NETWORK or BT_CHAIN_ENDPOINT, "" if neither is set. Raises ConfigError if they differ."""
    name, url = environ.get("BT_NETWORK", ""), environ.get("BT_CHAIN_ENDPOINT", "")
    if name and url and name != "local" and NETWORKS.get(name, name) != url:
        raise ConfigError(f"BT_NETWORK is {name} and BT_CHAIN_ENDPOINT is {url}: give the network, or unset one")
    return url or name


def job_settings(environ: Mapping[str, str] = os.environ) -> list[str]:
    """The settings of a job that BT_* variables give, before those that the user types."""
    found = {"chain.network": environment_network(environ), "wallet_path": environ.get("BT_WALLET_PATH", "")}
    return [f"{name}={value}" for name, value in found.items() if value]


def typed_settings(job: str, argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> list[str]:
    """The settings of a job: those of BT_* variables, then what the user typed, flags of Bittensor's subnet template
    included. A flag that changes nothing here is named on standard error."""
    settings, notes = old_flags.translate(job, argv)
    for note in notes:
        print(f"raytensor {job}: {note}", file=sys.stderr)
    return [*job_settings(environ), *settings]


def coldkey_ref(args: argparse.Namespace) -> KeyRef:
    """The wallet's coldkey."""
    name: str = args.wallet_name or os.environ.get("BT_WALLET_NAME") or os.environ.get("BT_WALLET") or "default"
    if name.startswith("//"):
        return DevKey(name)
    return WalletKey(plain_name(name), None, wallets_path(args), args.password_file)


def hotkey_ref(args: argparse.Namespace, name: str | None = None) -> KeyRef:
    """The wallet's hotkey of that name; without a name, the one of --wallet.hotkey or the environment."""
    name = name or args.wallet_hotkey or os.environ.get("BT_WALLET_HOTKEY") or "default"
    assert name is not None
    if name.startswith("//"):
        return DevKey(name)
    cold = coldkey_ref(args)
    if isinstance(cold, DevKey):
        fix = "give one, as --wallet.hotkey //Alice"
        raise ConfigError(f"{cold.uri} is a development key, which has no hotkeys: {fix}")
    return WalletKey(cold.wallet, plain_name(name), cold.path, cold.password_file)


def wallets_path(args: argparse.Namespace) -> str:
    return args.wallet_path or os.environ.get("BT_WALLET_PATH") or DEFAULT_PATH


def state_folder(args: argparse.Namespace) -> Path:
    """The folder of this program's journals and its audit log."""
    return Path(args.state).expanduser() if args.state else disk.home()


def account(args: argparse.Namespace, text: str | None, *, hotkey: bool) -> str:
    """The ss58 address that `text` means; None means the wallet's own hotkey or coldkey.

    text: an ss58 address of --ss58-prefix, a development key (//Alice), WALLET/HOTKEY, or one name: a hotkey of the
    wallet where `hotkey` is true, else a wallet, whose coldkey it means; with --hex-keys also a public key as 0x and 64
    hex digits. Raises ConfigError for anything else.
    """
    if text is None:
        return (hotkey_ref(args) if hotkey else coldkey_ref(args)).ss58
    if text.startswith("//"):
        return DevKey(text).ss58
    if args.hex_keys and re.fullmatch(r"0x[0-9a-fA-F]{64}", text):
        return ss58.encode(bytes.fromhex(text[2:]))
    try:
        return ss58.encode(ss58.decode(text, args.ss58_prefix))
    except ValueError as error:
        if len(text) >= 40 or text.startswith("0x"):
            raise ConfigError(f"{text!r} is not an address: {error}") from None
    wallet, slash, name = text.partition("/")
    if slash:
        key: KeyRef = WalletKey(plain_name(wallet), plain_name(name), wallets_path(args))
    else:
        key = hotkey_ref(args, text) if hotkey else WalletKey(plain_name(text), None, wallets_path(args))
    if isinstance(key, WalletKey):
        public = key.folder / "coldkeypub.txt" if key.hotkey is None else key.file
        if not (key.file.exists() or public.exists()):
            raise ConfigError(f"{text!r} is neither an ss58 address nor the name of a key: there is no {key.file}")
    return key.ss58


def development_keys(args: argparse.Namespace) -> list[str]:
    """The development keys that the command line names, the wallet's own included."""
    given = [value if isinstance(value, list) else [value] for value in vars(args).values()]
    return [text for texts in given for text in texts if isinstance(text, str) and text.startswith("//")]


def plain_name(text: str) -> str:
    """The name of a wallet or hotkey: one path component."""
    if text in ("", ".", "..") or "/" in text or "\0" in text:
        fix = "give one word, and the folder by --wallet.path"
        raise ConfigError(f"{text!r} is not a name of a wallet or hotkey: {fix}")
    return text


def tao(text: str) -> int:
    """An argparse type: rao of an exact amount in TAO or alpha, as "1" or "0.25"; at most nine decimals."""
    found = re.fullmatch(r"(\d{1,11})(?:\.(\d{1,9}))?", text, re.ASCII)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r}: give an amount like 12.5, at most nine decimals")
    value = int(found[1]) * RAO + int((found[2] or "").ljust(9, "0"))
    if value > MAX_RAO:
        raise argparse.ArgumentTypeError(f"{text}: give at most {MAX_RAO // RAO}, the largest amount of the chain")
    return value


def share(text: str) -> int:
    """An argparse type: millionths of a share below 1, as "5%" or "0.05"; exact to four decimals of a percent."""
    found = re.fullmatch(r"(\d{1,3})(?:\.(\d{1,6}))?(%?)", text, re.ASCII)
    scale = MILLION // 100 if found and found[3] else MILLION
    value = (int(found[1]) * MILLION + int((found[2] or "").ljust(6, "0"))) * scale // MILLION if found else -1
    if not 0 <= value < MILLION:
        raise argparse.ArgumentTypeError(f"{text!r}: give a share below 1, like 5% or 0.05")
    return value
