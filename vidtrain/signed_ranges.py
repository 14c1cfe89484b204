"""Ranges of an object in S3 by an address that is signed once, in place of a signature and botocore's walk per request.

That walk and its event loop cost 4 ms of CPU time for 180 kB, a plain request costs 1, and a shard is asked for many
ranges. Whatever goes wrong here is asked for again in the usual way, whose answer or error then counts.
"""

from __future__ import annotations

import time
from typing import Any, Final
from urllib.request import getproxies

_VALID: Final = 3600  # seconds that an address is signed for; it is signed again earlier
_MOST: Final = 10_000  # addresses that are kept
_CONNECT: Final = 10.0  # seconds: where only botocore's own settings lead to the store, the usual way has time left
_SILENT: Final = 60.0  # seconds without a byte, as botocore has it: the thread that waits would never end
_CONNECTIONS: Final = 8  # that are kept open, one for each file that is fetched at a time


class SignedRanges:
    """Reads of one of fsspec's file systems for S3, by several threads at a time."""

    def __init__(self, system: Any) -> None:
        from urllib3 import PoolManager, Timeout  # botocore brings it

        self._system = system
        self._pool = PoolManager(maxsize=_CONNECTIONS, retries=False, timeout=Timeout(connect=_CONNECT, read=_SILENT))
        self._addresses: dict[str, tuple[str, float]] = {}
        self._worked = False
        # through a proxy, or where the requester pays or has a key of the object, an address alone is not enough
        more = ("req_kw", "s3_additional_kwargs", "config_kwargs")
        self._usable = not getproxies() and not any(getattr(system, key, None) for key in more)

    def cat_file(self, name: str, start: int, end: int) -> bytes:
        """The bytes from start to before end, fewer where the object ends; errors as of the file system's."""
        if self._usable:
            try:
                found = self._get(name, start, end)
            except Exception:  # it may name the address, which nobody may see
                self._addresses.pop(name, None)
            else:
                self._worked = True
                return found
        usual: bytes = self._system.cat_file(name, start=start, end=end)
        self._usable = self._worked  # else it is refused every time, and not for want of the object
        return usual

    def _get(self, name: str, start: int, end: int) -> bytes:
        address, until = self._addresses.get(name, ("", 0.0))
        if time.monotonic() > until:
            if len(self._addresses) >= _MOST:
                self._addresses.clear()
            address = self._system.sign(name, expiration=_VALID)
            self._addresses[name] = address, time.monotonic() + 0.8 * _VALID
        range_ = {"Range": f"bytes={start}-{end - 1}"}
        found = self._pool.request("GET", address, headers=range_, preload_content=False)
        if found.status != 206:  # the whole object may be large
            found.close()
            raise OSError(found.status)
        content: bytes = found.read(decode_content=False)
        found.release_conn()
        return content
