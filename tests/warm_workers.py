"""Ray workers of the tests begin as forks of one process that has imported torch and transformers already.

Each would spend 2 to 6 s of processor time on these imports, and the tests start some hundreds. `start` gives the
path of a program to set as `sys.executable` while Ray starts: for a worker it asks the server for a fork and waits for
its end, everything else it leaves to Python. The fork is a process of its own with the arguments, the environment, the
folder and the output of the program: Ray talks to it, and a test kills it, as any other.
"""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

SETUP = ("--serialized-runtime-env-context", "--language")  # arguments of setup_worker.py
PROGRAM = """#!/bin/sh
case "$1" in
*/setup_worker.py | */default_worker.py) exec {python} -SsE {here} {path} "$@" ;;
*) exec {python} "$@" ;;
esac
"""


def start(folder: Path) -> tuple[Path, subprocess.Popen]:
    """The program and the server, which ends with this process: it reads its standard input."""
    path, program = folder / "warm.socket", folder / "warm_python"
    program.write_text(PROGRAM.format(python=sys.executable, here=__file__, path=path))
    program.chmod(0o755)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen(64)
    server = subprocess.Popen(
        [sys.executable, __file__, "serve", str(listening.fileno())],
        pass_fds=[listening.fileno()],
        stdin=subprocess.PIPE,
    )
    listening.close()
    return program, server


def _ask(path: str, arguments: list[str]) -> None:
    """Have a worker forked, and wait for its end. Falls back to Python where its environment asks for more."""
    environment, context = dict(os.environ), "{}"
    if arguments[0].endswith("setup_worker.py"):  # its own arguments stand anywhere among those of the worker
        own = {name: value for name, _, value in (one.partition("=") for one in arguments) if name in SETUP}
        arguments = [one for one in arguments[1:] if one.partition("=")[0] not in SETUP]
        context = own.get("--serialized-runtime-env-context") or "{}"
    asked = {name: value for name, value in json.loads(context).items() if value}
    environment |= asked.pop("env_vars", {})
    if asked.pop("py_executable", sys.executable) != sys.executable or asked:
        os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
    request = json.dumps({"argv": arguments, "env": environment, "cwd": os.getcwd()}).encode()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    outputs = array.array("i", [0, 1, 2])
    connection.sendmsg([len(request).to_bytes(4, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, outputs)])
    connection.sendall(request)
    while connection.recv(1):  # nothing is sent: it ends with the worker
        pass


def _receive(connection: socket.socket) -> tuple[dict, list[int]]:
    head, ancillary, _, _ = connection.recvmsg(4, socket.CMSG_SPACE(3 * 4))
    outputs = array.array("i")
    for _, _, data in ancillary:
        outputs.frombytes(data)
    size, parts = int.from_bytes(head, "big"), b""
    while len(parts) < size:
        parts += connection.recv(size - len(parts))
    return json.loads(parts), list(outputs)


def _serve(listening: socket.socket) -> None:
    import gc
    import select

    import aiohttp  # noqa: F401
    import orjson  # noqa: F401
    import safetensors.torch  # noqa: F401
    import substrateinterface  # noqa: F401
    import transformers
    import yaml  # noqa: F401

    transformers.LlamaForCausalLM  # noqa: B018 (imported by its name)
    assert "ray" not in sys.modules, "Ray reads a worker's variables when it is imported"
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system buries the workers
    while True:
        ready, _, _ = select.select([listening, 0], [], [])
        if 0 in ready and not os.read(0, 1):
            return
        if listening not in ready:
            continue
        connection, _ = listening.accept()
        request, outputs = _receive(connection)
        if os.fork() == 0:
            listening.close()
            _become(request, outputs)
        connection.close()
        for output in outputs:
            os.close(output)


def _become(request: dict, outputs: list[int]) -> None:
    """Turn this fork into the worker. The connection stays open until it ends."""
    import random
    import runpy

    import numpy as np

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, output in enumerate(outputs):
        os.dup2(output, number)
        os.close(output)
    os.chdir(request["cwd"])
    before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ.clear()
    os.environ.update(request["env"])
    now = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [path for path in now if path] + [path for path in sys.path if path not in before]
    sys.argv[:] = request["argv"]
    random.seed()
    np.random.seed()
    code = 1
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve(socket.socket(fileno=int(sys.argv[2])))
    else:
        _ask(sys.argv[1], sys.argv[2:])
