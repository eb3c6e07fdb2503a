"""`proxy import litellm`: what each part of a LiteLLM configuration becomes, and that nothing is dropped silently."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.cli.import_litellm import Imported, import_litellm
from proxy.cli.import_source import ACTION, CHANGED, LOST, NOTE
from proxy.config import Config, Source, configure
from proxy.config.problems import Problem
from proxy.config.tree import parse
from proxy.config.yaml_text import flow, yaml_lines
from tests.cli.commands import proxy

SECRET = "sk-0123456789abcdefghij"


def imported(*texts: str) -> Imported:
    """The file `c.yaml`, and those that it includes."""
    problems: list[Problem] = []
    trees = [parse(text.encode(), "c.yaml", problems, merge_keys=True) for text in texts]
    assert problems == []
    return import_litellm([tree for tree in trees if tree is not None])


def loaded(made: Imported, **environ: str) -> Config:
    """The new file as a server reads it. Raises ConfigError if it would not start."""
    return configure(Source("routing_rules.yaml", made.text("c.yaml").encode()), None, environ)


def models(*entries: str) -> str:
    """A `model_list` with these entries, each as `name: litellm_params`."""
    lines = ["model_list:"]
    for entry in entries:
        name, _, params = entry.partition(": ")
        lines.append(f"  - {{model_name: {name}, litellm_params: {{{params}}}}}")
    return "\n".join(lines) + "\n"


def told(made: Imported, kind: str) -> list[tuple[int, str, str]]:
    return [(each.line, each.path, each.message) for each in made.findings if each.kind == kind]


# --- deployments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "provider", "entry"),
    [
        ("model: openai/gpt-4o", "openai", {}),
        ("model: gpt-4o", "openai", {}),
        ("model: claude-sonnet-5", "anthropic", {}),
        ("model: anthropic/claude-sonnet-5, api_key: os.environ/MINE", "anthropic", {"api_key_env": "MINE"}),
        ("model: gemini/gemini-3.8-flash", "google", {}),
        ("model: cohere_chat/command-r", "cohere", {}),
        (
            "model: openrouter/a/b",
            "openrouter",
            {"type": "openai", "base_url": "https://openrouter.ai/api/v1", "api_key_env": "OPENROUTER_API_KEY"},
        ),
        (
            "model: openai/llama, api_base: 'http://10.1.2.3:8000/v1', api_key: none",
            "10.1.2.3-8000",
            {"type": "openai", "base_url": "http://10.1.2.3:8000/v1", "allow_private": True},
        ),
        (
            "model: ollama_chat/qwen3, api_base: 'http://gpu:11434'",
            "ollama",
            {"base_url": "http://gpu:11434", "allow_private": True},
        ),
        (
            "model: hosted_vllm/qwen, api_base: os.environ/VLLM_URL",
            "vllm",
            {"base_url_env": "VLLM_URL", "allow_private": True},
        ),
        (
            "model: azure/dep, api_base: 'https://r.openai.azure.com/', api_key: os.environ/AZ, "
            "api_version: '2024-10-21'",
            "azure-m",
            {
                "type": "openai",
                "base_url": "https://r.openai.azure.com/openai/deployments/dep?api-version=2024-10-21",
                "headers_env": {"api-key": "AZ"},
            },
        ),
        (
            "model: azure/dep, api_base: 'https://r.openai.azure.com', api_key: os.environ/AZ",
            "azure-m",
            {"type": "openai", "base_url": "https://r.openai.azure.com/openai/v1", "headers_env": {"api-key": "AZ"}},
        ),
        (
            "model: openai/x, timeout: 60, stream_timeout: 20, max_retries: 4, temperature: 0.2, rpm: 10, tpm: 500",
            "openai",
            {
                "timeout_s": {"first_token": 20, "idle": 20, "total": 60},
                "retries": 4,
                "parameters": {"temperature": 0.2},
                "limits": {"requests_per_minute": 10, "tokens_per_minute": 500},
            },
        ),
        (
            "model: openai/gpt-4o, extra_headers: {X-Team: blue, X-Trace: os.environ/TRACE}, extra_body: {top_k: 5}",
            "openai",
            {"headers": {"X-Team": "blue"}, "headers_env": {"X-Trace": "TRACE"}, "parameters": {"top_k": 5}},
        ),
        ("model: my/own, custom_llm_provider: groq", "groq", {}),
        ("model: openai/gpt-4o, api_base: 'https://api.openai.com/v1'", "openai", {}),
    ],
)
def test_a_deployment_becomes_a_provider_and_a_name(params: str, provider: str, entry: dict[str, Any]) -> None:
    """Vendor, address, key, limits and parameters."""
    made = imported(models(f"m: {params}"))
    assert made.routing["providers"] == {provider: entry}
    assert made.routing["models"]["m"]["use"].partition("/")[0] == provider
    assert told(made, LOST) == []
    loaded(made)


def test_deployments_of_one_name_are_drawn_by_weight() -> None:
    """By `weight`, else by `rpm`, else evenly; the others are fallbacks, `order` or not."""
    a, b = "model: groq/x", "model: mistral/y"
    drawn = imported(models(f"m: {a}, rpm: 10", f"m: {b}, rpm: 30")).routing["models"]["m"]
    assert drawn == {"weighted": {"groq/x": 10, "mistral/y": 30}, "fallback": ["groq/x", "mistral/y"]}
    weighed = imported(models(f"m: {a}, rpm: 10, weight: 2", f"m: {b}, rpm: 30, weight: 1")).routing["models"]["m"]
    assert weighed["weighted"] == {"groq/x": 2, "mistral/y": 1}
    assert imported(models(f"m: {a}", f"m: {b}")).routing["models"]["m"]["weighted"] == {"groq/x": 1, "mistral/y": 1}
    ordered = imported(models(f"m: {a}, order: 2", f"m: {b}, order: 1")).routing["models"]["m"]
    assert ordered == {"use": "mistral/y", "fallback": ["groq/x"]}


def test_deployments_that_differ_in_their_key_become_a_rotation() -> None:
    """One provider, both keys."""
    made = imported(models("m: model: groq/x, api_key: os.environ/A", "m: model: groq/x, api_key: os.environ/B"))
    assert made.routing["providers"] == {"groq": {"api_key_env": {"rotate": ["A", "B"]}}}
    assert made.routing["models"] == {"m": {"use": "groq/x"}}
    assert made.variables == ["A", "B"]


def test_parameters_of_one_model_make_two_providers() -> None:
    """The same model, cold and warm."""
    made = imported(models("cold: model: groq/x, temperature: 0", "warm: model: groq/x, temperature: 1"))
    uses = {name: entry["use"] for name, entry in made.routing["models"].items()}
    assert uses == {"cold": "groq/x", "warm": "groq-warm/x"}
    assert loaded(made).providers["groq-warm"].parameters == {"temperature": 1}


def test_a_name_that_is_a_provider_and_its_model_needs_no_entry() -> None:
    """An entry would refer to itself. With a fallback the provider gets another name."""
    plain = imported(models("openai/gpt-4o: model: openai/gpt-4o"))
    assert (list(plain.routing["providers"]), "models" in plain.routing) == (["openai"], False)
    text = models("openai/gpt-4o: model: openai/gpt-4o", "b: model: groq/x")
    made = imported(text + "router_settings: {fallbacks: [{openai/gpt-4o: [b]}]}\n")
    entry = made.routing["models"]["openai/gpt-4o"]
    assert entry == {"use": "openai-openai-gpt-4o/gpt-4o", "fallback": ["b"]}
    loaded(made)


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("m: model: bedrock/anthropic.claude-v2", "signed with AWS credentials"),
        ("m: model: vertex_ai/gemini-3.8-flash", "gemini/<model> with GEMINI_API_KEY"),
        ("m: model: gemini-3.8-flash", "Google Cloud access token"),
        ("m: model: nobody/knows", "is not known here"),
        ("m: model: knows", "its name tells none"),
        ("m: model: hosted_vllm/x", "needs an api_base"),
        ("m: model: os.environ/MODEL", "is read from MODEL"),
        ("m: model: openai/whisper-1", "has no endpoint"),
        ("m: model: azure/", "names no model_name"),
        ("auto: model: groq/x", "cannot be a name here"),
        ("'claude-*': model: groq/x", "one model for many names"),
    ],
)
def test_a_deployment_that_cannot_be_called_is_named(entry: str, why: str) -> None:
    """With its line; the rest is taken over."""
    made = imported(models("good: model: groq/x", entry))
    assert [(line, why in message) for line, _, message in told(made, LOST)] == [(3, True)]
    assert list(made.routing["models"]) == ["good"]
    loaded(made)


@pytest.mark.parametrize(("mode", "is_served"), [("embedding", True), ("rerank", True), ("image_generation", False)])
def test_the_mode_decides_whether_an_endpoint_serves_it(mode: str, is_served: bool) -> None:
    """Images, speech and moderation have none."""
    entry = f"  - {{model_name: m, litellm_params: {{model: cohere/x}}, model_info: {{mode: {mode}}}}}\n"
    assert ("models" in imported("model_list:\n" + entry).routing) == is_served


def test_an_unknown_vendor_with_an_address_is_taken_for_a_compatible_server() -> None:
    """And the finding says so."""
    made = imported(models("m: model: acme/x, api_base: 'https://acme.example.com/v1'"))
    assert made.routing["models"]["m"] == {"use": "acme.example.com/acme/x"}
    assert [message for _, _, message in told(made, CHANGED)] == [
        "acme/x is taken for a model of a server like OpenAI's"
    ]


def test_wildcards_become_providers() -> None:
    """`xai/*` keeps the names that clients send; other patterns are told how to call."""
    made = imported(models("'xai/*': model: 'xai/*'", "'gemini/*': model: 'gemini/*'", "'mine-*': model: 'groq/*'"))
    assert sorted(made.routing["providers"]) == ["gemini", "groq", "xai"]
    assert [message for _, _, message in told(made, CHANGED)] == [
        "mine-*: call it as groq/MODEL; an id that pricing.yaml lists also works bare"
    ]
    everything = imported(models("'*': model: '*'"))
    assert {"openai", "anthropic", "google", "groq"} <= set(everything.routing["providers"])
    loaded(everything)


# --- keys in plain text -----------------------------------------------------------------------------------------------


def test_a_key_in_plain_text_is_never_written() -> None:
    """It becomes a variable's name; the same key has one name, and a name that the file uses is not taken."""
    made = imported(
        models(
            f"a: model: openai/x, api_key: {SECRET}",
            f"b: model: openai/y, api_key: {SECRET}",
            f"c: model: openai/z, api_key: {SECRET}2",
            "d: model: openai/w, api_key: os.environ/OPENAI_API_KEY",
            f"e: model: openai/v, extra_headers: {{Authorization: Bearer {SECRET}}}",
            f"f: model: vllm_x/u, api_base: 'https://user:{SECRET}@h.example.com/v1'",
        )
        + f"general_settings: {{master_key: {SECRET}, database_url: 'postgresql://u:{SECRET}@h/d'}}\n"
        + f"environment_variables: {{OPENAI_API_KEY: {SECRET}}}\n"
    )
    assert SECRET not in made.text("c.yaml") + "".join(map(str, made.findings))
    keys = [entry.get("api_key_env") for entry in made.routing["providers"].values()]
    assert {"OPENAI_API_KEY_2", "OPENAI_API_KEY_3"} <= set(keys)
    said = [message for _, _, message in told(made, ACTION)]
    assert "a key in plain text is not copied; set OPENAI_API_KEY_2 to it" in said
    assert said[-1] == "values are not copied; set these in the environment: OPENAI_API_KEY"
    loaded(made)


