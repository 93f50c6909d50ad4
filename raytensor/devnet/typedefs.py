"""Type strings: Rust's notation parsed to a tree, and the declared structs, enums and newtypes.

In: "Vec<(Compact<u16>, u64)>", "Option<AccountId32>", "[u8; 32]", "BoundedVec<u8, 5000>", and declarations.
Out: `Expr` trees and the declared `StructDef`, `EnumDef`, `NewtypeDef` by name.
Knows nothing of bytes (scale.py) or of metadata (metadata.py), which both read these trees.

The Python value of each type, in the whole devnet:

    bool, uN, iN, Compact<uN>          int (bool for bool)
    AccountId32, H256, [u8; N]         bytes of that length;  Vec<u8>, BoundedVec<u8, N>   bytes;  String   str
    Vec, VecDeque, BoundedVec, [T; N]  tuple;  BTreeSet   tuple, sorted;  BTreeMap   dict
    Option                             None or the value
    struct                             the namedtuple that `declare_struct` returns (dict or any object with the
                                       attributes is accepted for encoding)
    enum                               "Variant" without payload, ("Variant", value) with one; the value is the
                                       payload itself for one unnamed field, a tuple for several, a namedtuple for
                                       named fields
    newtype, fixed-point (I96F32 ...)  the inner value; fixed-point is the plain int of its raw bits
"""

import re
from collections import namedtuple
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Expr:
    """A parsed type: name and arguments. Tuples have the name "()", arrays "[]" (arguments: element, length)."""

    name: str
    args: tuple = ()

    def __str__(self) -> str:
        if self.name == "()":
            return f"({', '.join(map(str, self.args))})"
        if self.name == "[]":
            return f"[{self.args[0]}; {self.args[1]}]"
        return self.name + (f"<{', '.join(map(str, self.args))}>" if self.args else "")


@dataclass(frozen=True)
class StructDef:
    """fields: name -> type string. `cls`: the namedtuple of decoded values. `params`: generic parameters as
    (name, type string or None); all types of one path have the same ones.
    """

    name: str
    fields: dict[str, str]
    path: str
    cls: type
    params: tuple = ()


@dataclass(frozen=True)
class EnumDef:
    """variants: name -> (index, payload). Payload: () none, tuple of type strings, or StructDef for named fields."""

    name: str
    variants: dict[str, tuple[int, tuple | StructDef]]
    path: str
    params: tuple = ()


@dataclass(frozen=True)
class NewtypeDef:
    """A named wrapper of one type; `field` names the wrapped field in the metadata ("" for a tuple struct)."""

    name: str
    inner: str
    path: str
    field: str = ""


DECLARED: dict[str, StructDef | EnumDef | NewtypeDef] = {}

# Other spellings of the same type.
ALIASES = {
    "AccountId": "AccountId32",
    "Balance": "u64",
    "BlockNumber": "u32",
    "Hash": "H256",
    "Text": "String",
    "str": "String",
    "Bytes": "Vec<u8>",
}


def _register(definition) -> None:
    known = DECLARED.get(definition.name)
    # Mixins may repeat a declaration; two meanings of one name would corrupt the metadata.
    assert known is None or repr(known) == repr(definition), f"type {definition.name} is declared twice, differently"
    DECLARED[definition.name] = definition
    parse.cache_clear()


def _struct_def(name: str, fields: dict[str, str], path: str, params: tuple = ()) -> StructDef:
    return StructDef(name, dict(fields), path, namedtuple(name, list(fields), rename=True), params)


def declare_struct(name: str, fields: dict[str, str], path: str | None = None, params: tuple = ()) -> type:
    """Declare a struct and return the namedtuple class of its values. `path`: Rust path for the metadata."""
    known = DECLARED.get(name)
    if isinstance(known, StructDef) and known.fields == dict(fields):
        return known.cls
    definition = _struct_def(name, fields, path or name, params)
    _register(definition)
    return definition.cls


