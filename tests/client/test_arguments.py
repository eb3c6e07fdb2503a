"""A wrong argument is a ValueError that names it, before anything is sent: the address leads nowhere."""

from __future__ import annotations

from typing import Any

import pytest

from proxy import APISettings, MultiModelAPI, SyncMultiModelAPI
from proxy.client.asking import chat_body, ensemble_body
from tests.upstream import refusing

WRONG_QUESTIONS: list[tuple[str, dict[str, Any]]] = [
    ("prompt", {"prompt": ""}),
    ("prompt", {"prompt": "  "}),
    ("prompt", {}),
    ("prompt", {"prompt": 5}),
    ("prompt", {"messages": []}),
    ("messages", {"messages": "Hi"}),
    ("messages", {"messages": {"role": "user", "content": "Hi"}}),
    ("model", {"prompt": "Hi", "model": ""}),
    ("model", {"prompt": "Hi", "model": 5}),
    ("system", {"prompt": "Hi", "system": ""}),
    ("task_type", {"prompt": "Hi", "task_type": "reasonin"}),
    ("priority", {"prompt": "Hi", "priority": "urgent"}),
    ("max_tokens", {"prompt": "Hi", "max_tokens": 0}),
    ("max_tokens", {"prompt": "Hi", "max_tokens": 1.5}),
    ("temperature", {"prompt": "Hi", "temperature": 3}),
    ("temperature", {"prompt": "Hi", "temperature": True}),
    ("top_p", {"prompt": "Hi", "top_p": -0.1}),
    ("max_cost_usd", {"prompt": "Hi", "max_cost_usd": -0.01}),
    ("max_cost_usd", {"prompt": "Hi", "max_cost_usd": float("inf")}),
]
WRONG_PANELS: list[tuple[str, dict[str, Any]]] = [
    ("strategy", {"strategy": "votin"}),
    ("strategy", {"strategy": ""}),
    ("strategy", {"strategy": ["voting"]}),
    ("models", {"models": []}),
    ("models", {"models": "fake/a"}),
    ("models", {"models": ["fake/a", ""]}),
    ("models", {"models": [{"weight": 2}]}),
    ("models", {"models": ["fake/a"] * 17}),
    ("name", {"name": ""}),
    ("min_agreement", {"min_agreement": 1.1}),
    ("min_confidence", {"min_confidence": -1}),
    ("judge", {"judge": ""}),
    ("validator", {"validator": 1}),
]


@pytest.mark.parametrize(("argument", "given"), WRONG_QUESTIONS)
async def test_a_wrong_question_is_refused_by_every_method(argument: str, given: dict[str, Any]) -> None:
    """A stream too, before its first piece."""
    with refusing() as url:
        api = MultiModelAPI(base_url=url)
        for call in (api.generate, api.generate_ensemble, api.explain):
            if call == api.generate_ensemble and argument == "model":
                continue
            with pytest.raises(ValueError, match=f"^{argument}: "):
                await call(**given)
        with pytest.raises(ValueError, match=f"^{argument}: "):
            api.generate_stream(**given)
        await api.close()


@pytest.mark.parametrize(("argument", "given"), WRONG_PANELS)
async def test_a_wrong_panel_is_refused(argument: str, given: dict[str, Any]) -> None:
    with refusing() as url:
        api = MultiModelAPI(base_url=url)
        with pytest.raises(ValueError, match=f"^{argument}: "):
            await api.generate_ensemble("Hi", **given)
        await api.close()


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("answer", lambda api: api.feedback("", success=True)),
        ("answer", lambda api: api.feedback(5, success=True)),
        ("success", lambda api: api.feedback("id")),
        ("score", lambda api: api.feedback("id", score=2)),
    ],
)
def test_a_wrong_rating_is_refused(argument: str, call: Any) -> None:
    with refusing() as url, SyncMultiModelAPI(base_url=url) as api, pytest.raises(ValueError, match=f"^{argument}: "):
        call(api)