# --- settings ---------------------------------------------------------------------------------------------------------

THREE = models("a: model: groq/x", "b: model: mistral/y", "c: model: cohere/z")


def test_fallbacks_of_each_kind() -> None:
    """For all errors, for a context that is too small, for filtered content; those of all models come last."""
    made = imported(
        THREE
        + "litellm_settings: {context_window_fallbacks: [{a: [c]}], default_fallbacks: [c]}\n"
        + "router_settings: {fallbacks: [{a: [b]}], content_policy_fallbacks: [{a: [b, c]}]}\n"
    )
    assert made.routing["models"] == {
        "a": {"use": "groq/x", "fallback": ["b", "c"], "context_fallback": ["c"], "content_fallback": ["b", "c"]},
        "b": {"use": "mistral/y", "fallback": ["c"]},
        "c": {"use": "cohere/z"},
    }
    loaded(made)


def test_fallbacks_in_a_circle_are_written_out() -> None:
    """Here a circle of names is an error."""
    made = imported(THREE + "router_settings: {fallbacks: [{a: [b]}, {b: [c, a]}, {c: [a]}]}\n")
    fallbacks = {name: entry["fallback"] for name, entry in made.routing["models"].items()}
    assert fallbacks == {"a": ["b"], "b": ["c", "groq/x"], "c": ["groq/x"]}
    loaded(made)


