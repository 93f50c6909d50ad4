"""Folders of whole files: at a local path, or under an object-store URL (s3://BUCKET/PREFIX, gs://, az://).

In: a path or a URL; names below it ("step-0000050/engine.json"). Out: files with the old or the new content, whole.
An object store is read and written by obstore (the extra `s3`), which takes keys and endpoint from the environment
(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL, or the machine's role). An object that is
written from one `bytes` carries its hash, which each reader compares; what is written from chunks needs a hash of its
own. Waits for: the store, at most `TIMEOUT` a request, `RETRIES` times. Knows nothing of what the files contain.
"""

import contextlib
import datetime
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import xxhash

from raytensor import disk
from raytensor.errors import ConfigError, StorageError

try:
    import obstore
    import obstore.store
except ImportError:  # the extra `s3` is not installed; `open_folder` says so for a URL
    obstore: Any = None

Content = bytes | Iterable[bytes | memoryview]
SCHEMES = ("s3", "gs", "az")
HASH = "xxh3"  # the name of an object's hash in its metadata
TIMEOUT, RETRIES, RETRY_S = "60s", 4, 30.0
AT_ONCE = 8  # files that are transferred side by side
_URL = re.compile(rf"({'|'.join(SCHEMES)})://[^/]+(/.*)?")
# Words of an answer -> what is wrong, and the fix.
_CAUSES = (
    ("NoSuchBucket", "the bucket does not exist", "create it, or correct the name"),
    ("169.254.169.254", "there are no credentials", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    ("InvalidAccessKeyId", "the access key is unknown there", "correct AWS_ACCESS_KEY_ID"),
    ("SignatureDoesNotMatch", "the secret key is wrong", "correct AWS_SECRET_ACCESS_KEY"),
    ("403 Forbidden", "the access is refused", "give these credentials the right to list, read, write and delete"),
    ("401 Unauthorized", "the credentials are refused", "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    ("error sending request", "it can't be reached", "check the network and AWS_ENDPOINT_URL"),
    ("timed out", "it does not answer", "check the network and AWS_ENDPOINT_URL"),
)


class Folder(Protocol):
    """A folder of files. Names are relative, with slashes. Raises `StorageError`, and for a local path `OSError`.

    place       path or URL.
    appears     a folder of `staged` appears at once; where it does not, its last file says that it is complete.
    """

    place: str
    appears: bool

    def below(self, name: str) -> "Folder": ...

    def names(self) -> list[str]:
        """All files, with those in folders below."""
        ...

    def folders(self) -> list[str]:
        """Folders directly in it."""
        ...

    def read(self, name: str) -> bytes:
        """Raises `FileNotFoundError` where there is none, `StorageError` for an object that is not what was written."""
        ...

    def write(self, name: str, content: Content) -> None:
        """Write a file, whole or not at all."""
        ...

    def fetch(self, name: str, path: Path) -> None:
        """Copy a file to a local path. Raises as `read`."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it, or nothing."""
        ...

    def rename(self, name: str, new: str) -> None:
        """Rename a folder. One of that name is replaced."""
        ...

    def staged(self, name: str) -> contextlib.AbstractContextManager["Folder"]:
        """A folder to fill in the place of `name`; removed where the block raises. One writer at a time."""
        ...


def is_url(place: str | Path) -> bool:
    """Whether a place is the URL of an object store."""
    return isinstance(place, str) and "://" in place


def join(place: str | Path, *names: str) -> str:
    """The place of a folder below another one."""
    return "/".join([str(place).rstrip("/"), *names]) if is_url(place) else str(Path(place, *names))


def open_folder(place: str | Path) -> Folder:
    """The folder at a path or a URL. Raises `ConfigError` for a URL that can't be used."""
    return ObjectFolder.at(str(place)) if is_url(place) else LocalFolder(Path(place))


def refuse_unreachable(place: str, setting: str) -> None:
    """Raises `ConfigError` that names the setting when an object store can't be listed."""
    if not is_url(place):
        return
    try:
        open_folder(place).folders()
    except StorageError as error:
        raise ConfigError(f"{setting}: {error}") from error


def transfer(work: Callable[[str], None], names: Iterable[str]) -> None:
    """Call `work` for each file, some side by side. Raises what the first that fails raises."""
    with ThreadPoolExecutor(AT_ONCE, "storage") as pool:
        list(pool.map(work, names))


def copy(path: Path, to: str | Path, *, last: str) -> None:
    """Copy a local folder to another place, the file `last` after all others."""
    source, target = LocalFolder(path), open_folder(to)
    names = [name for name in source.names() if name != last]
    for group in (names, [last]):
        transfer(lambda name: target.write(name, source.read(name)), group)


class LocalFolder:
    """A folder on a disk."""

    appears = True

    def __init__(self, path: Path) -> None:
        self.path, self.place = path, str(path)

    def below(self, name: str) -> "LocalFolder":
        return LocalFolder(self.path / name)

    def names(self) -> list[str]:
        found = (path.relative_to(self.path) for path in self.path.rglob("*") if path.is_file())
        return sorted(path.as_posix() for path in found if not path.name.startswith("."))

    def folders(self) -> list[str]:
        return sorted(path.name for path in self.path.iterdir() if path.is_dir()) if self.path.is_dir() else []

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def write(self, name: str, content: Content) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        disk.write_bytes(path, content)

    def fetch(self, name: str, path: Path) -> None:
        shutil.copyfile(self.path / name, path)

    def remove(self, name: str) -> None:
        path = self.path / name
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def rename(self, name: str, new: str) -> None:
        shutil.rmtree(self.path / new, ignore_errors=True)
        (self.path / name).rename(self.path / new)

    @contextlib.contextmanager
    def staged(self, name: str) -> Iterator["LocalFolder"]:
        with disk.new_folder(self.path / name) as new:
            yield LocalFolder(new)


class ObjectFolder:
    """A prefix of an object store. store: obstore's, of the bucket."""

    appears = False

    def __init__(self, place: str, store: Any, prefix: PurePosixPath) -> None:
        self.place, self._store, self._prefix = place, store, prefix

    @classmethod
    def at(cls, url: str) -> "ObjectFolder":
        """Raises `ConfigError` for a URL that can't be used."""
        if not _URL.fullmatch(url):
            forms = ", ".join(f"{scheme}://BUCKET/PREFIX" for scheme in SCHEMES)
            raise ConfigError(f"{url!r} is no object store that can be used; fix: a local path, or {forms}")
        if obstore is None:
            raise ConfigError(f"{url}: object stores need the package obstore; fix: pip install 'raytensor[s3]'")
        scheme, _, rest = url.partition("://")
        bucket, _, prefix = rest.partition("/")
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
        options: Any = {"timeout": TIMEOUT, "connect_timeout": "5s", "allow_http": endpoint.startswith("http://")}
        retry: Any = {"max_retries": RETRIES, "retry_timeout": datetime.timedelta(seconds=RETRY_S)}
        store = obstore.store.from_url(f"{scheme}://{bucket}", client_options=options, retry_config=retry)
        return cls(url.rstrip("/"), store, PurePosixPath(prefix))

    def below(self, name: str) -> "ObjectFolder":
        return ObjectFolder(f"{self.place}/{name}", self._store, self._prefix / name)

    def names(self) -> list[str]:
        with self._told():
            found = [item["path"] for page in obstore.list(self._store, prefix=self._key("")) for item in page]
        return sorted(PurePosixPath(path).relative_to(self._prefix).as_posix() for path in found)

    def folders(self) -> list[str]:
        with self._told():
            found = obstore.list_with_delimiter(self._store, prefix=self._key(""))["common_prefixes"]
        return sorted(PurePosixPath(path).name for path in found)

    def read(self, name: str) -> bytes:
        with self._told(name):
            found = obstore.get(self._store, self._key(name))
            content, saved = bytes(found.bytes()), found.attributes.get(HASH)
        if saved is not None and xxhash.xxh3_64_hexdigest(content) != saved:
            raise StorageError(f"{self.place}/{name} is damaged: its hash is not the one that was written")
        return content

    def write(self, name: str, content: Content) -> None:
        hashed: Any = {HASH: xxhash.xxh3_64_hexdigest(content)} if isinstance(content, bytes) else None
        source: Any = content if isinstance(content, bytes) else iter(content)
        with self._told(name):
            obstore.put(self._store, self._key(name), source, attributes=hashed)

    def fetch(self, name: str, path: Path) -> None:
        with self._told(name), path.open("wb") as file:
            for block in obstore.get(self._store, self._key(name)).stream(min_chunk_size=2**22):
                file.write(block)

    def remove(self, name: str) -> None:
        self._remove([f"{name}/{inner}" for inner in self.below(name).names()] or [name])

    def rename(self, name: str, new: str) -> None:
        self.remove(new)
        names = self.below(name).names()
        with self._told():
            for inner in names:
                obstore.copy(self._store, self._key(f"{name}/{inner}"), self._key(f"{new}/{inner}"))
        self.remove(name)

    @contextlib.contextmanager
    def staged(self, name: str) -> Iterator["ObjectFolder"]:
        self.remove(name)  # what a killed writer left
        try:
            yield self.below(name)
        except BaseException:
            with contextlib.suppress(StorageError):  # the first error is the cause; the next writer removes the rest
                self.remove(name)
            raise

    def _remove(self, names: list[str]) -> None:
        with self._told():
            # JSON first: a folder without its manifest is none.
            for group in ([n for n in names if n.endswith(".json")], [n for n in names if not n.endswith(".json")]):
                if group:
                    obstore.delete(self._store, [self._key(name) for name in group])

    def _key(self, name: str) -> str:
        return (self._prefix / name).as_posix().removeprefix(".")

    @contextlib.contextmanager
    def _told(self, name: str = "") -> Iterator[None]:
        """Raises `FileNotFoundError` for an object that is not there, `StorageError` in one line for the rest."""
        try:
            yield
        except (obstore.exceptions.BaseError, FileNotFoundError, PermissionError) as error:
            text = str(error)
            for words, what, fix in _CAUSES:
                if words in text:
                    raise StorageError(f"{self.place}: {what}; fix: {fix}") from error
            if isinstance(error, FileNotFoundError):
                raise FileNotFoundError(2, "no such object", f"{self.place}/{name}") from error
            raise StorageError(f"{self.place}: {text.splitlines()[0]}") from error
