"""`proxy setup`: the lines for each client, and that its file keeps everything else."""

from __future__ import annotations

import json
import os
import tomllib

import pytest

from proxy.cli.setup_clients import CLIENTS
from proxy.cli.setup_files import NotEditable, edited, read_values
from tests.cli.commands import proxy

ADDRESS = "http://127.0.0.1:8000/v1"
FILES = {
    "claude-code": ".claude/settings.json",
    "codex": ".codex/config.toml",
    "opencode": ".config/opencode/opencode.json",
    "aider": ".aider.conf.yml",
}


def setup(home, client, *arguments, **variables):
    """Runs the command with `home` as the home folder, and the folder of the call."""
    if "--base-url" not in arguments and not (home / "routing_rules.yaml").exists():
        arguments = (*arguments, "--base-url", ADDRESS)  # spares reading the shipped files
    plain = {"HOME": str(home), "XDG_CONFIG_HOME": "", "CODEX_HOME": "", "CLAUDE_CONFIG_DIR": ""}
    return proxy("setup", client, *arguments, cwd=home, **{**plain, **variables})


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("key", [(), ("--api-key-env", "MY_KEY")], ids=["open", "key"])
@pytest.mark.sampled(4)
def test_each_client_gets_its_lines(tmp_path, client, key):
    """The address, the model, and the variable of the key, never its value. Nothing is written."""
    done = setup(tmp_path, client, "-m", "groq/fast", *key, "--json", MY_KEY="sk-secretsecretsecret")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    text = told["lines"] + "".join(told["commands"])
    assert ("http://127.0.0.1:8000" in text, "groq/fast" in text or client == "open-webui") == (True, True)
    assert "secret" not in done.stdout
    assert ("MY_KEY" in done.stdout) == bool(key)
    assert (told["written"], told["backup"], list(tmp_path.iterdir())) == (False, None, [])


def test_claude_code(tmp_path):
    """The address without /v1; a key comes from a helper, which a token in the file would override."""
    open_ = json.loads(setup(tmp_path, "claude-code").stdout)
    assert open_ == {"env": {"ANTHROPIC_BASE_URL": "http://127.0.0.1:8000", "ANTHROPIC_AUTH_TOKEN": "any"}}
    keyed = json.loads(setup(tmp_path, "claude-code", "--api-key-env", "MY_KEY", "-m", "smart").stdout)
    assert keyed["apiKeyHelper"] == "printenv MY_KEY"
    assert "ANTHROPIC_AUTH_TOKEN" not in keyed["env"]
    assert {value for name, value in keyed["env"].items() if name.endswith("MODEL")} == {"smart"}


def test_codex(tmp_path):
    """Its only wire format is the Responses API."""
    found = tomllib.loads(setup(tmp_path, "codex", "--api-key-env", "MY_KEY").stdout)
    assert (found["model"], found["model_provider"]) == ("auto", "multi-model-proxy")
    assert found["model_providers"]["multi-model-proxy"] == {
        "name": "multi-model-proxy",
        "base_url": ADDRESS,
        "wire_api": "responses",
        "env_key": "MY_KEY",
    }


def test_opencode(tmp_path):
    """In the shape that both of its versions read; in version 2's own where the file has that."""
    found = json.loads(setup(tmp_path, "opencode").stdout)
    assert found["model"] == "multi-model-proxy/auto"
    provider = found["provider"]["multi-model-proxy"]
    assert (provider["npm"], provider["options"]["baseURL"]) == ("@ai-sdk/openai-compatible", ADDRESS)
    file = tmp_path / FILES["opencode"]
    file.parent.mkdir(parents=True)
    file.write_text('{"providers": {"mine": {"package": "x"}}}')
    assert setup(tmp_path, "opencode", "--write", "--api-key-env", "MY_KEY").returncode == 0
    written = json.loads(file.read_text())
    assert ("provider" in written, written["providers"]["mine"]) == (False, {"package": "x"})
    native = written["providers"]["multi-model-proxy"]
    assert (native["package"], native["settings"]) == ("aisdk:@ai-sdk/openai-compatible", {"baseURL": ADDRESS})
    assert native["env"] == ["MY_KEY"]


def test_cline_has_a_command_instead_of_a_file(tmp_path):
    """The command line and the editor both keep what it sets."""
    done = setup(tmp_path, "cline", "--api-key-env", "MY_KEY")
    assert done.stdout == f'cline auth -p openai -k "$MY_KEY" -b {ADDRESS} -m auto\n'
    assert f"Base URL {ADDRESS}" in done.stderr
    refused = setup(tmp_path, "cline", "--write")
    assert (refused.returncode, refused.stdout, "cline auth" in refused.stderr) == (2, "", True)


def test_the_address_is_the_configured_one(tmp_path):
    """Or the one that is given, with /v1 or without."""
    (tmp_path / "routing_rules.yaml").write_text(
        "version: 1\nproviders: {groq: {}}\nserver: {host: '::1', port: 9000}\n"
    )
    assert "http://[::1]:9000/v1" in setup(tmp_path, "codex").stdout
    for given in ("https://llm.example.com", "https://llm.example.com/v1", "https://llm.example.com/v1/"):
        assert '"https://llm.example.com/v1"' in setup(tmp_path, "codex", "--base-url", given).stdout


@pytest.mark.parametrize("client", FILES)
def test_writing_twice_changes_nothing_more(tmp_path, client):
    """And makes no second backup."""
    assert setup(tmp_path, client, "--write").stdout == f"wrote {tmp_path / FILES[client]}\n"
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert setup(tmp_path, client, "--write").stdout == f"{tmp_path / FILES[client]} is as it should be\n"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


