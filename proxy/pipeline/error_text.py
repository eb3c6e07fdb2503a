"""Translates: what is kept of a provider's error message. Pure.

Vendors quote requests in their errors, and texts are stored only for keys with `store_text`. So these parts are left
out, and "[...]" marks where they were:

    what stands in quotation marks or braces    unless it is one name, such as a parameter's
    every word that the request's texts have    unless it is an ordinary word of error messages
    five words in a row that the texts have     ordinary or not
    long words                                  which may be encoded content

What is left explains an error to a person, and cannot be read as a prompt or an answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from proxy.schema.endpoints import AnyRequest
from proxy.schema.json import decode

MAX_KEPT = 500  # characters of a message in a row
MAX_SEARCHED = 20_000  # characters of a request, 10 ms at worst; of a longer one, only ordinary words are kept
LEFT_OUT = "[...]"
_MAX_WORD = 48
_MAX_BODY = 64 * 1024  # bytes
_MAX_DEPTH = 64
_RUN = 5  # words
_SHORT_NUMBER = 3  # digits: a status, a position
# A quotation ends before a character that is not part of a word: "the model's name" has none. One that never ends goes
# to the end of the message.
_QUOTED = re.compile(r"""(?<!\w)(["'`])(.*?)(?:\1(?!\w)|$)|“([^”]*)(?:”|$)|«([^»]*)(?:»|$)|(\{(?:.*\}|.*$))""")
_GAP = re.compile(r"(?<=\[\.\.\.\]) (?=[.,:;!?)])")
_NAME = re.compile(r"[\w.:/\[\]-]{1,64}")
_PIECE = re.compile(r"[a-z]+|\d+|[^\W\d_a-z]")
_WORDS = """
    a about above accepted accepts access account across add after again against all allow allowed already also an
    and any api are aren argument arguments array as ask assistant at audio auth authentication authorization
    available balance base64 be because been before begin being below between bias billing body boolean budget but
    by bytes cache call calls can cannot capacity change characters chat check choice choose code combined
    completion completions connect connection contact contain contains content context could couldn count created
    credential credentials credit credits currently data day days deactivated default deployment deprecated details
    developer did didn different dimensions disabled dns do documentation documents does doesn don done due during
    each effort either embedding embeddings empty enable enabled encoding end ended endpoint enough ensure equal
    error errors even exceed exceeded exceeds exhausted exist exists expected expired failed failure feature field
    fields file files filter filtered finish first flagged for forbidden format found free frequency from function
    functions gateway generate generated generation get given go greater group had has hasn have header headers help
    high host hour hours how however http https id if image images in include include_usage included inference input
    instead instruct instructions insufficient integer internal into invalid is isn it item items its json keep key
    keys large larger last least length less like limit limited limits list ll load loaded loading logprobs long
    longer low lower made make many match max maximum may media message messages metadata method min minimum minute
    minutes missing modalities model models month more most must name need needed needs network new no non none not
    null number object of off on once one only open or organization other our out output over overloaded own
    parallel parameter parameters parse part parts path payload penalty per period permission permissions permitted
    plan please policy possible prefix presence present previous problem process processing project prompt property
    provide provided provider proxy quality query quota rate re reach reached read reason reasoning receive received
    redacted reduce reduced refused region remaining remove request requested requests require required requires
    resource resources response responses result resulted results retry return returned right role run running s
    safety same schema second seconds see seed select send sent server service set settings should size small
    smaller so some soon sorry source speed start started state status still stop stream streaming strict string
    strings subscription such support supported supports system t task temperature temporarily text than that the
    their them then there these they thinking this those tier time timed timeout times to token tokens too tool
    tools top total try type types unable unauthorized unavailable under unexpected unknown unless unsupported until
    up upgrade upstream url usage use used user users using valid validate validation value values ve version via
    video violation visit wait was wasn we were what when where whether which while will with within without won
    word words would write wrong you your
"""
_ORDINARY = frozenset(_WORDS.split())


def kept(message: str, request: AnyRequest, names: Iterable[str] = ()) -> str:
    """The message without what it may have from the request. `names`: of the model, kept as they are."""
    sent = _sent(request)
    words = _QUOTED.sub(_unquoted, message[: 2 * MAX_KEPT]).split()
    known = {name.lower() for name in names}
    is_ours = [_is_ours(word.lower(), sent, known) for word in words]
    for at in range(len(words) - _RUN + 1 if sent is not None else 0):
        if " ".join(words[at : at + _RUN]).lower() in (sent or ""):
            is_ours[at : at + _RUN] = [False] * _RUN
    said: list[str] = []
    for word, ours in zip(words, is_ours, strict=True):
        if ours:
            said.append(word)
        elif not said or said[-1] != LEFT_OUT:
            said.append(LEFT_OUT)
    whole = _GAP.sub("", " ".join(said))
    return whole if len(whole) <= MAX_KEPT else whole[: MAX_KEPT - 1] + "…"


def _sent(request: AnyRequest) -> str | None:
    """All texts of a request, in lower case; None: they are too long to look, or nested too deeply.

    A body that goes upstream as it came may have more than the fields that were read of it.
    """
    values: list[Any] = [request.fields]
    if request.native is not None:
        if len(request.native.body) > _MAX_BODY:
            return None
        values.append(decode(request.native.body))
    texts: list[str] = []
    if _collect(values, texts, MAX_SEARCHED, 0) < 0:
        return None
    return " ".join("\n".join(texts).lower().split())


def _unquoted(found: re.Match[str]) -> str:
    """A quotation that is one name stays, to be judged as a word."""
    inner, is_closed = found[2], found[0][:1] == found[0][-1:]
    return found[0] if inner and is_closed and _NAME.fullmatch(inner) else f" {LEFT_OUT} "


def _is_ours(word: str, sent: str | None, known: set[str]) -> bool:
    """True if a word cannot come from the request. `sent` None: its texts are too long to look."""
    if word == LEFT_OUT:
        return False
    if word.strip(".,:;!?()'\"`") in known:
        return True
    return len(word) <= _MAX_WORD and all(_is_free(piece, sent) for piece in _PIECE.findall(word))


def _is_free(piece: str, sent: str | None) -> bool:
    if piece in _ORDINARY or (piece.isdigit() and len(piece) <= _SHORT_NUMBER):
        return True
    return sent is not None and piece not in sent


def _collect(value: Any, texts: list[str], left: int, depth: int) -> int:
    """Adds all texts of a JSON value, and the names of its members; returns how many characters are left, below 0 if
    there were more, or if it is nested too deeply. Files in data URLs are not searched: they are long words.
    """
    if isinstance(value, str):
        if not value.startswith("data:"):
            texts.append(value)
            left -= len(value) + 1
        return left
    if not isinstance(value, dict | list):
        if value is not None and not isinstance(value, bool):
            texts.append(str(value))
        return left - 1
    if depth == _MAX_DEPTH or len(value) > left:
        return -1
    each: Iterable[Any] = value
    if isinstance(value, dict):
        texts += value
        left -= sum(map(len, value))
        each = value.values()
    for inner in each:
        left = _collect(inner, texts, left, depth + 1)
        if left < 0:
            break
    return left
