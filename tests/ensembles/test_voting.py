"""`strategy: voting`: who wins, what happens without agreement, and what the report says about it."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from proxy.ensembles.base import Decided, Reply, Seat
from proxy.ensembles.canonical import canonical
from proxy.ensembles.voting import Voting
from proxy.schema.errors import BadRequest, NoAgreement, ProxyError, QuorumMissed
from tests.ensembles.scripted import ScriptedPanel, calls, fails, message_of, request, said_by
from tests.slowness import slowness

CASCADE = Voting(min_agreement=1.0, below="escalate", escalate_to="strong")
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
TIME = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}}}


class Panel(ScriptedPanel):
    """`deployments`: what answers for each seat, where not a deployment of its own. Notes whether a poll was cut short,
    in `left`: the seats that were not awaited.
    """

    def __init__(self, *arguments: Any, deployments: Sequence[str] = (), **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.deployments = deployments
        self.left: list[str] = []

    async def replies(self, seats: Sequence[Seat]) -> AsyncGenerator[Reply, None]:
        waiting = [seat.name for seat in seats]
        try:
            async for reply in super().replies(seats):
                assert reply.seat is not None
                waiting.remove(reply.seat.name)
                own = self.deployments[reply.seat.index : reply.seat.index + 1]
                yield replace(reply, deployments=tuple(own) or reply.deployments) if reply.response else reply
        finally:
            self.left = waiting


class Steps:
    """A panel that notes how much CPU time the ensemble took between two replies."""

    def __init__(self, panel: Panel) -> None:
        self.name, self.request, self.seats, self.ask, self.stream = (
            panel.name,
            panel.request,
            panel.seats,
            panel.ask,
            panel.stream,
        )
        self.progress = panel.progress
        self.spent_s: list[float] = []
        self._panel = panel

    async def replies(self, seats: Sequence[Seat]) -> AsyncGenerator[Reply, None]:
        async for reply in self._panel.replies(seats):
            started = time.thread_time()
            yield reply
            self.spent_s.append(time.thread_time() - started)
        self.ended_s = time.thread_time()


async def voted(voting: Voting, *members: Any, **named: Any) -> tuple[Decided, Panel]:
    panel = Panel(members, **named)
    return await voting.decide(panel), panel


def text(decided: Decided) -> Any:
    return message_of(decided.response)["content"]


# --- the winner -------------------------------------------------------------------------------------------------------


async def test_three_members_that_say_the_same():
    """The reference case."""
    decided, panel = await voted(Voting(), "$49.99", "$49.99", "$49.99")
    assert text(decided) == "$49.99"
    report = decided.report
    assert (report["confidence"], report["agreed"], report["votes"]) == (1.0, True, {"$49.99": 3})
    assert report["dissent"] == []
    assert report["seats"] == {place: {"vote": "$49.99", "dissents": False} for place in range(3)}
    assert panel.notes == ["1 of 3 answered.", "2 of 3 agree: $49.99", "3 of 3 agree: $49.99"]


async def test_equal_answers_in_other_words_are_one():
    """The words of most of them are the answer."""
    decided, _ = await voted(Voting(), "49.99 USD", "$49.99", "It costs this. Answer: $49.99", "$49.99", "$50")
    assert text(decided) == "$49.99"
    assert decided.report["votes"] == {"$49.99": 4, "$50": 1}
    assert (decided.report["confidence"], decided.report["dissent"]) == (0.8, ["$50"])
    assert decided.report["seats"][4] == {"vote": "$50", "dissents": True}


async def test_two_of_three_are_enough_by_default():
    """0.667 counts as 0.67; a share more than 0.005 below does not."""
    assert (await voted(Voting(), "A", "A", "B"))[0].report["agreed"]
    assert (await voted(Voting(min_agreement=0.671), "A", "A", "B"))[0].report["agreed"]
    assert not (await voted(Voting(min_agreement=0.672), "A", "A", "B"))[0].report["agreed"]
    assert not (await voted(Voting(), "A", "A", "B", "C"))[0].report["agreed"]


async def test_weights_count():
    decided, _ = await voted(Voting(), "A", "A", "B", weights=[1, 1, 3])
    assert text(decided) == "B"
    assert (decided.report["confidence"], decided.report["agreed"]) == (0.6, False)
    assert decided.report["votes"] == {"B": 1, "A": 2}


async def test_confidence_is_the_share_of_those_who_answered():
    """A member that failed or said nothing has no vote."""
    decided, _ = await voted(Voting(), "A", "A", fails(), " \n")
    assert (decided.report["confidence"], decided.report["agreed"]) == (1.0, True)
    assert sorted(decided.report["seats"]) == [0, 1]


async def test_a_quorum_is_missed():
    """Each member with its reason."""
    with pytest.raises(QuorumMissed) as missed:
        await voted(Voting(), "A", fails("upstream_timeout"), fails("rate_limit_exceeded"))
    assert [each.code for each in missed.value.members] == ["upstream_timeout", "rate_limit_exceeded"]


async def test_empty_answers_are_an_empty_answer():
    """As from one model; nothing is agreed."""
    decided, _ = await voted(Voting(), "", " ", "")
    assert message_of(decided.response)["content"] in ("", " ")
    assert (decided.report["votes"], decided.report["confidence"], decided.report["agreed"]) == ({}, 0.0, False)


async def test_a_refusal_is_a_vote_of_its_own():
    """In whatever words; a text that sounds like one is a text."""
    refusals = [{"refusal": "I cannot."}, {"refusal": "No, sorry."}]
    decided, _ = await voted(Voting(), *refusals, "I cannot.")
    assert message_of(decided.response)["refusal"] in ("I cannot.", "No, sorry.")
    assert decided.report["votes"] == {"(refusal)": 2, "I cannot.": 1}


async def test_a_cut_answer_does_not_agree_with_a_whole_one():
    """`$1` may have become `$1,234`."""
    cut = {"content": "$1", "finish_reason": "length"}
    decided, _ = await voted(Voting(), cut, "$1", "$1")
    assert decided.report["votes"] == {"$1": 2, "$1 (cut off)": 1}
    decided, _ = await voted(Voting(), cut, cut, cut)
    assert decided.report["agreed"]


async def test_labels_are_short_and_different():
    """Long answers that begin alike are two lines of the report."""
    decided, _ = await voted(Voting(), "x" * 5000 + "a", "x" * 5000 + "b", "\ud800 lone")
    labels = list(decided.report["votes"])
    assert len(labels) == 3
    assert all(len(label) < 220 for label in labels)
    json.dumps(decided.report, ensure_ascii=False).encode()


# --- nothing depends on the order of the members ----------------------------------------------------------------------

ANSWERS = st.sampled_from(["A", "B", "C", "a", "42", "Answer: 42", '{"a": 1}', "", "42.0"])
SEAT = st.tuples(ANSWERS, st.sampled_from([0.1, 0.2, 0.3, 1.0, 2.0]))


OTHERS: dict[str, Any] = {"strong": "S", "judge": '{"best": "A"}'}


async def outcome(voting: Voting, seats: Sequence[tuple[str, float]]) -> tuple[Any, ...]:
    members = [answer for answer, _ in seats]
    decided, _ = await voted(voting, *members, weights=[weight for _, weight in seats], others=OTHERS)
    report = decided.report
    return text(decided).strip(), report["confidence"], report["agreed"], report["votes"], report["decided_by"]


@given(st.lists(SEAT, min_size=2, max_size=6), st.randoms(use_true_random=False))
async def test_permuting_the_members_changes_nothing(seats, random):
    """With weights, ties and all: answer, confidence, votes."""
    shuffled = [*seats]
    random.shuffle(shuffled)
    for voting in (Voting(), CASCADE):
        assert await outcome(voting, shuffled) == await outcome(voting, seats)


async def test_ties_do_not_prefer_a_place():
    """Over many questions each place of a three-way tie wins about as often as the others, and in all orders the same
    answer does.
    """
    won = [0, 0, 0]
    for question in range(300):
        answers = [f"answer {question} {letter}" for letter in "abc"]
        winners = {text((await voted(Voting(), *order))[0]) for order in itertools.permutations(answers)}
        assert len(winners) == 1
        won[answers.index(winners.pop())] += 1
    print("wins of each place:", won)
    assert all(70 < count < 130 for count in won)


# --- without agreement ------------------------------------------------------------------------------------------------


async def test_the_plurality_answers_and_says_so():
    decided, _ = await voted(Voting(), "A", "A", "B", "C")
    assert (text(decided), decided.report["agreed"], decided.report["decided_by"]) == ("A", False, "votes")


async def test_an_error_if_configured():
    """502 with the votes."""
    with pytest.raises(NoAgreement) as error:
        await voted(Voting(below="error"), "A", "B", "C")
    body: Any = error.value.body()
    assert (error.value.status, body["error"]["code"]) == (502, "ensemble_no_agreement")
    assert sorted(body["error"]["votes"]) == ["A", "B", "C"]
    assert "33%" in error.value.message


def judged(best: Any) -> dict[str, Any]:
    return {"others": {"judge": best}}


async def test_the_judge_chooses():
    """It reads the answers without names or votes, in an order that does not depend on the members."""
    voting = Voting(below="judge", judge="judge")
    texts = set()
    for order in itertools.permutations(["Paris", "London", "Rome"]):
        decided, panel = await voted(voting, *order, **judged('Surely {"best": "B"}'))
        (asked,) = said_by(panel, "judge")
        assert not any(seat.name in asked for seat in panel.seats)
        texts.add((text(decided), asked))
        assert (decided.report["decided_by"], decided.report["agreed"]) == ("judge", False)
        assert decided.report["judge"] == {"model": "judge"}
    assert len(texts) == 1
    assert [name for name in ("Paris", "London", "Rome") if name not in asked] == []


@pytest.mark.parametrize("said", ["no idea", '{"best": "Z"}', '{"best": 3}', fails(), ""], ids=repr)
async def test_a_judge_that_says_nothing_useful_changes_nothing(said):
    """The plurality answers; the report tells why."""
    decided, _ = await voted(Voting(below="judge", judge="judge"), "A", "A", "B", "C", **judged(said))
    assert (text(decided), decided.report["decided_by"]) == ("A", "votes")
    assert {"note", "error"} & decided.report["judge"].keys()


async def test_a_tie_goes_to_the_judge():
    """Of several with the same weight it chooses; without a tie it is not asked."""
    voting = Voting(judge="judge")
    decided, panel = await voted(voting, "A", "A", "B", "B", "C", **judged('{"best": "A"}'))
    assert text(decided) in ("A", "B")
    assert decided.report["decided_by"] == "judge"
    assert "answer C" not in said_by(panel, "judge")[0]
    decided, panel = await voted(voting, "A", "A", "B", "C", **judged('{"best": "A"}'))
    assert panel.roles("judge") == []


async def test_the_judge_is_not_asked_where_members_agree():
    _, panel = await voted(Voting(below="judge", judge="judge", cluster_by="judge"), "A", "A", "B", **judged("x"))
    assert panel.roles("judge") == []


async def test_answers_with_one_meaning_are_grouped_by_the_judge():
    """Once, and only where the votes do not agree."""
    voting = Voting(cluster_by="judge", judge="judge")
    answers = ["The capital is Paris.", "It's Paris", "Paris, of course", "Rome"]
    decided, panel = await voted(voting, *answers, **judged(lambda asked: grouped(asked, "Paris")))
    assert "Paris" in text(decided)
    assert (decided.report["confidence"], decided.report["agreed"]) == (0.75, True)
    assert sorted(decided.report["votes"].values()) == [1, 3]
    assert decided.report["grouping"] == {"model": "judge", "groups": 2}
    assert panel.roles("judge") == ["judge"]


def grouped(asked: Any, word: str) -> str:
    """One group of the answers that have the word, each other one alone."""
    shown = asked.messages[1].content
    labels = [label for label in "ABCD" if f"<answer {label} " in shown]
    bodies = {label: shown.split(f"<answer {label} ")[1].split("</answer")[0] for label in labels}
    same = [label for label in labels if word in bodies[label]]
    return json.dumps({"groups": [same, *([label] for label in labels if label not in same)]})


@pytest.mark.parametrize(
    "said", ["?", '{"groups": [["A", "B"], ["B"]]}', '{"groups": [["A", "Q"]]}', '{"groups": 1}', fails()], ids=repr
)
async def test_unreadable_groups_change_nothing(said):
    decided, _ = await voted(Voting(cluster_by="judge", judge="judge"), "one", "two", "three", **judged([said, "?"]))
    assert len(decided.report["votes"]) == 3
    assert decided.report["grouping"]["groups"] is None


# --- the cascade ------------------------------------------------------------------------------------------------------


async def test_cheap_members_that_agree_are_enough():
    decided, panel = await voted(CASCADE, "A", "a.", others={"strong": "S"})
    assert (decided.report["agreed"], panel.roles("escalation")) == (True, [])
    assert text(decided) in ("A", "a.")


async def test_the_strong_model_answers_where_they_disagree():
    """It reads the question as the client sent it, and nothing of the votes."""
    decided, panel = await voted(CASCADE, "A", "B", others={"strong": "S"})
    assert text(decided) == "S"
    assert [each for _, role, each in panel.asked if role == "escalation"] == [panel.request]
    report = decided.report
    assert (report["agreed"], report["confidence"], report["decided_by"]) == (False, 0.5, "escalation")
    assert report["escalated_to"] == {"model": "strong"}
    assert decided.attempts == ("strong#3",)
    assert panel.notes[-1] == "The members do not agree. strong is answering."


async def test_the_strong_model_may_read_the_votes():
    """At the end of the last message of the user, between markers."""
    voting = replace(CASCADE, show_votes=True)
    _, panel = await voted(voting, "It is Paris", "It is Rome", others={"strong": "S"})
    (asked,) = said_by(panel, "escalation")
    assert asked.startswith("Be brief.\nWhat is 6 times 7?")
    assert "It is Paris" in asked
    assert "It is Rome" in asked
    assert "follow nothing" in asked


async def test_the_strong_model_streams():
    """Its answer is the client's, delta by delta."""
    decided, panel = await voted(CASCADE, "A", "B", others={"strong": "S"}, request=request(stream=True))
    assert (decided.response, panel.streamed) == (None, ["S"])


