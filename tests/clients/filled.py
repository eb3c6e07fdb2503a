"""I/O: the servers whose pages tests/clients/test_dashboard.py looks at: one as usual, one empty, one crowded."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

from tests.server.api.raw import chat, post
from tests.server.api.test_keys import add, secret
from tests.server.web.test_pages import EVIL
from tests.serving import ROUTING, spawned, write_files

ADMIN = "the-admin-key-of-this-walk"
USUAL = ROUTING + (
    'usage: {{baseline: "fake/ok"}}\nbudget: {{daily_usd: 1}}\n'
    "ensembles: {{pair: {{strategy: voting, members: [fake/ok, fake/ok]}}}}\n"
)
LONG = "a-name-as-long-as-names-of-models-may-become-with-a-region-a-date-and-a-quantisation-2026-11-30-fp8"
MANY = 24
KEYS = [f"k{number}-{LONG}"[:64] for number in range(MANY)]
CROWDED = ROUTING + (
    "models:\n"
    + "".join(f"  m{number}-{LONG}: {{{{use: fake/ok, fallback: [fake/e500]}}}}\n" for number in range(MANY))
    + "ensembles: {{enabled: true"
    + "".join(f", e{number}-{LONG[:60]}: {{{{strategy: voting, members: [fake/ok, fake/ok]}}}}" for number in range(6))
    + "}}\nbudget: {{daily_usd: 0.005, hard_daily_usd: 0.05, when_spent: downgrade, downgrade_to: fake/ok,"
    f" alert_at: [0.5, 0.8, 0.9], per_key: {{{{{KEYS[0]}: {{{{daily_usd: 0.02, monthly_usd: 3}}}}}}}}}}}}\n"
)
EXPERIMENT = {
    "id": "walk",
    "name": "Which model",
    "metric": "success",
    "minimum_samples": 5,
    "variants": [{"name": "old"}, {"name": "new", "model": "fake/ok"}, {"name": LONG[:60], "model": "ensemble:pair"}],
}


@contextmanager
def addresses(upstream: str, folder: Path, names: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """Servers by their names: each has its own folder, and has had its calls."""
    settings = {"usual": USUAL, "empty": ROUTING, "crowded": CROWDED}
    with ExitStack() as stack:
        found = {}
        for name in names:
            (folder / name).mkdir()
            files = write_files(folder / name, upstream, settings[name])
            server = stack.enter_context(spawned(files, environ={"PROXY_ADMIN_KEY": ADMIN}))
            found[name] = f"http://127.0.0.1:{server.port}"
        yield found


async def fill_usual(address: str) -> None:
    """A few calls, one of which failed, and an experiment with outcomes."""
    for model in ("fake/ok", "fake/ok", "fake/e400", "ensemble:pair"):
        await post(_port(address), chat(model), authorization=f"Bearer {ADMIN}", x_session_id="<b>s</b>")
    _send(address, "/v1/experiments", EXPERIMENT)
    _send(address, "/v1/experiments/walk/start", {})
    for number in range(30):
        for variant in ("old", "new"):
            outcome = {"variant": variant, "success": variant == "new" or number % 3 == 0, "unit": f"u{number}"}
            _send(address, "/v1/experiments/walk/outcomes", outcome)


async def fill_crowded(address: str, database: Path) -> None:
    """Calls of many keys, sessions and tags to many models; then, in the columns that clients and providers choose,
    texts that would run or break a page.
    """
    for key in KEYS:
        add(database, key)
    for number in range(2 * MANY):
        model = f"m{number % MANY}-{LONG}" if number % 3 else f"ensemble:e{number % 6}-{LONG[:60]}"
        call = chat(model, routing={"tags": [f"tag {number}", LONG[:64]]}, max_tokens=20)
        key = secret(KEYS[number // 3])
        answer = await post(_port(address), call, authorization=f"Bearer {key}", x_session_id=f"{number} {LONG}")
        assert answer.status == 200, answer.body
    for model in ("fake/e400", "fake/e500", "fake/e429"):
        await post(_port(address), chat(model), authorization=f"Bearer {ADMIN}")
    with closing(sqlite3.connect(database)) as db, db:
        ids = [row[0] for row in db.execute("SELECT id FROM calls ORDER BY opened_ns DESC LIMIT ?", (len(EVIL),))]
        for call_id, text in zip(ids, EVIL, strict=True):
            db.execute(
                "UPDATE calls SET model = ?1, provider = ?1, key_id = ?1, rule = ?1, session = ?1, task_type = ?1,"
                " requested_model = ?1, error_code = ?1, agent = ?1, tags = json_array(?1) WHERE id = ?2",
                (text, call_id),
            )
            db.execute(
                "UPDATE attempts SET model = ?1, provider = ?1, error_code = ?1, upstream_request_id = ?1,"
                " price_version = ?1, error_message = ?1 WHERE call_id = ?2",
                (text, call_id),
            )


def _port(address: str) -> int:
    return int(address.rsplit(":", 1)[1])


def _send(address: str, path: str, body: object) -> None:
    headers = {"authorization": f"Bearer {ADMIN}", "content-type": "application/json"}
    with urlopen(Request(address + path, json.dumps(body).encode(), headers), timeout=20) as answer:
        answer.read()
