"""Orchestrates: stores callers' ratings of answers, on a thread of its own, so that no call waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from proxy.schema.ensembles import Rating, StoredRating
from proxy.schema.errors import ProxyError
from proxy.storage.base import RowRefused, Store, StoreError

MAX_WAITING = 64
WAIT_S = 5.0


class Ratings:
    """The ratings of one store. `wait_s`: how long a caller waits for it."""

    def __init__(self, store: Store, clock_ns: Callable[[], int], *, wait_s: float = WAIT_S) -> None:
        self._store = store
        self._clock_ns = clock_ns
        self._wait_s = wait_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ratings")
        self._waiting = 0

    async def add(self, rating: Rating, key_id: str | None) -> StoredRating | None:
        """The rating as stored. None: no call with this id is of this key (None: of any key).

        Raises ProxyError 409 for a call that has too many, 429 if too many wait, and 503 if the store fails or
        takes too long.
        """
        if self._waiting >= MAX_WAITING:
            message = "Too many ratings are waiting to be stored. Try again in a few seconds."
            raise ProxyError(message, status=429, code="rate_limit_exceeded", headers={"retry-after": "5"})
        now_ns = self._clock_ns()
        try:
            storing = self._thread.submit(self._store.rate, rating, key_id, now_ns)
        except RuntimeError as error:  # the server is stopping
            raise _not_stored() from error
        self._waiting += 1
        try:
            # Cancels work that has not begun. Work that has begun may still store its rating.
            return await asyncio.wait_for(asyncio.wrap_future(storing), self._wait_s)
        except RowRefused as refusal:
            raise ProxyError(str(refusal), status=409, code="conflict", param="id") from None
        except (StoreError, TimeoutError) as error:
            raise _not_stored() from error
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Safe to call twice."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _not_stored() -> ProxyError:
    message = "The usage database cannot be written, so the rating was not stored. Try again later."
    return ProxyError(message, status=503, code="storage_unavailable", headers={"retry-after": "5"})
