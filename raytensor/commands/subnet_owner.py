"""`raytensor subnets create|start|set|show`: what the owner of a subnet does with it.

In: a wallet's coldkey, a netuid, the name of a hyperparameter and its value. Out: the extrinsics, and what the chain
has. The names of hyperparameters and the types of their values are those of the runtime's metadata (AdminUtils
sudo_set_NAME). Knows nothing of what a hyperparameter does.
"""

import argparse
import functools
import re
from collections.abc import Sequence
from typing import Any

from raytensor.arguments import did_you_mean
from raytensor.chain.owner_intents import RegisterNetwork, SetHyperparameter, StartCall
from raytensor.chain.reads.quotes import network_cost
from raytensor.chain.rpc.client import ChainClient
from raytensor.commands import options, output, sending, subnet_structure
from raytensor.commands.sender import sender_of
from raytensor.errors import ChainError, ChainRefused, ConfigError

PALLET, ADMIN, SETTER = "SubtensorModule", "AdminUtils", "sudo_set_"
MARGIN = 1.05  # above the current cost of a subnet, which doubles with each registration
# Hyperparameters whose storage item is not their name in capitals.
STORED_AS = {
    "alpha_sigmoid_steepness": "AlphaSigmoidSteepness",
    "bonds_reset_enabled": "BondsResetOn",
    "commit_reveal_weights_interval": "RevealPeriodEpochs",
    "ema_price_halving_period": "EMAPriceHalvingBlocks",
    "liquid_alpha_enabled": "LiquidAlphaOn",
    "mechanism_count": "MechanismCountCurrent",
    "mechanism_emission_split": "MechanismEmissionSplit",
    "min_childkey_take_per_subnet": "MinChildkeyTakePerSubnet",
    "owner_immune_neuron_limit": "ImmuneOwnerUidsLimit",
    "rao_recycled": "RAORecycledForRegistration",
    "sn_owner_hotkey": "SubnetOwnerHotkey",
    "toggle_transfer": "TransferToggle",
    "yuma3_enabled": "Yuma3On",
}
# Ranges of the pallet (admin-utils, subtensor) for owners, where they are narrower than the type's.
OWNERS_RANGE = {
    "bonds_moving_average": (0, 975_000),
    "commit_reveal_weights_interval": (1, 100),
    "max_allowed_uids": (64, 256),
    "owner_immune_neuron_limit": (1, 10),
    "tempo": (360, 50_400),
}
ABOUT = """\
Creates, starts, shows and configures a subnet. The coldkey that creates a subnet owns it.
"""
EXAMPLES = """\
  raytensor subnets create -w alice -H owner --dry-run    what a subnet costs now
  raytensor subnets create -w alice -H owner --max-cost 500
  raytensor subnets start 5 -w alice
  raytensor subnets show 5
  raytensor subnets set 5 immunity_period 7200 -w alice
  raytensor subnets trim 5 128 -w alice
  raytensor subnets mechanisms 5 --count 2 -w alice
"""


def owner_main(argv: Sequence[str]) -> int:
    """`raytensor subnets ACTION ...`. Returns the exit status."""
    return output.run("subnets", _parser(), argv, lambda args: args.act(args))


def _parser() -> argparse.ArgumentParser:
    parser = options.parser("subnets", ABOUT, EXAMPLES)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    action = functools.partial(options.action, actions, "subnets")
    create = action("create", "register a new subnet", "-w alice -H owner --dry-run", "-w alice --max-cost 500")
    start = action("start", "start a subnet's emission", "5 -w alice")
    change = action(
        "set", "set a hyperparameter, as the subnet's owner", "5 kappa 32767 -w alice", "5 alpha_values 1638 58982"
    )
    show = action("show", "show a subnet's hyperparameters", "5", "5 --json")
    hyperparameters = action("hyperparameters", "the same as show", "5")
    more = subnet_structure.add_parsers(actions, _need_right)
    options.add_hotkey(create)
    text = "the highest cost to pay (default: +5 %%)"
    create.add_argument("--max-cost", type=options.tao, metavar="TAO", help=text)
    for one in (start, change, show, hyperparameters):
        one.add_argument("netuid", metavar="NETUID", type=options.netuid, help="the subnet")
    change.add_argument("name", metavar="NAME", help="the hyperparameter, as `raytensor subnets show` lists it")
    change.add_argument("values", metavar="VALUE", nargs="+", help="as the chain stores it: amounts in rao, blocks")
    text = "send it as the chain's sudo key, which has no limits: on development chains"
    for one in (change, *more):
        one.add_argument("--sudo", action="store_true", help=text)
    acts = {create: _create, start: _start, change: _set, show: _show, hyperparameters: _show} | more
    for one, act in acts.items():
        if act is not _show:
            options.add_sending(one)
        options.add_chain_and_wallet(one)
        one.set_defaults(act=act)
    return parser


