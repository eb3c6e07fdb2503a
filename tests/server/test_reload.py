"""Rules of reading the files again while the server runs."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import structlog
from msgspec.structs import replace
from structlog.testing import LogCapture

from proxy.config import Config, ConfigError
from proxy.config.problems import Mark, problem
from proxy.config.server import ServerConfig
from proxy.config.source import ConfigFiles
from proxy.providers.embedded import Embedded
from proxy.providers.openai import OpenAI
from proxy.server.reload import MAX_PROBLEMS, Reloads, carry_over
from proxy.server.swap import Reloaded
from proxy.storage.settings import StorageConfig
from tests.faults.talking import ask, talk
from tests.server.api.raw import chat, get, post, request, send
from tests.serving import PRICING, ROUTING, Server, serving, write_files
from tests.upstream import FakeUpstream
from tests.waiting import eventually

RIGHT = "version: 1\nproviders: {openai: {}}\n"
OTHER = "version: 1\nproviders: {openai: {}, groq: {}}\n"


class Setting:
    """Reloads of two files in a folder, what was swapped in, and the log."""

    def __init__(self, folder: Path, files: Callable[..., ConfigFiles] = ConfigFiles) -> None:
        self.path = folder / "routing_rules.yaml"
        self.path.write_text(RIGHT)
        self.pricing = folder / "pricing.yaml"
        self.pricing.write_text("version: 1\nmodels: {}\n")
        self.environ = {"OPENAI_API_KEY": "sk-one"}
        self.files = files(self.path, self.pricing, self.environ)
        self.swapped: list[Config] = []
        self.refuse: ConfigError | None = None
        self._captured = LogCapture()
        self.log = log = structlog.wrap_logger(
            None, processors=[self._captured], wrapper_class=structlog.stdlib.BoundLogger
        )
        self.start = self.files.load()
        self.reloads = Reloads(self.files, self.start, self._swap, log)

    @property
    def events(self) -> list[str]:
        return [entry["event"] for entry in self._captured.entries]

    def _swap(self, config: Config) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.swapped.append(config)


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path)


async def test_what_is_right_is_swapped_in_once(setting: Setting) -> None:
    """The same files again change nothing."""
    setting.path.write_text(OTHER)
    first, second = await setting.reloads.reload(), await setting.reloads.reload()
    assert [list(config.providers) for config in setting.swapped] == [["openai", "groq"]]
    assert first == Reloaded(setting.swapped[0].version, changed=True)
    assert second == Reloaded(first.version, changed=False)
    assert setting.reloads.state.config_version == first.version != setting.start.version
    assert setting.events == ["config_reloaded"]


async def test_either_file_makes_a_new_version(setting: Setting) -> None:
    """A price is configuration too."""
    setting.pricing.write_text("version: 1\nmodels: {openai/gpt-x: {input: 1, output: 2}}\n")
    assert (await setting.reloads.reload()).changed
    assert setting.swapped[0].pricing.models["openai/gpt-x"].input == 1


async def test_what_is_wrong_changes_nothing_and_is_said(setting: Setting) -> None:
    """With its place, to who asked, in the state and in the log; until it is right again."""
    setting.path.write_text("version: 1\nproviders: {openai: {tmieout_s: 3}}\n")
    refused = await setting.reloads.reload()
    assert refused.error is not None
    assert refused.error.startswith(f"{setting.path}:2:")
    assert 'did you mean "timeout_s"?' in refused.error
    assert (refused.changed, refused.version, setting.swapped) == (False, setting.start.version, [])
    assert setting.reloads.state.config_error == refused.error
    setting.path.write_text(RIGHT)
    again = await setting.reloads.reload()
    assert again == Reloaded(setting.start.version, changed=False)
    assert setting.reloads.state.config_error is None
    assert setting.events == ["config_refused", "config_right_again"]
    assert setting.reloads.state.refused == 1


@pytest.mark.parametrize("text", ["", "version: 1\nprov", "{", "\tversion: 1", "version: 1\nproviders: {o: {type: x}}"])
@pytest.mark.sampled(3)
async def test_every_broken_file_is_refused(setting: Setting, text: str) -> None:
    """Empty, cut off, not YAML, not ours."""
    setting.path.write_text(text)
    assert (await setting.reloads.reload()).error is not None
    assert setting.swapped == []


async def test_many_problems_are_cut_short(setting: Setting) -> None:
    """`/health` must stay readable."""
    setting.path.write_text("version: 1\nproviders:\n" + "".join(f"  p{n}: {{type: nothing}}\n" for n in range(99)))
    error = (await setting.reloads.reload()).error
    assert error is not None
    assert len(error.splitlines()) == MAX_PROBLEMS + 1
    assert "79 more" in error.splitlines()[-1]


async def test_what_cannot_run_is_refused_too(setting: Setting) -> None:
    """A file of certificates that is not there shows only when connections are made."""
    setting.refuse = ConfigError([problem(Mark("f"), ("providers", "openai", "ca_file"), "cannot be used")])
    setting.path.write_text(OTHER)
    assert (await setting.reloads.reload()).error == "f: providers.openai.ca_file: cannot be used"
    assert setting.reloads.state.config_version == setting.start.version
    setting.refuse = None
    assert (await setting.reloads.reload()).changed


class Watched(ConfigFiles):
    """Tells when the files were read for the first time, and then runs `change`."""

    change: Callable[[], object] | None = None

    def load_changed(self, version: str) -> Config | None:
        try:
            return super().load_changed(version)
        finally:
            if self.change is not None:
                self.change()
                self.change = None


class Counted(ConfigFiles):
    """Counts how often the files were read."""

    looks = 0

    def load_changed(self, version: str) -> Config | None:
        self.looks += 1
        return super().load_changed(version)


async def test_the_look_at_the_start_is_no_reload(tmp_path: Path) -> None:
    """A file that is saved again is one, also with the same text: a key that was refused may have been mended."""
    setting = Setting(tmp_path)
    files = Counted(setting.path, setting.pricing, setting.environ)
    reloads = Reloads(files, setting.start, setting.swapped.append, setting.log)
    tried: list[int] = []
    reloads.unchanged = lambda: tried.append(files.looks)
    following = asyncio.create_task(reloads.follow_files())
    await eventually(lambda: files.looks == 1)
    setting.path.write_text(RIGHT)
    await eventually(lambda: bool(tried) and files.looks > 1)
    following.cancel()
    await asyncio.wait({following})
    assert tried[0] > 1


@pytest.mark.parametrize("half", [None, "", "version: 1\nprov"], ids=["gone", "empty", "cut off"])
async def test_a_file_that_is_being_saved_is_waited_for(tmp_path: Path, half: str | None) -> None:
    """No error is told for what is right a moment later."""
    setting = Setting(tmp_path, Watched)
    setting.path.unlink() if half is None else setting.path.write_text(half)
    setting.files.change = lambda: setting.path.write_text(OTHER)  # type: ignore[attr-defined]
    done = await setting.reloads.reload()
    assert (done.changed, done.error) == (True, None)
    assert setting.events == ["config_reloaded"]


async def test_a_file_that_cannot_be_read_in_time_is_refused(tmp_path: Path) -> None:
    """A reader that hangs keeps nobody waiting, and says so; once it returns, the files count again."""
    setting = Setting(tmp_path)
    setting.path.unlink()
    os.mkfifo(setting.path)
    reloads = Reloads(setting.files, setting.start, setting.swapped.append, setting.log, files_s=0.2)
    done = await reloads.reload()
    assert (done.changed, done.error) == (False, "the files could not be read within 0.2 s")
    following = asyncio.create_task(reloads.follow_files())
    await eventually(lambda: "config_files_unread" in setting.events)  # the hanging reader has the turn
    with setting.path.open("w") as writer:
        setting.path.unlink()
        setting.path.write_text(OTHER)
        writer.write(RIGHT)
    await eventually(lambda: "config_files_read_again" in setting.events and len(setting.swapped) == 1)
    following.cancel()
    await asyncio.wait({following})
    assert setting.events.count("config_files_unread") == 1


async def test_certificates_that_cannot_be_read_in_time_are_refused(setting: Setting) -> None:
    """They are files too: nothing is swapped before they are read."""
    may_end = threading.Event()
    reloads = Reloads(setting.files, setting.start, setting.swapped.append, setting.log, files_s=0.2)

    def prepare(config: Config) -> None:
        may_end.wait(60)

    reloads.prepare = prepare
    setting.path.write_text(OTHER)
    assert (await reloads.reload()).error == "the files could not be read within 0.2 s"
    assert setting.swapped == []
    may_end.set()
    await eventually(lambda: not any(thread.name == "config-files" for thread in threading.enumerate()))
    assert (await reloads.reload()).changed


class Buggy(ConfigFiles):
    """Fails in a way nobody foresaw."""

    def load_changed(self, version: str) -> Config | None:
        raise ZeroDivisionError("secret detail")


async def test_a_bug_ends_neither_the_server_nor_the_reloads(tmp_path: Path) -> None:
    """It is said, without its detail; the log has that."""
    setting = Setting(tmp_path, Buggy)
    done = await setting.reloads.reload()
    assert done.error is not None
    assert "internal error" in done.error
    assert "secret detail" not in done.error
    assert setting.events == ["config_reload_failed", "config_refused"]


async def test_reloads_take_turns(setting: Setting) -> None:
    """Two at once make one swap: the second finds it done."""
    setting.path.write_text(OTHER)
    done = await asyncio.gather(*(setting.reloads.reload() for _ in range(5)))
    assert sorted(each.changed for each in done) == [False] * 4 + [True]
    assert len(setting.swapped) == 1


async def test_the_environment_stays_as_it_was_at_the_start(setting: Setting) -> None:
    """A running process has the one it was given."""
    setting.environ["GROQ_API_KEY"] = "gsk_new"
    setting.path.write_text(OTHER)
    await setting.reloads.reload()
    assert setting.swapped[0].disabled == {"groq": "set GROQ_API_KEY to enable it"}


async def test_without_files_there_is_nothing_to_reload(setting: Setting) -> None:
    """A program that brought its own configuration keeps it."""
    reloads = Reloads(None, setting.start, setting.swapped.append, structlog.get_logger())
    await reloads.follow_files()
    assert (await reloads.reload()).changed is False


# --- what a running server cannot change ------------------------------------------------------------------------------

LOCAL = Embedded(context=1024)


@pytest.mark.parametrize(
    ("start", "loaded", "lines"),
    [
        ({"server": ServerConfig(port=1)}, {"server": ServerConfig(port=2)}, ["server.port: takes effect"]),
        (
            {"server": ServerConfig(host="a", workers=1)},
            {"server": ServerConfig(host="b", workers=2)},
            ["server.host: takes effect", "server.workers: takes effect"],
        ),
        ({"storage": StorageConfig(url="a")}, {"storage": StorageConfig(url="b")}, ["storage.url: takes effect"]),
        ({"providers": {"l": LOCAL}}, {"providers": {"l": Embedded(context=9)}}, ["providers.l: the embedded model"]),
        ({"providers": {"l": OpenAI()}}, {"providers": {"l": LOCAL}}, ["providers.l: the embedded model"]),
        ({}, {"providers": {"l": LOCAL}}, ["providers.l: the embedded model"]),
        (
            {"providers": {"l": LOCAL}},
            {},
            ["providers.l: off; the embedded model's process runs until the server stops"],
        ),
        ({"providers": {"l": LOCAL}}, {"providers": {"l": OpenAI()}}, ["providers.l: off"]),
        ({"providers": {"l": LOCAL}}, {"providers": {"l": LOCAL}, "disabled": {"l": "no"}}, ["providers.l: off"]),
        ({"providers": {"l": LOCAL}}, {"providers": {"l": LOCAL}}, []),
        ({"providers": {"o": OpenAI(retries=1)}}, {"providers": {"o": OpenAI(retries=2)}}, []),
        ({}, {"providers": {"l": LOCAL}, "disabled": {"l": "switched off"}}, []),
    ],
)
def test_what_waits_for_the_next_start_is_said(start: dict[str, Any], loaded: dict[str, Any], lines: list[str]) -> None:
    """A line for each; all else counts at once."""
    before, after = Config(**start), Config(**loaded)
    kept, said = carry_over(before, after)
    assert [line[: len(expected)] for line, expected in zip(said, lines, strict=True)] == lines
    assert (kept.server, kept.storage) == (before.server, before.storage)
    assert replace(after, server=kept.server, storage=kept.storage).models == kept.models


def test_the_embedded_model_stays_as_it_was_started() -> None:
    """Another file, or a model that was not there, cannot be served before the next start."""
    kept, _ = carry_over(
        Config(providers={"l": LOCAL}), Config(providers={"l": Embedded(context=9), "new": Embedded()})
    )
    assert kept.providers["l"] is LOCAL
    assert kept.disabled == {"new": "the embedded model takes effect at the next start"}


# --- with a running server --------------------------------------------------------------------------------------------

TWO = ROUTING.replace("router:", "  second: {{type: openai, base_url: '{upstream}', allow_private: true}}\nrouter:")


@pytest.fixture
async def upstream() -> Any:
    async with FakeUpstream() as fake:
        yield fake


async def reload(server: Server, **headers: str) -> Any:
    return await post(server.port, b"", "/admin/reload", **headers)


async def test_who_asks_is_told_what_came_of_it(tmp_path: Path, upstream: FakeUpstream) -> None:
    """And every chat answer and error names the version it ran on."""
    path = write_files(tmp_path, upstream.url)
    async with serving(path) as server:
        before = (await post(server.port, chat("fake/ok"))).headers("x-proxy-config")[0]
        path.write_text(path.read_text() + "aliases: {new: fake/ok}\n")
        done = await reload(server)
        assert (done.status, done.json["error"]) == (200, None)
        assert done.json["version"] != before
        for answer in (
            await post(server.port, chat("new")),
            await post(server.port, chat("new", stream=True)),
            await post(server.port, chat("no-such-model")),
            await post(server.port, b"{"),
            await post(server.port, chat("fake/e500")),
        ):
            assert answer.headers("x-proxy-config") == [done.json["version"]]


async def test_wrong_files_are_answered_with_the_reasons(tmp_path: Path, upstream: FakeUpstream) -> None:
    """409, and what ran goes on."""
    path = write_files(tmp_path, upstream.url)
    async with serving(path) as server:
        version = server.runtime.config.version
        path.write_text(path.read_text().replace("retries: 0", "retries: many"))
        refused = await reload(server)
        assert (refused.status, refused.json["version"], refused.json["changed"]) == (409, version, False)
        assert refused.error()["code"] == "conflict"
        assert f"{path}:5:" in refused.error()["message"]
        assert (await post(server.port, chat("fake/ok"))).headers("x-proxy-config")[0] == version
        health = (await get(server.port, "/health")).json["config"]
        assert health["version"] == version
        assert "routing_rules.yaml:5:" in health["error"][0]


async def test_what_waits_for_a_start_is_answered(tmp_path: Path, upstream: FakeUpstream) -> None:
    """Each time, for as long as it waits."""
    path = write_files(tmp_path, upstream.url)
    async with serving(path) as server:
        path.write_text(path.read_text() + "server: {port: 9}\n")
        for _ in range(2):
            assert (await reload(server)).json["at_restart"] == ["server.port: takes effect at the next start"]
        path.write_text(path.read_text().removesuffix("server: {port: 9}\n"))
        assert (await reload(server)).json["at_restart"] == []


async def test_only_an_admin_reloads(tmp_path: Path, upstream: FakeUpstream) -> None:
    """Not the key that clients have, and nobody without one."""
    environ = {"PROXY_API_KEY": "key-of-clients", "PROXY_ADMIN_KEY": "key-of-admins"}
    async with serving(write_files(tmp_path, upstream.url), environ) as server:
        assert (await reload(server)).status == 401
        clients = await reload(server, authorization="Bearer key-of-clients")
        assert (clients.status, clients.error()["code"]) == (403, "admin_required")
        assert (await reload(server, authorization="Bearer key-of-admins")).status == 200
        assert (await get(server.port, "/admin/reload", authorization="Bearer key-of-admins")).status == 405


async def test_a_saved_file_is_enough(tmp_path: Path, upstream: FakeUpstream) -> None:
    """Nobody has to ask."""
    path = write_files(tmp_path, upstream.url)
    async with serving(path) as server:
        path.write_text(path.read_text() + "aliases: {new: fake/ok}\n")
        await eventually(lambda: "new" in server.runtime.names.aliases)
        assert (await post(server.port, chat("new"))).status == 200
        path.write_text("version: 1\nprov")
        async with asyncio.timeout(20):
            while (await get(server.port, "/health")).json["config"]["error"] is None:  # noqa: ASYNC110 - only asking tells
                await asyncio.sleep(0.05)
        assert (await post(server.port, chat("new"))).status == 200


async def test_a_reader_that_hangs_holds_up_no_call(tmp_path: Path, upstream: FakeUpstream) -> None:
    """As on a file system that does not answer: here a pipe that nobody has finished writing to."""
    async with serving(write_files(tmp_path, upstream.url)) as server:
        path = tmp_path / "routing_rules.yaml"
        right = path.read_text()
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "pipe").replace(path)
        writer: list[int] = []

        def is_read() -> bool:
            with suppress(OSError):  # nobody reads it yet
                writer.append(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
            return bool(writer)

        await eventually(is_read, timeout_s=10)
        assert (await post(server.port, chat())).status == 200
        assert (await get(server.port, "/livez")).status == 200
        path.unlink()
        path.write_text(right + "# changed\n")
        os.close(writer[0])
        before = server.runtime.config.version
        await eventually(lambda: server.runtime.config.version != before, timeout_s=15)


@pytest.mark.slow
async def test_a_call_keeps_what_it_started_with(tmp_path: Path, upstream: FakeUpstream) -> None:
    """Its provider goes, also the one it has yet to fall back to; then the connections go too."""
    path = write_files(tmp_path, upstream.url, TWO)
    path.write_text(
        path.read_text()
        + "models: {m: {use: 'second/e503(delay=0.3)', fallback: ['second/ok(n_tokens=4,pace=0.05)']}}\n"
    )
    async with serving(path) as server:
        version = server.runtime.config.version
        calls = [asyncio.create_task(ask(server.port, "m", stream=stream)) for stream in (True, False)]
        await upstream.until(lambda: upstream.open == 2)
        path.write_text(ROUTING.format(db=tmp_path / "usage.db", upstream=upstream.url, timeouts="{}"))
        assert (await reload(server)).json["version"] != version  # it may have seen the change by itself before
        assert (await ask(server.port, "second/ok", stream=False)).status == 404
        for heard in await asyncio.gather(*calls):
            assert (heard.status, heard.finish_reasons) == (200, ["stop"])
            assert heard.headers["x-proxy-config"] == version
            assert heard.headers["x-proxy-attempts"] in ("3", "4")  # the retry budget has room for three retries
        used = {seen.connection for seen in upstream.ledger}
        await eventually(lambda: used.isdisjoint(each.number for each in upstream.connections))


async def test_a_stream_that_idles_holds_only_its_own_past(tmp_path: Path, upstream: FakeUpstream) -> None:
    """The connections of versions in between are closed at once."""
    path = write_files(tmp_path, upstream.url)
    right = path.read_text()
    async with serving(path) as server:
        conversation = await talk(server.port, "fake/stall_after(k=1)")
        await conversation.head()
        for places in range(1, 6):
            path.write_text(right.replace("retries: 0", f"retries: 0, max_concurrent: {places}"))
            assert (await reload(server)).status == 200
            assert (await ask(server.port, "fake/ok")).done
        await eventually(lambda: len(upstream.connections) == 2)  # the stream's, and an idle one of the last version
        conversation.close()
        await eventually(lambda: len(upstream.connections) == 1)


async def test_connections_of_unchanged_providers_are_kept(tmp_path: Path, upstream: FakeUpstream) -> None:
    """Another price, name or time-out costs no handshake; another limit of places, or address, does."""
    path = write_files(tmp_path, upstream.url)
    right = path.read_text()
    changes = {
        "aliases: {a: fake/ok}\n": True,
        "models: {m: fake/ok}\n": True,
    }
    async with serving(path) as server:

        async def connection() -> int:
            assert (await ask(server.port, "fake/ok")).done
            return upstream.ledger[-1].connection

        first = await connection()
        for text in changes:
            path.write_text(right + text)
            assert (await reload(server)).status == 200
            assert await connection() == first
        path.write_text(right.replace("retries: 0", "retries: 1"))
        (tmp_path / "pricing.yaml").write_text(PRICING.replace("2.00", "3.00"))
        assert (await reload(server)).status == 200
        assert await connection() == first
        path.write_text(right.replace("retries: 0", "max_concurrent: 4"))
        assert (await reload(server)).status == 200
        assert await connection() != first
        await eventually(lambda: len(upstream.connections) == 1)


async def test_prices_keys_and_limits_count_from_the_next_call_on(tmp_path: Path, upstream: FakeUpstream) -> None:
    """The price of a call is the one it began with."""
    environ = {"ONE": "sk-first-of-two-keys", "TWO": "sk-second-of-two-keys"}
    keyed = ROUTING.replace("price: null", "api_key_env: ONE")
    path = write_files(tmp_path, upstream.url, keyed)
    async with serving(path, environ) as server:
        slow = asyncio.create_task(ask(server.port, "fake/ok(n_tokens=3,pace=0.1)", stream=False))
        await upstream.until(lambda: upstream.open == 1)
        path.write_text(path.read_text().replace("api_key_env: ONE", "api_key_env: TWO"))
        (tmp_path / "pricing.yaml").write_text(PRICING.replace("2.00", "4.00").replace("10.00", "0"))
        assert (await reload(server)).status == 200
        new = await ask(server.port, "fake/ok(n_tokens=3)", stream=False)
        assert new.usage is not None
        assert new.usage["cost"] == pytest.approx(new.usage["prompt_tokens"] * 4e-6)
        old = (await slow).usage
        assert old is not None
        assert old["cost"] == pytest.approx(old["prompt_tokens"] * 2e-6 + 3 * 10e-6)
        keys = [seen.authorization for seen in upstream.ledger]
        assert keys[0] != keys[1]


async def test_a_certificate_file_that_is_missing_is_told(tmp_path: Path, upstream: FakeUpstream) -> None:
    """With its place; nothing has changed, nothing stays open."""
    path = write_files(tmp_path, upstream.url)
    async with serving(path) as server:
        path.write_text(path.read_text().replace("retries: 0", "retries: 0, ca_file: /nowhere/ca.pem"))
        refused = await reload(server)
        assert refused.status == 409
        assert "ca_file: cannot be used: no such file" in refused.error()["message"]
        assert (await post(server.port, chat("fake/ok"))).status == 200


async def test_a_certificate_file_that_hangs_holds_up_no_call(tmp_path: Path, upstream: FakeUpstream) -> None:
    """It is read in a thread, as the configuration is."""
    path, authority = write_files(tmp_path, upstream.url), tmp_path / "ca.pem"
    os.mkfifo(authority)
    async with serving(path) as server:
        path.write_text(path.read_text().replace("retries: 0", f"retries: 0, ca_file: {authority}"))
        reloading = asyncio.create_task(reload(server))
        with await asyncio.to_thread(authority.open, "w") as writer:  # the reader is there
            assert (await post(server.port, chat("fake/ok"))).status == 200
            assert not reloading.done()
            authority.unlink()
            authority.write_text("no certificate")
            writer.write("no certificate")
        refused = await reloading
        assert refused.status == 409
        assert "ca_file: holds no certificate" in refused.error()["message"]
        assert (await post(server.port, chat("fake/ok"))).status == 200


async def test_a_reload_while_a_body_arrives_counts_for_it(tmp_path: Path, upstream: FakeUpstream) -> None:
    """A call starts when its request is there: a slow upload holds no old configuration."""
    path = write_files(tmp_path, upstream.url)
    async with serving(path) as server:
        whole = request(chat("new"))
        gate = asyncio.Event()

        async def pieces() -> Any:
            yield whole[:-5]
            await gate.wait()
            yield whole[-5:]

        uploading = asyncio.create_task(send(server.port, pieces()))
        path.write_text(path.read_text() + "aliases: {new: fake/ok}\n")
        version = (await reload(server)).json["version"]
        gate.set()
        answer = await uploading
        assert (answer.status, answer.headers("x-proxy-config")[0]) == (200, version)
