"""`raytensor call` and `raytensor read`: every call and storage item of a chain, as its metadata describes them.

In: a name from the metadata and words for its arguments or keys. Out: the plan and the receipt of an order, or the
values that are stored. The help of a name is made from the metadata: types, and documentation where the chain has it.
Nothing here is a list of calls: what the chain has is what there is.
"""

import argparse
import difflib
import json
import re
from collections.abc import Sequence
from typing import Any

from raytensor.chain.calls import Call
from raytensor.chain.named_call import NamedCall
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.rpc.runtime import Runtime
from raytensor.chain.rpc.type_text import Reader, type_text
from raytensor.commands import options, output, sending
from raytensor.commands.sender import sender_of
from raytensor.errors import ConfigError

CALL = """\
Sends any call that the chain has, by the names of its metadata. Without a name it lists the pallets, with a pallet its
calls, with --describe the arguments of a call and their types.

Values: whole numbers (amounts in rao), true or false, addresses or names of keys, bytes as 0x... or text, null for an
empty option, and JSON for lists, objects, variants with content and calls inside: '{"Pallet.call": {"argument": 1}}'.
"""
CALL_EXAMPLES = """\
  raytensor call SubtensorModule
  raytensor call SubtensorModule.add_stake --describe
  raytensor call SubtensorModule.add_stake hotkey=5F... netuid=2 amount_staked=1000000000 -w alice --dry-run
  raytensor call Utility.batch_all 'calls=[{"System.remark": {"remark": "a"}}]' -w alice --dry-run
"""
READ = """\
Reads any storage item of the chain, at one block. Without a name it lists the pallets, with a pallet its items. With
fewer keys than the item has, all entries that begin with them are printed.
"""
READ_EXAMPLES = """\
  raytensor read SubtensorModule
  raytensor read SubtensorModule.Tempo 2
  raytensor read SubtensorModule.Uids 2 --limit 20
  raytensor read System.Account 5F... --block 9000000 --json
"""


def call_main(argv: Sequence[str]) -> int:
    """`raytensor call [PALLET[.CALL] [NAME=VALUE ...]]`. Returns the exit status."""
    parser = options.parser("call", CALL, CALL_EXAMPLES)
    parser.add_argument("name", nargs="?", metavar="PALLET.CALL", help="a call, or a pallet to list its calls")
    parser.add_argument("arguments", nargs="*", metavar="NAME=VALUE", help="the arguments, by name, in any order")
    parser.add_argument("--describe", action="store_true", help="print the arguments and their types; send nothing")
    parser.add_argument("--as-hotkey", action="store_true", help="sign with the hotkey (default: the coldkey)")
    options.add_chain_and_wallet(parser)
    options.add_sending(parser)
    return output.run("call", parser, argv, _call)


def read_main(argv: Sequence[str]) -> int:
    """`raytensor read [PALLET[.ITEM] [KEY ...]]`. Returns the exit status."""
    parser = options.parser("read", READ, READ_EXAMPLES)
    parser.add_argument("name", nargs="?", metavar="PALLET.ITEM", help="an item, or a pallet to list its items")
    parser.add_argument("keys", nargs="*", metavar="KEY", help="the keys of a map, in order")
    parser.add_argument("--block", metavar="N|HASH", help="the block to read at (default: the newest)")
    text = "entries of a map to print (default 100)"
    parser.add_argument("--limit", type=options.count, default=100, metavar="N", help=text)
    options.add_chain_and_wallet(parser)
    return output.run("read", parser, argv, _read)


def _call(args: argparse.Namespace) -> int:
    with ChainClient(options.network(args), args.timeout) as client:
        runtime = client.runtime
        pallet, function = _split(runtime, args.name)
        if not function:
            return _list(args, runtime, pallet, "calls", {name: runtime.call_names(name) for name in runtime.pallets})
        known(f"{pallet}.", function, runtime.call_names(pallet), "call")
        fields = runtime.call_types(pallet, function)
        types = {name: type_text(runtime.codec, type_id) for name, type_id in fields.items()}
        if args.describe:
            shown = {"call": f"{pallet}.{function}", "arguments": types}
            lines = [f"{pallet}.{function}", *(f"  {name:<28} {text}" for name, text in types.items())]
            output.show(args, shown, "\n".join(lines))
            return 0
        call = read_call(runtime, pallet, function, _pairs(args.arguments), _reader(args, runtime))
        key = sender_of(args, hotkey=args.as_hotkey)
        intent = NamedCall.of(key.ss58, sending.order_id(args), call)
        if (status := sending.resume(args, client, key, call_json=intent.call_json)) is not None:
            return status
        effect: dict[str, Any] = {name: text_of(value) for name, value in call.to_json()["args"].items()}
        effect["encoded"] = "0x" + runtime.encode_call(call).hex()
        return sending.send(args, client, intent, key, f"{pallet}.{function}", effect)