def _create(args: argparse.Namespace) -> int:
    key, hotkey = sender_of(args), options.account(args, args.hotkey, hotkey=True)
    with ChainClient(options.network(args), args.timeout) as client:
        if (status := sending.resume(args, client, key, hotkey=hotkey)) is not None:
            return status
        cost = network_cost(client)
        most = args.max_cost if args.max_cost is not None else round(cost * MARGIN)
        if cost > most:
            message = f"a subnet costs {output.tao(cost)} TAO, over --max-cost {output.tao(most)}"
            raise ChainRefused(message, name="NetworkCostExceeded", action="wait: until the cost falls, or raise it")
        intent = RegisterNetwork(signer=key.ss58, intent_id=sending.order_id(args), hotkey=hotkey)
        sending.afford(client, intent)
        effect = {"hotkey": hotkey, "cost_rao": cost, "balance_rao": client.balance(key.ss58)}
        before = set(_owned(client, key.ss58))
        status = sending.send(args, client, intent, key, f"create a subnet for {output.tao(cost)} TAO", effect)
        if status == 0 and not args.dry_run and not args.json:
            for netuid in sorted(set(_owned(client, key.ss58)) - before):
                print(f"subnet {netuid} is yours; `raytensor subnets start {netuid}` starts its emission")
        return status


def _owned(client: ChainClient, coldkey: str) -> list[int]:
    return [netuid for netuid, owner in client.query_map(PALLET, "SubnetOwner").items() if owner == coldkey]


def _start(args: argparse.Namespace) -> int:
    key, netuid = sender_of(args), args.netuid
    with ChainClient(options.network(args), args.timeout) as client:
        if (status := sending.resume(args, client, key, netuid=netuid)) is not None:
            return status
        _need_owner(client, netuid, key.ss58)
        items = [("NetworkRegisteredAt", [netuid]), ("StartCallDelay", []), ("FirstEmissionBlockNumber", [netuid])]
        registered, delay, started = client.query_many([(PALLET, name, keys) for name, keys in items])
        if started is not None:
            message = f"subnet {netuid} started in block {started}"
            raise ChainRefused(message, name="FirstEmissionBlockNumberAlreadySet", action="give up: nothing to do")
        ready, head = (registered or 0) + (delay or 0), client.head().number
        if head + 1 < ready:
            message = f"subnet {netuid} can start in block {ready}, {ready - head} blocks from now"
            raise ChainRefused(message, name="NeedWaitingMoreBlocksToStarCall", action="wait: until that block")
        intent = StartCall(signer=key.ss58, intent_id=sending.order_id(args), netuid=netuid)
        return sending.send(args, client, intent, key, f"start subnet {netuid}", {"netuid": netuid})


def _set(args: argparse.Namespace) -> int:
    key, netuid = sender_of(args), args.netuid
    with ChainClient(options.network(args), args.timeout) as client:
        name = args.name.removeprefix(SETTER)
        function = _function(client, name, args.sudo)
        kinds = _kinds(client, function)
        if len(args.values) != len(kinds):
            fix = f"give {' and '.join(kinds)}"
            raise ConfigError(f"{name} takes {len(kinds)} values, not {len(args.values)}: {fix}")
        narrow = None if args.sudo else OWNERS_RANGE.get(name)
        pairs = zip(kinds.items(), args.values)
        values = tuple((one, _read(name, kind, text, narrow)) for (one, kind), text in pairs)
        if (status := sending.resume(args, client, key, netuid=netuid, function=function, values=values)) is not None:
            return status
        _need_right(args, client, netuid, key.ss58)
        order = {"signer": key.ss58, "intent_id": sending.order_id(args), "netuid": netuid}
        intent = SetHyperparameter(**order, function=function, values=values, sudo=args.sudo)
        sending.afford(client, intent)
        now = _stored(client, netuid, [name]).get(name)
        effect = {"netuid": netuid, "call": function, "now": _shown(now), "then": " ".join(args.values)}
        what = f"set {name} of subnet {netuid} to {' '.join(args.values)}"
        return sending.send(args, client, intent, key, what, effect)


def _show(args: argparse.Namespace) -> None:
    with ChainClient(options.network(args), args.timeout) as client:
        if not client.query(PALLET, "NetworksAdded", [args.netuid]):
            raise ChainError(f"there is no subnet {args.netuid} on {client.endpoint}")
        names = _names(client)
        found = _stored(client, args.netuid, names)
        owner = client.query(PALLET, "SubnetOwner", [args.netuid])
        rows = []
        for name in names:
            kinds = _kinds(client, f"{ADMIN}.{SETTER}{name}").values()
            takes = " and ".join(_words(kind, OWNERS_RANGE.get(name)) for kind in kinds)
            rows.append({"name": name, "value": found.get(name), "takes": takes})
    if args.json:
        output.show_json({"netuid": args.netuid, "owner": owner, "hyperparameters": rows})
        return
    print(f"subnet {args.netuid}, owned by {owner}")
    cells = {
        "hyperparameter": lambda row: row["name"],
        "value": lambda row: _shown(row["value"]),
        "takes": lambda row: row["takes"],
    }
    print(output.columns(rows, cells, left=(0, 2)))


