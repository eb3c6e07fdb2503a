"""Every kind of mistake has one clear line, at the place where it was made."""

from __future__ import annotations

import pytest

from tests.config.files import lines_of

HEAD = "version: 1\nproviders: {openai: {}, groq: {}}\n"

# what is wrong, routing_rules.yaml, the lines after `routing_rules.yaml`
MISTAKES: list[tuple[str, str | bytes, list[str]]] = [
    # the file itself
    ("empty file", "# nothing yet\n", [": the file is empty; it starts with `version: 1`"]),
    ("no mapping", "- a\n", [":1:1: expected keys and values at the top level"]),
    ("not UTF-8", b"version: 1\nserver: {host: \xff}\n", [":2:16: not UTF-8; save the file as UTF-8"]),
    ("UTF-16", "version: 1".encode("utf-16"), [":1:1: not UTF-8; save the file as UTF-8"]),
    ("10 MB", b"#" * 10_000_000, [": larger than 1 MB"]),
    ("a tab", "version: 1\nserver:\n\tport: 1\n", [":3:1: a tab; YAML is indented with spaces"]),
    ("a tab after blanks", "server:\n  port: 1\n  \thost: x\n", [":3:3: a tab; YAML is indented with spaces"]),
    ("a control character", "version: 1\na: \x07\n", [":2:4: the control character U+0007 is not allowed"]),
    (
        "an open bracket",
        "version: 1\naliases: {a: b\nkeys: {}\n",
        [":3:5: not valid YAML: expected ',' or '}', but got ':' (while parsing a flow mapping that starts in line 2)"],
    ),
    ("a bad escape", 'version: 1\na: "\\U00110000"\n', [":2:5: an escape beyond U+10FFFF"]),
    ("half a surrogate", 'version: 1\na: "\\ud800"\n', [":2:4: half a surrogate pair is not text"]),
    ("two documents", "version: 1\n---\nversion: 1\n", [":2:1: a second document starts here; a file holds one"]),
    ("too deep", "a: " + "[" * 33, [":1:35: nested deeper than 32 levels"]),
    ("an alias inside itself", "a: &a [*a]\n", [":1:8: an alias stands inside what it names"]),
    ("an unknown alias", "a: *a\n", [":1:4: an alias without an anchor of that name before it"]),
    ("a tag", HEAD + "aliases: !!python/object/apply:os.system {a: gpt-6-sol}\n",
     [":3:10: aliases: tags (`!...`) are not allowed; write plain YAML"]),
    ("a merge key", HEAD + "server:\n  <<: {port: 1}\n",
     [":4:3: server.<<: merge keys (`<<`) are not part of YAML 1.2; write the keys out"]),
    ("a key that is a list", HEAD + "aliases: {[a]: b}\n", [":3:11: aliases.?: a key must be plain text"]),
    ("a key given twice", HEAD + "server:\n  port: 1\n  host: a\n  port: 2\n",
     [":6:3: server.port: given twice, first in line 4"]),
    # keys
    ("no version", "providers: {}\n", [":1:1: version: is missing"]),
    ("another version", "version: 2\nproviders: {}\n", [":1:10: version: must be 1"]),
    ("version as text", 'version: "1"\nproviders: {}\n', [":1:10: version: expected a whole number, got text"]),
    ("no providers", "version: 1\n", [":1:1: providers: is missing"]),
    ("an unknown section", HEAD + "sever: {}\n", [':3:1: sever: unknown key; did you mean "server"?']),
    ("an unknown key", HEAD + "server:\n  prot: 1\n", [':4:3: server.prot: unknown key; did you mean "port"?']),
    ("an unknown key, nothing near", HEAD + "router: {zzz: 1}\n",
     [":3:10: router.zzz: unknown key; known: default_model, fallback"]),
    ("a later section", HEAD + "rules: []\n",
     [":3:1: rules: not supported by this version; it belongs to a later one"]),
    ("a later key", HEAD + "router: {strategy: x}\n",
     [":3:10: router.strategy: not supported by this version; it belongs to a later one"]),
    # values
    ("text for a number", HEAD + "server: {port: http}\n", [":3:16: server.port: expected a whole number, got text"]),
    ("a real for a whole number", HEAD + "server: {port: 80.5}\n",
     [":3:16: server.port: expected a whole number, got the number 80.5"]),
    ("a number for text", HEAD + "server: {host: 1.5}\n",
     [":3:16: server.host: expected text, got the number 1.5; put it in quotes"]),
    ("true for text", HEAD + "storage: {url: true}\n",
     [":3:16: storage.url: expected text, got true; put it in quotes"]),
    ("nothing for a number", HEAD + "server:\n  port:\n", [":4:3: server.port: expected a whole number, got nothing"]),
    ("text for a list", HEAD + "server: {cors_origins: a}\n",
     [":3:24: server.cors_origins: expected a list, got text"]),
    ("a list for a mapping", HEAD + "server: [a]\n", [":3:9: server: expected keys and values, got a list"]),
    ("a mapping for text", HEAD + "aliases: {a: {b: c}}\n", [":3:14: aliases.a: expected text, got keys and values"]),
    ("yes for true", HEAD + "keys: {app: {store_text: yes}}\n",
     [':3:26: keys.app.store_text: expected true or false, got text ("yes" is plain text in YAML 1.2)']),
    ("out of range", HEAD + "server: {port: 70000}\n", [":3:16: server.port: must be from 0 to 65535"]),
    ("too small", HEAD + "server: {workers: 0}\n", [":3:19: server.workers: must be at least 1"]),
    ("not positive", "version: 1\nproviders:\n  openai:\n    timeout_s: {idle: 0}\n",
     [":4:23: providers.openai.timeout_s.idle: must be greater than 0"]),
    ("infinite", HEAD + "server: {grace_s: .inf}\n", [":3:19: server.grace_s: must be a finite number"]),
    ("a huge number", HEAD + "storage: {keep_days: 99999999999999999999}\n",
     [":3:22: storage.keep_days: too large a number"]),
    ("not one of", HEAD + "storage: {durability: powr}\n",
     [':3:23: storage.durability: must be process or power; did you mean "power"?']),
    ("another database", HEAD + "storage: {url: 'postgresql://u:secret@h/db'}\n",
     [":3:16: storage.url: must be sqlite:///FILE; other databases are not supported by this version"]),
    ("a bad time zone", HEAD + "budget: {timezone: Europe/Berln}\n",
     [':3:20: budget.timezone: no such time zone; use a name like Europe/Berlin or UTC'
      '; did you mean "Europe/Berlin"?']),
    ("a bad day", HEAD + "keys: {app: {expires: 2027-02-30}}\n",
     [":3:23: keys.app.expires: must be a day that exists, like 2026-11-22"]),
    ("a share out of range, in a list", HEAD + "budget: {alert_at: [0.5, 80]}\n",
     [":3:26: budget.alert_at.1: must be from 0 to 1"]),
    # providers
    ("an unknown provider", "version: 1\nproviders:\n  grok: {}\n",
     [':3:3: providers.grok: no type is called "grok"; name one with `type:`; did you mean "groq"?']),
    ("an unknown provider with nothing", "version: 1\nproviders:\n  zzz:\n",
     [':3:3: providers.zzz: no type is called "zzz"; name one with `type:`; known: openai, groq, ollama, bare, picky,'
      " embedded, anthropic, google, cohere, perplexity"]),
    ("a type that is no text", "version: 1\nproviders:\n  mine: {type: [openai]}\n",
     [":3:16: providers.mine.type: expected text, the provider's type"]),
    ("an empty address", "version: 1\nproviders:\n  openai: {base_url: ''}\n",
     [":3:22: providers.openai.base_url: must not be empty"]),
    ("an unknown type", "version: 1\nproviders:\n  mine: {type: opnai}\n",
     [':3:16: providers.mine.type: unknown type "opnai"; did you mean "openai"?']),
    ("a bad provider name", "version: 1\nproviders:\n  My AI: {type: openai}\n",
     [":3:3: providers.My AI: a provider's name is made of a-z, 0-9, `.`, `_` and `-`, and is not auto or ensemble"]),
    ("an unknown key of a provider", "version: 1\nproviders:\n  openai:\n    time_out_s: {}\n",
     [':4:5: providers.openai.time_out_s: unknown key; did you mean "timeout_s"?']),
    ("an unknown key of a planned provider", "version: 1\nproviders:\n  anthropic: {retrys: 1}\n",
     [':3:15: providers.anthropic.retrys: unknown key; did you mean "retries"?']),
    ("a vendor's own rule", "version: 1\nproviders:\n  picky: {flavour: sour}\n",
     [":3:3: providers.picky: nobody likes it sour"]),
    ("no address", "version: 1\nproviders:\n  bare: {}\n",
     [":3:3: providers.bare: base_url is missing; type bare has no default"]),
    ("a private address", "version: 1\nproviders:\n  openai: {base_url: 'http://127.1/v1'}\n",
     [":3:22: providers.openai.base_url: an address inside your own network;"
      " add allow_private: true if that is meant"]),
    ("a metadata address",
     "version: 1\nproviders:\n  ollama: {allow_private: true, base_url: 'http://169.254.169.254'}\n",
     [":3:43: providers.ollama.base_url: a link-local or metadata address is never allowed"]),
    ("a variable that is none", "version: 1\nproviders:\n  openai: {api_key_env: [OK, not-one]}\n",
     [":3:30: providers.openai.api_key_env.1: must be the name of an environment variable,"
      " like GROQ_API_KEY, not its value"]),
    ("a connection header", "version: 1\nproviders:\n  openai: {headers: {Host: a}}\n",
     [":3:28: providers.openai.headers.Host: this header belongs to the connection and cannot be set"]),
    # names
    ("an unknown name", HEAD + "router: {default_model: gpt-6-lunar}\n",
     [':3:25: router.default_model: unknown model "gpt-6-lunar"; did you mean "gpt-6-luna"?']),
    ("an unknown name, nothing near", HEAD + "aliases: {a: zzz}\n",
     [':3:14: aliases.a: unknown model "zzz"; use a name under models: or aliases:, or provider/model']),
    ("an unknown provider in a name", HEAD + "router:\n  fallback: [opnai/gpt-6]\n",
     [':4:14: router.fallback.0: unknown provider "opnai"; did you mean "openai"?']),
    ("an ambiguous id", HEAD + "models: {a: shared}\n",
     [':3:13: models.a: several providers have "shared"; say which: openai/shared or groq/shared']),
    ("an unknown route", HEAD + "aliases: {a: 'auto:reasonin'}\n",
     [':3:14: aliases.a: unknown route "auto:reasonin"; did you mean "auto:reasoning"?']),
    ("a route inside a model", HEAD + "models: {a: auto}\n",
     [':3:13: models.a: "auto" picks a model itself and cannot be one of them']),
    ("an ensemble", HEAD + "aliases: {a: 'ensemble:voting'}\n",
     [":3:14: aliases.a: ensembles are not supported by this version; they belong to a later one"]),
    ("a role that is not set", HEAD + "aliases: {a: groq/fast}\n",
     [':3:14: aliases.a: providers.groq.models has no "fast"']),
    ("a circle", HEAD + "models:\n  a: {use: gpt-6-sol, fallback: [b]}\n  b: c\naliases: {c: a}\n",
     [":6:14: aliases.c: goes round in circles: a -> b -> c -> a"]),
    ("an alias of itself", HEAD + "aliases: {a: a}\n", [":3:14: aliases.a: goes round in circles: a -> a"]),
    ("a name given twice", HEAD + "models: {a: gpt-6-sol}\naliases: {a: gpt-6-sol}\n",
     [":4:14: aliases.a: is also a name under models:"]),
    ("a name that is taken", HEAD + "models: {'auto:mine': gpt-6-sol}\n",
     [":3:23: models.auto:mine: names that start with auto or ensemble are taken"]),
    ("neither use nor weighted", HEAD + "models: {a: {fallback: [gpt-6-sol]}}\n",
     [":3:10: models.a: has neither use nor weighted"]),
    ("both use and weighted", HEAD + "models: {a: {use: gpt-6-sol, weighted: {gpt-6-luna: 1}}}\n",
     [":3:13: models.a: has both use and weighted; keep one of them"]),
    ("a budget for nobody", HEAD + "budget: {per_provider: {opnai: {daily_usd: 1}}}\n",
     [':3:32: budget.per_provider.opnai: unknown provider "opnai"; did you mean "openai"?']),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), [case[1:] for case in MISTAKES], ids=[case[0] for case in MISTAKES])
