"""Translates: a model name into a script, by the table of the package's docstring. Knows no wire and no socket."""

from __future__ import annotations

import inspect
import json
import math
import random
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import lru_cache
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from tests.upstream.prefix_cache import Counts


class UnknownMode(ValueError):
    """The model name is no mode, or has an argument that its mode does not take."""


class Script(Struct, frozen=True, kw_only=True):
    """How one request is answered. The first half is what a wire says, the second how it is put on the socket."""

    actor: bool = False
    n_tokens: int = 10
    pieces: Literal["tokens", "echo", "unicode", "giant"] = "tokens"
    giant_bytes: int = 0
    choices: int | None = None
    reasoning: int = 0
    reasoning_field: str = "reasoning_content"
    refusal: bool = False
    text: str | None = None
    calls: tuple[tuple[str, str], ...] = ()
    tools: int = 0
    tools_bad_deltas: bool = False
    role_each_chunk: bool = False
    same_ids: bool = False
    cached: int = 0
    counted: Counts | None = None  # the prompt's tokens, where a cache counts them
    usage: Literal["asked", "never", "in_last", "null", "partial"] = "asked"
    finish_reason: str | None = None
    no_finish: bool = False
    no_end: bool = False

    status: int = 200
    error: Literal["", "api", "bad_json", "html", "empty", "quoting"] = ""
    error_code: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str | None = None
    redirect_to: str | None = None
    interim: tuple[int, ...] = ()

    delay_s: float = 0.0
    delay_whole_s: float = 0.0
    first_token_s: float = 0.0
    pace_s: float = 0.0
    usage_delay_s: float = 0.0
    batch_bytes: int = 0

    answers: Literal["yes", "never", "close", "close_if_reused", "half_head"] = "yes"
    stop_after: int | None = None
    stop: Literal["stall", "end", "fin", "rst", "error", "mid_frame"] = "stall"
    stop_wait_s: float = 0.0
    close_after: bool = False
    end_gap_s: float = 0.002
    no_last_chunk: bool = False
    rst_after: bool = False
    chunked_whole: bool = False
    flood: bool = False
    stall_pings_s: float | None = None
    named_pings: bool = False

    split: Literal["", "bytes", "utf8"] = ""
    head_byte_s: float | None = None
    body_byte_s: float | None = None
    gzip_bytes: int | None = None
    newline: Literal["lf", "crlf"] = "lf"
    pings: bool = False
    many_data_lines: bool = False
    bom: bool = False

    fail_first: int = 0
    ok_share: float = 1.0
    latency_p50_s: float | None = None
    latency_p99_s: float = 0.0
    fail_status: int = 500
    seed: int = 1

    def for_attempt(self, attempt: int) -> Script:
        """What happens to the attempt with this number (from 1): the same on every run."""
        dice = random.Random(f"{self.seed}:{attempt}")
        script = self
        if self.latency_p50_s is not None:
            # Lognormal: 2.326 standard deviations lie between the median and the 99th percentile.
            sigma = math.log(self.latency_p99_s / self.latency_p50_s) / 2.326
            script = replace(script, delay_s=self.delay_s + self.latency_p50_s * math.exp(sigma * dice.gauss(0, 1)))
        if attempt <= self.fail_first or dice.random() >= self.ok_share:
            script = replace(script, status=self.fail_status, error="api")
        return script


def _stop(kind: str) -> Callable[..., dict[str, Any]]:
    """After the k-th token (k=0: before the first; k=-1: right after the headers) wait `s` seconds, then `kind`."""
    return lambda k=1, s=0.0: {"stop": kind, "stop_after": k, "stop_wait_s": s, "n_tokens": max(k, 0) + 10}


def _error(status: int) -> Callable[..., dict[str, Any]]:
    def error(retry_after: float = -1.0, code: str = "") -> dict[str, Any]:
        headers = (("retry-after", f"{retry_after:g}"),) if retry_after >= 0 else ()
        return {"status": status, "error": "api", "error_code": code or None, "headers": headers}

    return error


