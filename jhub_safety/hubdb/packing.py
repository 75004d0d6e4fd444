"""A snapshot's file made small, and on request unreadable, before it leaves; and back again."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from jhub_safety.errors import ConfigError, SafetyError

#: zstd's own default: 42 MB in 0.3 s, to 16 MB.
LEVEL = 3
_CHUNK = 1 << 20


class Damaged(SafetyError):
    """A snapshot is not what was written; it must not be used."""


class OtherKey(Damaged):
    """It is as it was written, and cannot be opened with the keys that are there."""


@dataclass(frozen=True, slots=True)
class Sum:
    """Size in bytes and SHA-256 of a file."""

    size: int
    sha256: str

    def record(self) -> dict[str, Any]:
        return {"size": self.size, "sha256": self.sha256}


def sum_of(file: Path) -> Sum:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
        return Sum(stream.tell(), digest.hexdigest())


def zstd() -> Any:
    """The standard library's from Python 3.14 on, else its backport with the same interface.

    Raises:
        ConfigError: neither is there.
    """
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise ConfigError(
        "snapshots need zstd: pip install 'jhub-safety[snapshots]' (or Python 3.14, which has it)"
    )


def pack(raw: Path, packed: Path, keys: Sequence[str] = ()) -> None:
    """Compress with a checksum; encrypt with the first of *keys* where there are any."""
    module = zstd()
    parameter = module.CompressionParameter
    options = {parameter.compression_level: LEVEL, parameter.checksum_flag: 1}
    squeezer = module.ZstdCompressor(options=options)
    with raw.open("rb") as source, _private(packed) as target:
        parts = _squeezed(squeezer, source)
        if not keys:
            target.writelines(parts)
            return
        box = _box(keys)
        for part in parts:
            # One token a line: a large database need not be in memory whole.
            target.write(box.encrypt(part) + b"\n")


def _squeezed(squeezer: Any, source: IO[bytes]) -> Iterator[bytes]:
    while part := source.read(_CHUNK):
        if made := squeezer.compress(part):
            yield made
    yield squeezer.flush()


def unpack(packed: Path, raw: Path, size: int, keys: Sequence[str] = ()) -> None:
    """The reverse; *size* is what must come out, in bytes.

    Raises:
        Damaged: it cannot be read, is cut off, or holds more than it should.
    """
    module = zstd()
    opener = module.ZstdDecompressor()
    left = size
    with packed.open("rb") as source, _private(raw) as target:
        for part in _opened(source, keys) if keys else iter(lambda: source.read(_CHUNK), b""):
            try:
                made = b"" if opener.eof else opener.decompress(part, left + 1)
                while made:
                    target.write(made)
                    left -= len(made)
                    if left < 0:
                        raise Damaged("it holds more than it should")
                    more = not (opener.eof or opener.needs_input)
                    made = opener.decompress(b"", left + 1) if more else b""
            except module.ZstdError as error:
                raise Damaged(f"it cannot be decompressed: {error}") from error
    # A reader that comes to the end of a file too early gives what there is, and no error.
    if left or not opener.eof:
        raise Damaged("it is cut off")


def _opened(source: IO[bytes], keys: Sequence[str]) -> Iterator[bytes]:
    from cryptography.fernet import InvalidToken

    box = _box(keys)
    for line in source:
        try:
            yield box.decrypt(line.rstrip(b"\n"))
        except InvalidToken as error:
            raise Damaged("it was encrypted with another key, or is damaged") from error


def _box(keys: Sequence[str]) -> Any:
    """The way JupyterHub encrypts its auth_state: the same library, keys changed the same way.

    Raises:
        ConfigError: a key is none.
    """
    from cryptography.fernet import Fernet, MultiFernet

    try:
        return MultiFernet([Fernet(key) for key in keys])
    except ValueError as error:
        # The key itself is in no message.
        raise ConfigError(
            "a key for snapshots is none of 32 bytes in base64. To make one: python -c "
            "'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'"
        ) from error


def _private(file: Path) -> IO[bytes]:
    file.touch(mode=0o600, exist_ok=True)
    return file.open("wb")
