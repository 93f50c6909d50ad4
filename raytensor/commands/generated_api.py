"""`raytensor api`: every method of a chain's runtime APIs, as its metadata V15 describes them.

In: a name from the metadata and words for its inputs. Out: the answer. Nothing is sent to the chain's pool.
"""

import argparse
from collections.abc import Sequence

from raytensor.chain.rpc.api_metadata import VERSION, Apis, Method, read_apis
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.rpc.type_text import Reader, type_text
from raytensor.commands import options, output
from raytensor.commands.generated import block_of, known, plain, text_of
from raytensor.errors import ConfigError

ABOUT = """\
Asks any method of the chain's runtime APIs, at one block. Without a name it lists the APIs, with an API its methods,
with --describe the inputs and the output of a method. Inputs are written as the values of `raytensor call`.
"""
EXAMPLES = """\
  raytensor api SubnetInfoRuntimeApi
  raytensor api SubnetInfoRuntimeApi.get_next_epoch_start_block 2
  raytensor api NeuronInfoRuntimeApi.get_neuron_lite 2 0 --json
"""


def api_main(argv: Sequence[str]) -> int:
    """`raytensor api [API[.METHOD] [INPUT ...]]`. Returns the exit status."""
    parser = options.parser("api", ABOUT, EXAMPLES)
    parser.add_argument("name", nargs="?", metavar="API.METHOD", help="a method, or an API to list its methods")
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="the inputs, in order")
    parser.add_argument("--describe", action="store_true", help="print the inputs and the output; ask nothing")
    parser.add_argument("--block", metavar="N|HASH", help="the block to ask at (default: the newest)")
    options.add_chain_and_wallet(parser)
    return output.run("api", parser, argv, _api)


def _api(args: argparse.Namespace) -> int:
    with ChainClient(options.network(args), args.timeout) as client:
        apis = read_apis(client.runtime_call("Metadata_metadata_at_version", VERSION.to_bytes(4, "little")))
        trait, _, name = (args.name or "").partition(".")
        if trait:
            known("", trait, list(apis.methods), "runtime API")
        if not name:
            return _list(args, apis, trait)
        known(f"{trait}.", name, list(apis.methods[trait]), "method")
        method = apis.methods[trait][name]
        if args.describe:
            return _describe(args, apis, method)
        number, at = block_of(client, args.block)
        answer = client.runtime_call(f"{trait}_{name}", _encoded(args, apis, method), at)
        value = plain(apis.codec.decode(method.output, answer))
        shown = {"method": f"{trait}.{name}", "block": number, "type": type_text(apis.codec, method.output)}
        output.show(args, shown | {"value": value}, text_of(value))
        return 0


def _encoded(args: argparse.Namespace, apis: Apis, method: Method) -> bytes:
    """The inputs as SCALE. Raises ConfigError for a missing, surplus or unfit input."""
    types = {name: type_text(apis.codec, type_id) for name, type_id in method.inputs.items()}
    if len(args.inputs) != len(types):
        described = " ".join(f"{name}=<{text}>" for name, text in types.items()) or "no inputs"
        raise ConfigError(f"{args.name} takes {described}: {len(args.inputs)} were given")
    reader = Reader(apis.codec, lambda text: options.account(args, text, hotkey=False))
    encoded = b""
    for (name, type_id), text in zip(method.inputs.items(), args.inputs, strict=True):
        try:
            encoded += apis.codec.encode(type_id, reader.word(type_id, text))
        except (ConfigError, ValueError) as error:
            raise ConfigError(f"{name}: {error}") from None
    return encoded


def _describe(args: argparse.Namespace, apis: Apis, method: Method) -> int:
    inputs = {name: type_text(apis.codec, type_id) for name, type_id in method.inputs.items()}
    shown = {"method": args.name, "inputs": inputs, "output": type_text(apis.codec, method.output)}
    lines = [args.name, *method.docs, *(f"  {name:<28} {text}" for name, text in inputs.items())]
    output.show(args, shown | {"docs": list(method.docs)}, "\n".join([*lines, f"  -> {shown['output']}"]))
    return 0


def _list(args: argparse.Namespace, apis: Apis, trait: str) -> int:
    """Print the methods of one API, or how many each API has."""
    shown = {name: list(methods) for name, methods in apis.methods.items() if trait in ("", name)}
    lines = [f"{name:<32} {len(methods)} methods" for name, methods in shown.items()]
    text = "\n".join(f"{trait}.{name}" for name in shown[trait]) if trait else "\n".join(lines)
    output.show(args, {"apis": shown}, text)
    return 0
