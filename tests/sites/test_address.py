"""URLs and patterns: read as browsers do where it matters, refused where they guess, linear whatever is written."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.sites.address import MAX_URL, Address, read_address
from proxy.sites.patterns import read_pattern
from tests.slowness import usual_s

MALFORMED = {
    "": "got an empty text",
    "   ": "got an empty text",
    "not a url": "spaces or characters",
    "https://red\tdit.com": "spaces or characters",
    "https://evil.io\\@reddit.com": "spaces or characters",
    "https://reddit.com/\x00": "spaces or characters",
    "https://": "host is not a valid name",
    "https:///path": "host is not a valid name",
    "http:/reddit.com": "`//` is missing",
    "https:reddit.com": "`//` is missing",
    "ftp://reddit.com": "http or https, not 'ftp'",
    "javascript:alert(1)": "http or https, not 'javascript'",
    "data:text/html,x": "http or https, not 'data'",
    "file:///etc/passwd": "http or https, not 'file'",
    "user:secret@reddit.com": "http or https, not 'user'",
    "reddit": "has no dot",
    "https://reddit..com": "host is not a valid name",
    "https://.reddit.com": "host is not a valid name",
    "https://reddit.com..": "host is not a valid name",
    "https://-reddit.com": "host is not a valid name",
    "https://red%64it.com": "host is not a valid name",
    "https://" + "a" * 64 + ".com": "host is not a valid name",
    "https://" + "a." * 130 + "com": "host is too long",
    "https://reddit.com:99999": "port is not a number below 65536",
    "https://reddit.com:8a": "port is not a number below 65536",
    "https://reddit.com:-1": "port is not a number below 65536",
    "https://reddit.com:\u0661": "port is not a number below 65536",
    "https://reddit.com/" + "a" * MAX_URL: f"at most {MAX_URL} characters",
    "https://reddit.com" + "/a" * 33: "at most 32 segments",
    "https://\ud800.com": "host is not a valid name",
}


@pytest.mark.parametrize(
    ("url", "why"), MALFORMED.items(), ids=[url[:24].encode("unicode_escape").decode() for url in MALFORMED]
)
def test_a_malformed_url_is_refused(url: str, why: str) -> None:
    """With the reason, and without the URL: it may hold a password."""
    with pytest.raises(ValueError, match=re.escape(why)) as refusal:
        read_address(url)
    assert "secret" not in str(refusal.value)


def test_an_address_is_host_path_and_names_of_the_query() -> None:
    """In lower case and percent-decoded; other scripts as punycode."""
    assert read_address("https://WWW.Example.com:80/A/%42//c?Q=1&b#frag") == Address(
        "www.example.com", ("a", "b", "c"), frozenset({"Q", "b"})
    )
    assert read_address("https://m\u00fcnchen.de").host == "xn--mnchen-3ya.de"
    assert read_address("https://a:b@example.com?x").host == "example.com"
    assert read_address("https://example.com?x=https://reddit.com/@y").host == "example.com"


@pytest.mark.parametrize(
    ("pattern", "fits", "fails"),
    [
        ("/", ["x.io", "x.io/", "x.io?a"], ["x.io/a"]),
        ("/r/{name}", ["x.io/r/a", "x.io/R/a/"], ["x.io/r", "x.io/r/a/b", "x.io/s/a"]),
        ("/r/{name}/**", ["x.io/r/a", "x.io/r/a/b/c"], ["x.io/r"]),
        ("/watch?v", ["x.io/watch?v=1", "x.io/watch?a&v"], ["x.io/watch", "x.io/watch?V=1", "x.io/watch?w=v"]),
        ("/{slug}-a-{id}", ["x.io/some-a-b", "x.io/a-a-a-a"], ["x.io/-a-b", "x.io/some-a-", "x.io/some-b"]),
        ("/q-{words}.html", ["x.io/q-a.html"], ["x.io/q-.html", "x.io/q-a.htm"]),
        ("youtu.be/{id}", ["youtu.be/a", "www.youtu.be/a"], ["x.io/a", "notyoutu.be/a"]),
    ],
)
def test_a_pattern_fits_what_it_says(pattern: str, fits: list[str], fails: list[str]) -> None:
    """Names are never empty."""
    read = read_pattern(pattern)
    assert [url for url in fits if not read.fits(read_address(url))] == []
    assert [url for url in fails if read.fits(read_address(url))] == []


@pytest.mark.parametrize(
    "pattern", ["", "r", "/a b", "/(a+)+*", "/{a}{b}", "/{A}", "/{a", "/a\\", "/" + "a" * 200, "/**/a"]
)
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    """Regular expressions have no meaning here."""
    with pytest.raises(ValueError, match="pattern"):
        read_pattern(pattern)


@given(st.lists(st.sampled_from(["{x}", "a", "b", "ab"]), min_size=1, max_size=7), st.text("ab", max_size=12))
def test_a_segment_fits_as_a_regular_expression_would(parts: list[str], segment: str) -> None:
    """Leftmost places suffice: compared with a backtracking matcher on small inputs."""
    text = "".join(parts)
    if "}{" in text or not segment:
        return
    expected = re.fullmatch("".join(".+" if part == "{x}" else part for part in parts), segment) is not None
    assert read_pattern(f"/{text}").fits(Address("x.io", (segment,))) is expected


def test_a_hostile_pattern_is_linear() -> None:
    """Fifty names between the same letters against thousands of them: a regular expression would not return."""
    pattern = read_pattern("/" + "{a}b".join([""] * 45) + "{a}c")
    address = Address("x.io", ("b" * 20_000,))
    assert not pattern.fits(address)
    assert usual_s(lambda: pattern.fits(address)) < 0.05