async def test_a_strong_model_that_fails_does_not_lose_the_answers():
    decided, _ = await voted(CASCADE, "A", "A", "B", others={"strong": fails("upstream_timeout")})
    assert (text(decided), decided.report["agreed"], decided.report["decided_by"]) == ("A", False, "votes")
    assert decided.report["escalated_to"]["error"]["code"] == "upstream_timeout"


async def test_too_few_answers_are_no_agreement():
    """The strong model answers where the cheap ones fail; without any answer its failure is the call's."""
    decided, _ = await voted(CASCADE, "A", fails(), fails(), others={"strong": "S"})
    assert (text(decided), decided.report["agreed"]) == ("S", False)
    decided, _ = await voted(CASCADE, fails(), fails(), others={"strong": "S"})
    assert (text(decided), decided.report["votes"]) == ("S", {})
    decided, _ = await voted(CASCADE, BadRequest("too long"), BadRequest("too long"), others={"strong": "S"})
    assert text(decided) == "S"
    with pytest.raises(ProxyError) as error:
        await voted(CASCADE, fails(), fails(), others={"strong": fails("upstream_timeout")})
    assert error.value.code == "upstream_timeout"
    decided, _ = await voted(CASCADE, "A", fails(), others={"strong": fails()})
    assert (text(decided), decided.report["agreed"]) == ("A", False)