def test_a_mistake_has_one_exact_line(text: str | bytes, expected: list[str]) -> None:
    """File, line, column, path and message are what the table says, and nothing else is reported."""
    assert lines_of(text) == [f"routing_rules.yaml{line}" for line in expected]


PRICE_MISTAKES: list[tuple[str, str, list[str]]] = [
    ("a negative price", "models: {openai/x: {input: -1}}", [":2:28: models.openai/x.input: must be at least 0"]),
    ("an unknown key", "models: {openai/x: {inputs: 1}}",
     [':2:21: models.openai/x.inputs: unknown key; did you mean "input"?']),
    ("a row without a provider", "models: {gpt-6: {input: 1}}",
     [":2:17: models.gpt-6: a row is called provider/model or provider/*"]),
    ("a star in the middle", "models: {openai/*/x: {input: 1}}",
     [":2:22: models.openai/*/x: a row is called provider/model or provider/*"]),
    ("another currency", "currency: EUR", [":2:11: currency: must be USD"]),
    ("a tier without its size", "models: {openai/x: {tiers: [{input: 1}]}}",
     [":2:29: models.openai/x.tiers.0.above_input_tokens: is missing"]),
    ("a capability that is none", "models: {openai/x: {supports: [tols]}}",
     [":2:32: models.openai/x.supports.0: must be images, tools, json_schema, audio, video, files, web_search or"
      ' reasoning; did you mean "tools"?']),
    ("a bad day", "models: {openai/x: {retires: soon}}",
     [":2:30: models.openai/x.retires: must be a day that exists, like 2026-11-22"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"), [case[1:] for case in PRICE_MISTAKES], ids=[c[0] for c in PRICE_MISTAKES]
)
def test_a_mistake_in_the_prices_has_one_exact_line(text: str, expected: list[str]) -> None:
    """The same rules hold for pricing.yaml."""
    assert lines_of(HEAD, f"version: 1\n{text}\n") == [f"pricing.yaml{line}" for line in expected]


def test_all_mistakes_of_both_files_come_at_once() -> None:
    """Nobody mends a file one message at a time; they come in the order of the files and their lines."""
    routing = """\
version: 1
providers:
  openai: {retrys: 1, timeout_s: {total: -1}}
  ollama: {}
server: {port: x, wrokers: 2}
models:
  a: nowhere
  b: [c]
aliases: {c: b}
"""
    assert lines_of(routing, "version: 1\nmodels:\n  openai/x: {output: ten}\n  openai/x: {}\n") == [
        "pricing.yaml:3:22: models.openai/x.output: expected a number, got text",
        "pricing.yaml:4:3: models.openai/x: given twice, first in line 3",
        'routing_rules.yaml:3:12: providers.openai.retrys: unknown key; did you mean "retries"?',
        "routing_rules.yaml:3:42: providers.openai.timeout_s.total: must be greater than 0",
        "routing_rules.yaml:4:3: providers.ollama.base_url: a name inside your own network;"
        " add allow_private: true if that is meant",
        "routing_rules.yaml:5:16: server.port: expected a whole number, got text",
        'routing_rules.yaml:5:19: server.wrokers: unknown key; did you mean "workers"?',
        'routing_rules.yaml:7:6: models.a: unknown model "nowhere"'
        "; use a name under models: or aliases:, or provider/model",
        "routing_rules.yaml:8:6: models.b: expected text or keys and values, got a list",
    ]


def test_each_circle_is_shown_once() -> None:
    """Two circles, two lines, however many names lead into them."""
    models = "models:\n  a: b\n  b: a\n  c: a\n  d: {use: gpt-6-sol, fallback: [e]}\n  e: {use: d, fallback: [c]}\n"
    assert lines_of(HEAD + models) == [
        "routing_rules.yaml:5:6: models.b: goes round in circles: a -> b -> a",
        "routing_rules.yaml:8:12: models.e.use: goes round in circles: d -> e -> d",
    ]
