"""The options that the chain's commands share, and how their values are read.

In: an argparse parser, environment variables. Out: endpoints, key references, addresses, integers of rao. Names are
those that Bittensor's users know, with dots or dashes: --wallet.name, --wallet-name. Amounts are read digit by digit,
never as floats. Raises ConfigError or argparse's usage errors; opens no key and no connection.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping
from pathlib import Path

from raytensor.chain.rpc.codec import account_bytes
from raytensor.chain.rpc.connection import NETWORKS
from raytensor.chain.wallet import DEFAULT_PATH, DevKey, KeyRef, WalletKey
from raytensor.errors import ConfigError

RAO = 10**9
MILLION = 10**6
MAX_RAO = 2**64 - 1
HOME_ENV = "RAYTENSOR_HOME"
POLICY_ENV = "RAYTENSOR_POLICY"


def parser(command: str, description: str, examples: str = "") -> argparse.ArgumentParser:
    """A parser whose help ends with examples."""
    epilog = f"examples:\n{examples}" if examples else None
    return argparse.ArgumentParser(
        f"raytensor {command}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def subparser(actions: argparse._SubParsersAction, name: str, text: str, examples: str = "") -> argparse.ArgumentParser:
    """A parser of one action, made like `parser`."""
    return actions.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=f"examples:\n{examples}" if examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_output(to: argparse.ArgumentParser) -> None:
    to.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def add_network(to: argparse.ArgumentParser) -> None:
    group = to.add_argument_group("chain")
    group.add_argument(
        "--network",
        "-n",
        "--subtensor.network",
        "--subtensor.chain_endpoint",
        metavar="NAME|URL",
        help="finney, test, archive, local, or ws://host:port (default: BT_NETWORK, "
        "BT_CHAIN_ENDPOINT, else finney); several, separated by commas, are tried in order",
    )
    group.add_argument(
        "--timeout", type=seconds, default=20.0, metavar="SECONDS", help="for each answer of the node (default 20)"
    )


def add_wallet(to: argparse.ArgumentParser) -> None:
    group = to.add_argument_group("wallet")
    group.add_argument(
        "--wallet.name",
        "--wallet-name",
        "--wallet",
        "-w",
        dest="wallet_name",
        metavar="NAME",
        help="wallet, or a development key like //Alice (default: BT_WALLET_NAME, BT_WALLET, else default)",
    )
    group.add_argument(
        "--wallet.hotkey",
        "--wallet-hotkey",
        "-H",
        dest="wallet_hotkey",
        metavar="NAME",
        help="hotkey in the wallet (default: BT_WALLET_HOTKEY, else default)",
    )
    group.add_argument(
        "--wallet.path",
        "--wallet-path",
        dest="wallet_path",
        metavar="DIR",
        help=f"folder of the wallets (default: BT_WALLET_PATH, else {DEFAULT_PATH})",
    )
    group.add_argument(
        "--password-file",
        metavar="FILE",
        help="file whose first line opens the key (else BT_WALLET_PASSWORD_FILE, "
        "BT_WALLET_PASSWORD, or bittensor's BT_PW_...)",
    )


def add_sending(to: argparse.ArgumentParser) -> None:
    group = to.add_argument_group("sending")
    group.add_argument("--dry-run", action="store_true", help="print fee and effect; send nothing, open no key")
    group.add_argument("--yes", "-y", action="store_true", help="do not ask; needed where there is no terminal")
    group.add_argument("--id", metavar="TEXT", help="name of this order: the same name never has a second effect")
    group.add_argument(
        "--policy", metavar="FILE", help="limits that hold whatever is asked (TOML; default: RAYTENSOR_POLICY)"
    )
    group.add_argument(
        "--wait", type=seconds, default=60.0, metavar="SECONDS", help="for the block that has it (default 60)"
    )
    group.add_argument(
        "--state", metavar="DIR", help="folder of journal and audit log (default: RAYTENSOR_HOME, else ~/.raytensor)"
    )


def network(args: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Endpoints, in order of preference."""
    if args.network:
        return [part.strip() for part in args.network.split(",") if part.strip()]
    name, url = environ.get("BT_NETWORK", ""), environ.get("BT_CHAIN_ENDPOINT", "")
    if name and url and name != "local" and NETWORKS.get(name, name) != url:
        raise ConfigError(f"BT_NETWORK says {name} and BT_CHAIN_ENDPOINT says {url}: give --network, or unset one")
    return [url or name or "finney"]


