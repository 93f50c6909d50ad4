"""The exception tree.

    RayTensorError
    ├── ConfigError (also a ValueError)   a setting that can't be used; says the value and the fix
    ├── ClusterError                      Ray can't give what was asked; says asked, free, fix
    │   └── DemandError (also a ConfigError)  the settings ask for more than the cluster has
    ├── PoolExhausted                     no actor of a pool is left; names the last cause
    ├── WorkLost                          the process that had work in hand ended, or was ended at its limit
    ├── ChainError
    │   ├── ChainUnavailable              no endpoint answers; says what was waited for and how long
    │   │   └── BlockUnknown              the endpoint does not know a block: it left the chain, or the endpoint lags
    │   ├── FateUnknown                   an extrinsic was sent and no answer came; it may be on the chain
    │   ├── ChainRefused                  the chain said no; carries the error's name and the action
    │   └── WalletError                   a key file is missing, unreadable, encrypted or of the wrong role
    ├── MechanismError                    a mechanism's own code failed; says the error, its file and line
    ├── WireError                         a request or an answer that was turned down; its tree is in wire/errors.py
    ├── DataError                         a corpus, tokenizer, checkpoint or journal that can't be read
    │   ├── DamagedCheckpoint             missing, cut off or changed since it was written; an older one may be whole
    │   └── StorageError                  an object store that refuses, can't be reached, or has a damaged object
    └── RunError                          a run folder that is in use, or can't be resumed

A user's mistake is a `ConfigError` with the value and the fix; a mistake of ours is an `assert`.
Knows nothing of the rooms that raise these.
"""

import re
from typing import Any


def cause_of(error: BaseException) -> str:
    """The cause of an error in one line: the last line of its text, without the class path that Ray puts before it.

    An error without a text is named by its class; "TimeoutError", for example.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"^raytensor\.[\w.]+: ", "", lines[-1]) if lines else type(error).__name__


class RayTensorError(Exception):
    """Base of every error that RayTensor raises on purpose; the command line prints it without a traceback."""


class ConfigError(RayTensorError, ValueError):
    """A setting that can't be used."""


class ClusterError(RayTensorError):
    """Ray can't give what was asked."""


class DemandError(ClusterError, ConfigError):
    """The settings ask for more than the cluster has."""


class PoolExhausted(RayTensorError):
    """No actor of a pool is left and its replacements are used up."""


class WorkLost(RayTensorError):
    """The process that had work in hand ended, or was ended because it ran past its limit (`timed_out`).

    done  where items were worked on one after another: the results of those before the one in hand; else None.
    """

    def __init__(self, message: str, *, timed_out: bool = False, done: list[Any] | None = None) -> None:
        super().__init__(message)
        self.timed_out = timed_out
        self.done = done


class ChainError(RayTensorError):
    """Anything that went wrong between us and the chain."""


class ChainUnavailable(ChainError):
    """No endpoint answered in time."""


class BlockUnknown(ChainUnavailable):
    """The endpoint does not know a block, or not its state any more: read again from the head."""


class FateUnknown(ChainError):
    """A submission whose answer never came: look at the chain before anything is sent again."""


class ChainRefused(ChainError):
    """The chain turned something down.

    name    metadata name of the error ("SettingWeightsTooFast") or the pool's words.
    action  what to do about it.
    """

    def __init__(self, message: str, *, name: str = "", action: str = "") -> None:
        super().__init__(message)
        self.name = name
        self.action = action


class WalletError(ChainError):
    """A key that can't be used."""


class MechanismError(RayTensorError):
    """A mechanism raised, or returned what its contract does not allow. The text has the file and the line."""


class WireError(RayTensorError):
    """A request or an answer on the wire that was turned down.

    status  HTTP status that carries it.
    fix     what the sender can do about it; "" when there is nothing.
    """

    status = 400
    fix = ""

    def __init__(self, reason: str, *, fix: str | None = None) -> None:
        super().__init__(reason)
        if fix is not None:
            self.fix = fix


class DataError(RayTensorError):
    """A corpus, tokenizer, checkpoint or journal that can't be read."""


class DamagedCheckpoint(DataError):
    """A checkpoint that is missing, cut off or changed since it was written; an older one may be whole."""


class StorageError(DataError):
    """An object store that refuses, can't be reached, or has a damaged object."""


class RunError(RayTensorError):
    """A run folder that is in use, or can't be resumed."""
