"""Values: what an answer used. The rules for which usage can be true are here, and nowhere else.

A vendor's reader takes counts with `counted`, makes them add up with `disjoint`, and hands out a `UsageReport`. Streams
may report more than once: `merged` combines the reports. `believable` compares the result with the answer itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict, cast

from msgspec import Struct
from msgspec.structs import replace

from proxy.schema.records import MAX_TOKENS, Tokens


class Usage(TypedDict, total=False):
    """OpenAI's usage: `prompt_tokens` includes cached tokens, `completion_tokens` includes reasoning."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, Any]
    completion_tokens_details: dict[str, Any]
    cost: float | None
    cost_details: dict[str, Any]


class Service(Struct, frozen=True):
    """How an answer was served, in the vendor's words: service tier, speed, region. None: it does not say."""

    tier: str | None = None
    speed: str | None = None
    region: str | None = None


UNSAID = Service()


class UsageReport(Struct, frozen=True):
    """What a vendor says an answer used. `shown`: in OpenAI's form, for the client. `billed`: in normal form.

    The two differ where a vendor bills for something other than the model's input and output. 0 also stands for a count
    that the vendor did not give. `absurd` is the vendor's own object, if a count in it cannot be one. `cost_nano` is
    the vendor's own figure of the cost. `wrote_nothing`: the answer's text is the proxy's own, as for a blocked prompt.
    """

    shown: Usage
    billed: Tokens
    absurd: Any = None
    cost_nano: int | None = None
    service: Service = UNSAID
    wrote_nothing: bool = False


NOTHING = UsageReport({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, Tokens())


def counted(value: object) -> int | None:
    """A count of tokens: a whole number, also as a float or as text. None for what cannot be one."""
    if isinstance(value, str):
        try:
            value = float(value) if len(value) < 32 else None
        except ValueError:
            return None
    if type(value) is float:
        value = int(value) if 0 <= value <= MAX_TOKENS else None
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else None


def count(value: object) -> int:
    """As `counted`; 0 for what cannot be a count."""
    return counted(value) or 0


def is_absurd(*values: object) -> bool:
    """True if a value stands where a count should and cannot be one. Null and missing values are not absurd."""
    return any(value is not None and counted(value) is None for value in values)


def disjoint(given: Tokens, total: int = 0) -> Tokens:
    """Normal form of counts in OpenAI's form: `given.input` is the whole prompt, with cache reads and writes, and
    `given.output` includes reasoning. `total` is the vendor's sum, 0 if unknown; it gives a part that is missing.

    Some servers count cached tokens beside the prompt, or reasoning beside the output. The total tells; without one, a
    part that is greater than its sum cannot be in it.
    """
    prompt, output, cached, reasoning = given.input, given.output, given.cache_read + given.cache_write, given.reasoning
    if prompt and cached and (cached > prompt or total == prompt + output + cached):
        prompt += cached
    if reasoning and (total == prompt + output + reasoning if prompt and total else reasoning > output):
        output += reasoning
    rest = total - prompt - output
    if rest > 0 and prompt == 0 < output:
        prompt = rest
    elif rest > 0 and output == 0 < prompt:
        output = rest
    prompt = max(prompt, cached)
    tokens = Tokens(
        input=prompt - cached,
        cache_read=given.cache_read,
        cache_write=given.cache_write,
        output=output,
        reasoning=min(reasoning, output),
        cache_write_1h=min(given.cache_write_1h, given.cache_write),
        searches=given.searches,
        others=given.others,
    )
    return with_media(tokens, given) if given.has_media else tokens


def with_media(tokens: Tokens, given: Tokens) -> Tokens:
    """`tokens` with the audio and image parts of `given`, which counts them over the whole prompt and the whole output.

    Text, images, audio and cached tokens overlap in vendors' counts, and the sums are what is billed. So parts are cut
    to what is left: audio first, then images; new tokens first, unless the vendor says how much of the cache is audio.
    """
    known = min(given.cache_read_audio, tokens.cache_read)
    audio = min(max(0, given.input_audio - known), tokens.input)
    heard_again = known or min(given.input_audio - audio, tokens.cache_read)
    spoken = min(given.output_audio, tokens.output)
    return replace(
        tokens,
        input_audio=audio,
        input_image=min(given.input_image, tokens.input - audio),
        cache_read_audio=heard_again,
        output_audio=spoken,
        output_image=min(given.output_image, tokens.output - spoken),
    )


def cut_media(tokens: Tokens) -> Tokens:
    """The same with audio and image parts that fit what they are part of."""
    if not tokens.has_media:
        return tokens
    audio, spoken = min(tokens.input_audio, tokens.input), min(tokens.output_audio, tokens.output)
    return replace(
        tokens,
        input_audio=audio,
        input_image=min(tokens.input_image, tokens.input - audio),
        cache_read_audio=min(tokens.cache_read_audio, tokens.cache_read),
        output_audio=spoken,
        output_image=min(tokens.output_image, tokens.output - spoken),
    )


def shown_of(tokens: Tokens) -> Usage:
    """OpenAI's usage of these tokens."""
    details = {"cached_tokens": tokens.cache_read, "cache_write_tokens": tokens.cache_write}
    return {
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.total,
        "prompt_tokens_details": details,
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning},
    }


# --- several reports ------------------------------------------------------------------------------------------------