def _names(client: ChainClient) -> list[str]:
    """The hyperparameters of one subnet: the calls of AdminUtils whose first argument is a netuid."""
    runtime = client.runtime
    setters = [name for name in runtime.call_names(ADMIN) if name.startswith(SETTER)]
    ours = [name for name in setters if runtime.call_fields(ADMIN, name)[:1] == ["netuid"]]
    return sorted(name.removeprefix(SETTER) for name in ours)


def _function(client: ChainClient, name: str, sudo: bool) -> str:
    """The call that sets a hyperparameter. An owner has a call of its own for a few of them."""
    names = _names(client)
    if name not in names:
        raise ConfigError(f"there is no hyperparameter {name!r}{did_you_mean(name, names)}; see `subnets show`")
    if not sudo and client.runtime.has_call(PALLET, f"set_{name}"):
        return f"{PALLET}.set_{name}"
    return f"{ADMIN}.{SETTER}{name}"


def _kinds(client: ChainClient, function: str) -> dict[str, str | tuple[str, ...]]:
    """What each argument of a call after the netuid is: "u16", "bool", the name of a struct, or an enum's variants."""
    types = list(client.runtime.call_types(*function.split(".")).items())[1:]
    return {name: client.runtime.codec.kind(type_id) for name, type_id in types}


def _stored(client: ChainClient, netuid: int, names: Sequence[str]) -> dict[str, Any]:
    """The values that the chain has, by name; those without a storage item of their own are left out."""
    items = {name: STORED_AS.get(name) or "".join(part.capitalize() for part in name.split("_")) for name in names}
    known = {name: item for name, item in items.items() if client.runtime.has_storage(PALLET, item)}
    values = client.query_many([(PALLET, item, [netuid]) for item in known.values()])
    return dict(zip(known, values, strict=True))


def _need_owner(client: ChainClient, netuid: int, coldkey: str) -> None:
    owner = client.query(PALLET, "SubnetOwner", [netuid])
    if not client.query(PALLET, "NetworksAdded", [netuid]):
        raise ChainError(f"there is no subnet {netuid} on {client.endpoint}")
    if owner != coldkey:
        message, action = f"subnet {netuid} belongs to {owner}, not to {coldkey}", "fix: sign with the owner's coldkey"
        raise ChainRefused(message, name="NotSubnetOwner", action=action)


def _need_right(args: argparse.Namespace, client: ChainClient, netuid: int, coldkey: str) -> None:
    """Raise ChainRefused for who is not the owner; with --sudo, for who is not the sudo key."""
    if not args.sudo:
        _need_owner(client, netuid, coldkey)
    elif client.query("Sudo", "Key") != coldkey:
        message = f"{coldkey} is not the sudo key of this chain"
        raise ChainRefused(message, name="RequireSudo", action="fix: sign with it, or as the owner without --sudo")


def _shown(value: Any) -> str:
    """A value of the chain as `set` takes it."""
    if isinstance(value, dict) and set(value) == {"bits"}:  # U64F64
        return f"{value['bits'] / 2**64:.12g}"
    if isinstance(value, tuple):
        return " ".join(map(_shown, value))
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _read(name: str, kind: str | tuple[str, ...], text: str, narrow: tuple[int, int] | None) -> Any:
    """A value from its text. Raises ConfigError, which says what is accepted."""
    if isinstance(kind, tuple):
        if text in kind:
            return text
    elif kind == "bool":
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
    elif kind == "U64F64":
        if re.fullmatch(r"\d{1,19}(\.\d{1,18})?", text, re.ASCII):
            whole, _, part = text.partition(".")
            return {"bits": (int(whole + part) << 64) // 10 ** len(part)}
    elif kind == "AccountId32":
        return text
    elif bounds := narrow or _bounds(kind):
        if re.fullmatch(r"-?\d{1,40}", text, re.ASCII) and bounds[0] <= int(text) <= bounds[1]:
            return int(text)
    else:
        raise ConfigError(f"{name} takes a {kind}, which can't be given on a command line")
    raise ConfigError(f"{name}: {text!r} is refused; it takes {_words(kind, narrow)}")


def _bounds(kind: str) -> tuple[int, int] | None:
    """The range of a whole number type of SCALE, None for another type."""
    found = re.fullmatch(r"([ui])(8|16|32|64|128)", kind)
    if not found:
        return None
    bits = int(found[2])
    return (0, 2**bits - 1) if found[1] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _words(kind: str | tuple[str, ...], narrow: tuple[int, int] | None = None) -> str:
    if isinstance(kind, tuple):
        return " or ".join(kind)
    if bounds := narrow or _bounds(kind):
        return f"{bounds[0]} to {bounds[1]}"
    return {"bool": "true or false", "U64F64": "a decimal number", "AccountId32": "an address"}.get(kind, kind)