def test_a_fallback_that_is_no_model_is_lost() -> None:
    """And so are the fallbacks of what is no model."""
    made = imported(THREE + "router_settings: {fallbacks: [{a: [zz]}, {zz: [a]}]}\n")
    assert [message for _, _, message in told(made, LOST)] == [
        "zz is no model here, so it is no fallback of a",
        "zz is no model here, so its fallbacks are left out",
    ]


def test_settings_of_the_router() -> None:
    """Retries, time limits, the breaker, aliases."""
    made = imported(
        THREE
        + "router_settings: {num_retries: 2, timeout: 30, stream_timeout: 5, allowed_fails: 4, cooldown_time: 60,\n"
        + "  retry_after: 3, model_group_alias: {fast: a, hidden: {model: b, hidden: true}, gone: zz},\n"
        + "  routing_strategy: least-busy, redis_host: r}\n"
    )
    config = loaded(made)
    assert config.aliases == {"fast": "a", "hidden": "b"}
    assert (config.router.max_retries, config.router.retry_delay_s) == (2, 3)
    assert (config.router.breaker.failures, config.router.breaker.open_s) == (4, 60)
    times = config.providers["groq"].timeout_s
    assert (config.providers["groq"].retries, times.total, times.first_token, times.idle) == (2, 30, 5, 5)
    assert [path for _, path, _ in told(made, CHANGED)] == ["router_settings.routing_strategy"]
    assert [path for _, path, _ in told(made, NOTE)] == ["router_settings.redis_host"]