async def test_empty_answers_escalate():
    assert text((await voted(CASCADE, "", "", others={"strong": "S"}))[0]) == "S"


async def test_one_deployment_does_not_agree_with_itself():
    """Whatever it was called: what answered counts. Unless the configuration says otherwise."""
    named = {"deployments": ["p/x", "p/x"], "others": {"strong": "S"}}
    decided, _ = await voted(CASCADE, "A", "A", **named)
    assert (text(decided), decided.report["same_deployment"]) == ("S", ["p/x"])
    decided, _ = await voted(replace(CASCADE, count_same_deployment=True), "A", "A", **named)
    assert (text(decided), decided.report["agreed"], decided.report["same_deployment"]) == ("A", True, ["p/x"])
    decided, _ = await voted(Voting(), "A", "A", **named)
    assert (decided.report["agreed"], decided.report["same_deployment"]) == (True, ["p/x"])


async def test_a_deployment_counts_once_for_each_answer():
    """x, x and y say A, x says B: two voices to one."""
    named = {"deployments": ["p/x", "p/x", "p/y", "p/x"], "others": {"strong": "S"}}
    decided, _ = await voted(replace(CASCADE, min_agreement=0.67), "A", "A", "A", "B", **named)
    assert (text(decided), decided.report["confidence"], decided.report["agreed"]) == ("A", 0.6667, True)


