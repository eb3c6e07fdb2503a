"""The image, without an engine: the Dockerfile's steps run in order in an empty root of their own, and what comes out
is started as it would be: read-only, without root, with nothing to write but /data.

The Python of this test stands for the image's, and the locked packages are those of its environment: `scripts/test` has
just installed them from the same lock, with the same hashes.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from importlib.metadata import distribution
from pathlib import Path

import httpx
import pytest
from packaging.markers import Marker

from proxy.config import load
from tests.cli.commands import wait_until
from tests.packaging.test_packaging import locked

ROOT = Path(__file__).parents[2]
KEY = "mmp-a-key-for-the-container"
PYTHON = "/opt/python"  # where the image's Python is in our root
SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/sbin", "/dev", "/proc", sys.base_prefix)
LOCKED = "python -m pip install --no-deps --require-hashes --only-binary :all: -r requirements.lock"

Step = tuple[str, str]


def steps(text: str) -> list[Step]:
    """The instructions of a Dockerfile with their arguments, in order."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.strip().partition(" ") for line in joined.splitlines()) if word]


STEPS = steps((ROOT / "Dockerfile").read_text())


def arguments(instruction: str) -> list[str]:
    return [rest for word, rest in STEPS if word == instruction]


def variables() -> dict[str, str]:
    """What ENV sets, in all."""
    pairs = (word.partition("=") for rest in arguments("ENV") for word in shlex.split(rest))
    return {name: value for name, _, value in pairs}


def is_sent(path: str) -> bool:
    """Whether .dockerignore lets a file reach the build: the last pattern that fits it or a folder of it decides."""
    sent = True
    places = [path, *map(str, Path(path).parents)][:-1]
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if line and not line.startswith("#"):
            deep = pattern.removeprefix("**/")
            if any(fnmatch(place if deep == pattern else Path(place).name, deep) for place in places):
                sent = line.startswith("!")
    return sent


# --- what it says -----------------------------------------------------------------------------------------------------


def test_it_is_slim_locked_and_without_root() -> None:
    """A slim Python, wheels by hash, a user by number (so that an orchestrator can see that it is not root)."""
    assert STEPS[0] == ("FROM", "python:3.11-slim")
    assert next(rest for rest in arguments("RUN") if "install" in rest) == LOCKED
    assert all("--no-deps" in rest for rest in arguments("RUN") if "pip install" in rest)
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", arguments("USER")[-1])
    assert [word for word, _ in STEPS].index("USER") > max(i for i, (word, _) in enumerate(STEPS) if word == "RUN")


def test_it_has_one_volume_where_everything_goes() -> None:
    """It is the working directory too, so relative paths of the configuration lead there."""
    assert arguments("VOLUME") == ["/data"]
    assert arguments("WORKDIR")[-1] == "/data"


def test_no_step_of_its_running_needs_a_shell() -> None:
    """Health check, entry point and command are lists; no key is in the image."""
    (check,) = arguments("HEALTHCHECK")
    assert json.loads(check.partition("CMD ")[2])[0] == "python"
    assert json.loads(arguments("ENTRYPOINT")[0]) == ["proxy"]
    assert json.loads(arguments("CMD")[0]) == ["serve"]
    assert not any(re.search("KEY|SECRET|TOKEN", name) for name in variables())
    assert (variables()["PROXY_HOST"], variables()["PROXY_PORT"]) == ("0.0.0.0", arguments("EXPOSE")[0])


def test_only_what_it_copies_is_sent_to_the_build() -> None:
    """Keys and databases that lie in a checkout cannot get into a layer."""
    for secret in (
        ".env",
        "proxy.db",
        "proxy.db-wal",
        ".git/config",
        "tests/packaging/test_container.py",
        ".venv/bin/python",
    ):
        assert not is_sent(secret), secret
    for rest in arguments("COPY"):
        for source in rest.split()[:-1]:
            assert is_sent(source), source
    assert is_sent("proxy/cli/serve.py")
    assert not is_sent("proxy/cli/__pycache__/serve.cpython-311.pyc")


# --- what it does -----------------------------------------------------------------------------------------------------