def test_budgets_caches_and_limits() -> None:
    """Of everything, of a provider and of a model."""
    made = imported(
        models("a: model: groq/x, max_budget: 5, budget_duration: 1d", "b: model: mistral/y")
        + "litellm_settings: {max_budget: 100, budget_duration: 30d, cache: true, cache_params: {ttl: 90}}\n"
        + "router_settings: {provider_budget_config: {groq: {budget_limit: 1, time_period: 7d}}}\n"
        + "general_settings: {global_max_parallel_requests: 50, max_parallel_requests: 4}\n"
    )
    config = loaded(made)
    assert config.budget is not None and config.rate_limits is not None
    assert (config.budget.monthly_usd, config.budget.unknown_price) == (100, "allow")
    assert config.budget.per_model["a"].daily_usd == 5
    assert config.budget.per_provider["groq"].weekly_usd == 1
    assert {entry.cache_s for entry in config.models.values()} == {90}
    assert config.rate_limits.everyone.concurrent == 50
    assert config.providers["groq"].max_concurrent == 4


def test_a_master_key_closes_the_server() -> None:
    """And the key has to be set anew."""
    made = imported(THREE + "general_settings: {master_key: os.environ/LITELLM_MASTER_KEY}\n")
    assert loaded(made).server.require_key is True
    assert [message for _, _, message in told(made, ACTION)] == [
        "set PROXY_ADMIN_KEY to the value of LITELLM_MASTER_KEY, at least 16 characters"
    ]


def test_prices_and_sizes_become_rows() -> None:
    """Per million tokens, whichever of the two places they stand in."""
    made = imported(
        "model_list:\n"
        "  - model_name: m\n"
        "    litellm_params: {model: groq/x, input_cost_per_token: 0.0000015, output_cost_per_token: 2.0e-6}\n"
        "    model_info: {cache_read_input_token_cost: 1e-7, input_cost_per_token_above_200k_tokens: 0.000003,\n"
        "      max_input_tokens: 1000, max_tokens: 200, input_cost_per_second: 1}\n"
    )
    tiers = [{"above_input_tokens": 200_000, "input": 3.0}]
    row = {"input": 1.5, "output": 2.0, "cached_input": 0.1, "tiers": tiers, "context": 1000, "max_output": 200}
    assert made.rows == {"groq/x": row}
    assert [path for _, path, _ in told(made, LOST)] == ["model_list.0.model_info.input_cost_per_second"]