# --- early stop -------------------------------------------------------------------------------------------------------

EARLY = Voting(early_stop=True)


async def test_members_that_cannot_change_anything_are_cancelled():
    """Listed by name; two of three agree whatever the third says."""
    decided, panel = await voted(EARLY, "A", "A", "B")
    assert (text(decided), panel.left, decided.report["cancelled"]) == ("A", ["p/m2"], ["p/m2"])
    assert (decided.report["confidence"], decided.report["agreed"]) == (1.0, True)


@pytest.mark.parametrize(
    ("voting", "answers", "left"),
    [
        (EARLY, ["A", "B", "A"], 0),
        (Voting(), ["A", "A", "B"], 0),  # nobody asked for it
        (replace(EARLY, min_agreement=1.0), ["A", "A", "A"], 0),  # the last one may still disagree
        (replace(EARLY, min_agreement=1.0), ["A", "B", "A"], 0),  # the last one decides who wins
        (replace(EARLY, min_agreement=1.0), ["A", "A", "B", "A", "A"], 1),  # it is no agreement, and A has won
        (replace(EARLY, min_answers=3), ["A", "A", "A", "B"], 1),
        (replace(EARLY, below="judge", judge="judge"), ["A", "B", "C", "A"], 0),  # the judge reads all answers
        (replace(EARLY, below="error"), ["A", "B", "C", "A"], 1),  # cannot reach 0.67 any more
        (replace(CASCADE, early_stop=True), ["A", "B", "A", "A"], 2),  # all must agree
        (replace(CASCADE, early_stop=True), ["A", "A", "A"], 0),
        (replace(CASCADE, early_stop=True, min_agreement=0.67), ["A", "A", "B"], 1),
        (replace(EARLY, judge="judge", cluster_by="judge", min_agreement=0.5), ["A", "A", "B", "C", "D"], 0),
        (replace(EARLY, judge="judge", cluster_by="judge", min_agreement=0.5), ["A", "A", "A", "B", "B"], 2),
    ],
)
async def test_when_the_vote_is_settled(voting, answers, left):
    """Not before winner and agreement are certain."""
    others = {"strong": "S", "judge": "?"}
    try:
        _, panel = await voted(voting, *answers, others=others)
    except NoAgreement:
        panel = Panel(answers, others=others)
        with pytest.raises(NoAgreement):
            await voting.decide(panel)
    assert len(panel.left) == left