def read_call(runtime: Runtime, pallet: str, function: str, given: dict[str, str], reader: Reader) -> Call:
    """The call with its arguments from words. Raises ConfigError for a missing, unknown or unfit argument."""
    types = runtime.call_types(pallet, function)
    for name in given:
        known("", name, list(types), "argument")
    if missing := [name for name in types if name not in given]:
        described = ", ".join(f"{name}=<{type_text(runtime.codec, types[name])}>" for name in missing)
        raise ConfigError(f"{pallet}.{function} also needs {described}")
    values = {}
    for name, type_id in types.items():
        try:
            values[name] = reader.word(type_id, given[name])
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from None
    return Call(pallet, function, values)


def _read(args: argparse.Namespace) -> int:
    with ChainClient(options.network(args), args.timeout) as client:
        runtime = client.runtime
        pallet, item = _split(runtime, args.name)
        if not item:
            return _list(
                args, runtime, pallet, "items", {name: runtime.storage_names(name) for name in runtime.pallets}
            )
        known(f"{pallet}.", item, runtime.storage_names(pallet), "item")
        storage, reader = runtime.storage(pallet, item), _reader(args, runtime)
        described = ", ".join(type_text(runtime.codec, key) for key in storage.keys)
        if len(args.keys) > len(storage.keys):
            raise ConfigError(f"{pallet}.{item} has {len(storage.keys)} keys ({described}), not {len(args.keys)}")
        keys = [reader.word(type_id, text) for type_id, text in zip(storage.keys, args.keys)]
        number, at = block_of(client, args.block)
        shown = {"item": f"{pallet}.{item}", "block": number, "type": type_text(runtime.codec, storage.value)}
        if len(keys) == len(storage.keys):
            value = plain(client.query(pallet, item, keys, at))
            output.show(args, shown | {"value": value}, text_of(value))
            return 0
        entries, more = [], False
        for raw_key, raw in client.query_map_raw(storage, keys, at):
            if len(entries) == args.limit:
                more = True
                break
            entries.append((runtime.key_params(storage, raw_key, len(keys)), runtime.value(storage, raw)))
        rows = [{"keys": plain(list(key)), "value": plain(value)} for key, value in entries]
        lines = [f"{' '.join(text_of(key) for key in row['keys'])}  {text_of(row['value'])}" for row in rows]
        lines += [f"more entries; --limit {args.limit * 10} shows more"] if more else []
        output.show(args, shown | {"entries": rows, "more": more}, "\n".join(lines) or "no entries")
        return 0


def block_of(client: ChainClient, text: str | None) -> tuple[int, str]:
    """(number, hash) of a block given by either; the best one by default."""
    if text is None:
        head = client.head()
        return head.number, head.hash
    if re.fullmatch(r"0x[0-9a-fA-F]{64}", text):
        return client.block(text)[0].number, text
    if not re.fullmatch(r"\d{1,10}", text, re.ASCII):
        raise ConfigError(f"--block {text!r}: give a block's number, or its hash as 0x and 64 hex digits")
    return int(text), client.block_hash(int(text))


def _reader(args: argparse.Namespace, runtime: Runtime) -> Reader:
    return Reader(runtime.codec, lambda text: options.account(args, text, hotkey=False))


def _split(runtime: Runtime, name: str | None) -> tuple[str, str]:
    """(pallet, name in it), each "" where it is not given."""
    pallet, _, inner = (name or "").partition(".")
    if pallet:
        known("", pallet, list(runtime.pallets), "pallet")
    return pallet, inner


def known(prefix: str, name: str, names: Sequence[str], what: str) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, 3, 0.5)
        hint = f"did you mean {', '.join(prefix + one for one in near)}?" if near else f"there are {', '.join(names)}"
        raise ConfigError(f'no {what} "{prefix}{name}": {hint[:2000]}')


def _list(args: argparse.Namespace, runtime: Runtime, pallet: str, what: str, found: dict[str, list[str]]) -> int:
    """Print the names of one pallet, or how many each pallet has."""
    shown = {name: names for name, names in found.items() if names and pallet in ("", name)}
    if pallet:
        text = "\n".join(f"{pallet}.{name}" for name in found[pallet]) or f"{pallet} has no {what}"
    else:
        text = "\n".join(f"{name:<24} {len(names)} {what}" for name, names in shown.items())
    output.show(args, {"spec_version": runtime.spec_version, what: shown}, text)
    return 0


def _pairs(words: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name in found:
            raise ConfigError(f"{word!r}: give each argument once, as name=value")
        found[name] = value
    return found


def plain(value: Any) -> Any:
    """A decoded value as JSON: bytes as 0x..."""
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
