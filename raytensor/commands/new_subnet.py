"""`raytensor new-subnet`: writes a subnet package that runs at once.

In: a name. Out: a new folder with mechanism, responder, tests and README, from `raytensor/subnets/template`.
"""

import argparse
import keyword
import re
import string
import sys
from collections.abc import Sequence
from pathlib import Path

from raytensor import disk
from raytensor.commands import options, output
from raytensor.errors import ConfigError

ABOUT = """\
Writes a small subnet package into the new folder NAME: mechanism, responder, and tests on a development chain.
"""
EXAMPLES = """\
  raytensor new-subnet mysubnet
  cd mysubnet && pytest
  raytensor run subnet=mysubnet
"""
TEMPLATES = Path(__file__).resolve().parent.parent / "subnets" / "template"


def new_subnet_main(argv: Sequence[str]) -> int:
    """`raytensor new-subnet NAME`. Returns the exit status."""
    parser = options.parser("new-subnet", ABOUT, EXAMPLES)
    parser.add_argument("name", metavar="NAME", help="name of the folder and of the Python package in it")
    options.add_output(parser)
    return output.run("new-subnet", parser, argv, _write)


def _write(args: argparse.Namespace) -> None:
    name, folder = args.name, Path(args.name)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ConfigError(f"{name!r}: the name of a Python package has a-z, 0-9 and _, and begins with a letter")
    if name in sys.stdlib_module_names or name in ("raytensor", "tests"):
        raise ConfigError(f"{name!r} is the name of another Python package; choose another one")
    if folder.exists():
        raise ConfigError(f"{folder.absolute()} exists already; choose another name, or remove it")
    with disk.new_folder(folder.absolute()) as new:
        new.chmod(0o755)
        for template in TEMPLATES.rglob("*.template"):  # "package" in a path stands for the name
            file = new / str(template.relative_to(TEMPLATES).with_suffix("")).replace("package", name)
            file.parent.mkdir(exist_ok=True)
            disk.write_text(file, string.Template(template.read_text()).substitute(package=name))
    if args.json:
        return output.show_json({"folder": str(folder.absolute())})
    print(f"{folder.absolute()}: a subnet package. Next:\n  cd {name} && pytest\n  raytensor run subnet={name}")