def test_a_price_per_million_is_noticed() -> None:
    """It would be a million times too dear."""
    made = imported(models("m: model: groq/x, input_cost_per_token: 2.5"))
    assert (made.rows, [message for _, _, message in told(made, LOST)]) == (
        {},
        ["is more than any price per token; is it one per million?"],
    )


def test_credentials_anchors_merges_and_included_files() -> None:
    """As PyYAML and LiteLLM read them."""
    made = imported(
        "include: [more.yaml]\n"
        "credential_list: [{credential_name: k, credential_values: {api_key: os.environ/SHARED}}]\n"
        "model_list:\n"
        "  - {model_name: a, litellm_params: &base {model: groq/x, litellm_credential_name: k, temperature: 0.5}}\n"
        "  - {model_name: b, litellm_params: {<<: *base, model: groq/y}}\n",
        models("c: model: groq/z") + "litellm_settings: {drop_params: yes}\n",
    )
    config = loaded(made)
    assert list(config.models) == ["a", "b", "c"]
    shared = config.providers["groq-a"] if "groq-a" in config.providers else config.providers["groq"]
    assert (shared.api_key_env, shared.parameters) == ("SHARED", {"temperature": 0.5})


EVERYTHING = """
guardrails: []
surprise: 1
model_list:
  - model_name: a
    extra: 1
    litellm_params: {model: groq/x, aws_region_name: eu, tags: [x]}
    model_info: {team_id: t}
router_settings: {retry_policy: {}, routing_group: x}
litellm_settings: {callbacks: [langfuse, prometheus], drop_params: true, other: 1}
general_settings: {enable_jwt_auth: true}
"""


def test_no_key_is_dropped_silently() -> None:
    """Every key of this file that we do not know is a finding with its own line."""
    made = imported(EVERYTHING)
    assert [(line, path) for line, path, _ in told(made, LOST)] == [
        (2, "guardrails"),
        (3, "surprise"),
        (6, "model_list.0.extra"),
        (7, "model_list.0.litellm_params.aws_region_name"),
        (7, "model_list.0.litellm_params.tags"),
        (8, "model_list.0.model_info.team_id"),
        (9, "router_settings.retry_policy"),
        (9, "router_settings.routing_group"),
        (10, "litellm_settings.callbacks"),
        (10, "litellm_settings.other"),
        (11, "general_settings.enable_jwt_auth"),
    ]
    assert [(line, path) for line, path, _ in told(made, NOTE)] == [
        (10, "litellm_settings.callbacks"),
        (10, "litellm_settings.drop_params"),
    ]


ODD = [
    "null",
    "true",
    "-1",
    "1.0e+400",
    "''",
    "[]",
    "[a, null]",
    "{a: {b: [1]}}",
    "'*'",
    "'os.environ/X'",
    "'a/'",
    "1000000000",
    '"\\0"',
    ".nan",
]


@pytest.mark.parametrize("odd", ODD)
def test_odd_values_never_break_the_import(odd: str) -> None:
    """Wherever they stand, the new file loads."""
    keys = {
        "litellm_params": "api_base api_key timeout rpm order extra_headers extra_body stop max_budget",
        "model_info": "mode input_cost_per_token max_tokens",
        "router_settings": "fallbacks num_retries model_group_alias provider_budget_config cooldown_time timeout",
        "litellm_settings": "callbacks cache cache_params max_budget default_fallbacks",
        "general_settings": "master_key max_parallel_requests global_max_parallel_requests",
    }
    loaded(imported(models(f"m: model: {odd}")))
    loaded(imported(models(f"m: model: groq/x, extra_headers: {{X-A: {odd}}}")))
    ttl = imported(f"{THREE}litellm_settings: {{cache: true, cache_params: {{ttl: {odd}}}}}\n")
    loaded(ttl)
    for section, names in keys.items():
        values = ", ".join(f"{name}: {odd}" for name in names.split())
        if section.startswith(("litellm_params", "model_info")):
            params = {"litellm_params": "model: groq/x", "model_info": "id: a"}
            params[section] += f", {values}"
            entry = ", ".join(f"{key}: {{{params[key]}}}" for key in params)
            loaded(imported(f"model_list: [{{model_name: m, {entry}}}]\n"))
        else:
            loaded(imported(f"{THREE}{section}: {{{values}}}\n"))