def test_an_unknown_argument_is_a_type_error_with_the_nearest_one() -> None:
    with pytest.raises(TypeError, match="unexpected argument 'max_token'; did you mean \"max_tokens\""):
        chat_body("Hi", None, {"max_token": 5})
    with pytest.raises(TypeError, match="unexpected argument 'judge'"):
        chat_body("Hi", None, {"judge": "x"})
    with pytest.raises(TypeError, match='did you mean "validator"'):
        ensemble_body("Hi", None, None, None, {"validater": "x"})


def test_near_words_are_named() -> None:
    with pytest.raises(ValueError, match='did you mean "voting"'):
        ensemble_body("Hi", "votin", None, None, {})
    with pytest.raises(ValueError, match='did you mean "reasoning"'):
        chat_body("Hi", None, {"task_type": "reasonin"})


@pytest.mark.parametrize(
    ("argument", "given"),
    [
        ("base_url", {"base_url": "localhost:8000"}),
        ("base_url", {"base_url": "ftp://localhost"}),
        ("base_url", {"base_url": "http://"}),
        ("base_url", {"base_url": "http://[::1"}),
        ("base_url", {"base_url": "http://localhost:99999"}),
        ("base_url", {"base_url": "http://me:secret@localhost:8000"}),
        ("base_url", {"base_url": "http://me:secret@localhost:99999"}),
        ("base_url", {"base_url": "http://localhost:8000?x=1"}),
        ("base_url", {"base_url": 5}),
        ("base_url", {"base_url": "http://localhost:8000", "settings": APISettings()}),
        ("api_key", {"base_url": "http://localhost:8000", "api_key": "two words"}),
        ("api_key", {"base_url": "http://localhost:8000", "api_key": "a\r\nb"}),
        ("api_key", {"api_key": "mmp-1"}),
        ("settings", {"settings": "http://localhost:8000"}),
        ("settings", {"settings": {"providers": {}}}),
        ("timeout_s", {"timeout_s": 0}),
        ("timeout_s", {"timeout_s": float("nan")}),
        ("max_retries", {"max_retries": -1}),
        ("retry_delay_seconds", {"retry_delay_seconds": -1}),
    ],
)
@pytest.mark.parametrize("kind", [MultiModelAPI, SyncMultiModelAPI])
def test_a_wrong_client_is_refused(kind: Any, argument: str, given: dict[str, Any]) -> None:
    """No message shows a key or a password."""
    with pytest.raises(ValueError, match=f"^{argument}: ") as raised:
        kind(**given)
    assert "two words" not in str(raised.value) and "secret" not in str(raised.value)


@pytest.mark.parametrize("address", ["http://h:1", "http://h:1/", "http://h:1/v1", " http://h:1/v1/ "])
def test_the_address_may_have_v1_or_not(address: str) -> None:
    assert MultiModelAPI(base_url=address).base_url == "http://h:1/v1"


def test_a_body_has_only_what_was_given() -> None:
    assert chat_body("Hi", None, {}) == {"model": "auto", "messages": [{"role": "user", "content": "Hi"}]}
    body = chat_body(
        "And?",
        "best",
        {
            "system": "Be short.",
            "messages": [{"role": "user", "content": "One"}],
            "task_type": "chat",
            "max_tokens": None,
            "seed": 0,
            "routing": {"trace": True},
            "extra_body": {"user": "me"},
        },
    )
    assert body == {
        "model": "best",
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "One"},
            {"role": "user", "content": "And?"},
        ],
        "seed": 0,
        "routing": {"task": "chat", "trace": True},
        "user": "me",
    }


def test_a_panel_is_a_hint() -> None:
    assert ensemble_body("Hi", None, None, None, {})["routing"] == {"ensemble": {"strategy": "voting"}}
    assert ensemble_body("Hi", None, None, "careful", {}) == {
        "model": "ensemble:careful",
        "messages": [{"role": "user", "content": "Hi"}],
    }
    body = ensemble_body("Hi", "ranking", [{"use": "a", "weight": 2}, "b"], None, {"judge": "c", "priority": "low"})
    assert body["routing"] == {
        "priority": "low",
        "ensemble": {
            "judge": "c",
            "models": [{"use": "a", "weight": 2}, "b"],
            "strategy": "ranking",
            "return_all": True,
        },
    }