@given(st.lists(SEAT, min_size=2, max_size=6), st.sampled_from([0.5, 0.6, 0.67, 0.8, 1.0]))
async def test_an_early_stop_never_changes_the_result(seats, share):
    """Answer and agreement are those of the whole panel."""
    seats = [(answer or "E", weight) for answer, weight in seats]  # an empty answer changes the weight of the others
    judged = Voting(min_agreement=share, below="judge", judge="judge")
    for voting in (Voting(min_agreement=share), replace(CASCADE, min_agreement=share), judged):
        whole, early = [await outcome(each, seats) for each in (voting, replace(voting, early_stop=True))]
        assert (canonical(early[0]), early[2]) == (canonical(whole[0]), whole[2])


# --- tools ------------------------------------------------------------------------------------------------------------


async def test_equal_calls_agree():
    """Whatever the order of the keys, the form of the numbers, the ids and the order of the calls."""
    tools = request(tools=[WEATHER, TIME])
    decided, _ = await voted(
        Voting(),
        calls(("get_weather", '{"city": "Paris", "days": 1}'), ("get_time", "")),
        calls(("get_time", "{}"), ("get_weather", '{"days":1.0,"city":"Paris"}')),
        calls(("get_weather", '{"city": "paris", "days": 1}'), ("get_time", "")),
        request=tools,
    )
    made = message_of(decided.response)["tool_calls"]
    assert sorted(call["function"]["name"] for call in made) == ["get_time", "get_weather"]
    assert [call["id"] for call in made] == ["call_0", "call_1"]
    assert decided.response is not None
    assert decided.response["choices"][0]["finish_reason"] == "tool_calls"
    assert decided.report["votes"] == {
        'get_time({}), get_weather({"city":"Paris","days":1})': 2,
        'get_time({}), get_weather({"city":"paris","days":1})': 1,
    }


@pytest.mark.parametrize(
    "other",
    [
        calls(("get_weather", '{"city": "Rome"}')),
        calls(("get_time", '{"city": "Paris"}')),
        calls(("get_weather", '{"city": "Paris"}'), ("get_weather", '{"city": "Paris"}')),
        calls(("get_weather", '{"city": "Paris", "days": null}')),
        'get_weather({"city": "Paris"})',
        "It is sunny in Paris.",
    ],
    ids=repr,
)
async def test_other_calls_and_texts_do_not(other):
    """Texts beside a call are comments."""
    call = calls(("get_weather", '{"city": "Paris"}'))
    spoken = {**call, "content": "Let me look."}
    decided, _ = await voted(Voting(), call, spoken, other, request=request(tools=[WEATHER, TIME]))
    assert (decided.report["confidence"], decided.report["agreed"]) == (0.6667, True)
    assert message_of(decided.response)["tool_calls"]


@pytest.mark.parametrize(
    "broken",
    [calls(("get_weather", '{"city": ')), calls(("get_weather", "[1]")), calls(("rm", "{}")), calls(("", "{}"))],
    ids=repr,
)
async def test_a_call_that_no_client_can_run_has_no_vote(broken):
    """Unless nobody says anything else: then it is the answer, as from one model."""
    tools = request(tools=[WEATHER])
    decided, _ = await voted(Voting(), broken, broken, "Sunny.", request=tools)
    assert (text(decided), decided.report["votes"]) == ("Sunny.", {"Sunny.": 1})
    decided, _ = await voted(Voting(), broken, broken, request=tools)
    assert message_of(decided.response)["tool_calls"]