class Image:
    """A root of its own in `root`; `data` is its volume. Commands run with the system's folders, read-only."""

    def __init__(self, root: Path, data: Path) -> None:
        self.root = root
        self.data = data
        self.workdir = "/"
        self.environ = {"PATH": f"{PYTHON}/bin:/usr/bin:/bin"}

    def command(self, command: list[str], user: str | None = None) -> list[str]:
        """How a command is run inside; with `user` as in a running container: nothing but /data can be written."""
        script = ["set -e", f"cd {shlex.quote(str(self.root))}"]
        if user is not None:
            script += [f"mount --bind {self.root} {self.root}", f"mount -o remount,bind,ro {self.root}", "cd ."]
            script += [f"mount --bind {self.data} {self.root}/data"]
        for path in SYSTEM:
            if not Path(path).is_symlink():
                script += [f"mount --rbind {path} {self.root}{path}"]
        script += [f"exec chroot {self.root} {' '.join(self._inside(command, user))}"]
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(script)]

    def _inside(self, command: list[str], user: str | None) -> list[str]:
        environ = [f"{name}={value}" for name, value in self.environ.items()]
        environ.append("HOME=/")  # as engines set it for a user without a name
        uid, _, gid = (user or "0:0").partition(":")
        drop = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs"]
        drop += ["--bounding-set=-all", "--inh-caps=-all"]
        run = ["env", "-i", "-C", self.workdir, *environ, *(drop if user else []), *command]
        return [shlex.quote(word) for word in run]

    def run(self, command: list[str], user: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(command, user), capture_output=True, text=True, timeout=300, check=False)


def build(image: Image) -> None:
    """Every step of the Dockerfile, in order."""
    for path in SYSTEM:
        place = image.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if Path(path).is_symlink():
            place.symlink_to(os.readlink(path))
        else:
            place.mkdir()
    (image.root / "tmp").mkdir(mode=0o1777)
    made = image.run([f"{sys.base_prefix}/bin/python3", "-m", "venv", PYTHON])
    assert made.returncode == 0, made.stderr
    for word, rest in STEPS:
        if word == "ENV":
            image.environ |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        elif word == "WORKDIR":
            image.workdir = rest
            (image.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif word == "COPY":
            copy(rest.split(), image.root / image.workdir.lstrip("/"))
        elif word == "RUN" and rest == LOCKED:
            install_locked(image)
        elif word == "RUN":
            done = image.run(["/bin/sh", "-c", rest])
            assert done.returncode == 0, f"{rest}\n{done.stdout}{done.stderr}"
        elif word == "VOLUME":
            # An engine copies what the image has there, owner and mode with it.
            shutil.copystat(image.root / rest.lstrip("/"), image.data)
            owner = (image.root / rest.lstrip("/")).stat()
            os.chown(image.data, owner.st_uid, owner.st_gid)


def copy(words: list[str], workdir: Path) -> None:
    """COPY from the checkout, through .dockerignore."""
    *sources, target = words
    for source in sources:
        for file in [ROOT / source] if (ROOT / source).is_file() else sorted((ROOT / source).rglob("*")):
            name = str(file.relative_to(ROOT))
            if file.is_file() and is_sent(name):
                inside = file.name if (ROOT / source).is_file() else str(file.relative_to(ROOT / source))
                place = workdir / target / inside
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, place)


def install_locked(image: Image) -> None:
    """The packages of the lock and no others, in the locked versions, as this environment has them from it."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = image.root / PYTHON.lstrip("/") / "lib" / version / "site-packages"
    for name, entry in locked("requirements.lock").items():
        if entry["marker"] and not Marker(entry["marker"]).evaluate():
            continue
        installed = distribution(name)
        assert installed.version == entry["version"], name
        for former in (*site.glob(f"{name.replace('-', '_')}-*.dist-info"), site / name.replace("-", "_")):
            shutil.rmtree(former, ignore_errors=True)  # pip itself is there before
        for file in installed.files or ():
            if not file.parts[0].startswith(".."):
                place = site / file
                place.parent.mkdir(parents=True, exist_ok=True)
                if Path(str(file.locate())).exists() and not place.exists():
                    os.link(str(file.locate()), place)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """Built once. Its folder is reached by the container's user, who is nobody here."""
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("setpriv") is None:
        pytest.skip("a root of its own needs root, unshare and setpriv")
    folder = tmp_path_factory.mktemp("container")
    (folder / "root").mkdir(mode=0o755)
    (folder / "data").mkdir()
    made = Image(folder / "root", folder / "data")
    build(made)
    yield made
    shutil.rmtree(folder)


