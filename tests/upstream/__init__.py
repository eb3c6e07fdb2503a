"""A fake upstream on real sockets that answers, delays, truncates, resets and floods as the model name says.

    async with FakeUpstream() as upstream:     # in this process; upstream.url, .ledger, .open, .until(...), .modes
    with spawn() as upstream:                  # in its own: `python -m tests.upstream`; .url, .ledger(), .set_modes()
    with refusing() as url:                    # a port where connections are refused

It speaks OpenAI's wire (`openai_wire`); other vendors' wires stand beside it, and nothing else changes: `modes` reads
the model name, `spoken` says what a model then says, `delivery` puts the answer on the socket, `ledger` notes what was
seen, `http1` reads requests and writes bytes.

A model name is a mode with arguments, `ok` or `stall_after(k=5)`, or several joined by `-`:
`tools(n=2)-cut_rst(k=3)`; where two change the same thing the later one wins. An unknown name or argument is a 404
that says which. Names that are no modes can be given one while the server runs: `upstream.modes["gpt-4o"] = "e503"`,
over HTTP `POST /__modes`. Every mode also takes `n_tokens` (10 unless told otherwise), `pace` (seconds between
tokens), `delay` (seconds before the first byte) and `tag` (ignored: makes a name of its own, for modes that count).

Texts are "tok0 tok1 ...". `prompt_tokens` is the number of words in the messages, `completion_tokens` what was
generated: (n_tokens + reasoning tokens) times choices, cut by the request's own max_completion_tokens or max_tokens
(finish_reason `length`). `n` of the request is honoured. A stream has a usage chunk only if asked, then `"usage":
null` elsewhere.

What is said:
    ok                          a correct answer
    fast                        200 tokens in few writes of 16 KiB
    echo                        the content is the request's body, byte for byte, in pieces of 24 characters
    actor                       what a willing model would say: see `actor`; the other words of this table still hold
    says(hex=6f6b)              that text, UTF-8 in hexadecimal digits; see `modes.says`
    calls(hex=5b5b2261222c2022225d5d)           those tool calls: JSON, here [["a", ""]], likewise
    cached(n=8)                 prompt_tokens_details.cached_tokens = n (at most the prompt)
    reasoning(n=3,field=reasoning_content)      n reasoning tokens before the content
    refusal                     the tokens are a refusal, content is null
    tools(n=1)                  n parallel calls; arguments {"text":"tok0 ..."} stream in fragments that take turns
    tools_bad_deltas(n=1)       the same with id, type and name in each delta (every second name empty), no index
    role_each_chunk             delta.role in every chunk
    two_choices(n=2)            n choices, whatever the request says; in a stream they take turns
    finish(reason=length)       another finish_reason
    dup_ids                     the same completion, tool-call and request ids in all answers
    no_usage                    usage never
    usage_in_last               usage inside the last choice's finish chunk, asked or not, and no usage chunk
    usage_null                  usage is null everywhere
    usage_partial               usage has only prompt_tokens
    no_finish                   no finish_reason; whole: null
    no_done                     a stream ends after finish and usage without [DONE], and the connection closes

The end of a chunked body, HTTP's last chunk, leaves 2 ms after the end marker, in a packet of its own, as real servers
send it:
    late_end(s=0.02)            it leaves s seconds after
    no_last_chunk               it never leaves; the connection stays open
    chunked_whole               whole answers are chunked too (many vendors' are), in two pieces and an end
    rst_after                   RST instead of it: the answer was complete, the connection breaks behind it

When:
    slow_ttft(s=2)              streams: headers at once, then s seconds; whole: s seconds before headers
    delay_whole(s=1)            whole answers only: s seconds before headers
    latency(p50=0.1,p99=1,seed=1)   lognormal seconds before headers, by seed and number of the attempt
    slow_usage(s=1)             streams: s seconds between finish and usage chunk

Cut short (after the k-th token; k=0: just before the first token, the role chunk is out; k=-1: right after the headers.
Whole answers: half the body if k > 0, else none of it. There are k + 10 tokens. Cuts take `s`: seconds to wait first):
    stall_after(k=1)            then nothing, the connection stays open
    pinging_stall(k=1,s=0.2)    streams: then a ping every s seconds (with `named_pings` a named one), for ever
    cut_clean(k=1)              the HTTP body ends properly (whole: Content-Length of the half), then FIN
    cut_fin(k=1)                FIN inside the HTTP body
    cut_rst(k=1)                RST
    sse_error(k=3,status=500)   an error event and a proper end of the body; whole: an error answer
    truncated_json(k=3)         streams: FIN inside the next event and HTTP chunk; whole: like cut_fin

Errors:
    e429(retry_after=1,code=insufficient_quota)     likewise 400 401 402 403 404 405 408 409 413 422 500 502
                                503 504 529; without retry_after no such header, without code the usual one
    e429_until(s=20)            429 whose Retry-After is an HTTP date, s seconds after that of its Date
    context_length              400 context_length_exceeded
    bad_json_error(status=500)  a body that is announced as JSON and breaks off
    quoting                     a 400 whose message quotes the whole request, and its words without quotation marks
    html_502                    an HTML page
    empty_200                   200 and no body
    json_in_200_error(code=)    {"error": ...} with status 200
    fail_first(n=1,status=500)  the first n requests with this model name fail
    flap(p=0.5,seed=1,status=500)   succeeds with probability p, by seed and number of the attempt

HTTP and sockets:
    blackhole                   never an answer; the connection stays open
    close_before_request        FIN instead of an answer, also the first on its connection
    stale_keepalive             FIN instead of an answer on a connection that was used before, else ok
    half_headers                half of the head, FIN
    slow_headers(s=1)           s seconds a byte of the head
    slow_body(s=1)              s seconds a byte of the body
    huge_headers(kb=64,lines=1) that much padding in so many header lines
    dup_headers                 x-request-id, set-cookie and x-dup more than once
    wrong_ctype                 content-type: text/html on a correct answer
    100_continue(hints=0)       100 Continue (hints=1: and 103 Early Hints) before the answer
    redirect(to=self,status=302)    to `self` (a path here, noted in the ledger), `metadata`
                                (169.254.169.254) or a host name
    gzip_bomb(mb=64)            gzip of that much white space before a correct answer (mb=0: honest gzip)

Streams as bytes:
    chunk_split                 every byte, of the head too, in a write of its own
    utf8_split                  tokens like "tok0é漢😀", each such character cut by an HTTP chunk
    crlf_sse                    CRLF line ends
    comment_pings               `: ping` before each event
    named_pings                 `event: ping` before each event
    flood                       the first token over and over, as fast as the socket takes it, without end
    multi_data_lines            each event over several data lines
    bom                         a byte order mark before the first event (whole: before the body)
    giant_line(mb=10)           the first token is that long, its line never ends, the body ends properly; whole: valid

A client that hangs up is seen at once in every phase (a half-close counts), also while the answer waits.
"""

from __future__ import annotations

from tests.upstream.fake import FakeUpstream, Spawned, refusing, spawn
from tests.upstream.ledger import Seen, key_hash
from tests.upstream.openai_wire import prompt_tokens

__all__ = ["FakeUpstream", "Seen", "Spawned", "key_hash", "prompt_tokens", "refusing", "spawn"]