async def test_custom_tools_and_the_older_api_vote_too():
    custom = {"content": None, "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "sql", "input": "x"}}]}
    tools = request(tools=[{"type": "custom", "custom": {"name": "sql"}}])
    decided, _ = await voted(Voting(), custom, custom, "x", request=tools)
    assert decided.report["votes"] == {"custom sql(x)": 2, "x": 1}
    older = {"content": None, "function_call": {"name": "f", "arguments": "{}"}}
    decided, _ = await voted(Voting(), older, older, "x", request=request(functions=[{"name": "f"}]))
    assert decided.report["votes"] == {"f({})": 2, "x": 1}


# --- fields of JSON ---------------------------------------------------------------------------------------------------

PRODUCT = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "price": {"type": "number"},
        "rating": {"type": "number"},
        "maker": {"type": "object", "properties": {"name": {"type": "string"}, "country": {"type": "string"}}},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["name", "price", "rating"],
}


def wants(schema: dict[str, Any] = PRODUCT) -> Any:
    return request(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})


async def test_the_majority_of_each_field():
    """Three members, each wrong about something else: nobody gave the answer that comes out."""
    decided, _ = await voted(
        Voting(),
        '{"name": "Lamp", "price": 49.99, "rating": 4.0}',
        '{"name": "lamp", "price": 50, "rating": 4.5}',
        '```json\n{"rating": 4.5, "price": 49.99, "name": "Light"}\n```',
        request=wants(),
    )
    answer = json.loads(text(decided))
    assert (answer["name"].lower(), answer["price"], answer["rating"]) == ("lamp", 49.99, 4.5)
    report = decided.report
    assert (report["decided_by"], report["agreed"], report["confidence"]) == ("fields", True, 0.6667)
    assert {name: field["agreement"] for name, field in report["fields"].items()} == dict.fromkeys(
        ("name", "price", "rating"), 0.6667
    )
    assert len(decided.attempts) == 3
    assert all(seat["dissents"] for seat in report["seats"].values())


async def test_an_answer_that_says_just_that_is_passed_on():
    """With its own words and attempts."""
    whole = '{"price": 1.50, "name": "A",   "rating": 3}'
    decided, _ = await voted(
        Voting(),
        whole,
        '{"name": "A", "price": 1.5, "rating": 2}',
        '{"name": "B", "price": 1.5, "rating": 3.0}',
        request=wants(),
    )
    assert (text(decided), decided.attempts) == (whole, ("p/m0#1",))
    assert [seat["dissents"] for seat in decided.report["seats"].values()].count(False) == 1


async def test_nested_objects_are_followed_and_lists_are_one_value():
    """A field that most leave out is left out."""
    first = {"name": "A", "price": 1, "rating": 1, "maker": {"name": "M", "country": "DE"}, "tags": ["x", "y"]}
    second = {"name": "A", "price": 1, "rating": 1, "maker": {"name": "M", "country": "FR"}, "tags": ["x"], "extra": 1}
    third = {"name": "A", "price": 1, "rating": 1, "maker": {"name": "N", "country": "DE"}, "tags": ["x", "y"]}
    decided, _ = await voted(Voting(), *map(json.dumps, (first, second, third)), request=wants())
    assert json.loads(text(decided)) == first
    assert decided.report["fields"]["maker.country"] == {"value": '"DE"', "agreement": 0.6667}
    assert decided.report["fields"]["tags"]["agreement"] == 0.6667
    assert decided.report["fields"]["extra"] == {"value": "(absent)", "agreement": 0.6667}


async def test_a_member_without_an_object_does_not_agree_on_its_fields():
    """Two of three name the maker, so no more than two of three agree on anything of it."""
    maker = '{"name": "A", "price": 1, "rating": 1, "maker": {"name": "M"}}'
    for other in ('{"name": "A", "price": 1, "rating": 1}', '{"name": "A", "price": 1, "rating": 1, "maker": "M"}'):
        decided, _ = await voted(Voting(), maker, maker, other, request=wants())
        assert text(decided) == maker
        assert decided.report["fields"]["maker.name"]["agreement"] == 0.6667
        assert decided.report["decided_by"] == "votes"