# --- the command ------------------------------------------------------------------------------------------------------

SMALL = models(f"a: model: groq/openai/gpt-oss-20b, api_key: {SECRET}, input_cost_per_token: 0.000001, tags: [x]")


def test_the_command_writes_files_that_pass_the_check(tmp_path):
    """Prices of a known model are changed in place, and the rest of the shipped list stays."""
    (tmp_path / "config.yaml").write_text(SMALL)
    done = proxy("import", "litellm", "config.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "wrote routing_rules.yaml\nwrote pricing.yaml\n1 provider, 1 model; 1 lost, 1 to do\n" in done.stdout
    assert done.stdout.endswith("\nnext:\n  proxy check\n")
    assert "config.yaml:2:70: to do: model_list.0.litellm_params.api_key: a key in plain text" in done.stderr
    assert SECRET not in done.stdout + done.stderr + (tmp_path / "routing_rules.yaml").read_text()
    checked = proxy("check", cwd=tmp_path, GROQ_API_KEY="any")
    assert (checked.returncode, "0 errors, 0 warnings; on: groq" in checked.stdout) == (0, True), checked
    assert "groq/openai/gpt-oss-20b:" in (tmp_path / "pricing.yaml").read_text()


@pytest.mark.slow
def test_the_command_tells_machines_and_never_overwrites(tmp_path):
    """`--json` has all of it; `--strict` fails where something is lost."""
    (tmp_path / "config.yaml").write_text(SMALL)
    done = proxy("import", "litellm", "config.yaml", "--dir", "new", "--json", "--strict", cwd=tmp_path)
    report = json.loads(done.stdout)
    assert (done.returncode, report["counts"], report["problems"]) == (
        1,
        {"lost": 1, "to do": 1, "changed": 0, "note": 0},
        [],
    )
    assert report["written"] == ["new/routing_rules.yaml", "new/pricing.yaml"]
    assert report["variables"] == ["GROQ_API_KEY"]
    assert {"file", "line", "column", "path", "kind", "message"} == set(report["findings"][0])
    again = proxy("import", "litellm", "config.yaml", "--dir", "new", cwd=tmp_path)
    assert (again.returncode, again.stdout, "--force" in again.stderr) == (2, "", True)
    forced = proxy("import", "litellm", "config.yaml", "--dir", "new", "--force", cwd=tmp_path)
    assert forced.returncode == 0


def test_included_files_are_read_from_beside_the_file(tmp_path):
    """A finding names the file it is about."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "config.yaml").write_text("include: [more.yaml, config.yaml]\n")
    (tmp_path / "in" / "more.yaml").write_text(models("a: model: groq/x, tags: [x]"))
    done = proxy("import", "litellm", "in/config.yaml", cwd=tmp_path)
    assert (done.returncode, "in/more.yaml:2:" in done.stderr) == (0, True), done


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "no such file"),
        ("", "the file is empty\n"),
        ("a: [", "not valid YAML"),
        ("include: [gone.yaml]", "gone.yaml: no such file"),
        ("- a", "expected keys and values"),
    ],
)
def test_a_file_that_cannot_be_read_is_said_in_one_line(tmp_path, text, why):
    """Nothing is written."""
    if text is not None:
        (tmp_path / "config.yaml").write_text(text)
    done = proxy("import", "litellm", "config.yaml", "--dir", "new", cwd=tmp_path)
    assert (done.returncode, done.stdout, why in done.stderr) == (2, "", True), done.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ("a b", '"a b"'),
        ("true", '"true"'),
        ("no", '"no"'),
        ("1", '"1"'),
        ("", '""'),
        ("é:\n", '"\\u00e9:\\n"'),
        ([1, {"a": None}], "[1, {a: null}]"),
        (2.0, "2"),
    ],
)
def test_values_are_written_so_that_they_are_read_back(value, text):
    """Quotes only where they are needed."""
    assert flow(value) == text
    problems: list[Problem] = []
    tree = parse(yaml_lines({"key": value}).encode(), "f", problems)
    assert (tree is not None, problems) == (True, [])