OTHERS = {
    "claude-code": '{\n\t"permissions": {"allow": ["Bash(ls)"]},\n\t"env": {"FOO": "é"}\n}\n',
    "codex": '# mine\nmodel = "gpt-5"  \napproval_policy = "on-request"\n\n[mcp_servers.x]\ncommand = "y"\n',
    "opencode": '{"theme": "dark", "provider": {"other": {"npm": "z"}}}',
    "aider": "# mine\nmodel: sonnet\nread:\n  - CONVENTIONS.md\n",
}


@pytest.mark.parametrize("client", FILES)
def test_what_else_is_in_the_file_stays(tmp_path, client):
    """With its mode; the file before is the backup, and an earlier backup stays too."""
    file = tmp_path / FILES[client]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(OTHERS[client])
    file.chmod(0o600)
    form = {"json": "json", "toml": "toml"}.get(file.suffix[1:], "yaml")
    done = setup(tmp_path, client, "--write", "--json")
    told = json.loads(done.stdout)
    assert (told["written"], told["backup"]) == (True, f"{file}.bak")
    assert (file.with_name(f"{file.name}.bak").read_text(), file.stat().st_mode & 0o777) == (OTHERS[client], 0o600)
    before, after = read_values(OTHERS[client], form), read_values(file.read_text(), form)
    assert {key: after[key] for key in before if key not in ("model", "env", "provider")} == {
        key: value for key, value in before.items() if key not in ("model", "env", "provider")
    }
    assert "127.0.0.1:8000" in file.read_text()
    for line in OTHERS[client].splitlines():
        assert line in file.read_text().splitlines() or client in ("claude-code", "opencode") or "model" in line
    assert after.get("env", {}).get("FOO", "é") == "é"
    assert after.get("provider", {}).get("other", {"npm": "z"}) == {"npm": "z"}
    assert setup(tmp_path, client, "--write", "-m", "other").returncode == 0
    assert file.with_name(f"{file.name}.bak-2").is_file()


def test_open_webui_reads_an_environment_file(tmp_path):
    """In the folder of the call; `--file` selects another."""
    (tmp_path / "my.env").write_text("A=1\nexport OPENAI_API_KEY=old\n")
    assert setup(tmp_path, "open-webui", "--write", "--file", "my.env", "--api-key-env", "MY_KEY").returncode == 0
    assert (tmp_path / "my.env").read_text() == f"A=1\nOPENAI_API_KEY=${{MY_KEY}}\nOPENAI_API_BASE_URL={ADDRESS}\n"


@pytest.mark.parametrize(
    ("client", "text", "why"),
    [
        ("claude-code", '{"a": 1,}', "is not valid JSON"),
        ("claude-code", '{\n  // mine\n  "a": 1\n}', "has comments, which this command would lose"),
        ("claude-code", "[]", "does not hold keys and values"),
        ("claude-code", '{"env": "x"}', "has a env that does not hold keys and values"),
        ("codex", "a = ", "is not valid TOML"),
        ("codex", 'model_providers = {x = {name = "y"}}\n', "cannot be edited safely"),
        ("codex", 'model = """\nx"""\n', "cannot be edited safely"),
        ("aider", "a: [", "is not valid YAML"),
        ("aider", "model:\n  - x\n", "cannot be edited safely"),
    ],
)
@pytest.mark.sampled(4)
def test_a_file_that_cannot_be_edited_is_left_alone(tmp_path, client, text, why):
    """One line says why and what to do; there is no backup either."""
    file = tmp_path / FILES[client]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    done = setup(tmp_path, client, "--write")
    assert (done.returncode, done.stdout, why in done.stderr) == (2, "", True), done.stderr
    assert "Add the lines by hand" in done.stderr
    assert [path.read_text() for path in file.parent.iterdir() if path.is_file()] == [text]
    assert setup(tmp_path, client).returncode == 0


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    """The folder is a file."""
    (tmp_path / ".codex").write_text("")
    done = setup(tmp_path, "codex", "--write")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--api-key-env", "sk-not-a-variable"),
        ("--base-url", "llm.example.com"),
        ("--base-url", 'http://h/"'),
        ("-m", "a b"),
        ("-m", "$(id)"),
    ],
)
def test_bad_options_are_refused(tmp_path, arguments):
    """They end up in other programs' files and in commands."""
    done = setup(tmp_path, "cline", *arguments)
    assert (done.returncode, done.stdout, done.stderr.startswith("proxy: --")) == (2, "", True)


def test_the_clients_own_variables_name_the_folder(tmp_path):
    """As the clients read them."""
    places = {"CODEX_HOME": "codex", "CLAUDE_CONFIG_DIR": "claude-code", "XDG_CONFIG_HOME": "opencode"}
    for variable, client in places.items():
        told = json.loads(setup(tmp_path, client, "--json", **{variable: str(tmp_path / "there")}).stdout)
        assert told["file"].startswith(f"{tmp_path / 'there'}{os.sep}")


def test_line_ends_stay(tmp_path):
    """Of a file that a Windows editor wrote."""
    file = tmp_path / FILES["codex"]
    file.parent.mkdir(parents=True)
    file.write_bytes(b'approval_policy = "never"\r\n')
    assert setup(tmp_path, "codex", "--write").returncode == 0
    assert b"\n" not in file.read_bytes().replace(b"\r\n", b"")


def test_a_value_of_another_kind_is_not_lost():
    """Nested values are only put into what can hold them."""
    with pytest.raises(NotEditable):
        edited('{"provider": []}', {"provider": {"a": 1}}, "json")