async def test_fields_that_break_the_schema_together_are_not_put_together():
    """The whole answers are voted on instead."""
    schema = {"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}
    answers = ['{"a": 1, "c": 1}', '{"b": 1, "c": 2}', '{"a": 1, "c": 3}', '{"b": 1, "c": 3}']
    decided, _ = await voted(Voting(), *answers, request=wants(schema))
    assert decided.report["decided_by"] == "hash"
    assert text(decided) in answers
    assert "fields" not in decided.report


async def test_a_tie_goes_to_an_answer_in_the_form_that_was_asked_for():
    """Wherever it stands, and whatever the hashes say. Of several such answers the hash decides."""
    good = '{"name": "A", "price": 1, "rating": 1}'
    for broken in itertools.permutations((good, '{"name": "A", "price":', "No.")):
        decided, _ = await voted(Voting(), *broken, request=wants())
        assert text(decided) == good
        assert (decided.report["confidence"], decided.report["agreed"]) == (0.3333, False)
    for said in ('{"a": 1}', '{"b": [2]}'):
        decided, _ = await voted(Voting(), said, "so: {", request=request(response_format={"type": "json_object"}))
        assert text(decided) == said
    for whole in "one", "two", "three":
        cut_off = {"content": "four", "finish_reason": "length"}
        decided, _ = await voted(Voting(), cut_off, whole)
        assert text(decided) == whole


async def test_a_tie_that_the_fields_decide_is_decided_by_fields():
    """Also where one member happens to say just that."""
    decided, _ = await voted(
        Voting(),
        '{"name": "A", "price": 1, "rating": 2}',
        '{"name": "A", "price": 1, "rating": 1}',
        '{"name": "B", "price": 1, "rating": 2}',
        request=wants(),
    )
    assert json.loads(text(decided)) == {"name": "A", "price": 1, "rating": 2}
    assert (decided.report["decided_by"], decided.report["agreed"]) == ("fields", True)


async def test_answers_that_are_no_json_have_no_say_in_fields():
    """But they count: what they do not support has a smaller share."""
    decided, _ = await voted(
        Voting(),
        '{"name": "A", "price": 1, "rating": 1}',
        '{"name": "A", "price": 2, "rating": 1}',
        '{"name": "A", "price": 1, "rating": 1}',
        "I do not know.",
        request=wants(),
    )
    assert json.loads(text(decided)) == {"name": "A", "price": 1, "rating": 1}
    assert decided.report["fields"]["name"]["agreement"] == 0.75
    assert (decided.report["confidence"], decided.report["agreed"]) == (0.5, False)
    decided, _ = await voted(Voting(), '{"name": "A"}', "No.", "No.", request=wants())
    assert text(decided) == "No."


async def test_a_cascade_escalates_for_one_field():
    """In which the cheap members disagree."""
    answers = ['{"name": "A", "price": 1, "rating": 1}', '{"name": "A", "price": 2, "rating": 1}']
    decided, _ = await voted(CASCADE, *answers, request=wants(), others={"strong": "{}"})
    assert (text(decided), decided.report["confidence"]) == ("{}", 0.5)


@given(st.permutations(['{"a":1,"b":1}', '{"b":2,"a":1}', '{"a":2,"b":3}', '{"c":[1]}', '{"a":{"x":1}}']))
async def test_the_order_of_members_does_not_change_fields(answers):
    decided, _ = await voted(Voting(), *answers, request=wants({"type": "object"}))
    assert json.loads(text(decided))["a"] == 1
    first, _ = await voted(Voting(), *sorted(answers), request=wants({"type": "object"}))
    assert (text(decided), decided.report["fields"]) == (text(first), first.report["fields"])


async def test_half_of_the_weight_is_half_in_any_order():
    """0.3 + 2 is what 0.1 + 1 + 1 + 0.2 is, however they are added up: no majority for JSON."""
    members = [("no", 0.3), ('{"a": 1}', 0.1), ('{"a": 2}', 1), ('{"a": 3}', 1), ("no", 2), ('{"a": 4}', 0.2)]
    for order in itertools.permutations(members):
        answers, weights = zip(*order, strict=True)
        decided, _ = await voted(Voting(), *answers, weights=weights, request=wants({"type": "object"}))
        assert (text(decided), decided.report["confidence"]) == ("no", 0.5)


@given(
    st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys("abc", st.integers(1, 2))), min_size=2, max_size=6),
    st.sampled_from([0.5, 0.67, 0.8, 1.0]),
)
async def test_an_early_stop_never_changes_fields(answers, share):
    """What most say of each field stays the same, whoever was not awaited."""
    results = []
    for early in (False, True):
        voting = Voting(min_agreement=share, early_stop=early)
        decided, _ = await voted(voting, *map(json.dumps, answers), request=wants({"type": "object"}))
        results.append((json.loads(text(decided)), decided.report["agreed"]))
    assert results[0] == results[1]


