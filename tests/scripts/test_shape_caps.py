"""Each rule of shape fires on what breaks it, and on nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from scripts import shape_caps
from scripts.shape_caps import File, findings

SCRIPT = Path(shape_caps.__file__)


def function(name: str = "f", arguments: str = "", lines: int = 2) -> str:
    return f"def {name}({arguments}):\n" + "    x = 1\n" * (lines - 1)


def handler(caught: str, body: str) -> str:
    return f"try:\n    f()\n{caught}:\n    {body}\n"


BAD = [
    (shape_caps.long_file, "proxy/a.py", "x = 1\n" * 351),
    (shape_caps.long_function, "proxy/a.py", function(lines=51)),
    (shape_caps.long_function, "proxy/a.py", "async " + function(lines=51)),
    (shape_caps.many_arguments, "proxy/a.py", function(arguments="a, b, c, d, e, f, g")),
    (shape_caps.many_arguments, "proxy/a.py", function(arguments="self, a, /, b, c, *, d, e, f, g=1")),
    (shape_caps.many_arguments, "proxy/a.py", function(arguments="a, b, c, d, e, *f, **g")),
    (shape_caps.vague_module_name, "proxy/api/utils.py", ""),
    (shape_caps.vague_module_name, "proxy/core/chat.py", ""),
    (shape_caps.unfinished, "proxy/a.py", "x = 1  # TODO: more\n"),
    (shape_caps.unfinished, "proxy/a.py", '"""FIXME"""\n'),
    (shape_caps.unfinished, "proxy/a.py", "def f():\n    raise NotImplementedError\n"),
    (shape_caps.swallowed_exception, "proxy/a.py", handler("except Exception", "pass")),
    (shape_caps.swallowed_exception, "proxy/a.py", handler("except", "...")),
    (shape_caps.swallowed_exception, "proxy/a.py", handler("except (OSError, BaseException)", "pass")),
    (shape_caps.swallowed_exception, "proxy/a.py", "with contextlib.suppress(Exception):\n    f()\n"),
    (shape_caps.hidden_import, "proxy/a.py", "def f():\n    import os\n"),
    (shape_caps.hidden_import, "proxy/a.py", "def f():\n    from os import path  # lazy:\n"),
    (shape_caps.format_of_variable, "proxy/a.py", "text.format(x)\n"),
    (shape_caps.format_of_variable, "proxy/a.py", "f'{a}'.format(x)\n"),
    (shape_caps.composed_sql, "proxy/storage/a.py", "f'SELECT * FROM calls WHERE id = {id}'\n"),
    (shape_caps.composed_sql, "proxy/storage/a.py", "'DELETE FROM %s' % table\n"),
    (shape_caps.registry_host, "docs/a.md", "see files.python" + "hosted.org/packages\n"),
    (shape_caps.registry_host, "requirements.lock", "--index-url https://py" + "pi.org/simple\n"),
    (shape_caps.path_of_a_home, "bench/a.py", "path = '/ho" + "me/ada/models'\n"),
    (shape_caps.path_of_a_home, "docs/a.md", "look into /ro" + "ot/.cache\n"),
]

GOOD = [
    ("proxy/a.py", "x = 1\n" * 350),
    ("proxy/a.py", function(lines=50)),
    ("proxy/a.py", function(arguments="self, a, b, c, d, *, e, f")),
    ("proxy/a.py", function(arguments="cls, a, b, c, d, e, *f")),
    ("proxy/common_sense.py", ""),
    ("proxy/a.py", "todo = 'a todolist'\n"),
    ("proxy/a.py", handler("except OSError", "pass")),
    ("proxy/a.py", handler("except Exception as error", "report(error)")),
    ("proxy/a.py", "with contextlib.suppress(OSError):\n    f()\n"),
    ("proxy/a.py", "def f():\n    import xllamacpp  # lazy: an optional extra\n"),
    ("proxy/a.py", "def f():\n    # lazy: an optional extra\n    import xllamacpp\n"),
    ("proxy/a.py", "if TYPE_CHECKING:\n    import os\n"),
    ("proxy/a.py", "'{}'.format(x)\n"),
    ("proxy/storage/a.py", "f'{count} calls selected'\n"),
    ("proxy/storage/a.py", "'SELECT * FROM calls WHERE id = ?'\n"),
    ("proxy/a.py", "f'SELECT {x}'\n"),
    ("docs/a.md", "happy\x70i.organic, https://openai.com/home/page, {base}/home/x and ./home/y\n"),
    ("tests/utils.py", "x = 1  # TODO: rules of code are for proxy/ only\n"),
]


@pytest.mark.parametrize(
    ("rule", "path", "text"), BAD, ids=[f"{number}-{sample[0].__name__}" for number, sample in enumerate(BAD)]
)
def test_a_rule_fires_on_what_breaks_it(rule, path, text):
    """Only the one rule fires, and the finding names the file and a line."""
    file = File(PurePosixPath(path), text)
    found = list(findings(file))
    assert [line.split(": ", 1)[1] for line in found] == [message for _, message in rule(file)]
    assert len(found) == 1
    assert found[0].startswith(f"{path}:")


@pytest.mark.parametrize(("path", "text"), GOOD, ids=range(len(GOOD)))
def test_no_rule_fires_on_good_code(path, text):
    """What comes close to a rule without breaking it passes."""
    assert list(findings(File(PurePosixPath(path), text))) == []


def test_every_rule_has_a_bad_sample():
    """A rule without a sample could be dead."""
    assert {rule for rule, _, _ in BAD} == {*shape_caps.CODE_RULES, *shape_caps.TEXT_RULES}


def test_the_command_reads_what_would_be_committed(tmp_path):
    """Files that git ignores are not read; a file that is not text is skipped; a finding makes the exit code 1."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "proxy").mkdir()
    (tmp_path / ".gitignore").write_text("ignored.py\n")
    (tmp_path / "proxy" / "ignored.py").write_text("# TODO\n")
    (tmp_path / "weights.bin").write_bytes(b"\xff\xfe\x00")
    command = [sys.executable, str(SCRIPT), str(tmp_path)]
    assert subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode == 0

    (tmp_path / "proxy" / "new.py").write_text("x = 1\n# TODO\n")
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "proxy/new.py:2: TODO (finish it, or file an issue)\n")