@contextmanager
def started(image: Image, **environ: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The container's command on a free port; yields process and base URL once it is alive."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    image.environ |= {"PROXY_PORT": port, **environ}
    command = [*json.loads(arguments("ENTRYPOINT")[0]), *json.loads(arguments("CMD")[0])]
    with (image.data.parent / "log").open("wb") as log:
        process = subprocess.Popen(image.command(command, arguments("USER")[-1]), stdout=log, stderr=log)
    try:
        wait_until(lambda: process.poll() is not None or (is_listening(image) and is_alive(port)), "it answers")
        assert process.poll() is None, (image.data.parent / "log").read_text()
        yield process, f"http://127.0.0.1:{port}"
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for name in environ:
            del image.environ[name]


def is_listening(image: Image) -> bool:
    """Its banner is there: it is not somebody else that has the port."""
    return "  curl " in (image.data.parent / "log").read_text()


def is_alive(port: str) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/livez").status_code == 200
    except httpx.TransportError:
        return False


def health_check(image: Image) -> int:
    (check,) = arguments("HEALTHCHECK")
    return image.run(json.loads(check.partition("CMD ")[2]), arguments("USER")[-1]).returncode


def files_in(folder: Path) -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.slow
def test_without_a_key_it_says_how_to_make_one(image: Image) -> None:
    """Inside a container every address is reachable; so it does not start, and writes nothing."""
    done = image.run(["proxy", "serve"], arguments("USER")[-1])
    assert done.returncode == 2
    assert "PROXY_API_KEY" in done.stderr
    assert "docker run --env PROXY_API_KEY" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_serves_from_a_read_only_root(image: Image, workers: str) -> None:
    """The first start seeds /data, the next ones leave it as it is; the embedded model answers; SIGTERM ends it."""
    with started(image, PROXY_API_KEY=KEY, PROXY_WORKERS=workers) as (process, url):
        assert {"routing_rules.yaml", "pricing.yaml", "proxy.db"} <= files_in(image.data).keys()
        owner = (image.data / "proxy.db").stat()
        assert f"{owner.st_uid}:{owner.st_gid}" == arguments("USER")[-1]
        assert httpx.get(f"{url}/v1/models").status_code == 401
        question = {"model": "auto", "max_tokens": 4, "messages": [{"role": "user", "content": "Say hello."}]}
        headers = {"authorization": f"Bearer {KEY}"}
        answer = httpx.post(f"{url}/v1/chat/completions", json=question, headers=headers, timeout=60)
        assert (answer.status_code, answer.json()["model"]) == (200, "local/smollm2-135m"), answer.text
        assert httpx.get(f"{url}/health").json()["status"] == "ok"
        assert health_check(image) == 0
        for path in ("/app/new", "/tmp/new", f"{PYTHON}/new", "/new"):
            refused = image.run(["touch", path], arguments("USER")[-1])
            assert "Read-only file system" in refused.stderr
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    assert health_check(image) != 0
    load(image.data / "routing_rules.yaml", image.data / "pricing.yaml", {})


@pytest.mark.slow
def test_what_was_edited_in_the_volume_stays(image: Image) -> None:
    """Seeding is for a volume without either file."""
    own = "version: 1\nproviders:\n  local: {type: embedded}\n"
    for name in ("routing_rules.yaml", "pricing.yaml"):
        (image.data / name).unlink(missing_ok=True)
    (image.data / "routing_rules.yaml").write_text(own)
    with started(image, PROXY_API_KEY=KEY) as (_, url):
        assert list(httpx.get(f"{url}/health").json()["providers"]) == ["local"]
    assert (image.data / "routing_rules.yaml").read_text() == own
    assert not (image.data / "pricing.yaml").exists()