def declare_enum(name: str, variants: dict, path: str | None = None, params: tuple = ()) -> None:
    """Declare an enum. `variants`: name -> index, or name -> (index, payload) with payload a type string,
    a tuple of type strings, or a dict of named fields.
    """
    table = {}
    for variant, spec in variants.items():
        index, payload = spec if isinstance(spec, tuple) else (spec, ())
        if isinstance(payload, str):
            payload = (payload,)
        elif isinstance(payload, dict):
            payload = _struct_def(variant, payload, variant)
        table[variant] = (index, payload)
    _register(EnumDef(name, table, path or name, params))


def declare_newtype(name: str, inner: str, path: str | None = None, field: str = "") -> None:
    """Declare a wrapper around one type; its values are the values of `inner`."""
    _register(NewtypeDef(name, inner, path or name, field))


_TOKEN = re.compile(r"\s*([A-Za-z_][\w:]*|\d+|[<>()\[\],;])")


@cache
def parse(text: str) -> Expr:
    """The tree of a type string. Raises ValueError for an invalid one."""
    tokens, pos = [], 0
    stripped = text.strip()
    while pos < len(stripped):
        match = _TOKEN.match(stripped, pos)
        if match is None:
            raise ValueError(f"type {text!r}: cannot parse {stripped[pos:]!r}")
        tokens.append(match.group(1))
        pos = match.end()
    expr, end = _parse(tokens, 0, text)
    if end != len(tokens) or isinstance(expr, int):
        raise ValueError(f"type {text!r}: unexpected {tokens[end:] or tokens}")
    return expr


def _parse_list(tokens: list[str], i: int, close: str, text: str) -> tuple[list, int]:
    items = []
    while i < len(tokens) and tokens[i] != close:
        item, i = _parse(tokens, i, text)
        items.append(item)
        if i < len(tokens) and tokens[i] == ",":
            i += 1
    if i >= len(tokens):
        raise ValueError(f"type {text!r}: missing {close!r}")
    return items, i + 1


def _parse(tokens: list[str], i: int, text: str) -> tuple[Expr | int, int]:
    if i >= len(tokens):
        raise ValueError(f"type {text!r} ends too early")
    token = tokens[i]
    if token.isdigit():
        return int(token), i + 1
    if token == "(":
        items, i = _parse_list(tokens, i + 1, ")", text)
        return Expr("()", tuple(items)), i
    if token == "[":
        element, i = _parse(tokens, i + 1, text)
        if tokens[i : i + 1] != [";"] or not tokens[i + 1].isdigit() or tokens[i + 2 : i + 3] != ["]"]:
            raise ValueError(f"type {text!r}: an array is written [T; N]")
        return Expr("[]", (element, int(tokens[i + 1]))), i + 3
    if not (token[0].isalpha() or token[0] == "_"):
        raise ValueError(f"type {text!r}: unexpected {token!r}")
    if tokens[i + 1 : i + 2] == ["<"]:
        items, i = _parse_list(tokens, i + 2, ">", text)
        return Expr(token, tuple(items)), i
    if token in ALIASES:
        return parse(ALIASES[token]), i + 1
    return Expr(token), i + 1


# Types of Substrate itself, at the paths that clients look for.
for _name, _bits in {"I96F32": "i128", "U96F32": "u128", "I64F64": "i128", "U64F64": "u128", "I32F32": "i64"}.items():
    _kind = "FixedI" if _name[0] == "I" else "FixedU"
    declare_newtype(_name, _bits, f"substrate_fixed::{_kind}{_bits[1:]}", "bits")
declare_newtype("Perbill", "u32", "sp_arithmetic::per_things::Perbill")
declare_newtype("PerU16", "u16", "sp_arithmetic::per_things::PerU16")
declare_newtype("Perquintill", "u64", "sp_arithmetic::per_things::Perquintill")
declare_enum(
    "MultiAddress",
    {
        "Id": (0, "AccountId32"),
        "Index": (1, "Compact<()>"),
        "Raw": (2, "Vec<u8>"),
        "Address32": (3, "[u8; 32]"),
        "Address20": (4, "[u8; 20]"),
    },
    "sp_runtime::multiaddress::MultiAddress",
    params=(("AccountId", "AccountId32"), ("AccountIndex", "()")),
)