def _limited_until(s: int = 20) -> dict[str, Any]:
    """The date may be any: only its distance from `Date` counts."""
    begun = datetime(2026, 11, 6, 8, 49, 37, tzinfo=UTC)
    dates = [format_datetime(moment, usegmt=True) for moment in (begun, begun + timedelta(seconds=s))]
    return {"status": 429, "error": "api", "headers": (("date", dates[0]), ("retry-after", dates[1]))}


def _nothing() -> dict[str, Any]:
    return {}


def _calls(hex: str = "5b5b2261222c2022225d5d") -> dict[str, Any]:
    """Names and arguments as JSON: `[["a", ""]]`."""
    return {"calls": tuple((name, arguments) for name, arguments in json.loads(bytes.fromhex(hex)))}


def _huge_headers(kb: int = 64, lines: int = 1) -> dict[str, Any]:
    value = "a" * (kb * 1024 // lines)
    return {"headers": tuple((f"x-padding-{line}", value) for line in range(lines))}


_TWICE = (
    ("x-request-id", "req_duplicate"),
    ("set-cookie", "a=1"),
    ("set-cookie", "b=2"),
    ("x-dup", "1"),
    ("x-dup", "2"),
)
_ERRORS = (400, 401, 402, 403, 404, 405, 408, 409, 413, 422, 429, 500, 502, 503, 504, 529)

# The names and arguments of the modes, and what each changes in a Script. Meanings: the package's docstring.
MODES: dict[str, Callable[..., dict[str, Any]]] = {
    "ok": _nothing,
    "fast": lambda: {"batch_bytes": 16384, "n_tokens": 200},
    "echo": lambda: {"pieces": "echo"},
    "actor": lambda: {"actor": True},
    "says": lambda hex="6f6b": {"text": bytes.fromhex(hex).decode()},
    "calls": _calls,
    "cached": lambda n=8: {"cached": n},
    "reasoning": lambda n=3, field="reasoning_content": {"reasoning": n, "reasoning_field": field},
    "refusal": lambda: {"refusal": True},
    "tools": lambda n=1: {"tools": n},
    "tools_bad_deltas": lambda n=1: {"tools": n, "tools_bad_deltas": True},
    "role_each_chunk": lambda: {"role_each_chunk": True},
    "two_choices": lambda n=2: {"choices": n},
    "finish": lambda reason="length": {"finish_reason": reason},
    "dup_ids": lambda: {"same_ids": True},
    "no_usage": lambda: {"usage": "never"},
    "usage_in_last": lambda: {"usage": "in_last"},
    "usage_null": lambda: {"usage": "null"},
    "usage_partial": lambda: {"usage": "partial"},
    "slow_usage": lambda s=1.0: {"usage_delay_s": s},
    "no_finish": lambda: {"no_finish": True},
    "late_end": lambda s=0.02: {"end_gap_s": s},
    "chunked_whole": lambda: {"chunked_whole": True},
    "rst_after": lambda: {"rst_after": True},
    "flood": lambda: {"flood": True, "batch_bytes": 65536},
    "pinging_stall": lambda k=1, s=0.2: _stop("stall")(k) | {"stall_pings_s": s},
    "named_pings": lambda: {"named_pings": True},
    "no_last_chunk": lambda: {"no_last_chunk": True},
    "no_done": lambda: {"no_end": True, "close_after": True},
    "slow_ttft": lambda s=2.0: {"first_token_s": s},
    "delay_whole": lambda s=1.0: {"delay_whole_s": s},
    "latency": lambda p50=0.1, p99=1.0, seed=1: {"latency_p50_s": p50, "latency_p99_s": p99, "seed": seed},
    "stall_after": _stop("stall"),
    "cut_clean": _stop("end"),
    "cut_fin": _stop("fin"),
    "cut_rst": _stop("rst"),
    "sse_error": lambda k=3, s=0.0, status=500: _stop("error")(k, s) | {"fail_status": status},
    "truncated_json": lambda k=3: _stop("mid_frame")(k),
    "blackhole": lambda: {"answers": "never"},
    "close_before_request": lambda: {"answers": "close"},
    "stale_keepalive": lambda: {"answers": "close_if_reused"},
    "half_headers": lambda: {"answers": "half_head"},
    "slow_headers": lambda s=1.0: {"head_byte_s": s},
    "slow_body": lambda s=1.0: {"body_byte_s": s},
    "chunk_split": lambda: {"split": "bytes"},
    "utf8_split": lambda: {"split": "utf8", "pieces": "unicode"},
    "crlf_sse": lambda: {"newline": "crlf"},
    "comment_pings": lambda: {"pings": True},
    "multi_data_lines": lambda: {"many_data_lines": True},
    "bom": lambda: {"bom": True},
    "giant_line": lambda mb=10.0: _stop("end")() | {"pieces": "giant", "giant_bytes": int(mb * 2**20), "n_tokens": 1},
    "gzip_bomb": lambda mb=64.0: {"gzip_bytes": int(mb * 2**20)},
    "wrong_ctype": lambda: {"content_type": "text/html"},
    "huge_headers": _huge_headers,
    "dup_headers": lambda: {"headers": _TWICE},
    "100_continue": lambda hints=0: {"interim": (100, 103) if hints else (100,)},
    "redirect": lambda to="self", status=302: {"status": status, "redirect_to": to},
    "bad_json_error": lambda status=500: {"status": status, "error": "bad_json"},
    "quoting": lambda: {"status": 400, "error": "quoting"},
    "html_502": lambda: {"status": 502, "error": "html"},
    "empty_200": lambda: {"error": "empty"},
    "json_in_200_error": lambda code="": {"error": "api", "error_code": code or None},
    "context_length": lambda: {"status": 400, "error": "api", "error_code": "context_length_exceeded"},
    "flap": lambda p=0.5, seed=1, status=500: {"ok_share": p, "seed": seed, "fail_status": status},
    "fail_first": lambda n=1, status=500: {"fail_first": n, "fail_status": status},
    "e429_until": _limited_until,
    **{f"e{status}": _error(status) for status in _ERRORS},
}


def _for_all(n_tokens: int = -1, pace: float = 0.0, delay: float = 0.0, tag: str = "") -> dict[str, Any]:
    """What every mode takes; `tag` only makes a name of its own."""
    changes: dict[str, Any] = {"n_tokens": n_tokens, "pace_s": pace, "delay_s": delay}
    return {name: value for name, value in changes.items() if value != getattr(_UNCHANGED, name)}


_UNCHANGED = Script(n_tokens=-1)
_PART = re.compile(r"([a-z0-9_]+)(?:\(([A-Za-z0-9=,._-]*)\))?(-|$)")


@lru_cache(maxsize=4096)
def parse(name: str) -> Script:
    """The script of a model name: one mode, or several joined by `-`. Raises UnknownMode."""
    changes: dict[str, Any] = {}
    position = 0
    joined = True
    while joined:
        match = _PART.match(name, position)
        if match is None:
            raise UnknownMode(f"`{name[position:]}` is not a mode")
        changes |= _changes(match[1], match[2] or "")
        position, joined = match.end(), match[3] == "-"
    return Script(**changes)


def _changes(mode: str, arguments: str) -> dict[str, Any]:
    make = MODES.get(mode)
    if make is None:
        raise UnknownMode(f"there is no mode `{mode}`")
    given = dict(part.partition("=")[::2] for part in arguments.split(",") if part)
    unknown = set(given) - set(inspect.signature(make).parameters) - set(inspect.signature(_for_all).parameters)
    if unknown:
        raise UnknownMode(f"`{mode}` takes no argument {', '.join(sorted(unknown))}")
    return _call(make, given) | _call(_for_all, given)


def _call(make: Callable[..., dict[str, Any]], given: dict[str, str]) -> dict[str, Any]:
    """Call with those of the given arguments that it takes, read as the types of its defaults."""
    arguments = {}
    for name, parameter in inspect.signature(make).parameters.items():
        if name in given:
            try:
                arguments[name] = type(parameter.default)(given[name])
            except ValueError as error:
                raise UnknownMode(f"{name}={given[name]} is not of type {type(parameter.default).__name__}") from error
    return make(**arguments)


def says(text: str) -> str:
    """The mode of a model that says just this."""
    return f"says(hex={text.encode().hex()})"


def makes_calls(*calls: tuple[str, str]) -> str:
    """The mode of a model that makes these tool calls: names and arguments."""
    return f"calls(hex={json.dumps(calls).encode().hex()})"
