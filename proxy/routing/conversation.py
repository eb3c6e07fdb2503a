"""Pure translation: the messages of a request become the classifier's input.

An agent sends the whole conversation on each turn, and its last message is mostly a tool's result or a bare "continue".
The task of such a turn is the task that a person last set, so that text is found and everything after it is skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from msgspec import Struct

from proxy.schema.chat import Message

_SYSTEM_ROLES = ("system", "developer")
# A person's short replies, which set no task. Longer texts are never looked up.
_REPLY_TEXTS = """
    continue; go on; go ahead; keep going; carry on; proceed; next; more; yes; y; yep; yeah; yes please;
    please; sure; ok; okay; ok go; ok go on; okay continue; do it; yes do it; yes continue;
    please continue; continue please; sounds good; looks good; good; great; perfect; fine; thanks;
    thank you; thx; no; nope; n; stop; wait; right; correct; agreed; exactly; done; approved; lgtm;
    try again; retry; again; and; so; hm; hmm; yes go ahead; please proceed; please go on; weiter;
    mach weiter; bitte weiter; fahre fort; ja; ja bitte; nein; gut; danke; genau; einverstanden; passt;
    oui; non; continuez; vas-y; d'accord; merci; oui s'il te plaît; si; sí; continúa; sigue; adelante;
    vale; gracias; sì; va bene; avanti; grazie; sim; não; pode continuar; obrigado; ga door; nee; dank je;
    tak; nie; dalej; kontynuuj; да; нет; продолжай; дальше; хорошо; спасибо; evet; hay\u0131r; devam;
    devam et; tamam; नहीं; हाँ; जारी रखें; نعم; لا; تابع; استمر; 继续; 继续吧; 好; 好的; 是; 是的; 对;
    可以; 行; 谢谢; 不; 不用; 下一步; 繼續; はい; いいえ; 続けて; 続けてください; お願いします; ありがとう;
    次; 네; 예; 아니요; 계속; 계속해; 계속해줘; 감사합니다; tiếp tục; vâng; có; lanjut; lanjutkan; ya;
    tidak
"""
_REPLIES = frozenset(reply.strip() for reply in _REPLY_TEXTS.split(";"))
_REPLY_WORDS = frozenset(word for reply in _REPLIES for word in reply.split()) | {"then", "now", "the", "one"}
_LONGEST_REPLY = max(map(len, _REPLIES)) + 24
_SHORT = 60  # characters of what a person adds to an agent's work
_LONG = max(_SHORT, _LONGEST_REPLY)
_END_MARKS = ".!?,;: \u2026\u3002\uff01\uff1f\u3001\U0001f44d\U0001f64f"
# Elements that agent programs put into a person's message, around the person's text or in its place.
_INSERTED = ("system-reminder", "environment_details", "tool_result", "function_results")
_OPENINGS = tuple(f"<{name}>" for name in _INSERTED)
_LONGEST_INSERTED = 20_000
_LOOKED_AT = 400


class Conversation(Struct, frozen=True):
    """`text` is the last substantial text that a person wrote, `system` the system prompt, `turns` the messages."""

    text: str
    system: str = ""
    turns: int = 1
    has_tools: bool = False
    has_json_schema: bool = False


def conversation_of(messages: Sequence[Message], has_tools: bool, has_json_schema: bool) -> Conversation:
    """Short replies count only if no person wrote anything else, and a short text beside an agent's work belongs to
    the task before it. At most the last 400 messages are looked at.
    """
    system = next((text_of(m.content) for m in islice(messages, 3) if m.role in _SYSTEM_ROLES), "")
    return Conversation(question_of(messages), system, len(messages), has_tools, has_json_schema)


def question_of(messages: Sequence[Message]) -> str:
    """Only the text of a conversation."""
    first, fallback, is_agent = "", "", None
    for message in islice(reversed(messages), _LOOKED_AT):
        if message.role != "user":
            continue
        written = text_of(message.content)
        if not written or written.isspace():
            continue
        if len(written) > _LONG:
            return written
        if _is_reply(written):
            fallback = fallback or written
            continue
        if is_agent is None:
            is_agent = any(message.role == "tool" for message in islice(reversed(messages), _LOOKED_AT))
        if not is_agent or len(written) > _SHORT:
            return written
        first = written
    return first or fallback


def text_of(content: str | list[dict[str, Any]] | None) -> str:
    """The text that a person wrote: its text parts, without tool results and text that programs insert before it."""
    if isinstance(content, str):
        return _written(content)
    texts = []
    for part in content or ():
        text = part.get("text") if part.get("type", "text") in ("text", "input_text") else None
        if isinstance(text, str) and (written := _written(text)):
            texts.append(written)
    return "\n".join(texts)


def _written(text: str) -> str:
    for _ in range(8):
        if not text[:40].lstrip().startswith(_OPENINGS):
            return text
        name = next(name for name in _INSERTED if text[:40].lstrip().startswith(f"<{name}>"))
        end = text.find(f"</{name}>", 0, _LONGEST_INSERTED)
        if end < 0:
            return ""
        text = text[end + len(name) + 3 :].lstrip()
    return ""


def _is_reply(text: str) -> bool:
    if len(text) > _LONGEST_REPLY:
        return False
    plain = text.strip().strip(_END_MARKS).lower().replace(",", "")
    return len(plain) < 2 or plain in _REPLIES or _REPLY_WORDS.issuperset(plain.split())