def coldkey_ref(args: argparse.Namespace) -> KeyRef:
    """The wallet's coldkey."""
    name = args.wallet_name or os.environ.get("BT_WALLET_NAME") or os.environ.get("BT_WALLET") or "default"
    if name.startswith("//"):
        return DevKey(name)
    return WalletKey(plain_name(name), None, wallets_path(args), getattr(args, "password_file", None))


def hotkey_ref(args: argparse.Namespace, name: str | None = None) -> KeyRef:
    """The wallet's hotkey of that name, or the one that options and environment name."""
    name = name or args.wallet_hotkey or os.environ.get("BT_WALLET_HOTKEY") or "default"
    if name.startswith("//"):
        return DevKey(name)
    cold = coldkey_ref(args)
    if isinstance(cold, DevKey):
        raise ConfigError(f"{cold.uri} is no wallet with hotkeys: name the hotkey too, as --wallet.hotkey //Alice")
    return WalletKey(cold.wallet, plain_name(name), cold.path, cold.password_file)


def wallets_path(args: argparse.Namespace) -> str:
    return args.wallet_path or os.environ.get("BT_WALLET_PATH") or DEFAULT_PATH


def state_folder(args: argparse.Namespace) -> Path:
    """Where this program keeps its journals and its audit log."""
    return Path(args.state or os.environ.get(HOME_ENV) or "~/.raytensor").expanduser()


def account(args: argparse.Namespace, text: str | None, *, hotkey: bool) -> str:
    """An address (ss58), given as one, as a development key, or as a hotkey's name; None: the wallet's own."""
    if text is None:
        return (hotkey_ref(args) if hotkey else coldkey_ref(args)).ss58
    if text.startswith("//"):
        return DevKey(text).ss58
    try:
        account_bytes(text)
        return text
    except ValueError:
        if hotkey and len(text) < 40:
            return hotkey_ref(args, text).ss58
        raise ConfigError(f"{text!r} is no address: an ss58 address has 48 letters and digits, check each") from None


def plain_name(text: str) -> str:
    """The name of a wallet or hotkey: one path component."""
    if text in ("", ".", "..") or "/" in text or "\0" in text:
        raise ConfigError(f"{text!r} is no name of a wallet or hotkey: give one word, and the folder by --wallet.path")
    return text


def tao(text: str) -> int:
    """rao of an amount in TAO (or alpha), exact: "1", "0.25", at most nine decimals. For argparse."""
    found = re.fullmatch(r"(\d{1,11})(?:\.(\d{1,9}))?", text, re.ASCII)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r}: write an amount like 12.5, at most nine decimals")
    value = int(found[1]) * RAO + int((found[2] or "").ljust(9, "0"))
    if value > MAX_RAO:
        raise argparse.ArgumentTypeError(f"{text}: more than there can be")
    return value


def share(text: str) -> int:
    """Millionths of a share: "5%", "0.05", exact to four decimals of a percent. For argparse."""
    found = re.fullmatch(r"(\d{1,3})(?:\.(\d{1,6}))?(%?)", text, re.ASCII)
    scale = MILLION // 100 if found and found[3] else MILLION
    value = (int(found[1]) * MILLION + int((found[2] or "").ljust(6, "0"))) * scale // MILLION if found else -1
    if not 0 <= value < MILLION:
        raise argparse.ArgumentTypeError(f"{text!r}: write a share below 1, like 5% or 0.05")
    return value


def netuid(text: str) -> int:
    """For argparse."""
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r}: a netuid is a number from 0 to 65535")
    return int(text)


def seconds(text: str) -> float:
    """For argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r}: write seconds, more than 0")
    return value
