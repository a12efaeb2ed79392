"""Which base URL is asked next, and whether an answer is worth another try. Pure.

1. A connection error, a time-out, 502, 503 or 504: the next URL, as long as there are attempts.
2. 429 and 409 `in_flight`: the same request again after `Retry-After`; one that is longer than a request may wait is the answer.
3. Anything else is the answer.
A request is sent again only where that is safe: reads, deletes, posts that carry an Idempotency-Key or change nothing
when repeated, and whatever cannot have arrived.
"""

from __future__ import annotations

from dataclasses import dataclass

ROUNDS = 3
PAUSE_S = 0.2
RETRY_AFTER_MAX_S = 5.0
NEXT_URL = frozenset({502, 503, 504})
SAME_AGAIN = frozenset({429})


@dataclass(frozen=True, slots=True)
class Next:
    """`url_index` None: give up, or take the answer."""

    url_index: int | None
    pause_s: float = 0.0


def after(
    attempt: int,
    url_index: int,
    urls: int,
    *,
    status: int | None,
    safe: bool,
    retry_after_s: float | None = None,
    code: str = "",
) -> Next:
    """What follows attempt number `attempt` (from 0), made at `url_index`; `status` None: there was no answer."""
    more = attempt + 1 < urls * ROUNDS
    if not more or not safe:
        return Next(None)
    if status is None or status in NEXT_URL:
        round_over = (attempt + 1) % urls == 0
        pause_s = PAUSE_S * 2 ** (attempt // urls) if round_over else 0.0
        return Next(
            (url_index + 1) % urls,
            max(pause_s, min(retry_after_s or 0.0, RETRY_AFTER_MAX_S) if round_over else 0.0),
        )
    again = status in SAME_AGAIN or (status == 409 and code == "in_flight")
    wait_s = retry_after_s if retry_after_s is not None else PAUSE_S
    return Next(url_index, wait_s) if again and wait_s <= RETRY_AFTER_MAX_S else Next(None)