async def test_large_answers_are_voted_on_as_a_whole():
    """Also deep ones and ones with hostile schemas."""
    large = json.dumps({f"k{n}": n for n in range(2000)})
    decided, _ = await voted(Voting(), large, large, "{}", request=wants({"type": "object"}))
    assert (text(decided), "fields" in decided.report) == (large, False)
    deep = '{"a":' * 60 + "1" + "}" * 60
    decided, _ = await voted(Voting(), deep, deep, deep.replace("1", "2"), request=wants({"type": "object"}))
    assert json.loads(text(decided)) == json.loads(deep)
    decided, _ = await voted(Voting(), "{}", "{}", request=wants({"type": "nonsense"}))
    assert (text(decided), decided.report["agreed"]) == ("{}", True)


async def test_no_step_holds_the_loop():
    """16 members with as many fields as are looked into: the longest step, in CPU time."""
    answers = [json.dumps({f"field {n}": f"{n * seat % 7} Euro" for n in range(30)}) for seat in range(16)]
    asked = wants({"type": "object"})
    spent = []
    for _ in range(3):
        panel = Panel(answers, request=asked)
        steps, before = Steps(panel), slowness()
        await Voting().decide(steps)
        longest_s = max(*steps.spent_s, time.thread_time() - steps.ended_s)
        spent.append(longest_s / max(before, slowness()))
    print(f"longest step: {min(spent) * 1000:.1f} ms")
    assert min(spent) < 0.02


@pytest.mark.parametrize("kind", ["text", "JSON", "calls", "refusal"])
async def test_giant_answers_are_read_beside_the_loop(kind):
    """8 MB each: what the loop's own thread does in one step. They are equal only to themselves."""
    first, second = ("Word ½ " * 1_000_000 + end for end in "ab")
    if kind == "JSON":
        first, second = (json.dumps({"text": each}) for each in (first, second))
    makers = {
        "calls": lambda each: calls(("get_weather", json.dumps({"x": each}))),
        "refusal": lambda each: {"refusal": each},
    }
    answers = [makers.get(kind, str)(each) for each in (first, first, second)]
    steps, before = Steps(Panel(answers, request=request(tools=[WEATHER]))), slowness()
    decided = await Voting().decide(steps)
    spent_s = [*steps.spent_s, time.thread_time() - steps.ended_s]
    print(f"{kind}: longest step {max(spent_s) * 1000:.1f} ms")
    assert max(spent_s) < 0.02 * max(before, slowness())
    assert decided.report["confidence"] == (1.0 if kind == "refusal" else 0.6667)


# --- what is refused at load ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"below": "judge"}, "`below: judge` needs `judge`"),
        ({"cluster_by": "judge"}, "`cluster_by: judge` needs `judge`"),
        ({"below": "escalate"}, "`below: escalate` needs `escalate_to`"),
        ({"escalate_to": "x"}, "`escalate_to` has no effect without `below: escalate`"),
        ({"show_votes": True}, "`show_votes` has no effect"),
        ({"count_same_deployment": True}, "`count_same_deployment` has no effect"),
        ({"below": "error", "judge": "x"}, "`judge` is never asked with `below: error`"),
        ({"below": "escalate", "escalate_to": "x", "judge": "y"}, "`judge` is never asked"),
        ({"below": "escalate", "escalate_to": "x", "members": ["a"]}, "needs two members"),
        ({"below": "escalate", "escalate_to": "x", "size": 1}, "needs two members"),
        ({"min_agreement": 0}, "min_agreement"),
        ({"min_agreement": 1.01}, "min_agreement"),
        ({"members": [{"use": "a", "weight": 0}]}, "weight"),
        ({"members": [{"use": "a", "weight": -1}]}, "weight"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_settings_that_cannot_work_are_refused(keys, why):
    with pytest.raises(msgspec.ValidationError, match=why):
        msgspec.convert({"strategy": "voting", **keys}, Voting)


def test_followers_are_all_that_may_be_asked():
    """Once for each time."""
    assert Voting().followers() == []
    assert CASCADE.followers() == ["strong"]
    assert Voting(judge="j", below="judge", cluster_by="judge").followers() == ["j", "j"]
    assert replace(CASCADE, judge="j", cluster_by="judge").followers() == ["j", "strong"]
