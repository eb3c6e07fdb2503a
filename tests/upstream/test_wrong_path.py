"""A 404 or 405 about the path is told apart from one about the model, by what servers of all kinds say."""

from __future__ import annotations

import pytest

from proxy.schema.errors import UpstreamError
from proxy.upstream.wrong_path import as_wrong_path


def said(message: str, status: int = 404) -> UpstreamError:
    return UpstreamError(message, status=status, code="model_not_found", upstream_status=status)


@pytest.mark.parametrize(
    "message",
    [
        "The provider answered 404 (text/plain) without an error message.",
        "The provider answered 404 (no content type) without an error message.",
        "The provider answered 405 (text/html) without an error message.",
        "Not Found",
        "404 page not found",
        "File Not Found",
        "Resource not found",
        "The requested URL was not found on the server.",
        "Invalid URL (POST /chat/completions)",
        "Unknown request URL: POST /v2/chat/completions. Please check the URL for typos",
        "Unexpected endpoint or method. (POST /chat/completions)",
        "Cannot POST /chat/completions",
        "no Route matched with those values",
        "Method Not Allowed",
    ],
)
@pytest.mark.parametrize(
    ("base_url", "hint"), [("http://h:1", "has no /v1"), ("http://h:1/v1/", "Is its base_url right?")]
)
def test_what_is_said_of_a_path_names_the_address(message: str, base_url: str, hint: str) -> None:
    """With the vendor's words before it."""
    found = as_wrong_path(said(message), base_url)
    assert found is not None
    assert (found.status, found.code, found.retryable) == (502, "upstream_error", False)
    assert found.message.startswith(message.rstrip("."))
    assert hint in found.message


@pytest.mark.parametrize(
    "message",
    [
        "The model `m` does not exist or you do not have access to it.",
        "model 'llama9' not found, try pulling it first",
        "The API deployment for this resource does not exist.",
        "LoRA adapter not found",
        "No engine with that id was found; not found",
        "No endpoints found for m.",
        "Something else",
    ],
)
def test_what_is_said_of_a_model_stays(message: str) -> None:
    """A client can mend it."""
    assert as_wrong_path(said(message), "http://h:1") is None


def test_only_an_address_of_one_s_own_can_be_wrong() -> None:
    """And only these statuses say so."""
    assert as_wrong_path(said("Not Found"), None) is None
    assert as_wrong_path(said("Not Found", 400), "http://h:1") is None