def merged(older: UsageReport | None, newer: UsageReport | None) -> UsageReport | None:
    """The two reports combined. Reports are cumulative, and vendors correct their counts in both directions (Google's
    thoughts, for example): the newer count wins. But a 0 never replaces a count.
    """
    if older is None or newer is None:
        return older if newer is None else newer
    old, new = older.billed, newer.billed
    if (
        new.prompt
        and (new.output or not old.output)
        and (new.cache_read or not old.cache_read)
        and (new.cache_write or not old.cache_write)
        and (new.reasoning or not old.reasoning)
        and (new.searches or not old.searches)
        and (new.others or not old.others)
        and (new.has_media or not old.has_media)
        and (newer.cost_nano is not None or older.cost_nano is None)
        and (newer.service is not UNSAID or older.service is UNSAID)
    ):
        return newer
    return UsageReport(
        _merged_shown(older.shown, newer.shown),
        _merged_tokens(old, new),
        older.absurd if newer.absurd is None and not new.total else newer.absurd,
        older.cost_nano if newer.cost_nano is None else newer.cost_nano,
        older.service if newer.service is UNSAID else newer.service,
        older.wrote_nothing or newer.wrote_nothing,
    )


def _merged_tokens(old: Tokens, new: Tokens) -> Tokens:
    prompt, output = new.prompt or old.prompt, new.output or old.output
    read, written = new.cache_read or old.cache_read, new.cache_write or old.cache_write
    if read + written > prompt:
        read, written = new.cache_read, new.cache_write
    media = new if new.has_media else old
    tokens = Tokens(
        input=prompt - read - written,
        cache_read=read,
        cache_write=written,
        output=output,
        reasoning=min(new.reasoning or old.reasoning, output),
        cache_write_1h=min(new.cache_write_1h or old.cache_write_1h, written),
        searches=new.searches or old.searches,
        others=new.others or old.others,
        input_audio=media.input_audio,
        input_image=media.input_image,
        cache_read_audio=media.cache_read_audio,
        output_audio=media.output_audio,
        output_image=media.output_image,
    )
    return cut_media(tokens)


def _merged_shown(old: Usage, new: Usage) -> Usage:
    prompt = new.get("prompt_tokens") or old.get("prompt_tokens", 0)
    output = new.get("completion_tokens") or old.get("completion_tokens", 0)
    shown: dict[str, Any] = {**old, **new}
    total = prompt + output or new.get("total_tokens") or old.get("total_tokens", 0)
    shown |= {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": total}
    for name in ("prompt_tokens_details", "completion_tokens_details"):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            both = before | {part: value for part, value in after.items() if value or part not in before}
            cached = count(both.get("cached_tokens")) + count(both.get("cache_write_tokens"))
            fits = cached <= prompt and count(both.get("reasoning_tokens")) <= output
            shown[name] = both if fits else after
    return cast(Usage, shown)


# --- what to believe ------------------------------------------------------------------------------------------------


def believable(
    report: UsageReport | None, written: int, estimate_prompt: Callable[[], int], complete: bool = True
) -> tuple[UsageReport, bool]:
    """The usage of an answer, and whether a part of it is estimated. Reported counts are kept; only what is missing or
    cannot be true is estimated. A report with an absurd count counts as estimated, too.

    `written`: a likely count of the text that arrived. A prompt of 0 is not true, except where searches alone are
    billed; nor is an output of 0 beside text. Of an answer that is not complete, the output is at least its text.
    """
    report = report or NOTHING
    written = 0 if report.wrote_nothing else written
    said = report.billed
    prompt, output = said.prompt, said.output
    if said.total > MAX_TOKENS:
        prompt, output = prompt if prompt <= MAX_TOKENS else 0, output if output <= MAX_TOKENS else 0
    has_prompt = prompt > 0 or (said.searches > 0 and output == written == 0)
    has_output = (output > 0 or not written) if complete else output >= written
    if has_prompt and has_output and said.output == output and said.prompt == prompt:
        return report, report.absurd is not None
    if not has_prompt:
        prompt = max(1, estimate_prompt())
    total = report.shown.get("total_tokens", 0)
    if said.total == 0 < prompt < total <= MAX_TOKENS:  # it gave only the sum
        output = total - prompt
    if not has_output:
        output = max(output, written)
    return _repaired(report, prompt, output), True


_NO_PARTS = dict.fromkeys(
    ("cache_read", "cache_write", "cache_write_1h", "input_audio", "input_image", "cache_read_audio"), 0
)


def _repaired(report: UsageReport, prompt: int, output: int) -> UsageReport:
    """The report with another count of prompt or output."""
    said, shown = report.billed, dict(report.shown)
    billed = replace(said, output=output, reasoning=min(said.reasoning, output))
    if said.prompt != prompt:
        billed = replace(billed, input=prompt, **_NO_PARTS)
        shown.pop("prompt_tokens_details", None)
        shown["prompt_tokens"] = prompt
    if said.output != output:
        if said.output > output or not said.output:
            shown.pop("completion_tokens_details", None)
        shown["completion_tokens"] = output
    shown["total_tokens"] = cast(int, shown.get("prompt_tokens", 0)) + cast(int, shown.get("completion_tokens", 0))
    return replace(report, shown=cast(Usage, shown), billed=cut_media(billed))
