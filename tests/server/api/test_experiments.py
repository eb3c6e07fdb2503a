"""`/v1/experiments`: who gets which variant, what becomes of it, and what happens at the verdict."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from proxy.prompts.assignment import unit_hash
from tests.server.api.test_keys import add, secret
from tests.serving import Server, serving, write_files
from tests.upstream import FakeUpstream
from tests.upstream.modes import says

pytestmark = pytest.mark.asyncio(loop_scope="module")
ADMIN = "the-admin-key-of-these-tests"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(upstream_of_module: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    folder = tmp_path_factory.mktemp("experiments")
    add(folder / "usage.db", "ann")
    async with serving(write_files(folder, upstream_of_module.url), {"PROXY_ADMIN_KEY": ADMIN}) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def admin(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {ADMIN}"}
    async with httpx.AsyncClient(base_url=server.base_url, headers=headers, trust_env=False) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ann(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {secret('ann')}"}
    async with httpx.AsyncClient(base_url=server.base_url, headers=headers, trust_env=False) as client:
        yield client


async def made(admin: httpx.AsyncClient, name: str, *, start: bool = True, **fields: Any) -> Any:
    """A new experiment, started. Without variants those of two temperatures."""
    variants = [{"name": "cold", "parameters": {"temperature": 0}}, {"name": "hot", "parameters": {"temperature": 1}}]
    answer = await admin.post("/experiments", json={"id": name, "variants": variants, **fields})
    assert answer.status_code == 201, answer.text
    if start:
        answer = await admin.post(f"/experiments/{name}/start")
        assert answer.status_code == 200, answer.text
    return answer.json()


async def with_prompt(admin: httpx.AsyncClient, name: str, versions: int = 2) -> None:
    """A prompt whose versions say their number, with the label `production` on the first."""
    first = {"id": name, "template": "version 1 of {x}", "labels": ["production"]}
    assert (await admin.post("/prompts", json=first)).status_code == 201
    for number in range(2, versions + 1):
        answer = await admin.post(f"/prompts/{name}/versions", json={"template": f"version {number} of {{x}}"})
        assert answer.status_code == 201, answer.text


async def asked(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    body = {"model": "fake/ok", "messages": [{"role": "user", "content": "hi"}], **fields}
    return await client.post("/chat/completions", json=body)


def sent(answer: httpx.Response) -> Any:
    """What reached the upstream, which answered with it."""
    return json.loads(answer.json()["choices"][0]["message"]["content"])


async def row(client: httpx.AsyncClient, answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return (await client.get(f"/requests/{answer.headers['x-request-id']}")).json()


async def test_a_named_experiment_varies_parameters_and_sticks_to_the_user(
    admin: httpx.AsyncClient, ann: httpx.AsyncClient, upstream: FakeUpstream
) -> None:
    """The same user has the same variant in each call; the upstream gets what it varies, and not the hint."""
    upstream.speakers["listen"] = json.dumps
    await made(admin, "temperatures")
    seen: dict[str, set[str]] = {}
    for number in range(24):
        user = f"user-{number % 8}"
        answer = await asked(
            ann, model="fake/listen", user=user, temperature=0.5, routing={"experiment": "temperatures"}
        )
        found = await row(ann, answer)
        assert found["experiment"] == "temperatures"
        seen.setdefault(user, set()).add(found["variant"])
        assert sent(answer)["temperature"] == {"cold": 0, "hot": 1}[found["variant"]]
        assert "routing" not in sent(answer)
    assert {len(variants) for variants in seen.values()} == {1}
    assert {name for variants in seen.values() for name in variants} == {"cold", "hot"}
    chosen = (await ann.get("/experiments/temperatures/variant", params={"unit": "user-3"})).json()
    assert seen["user-3"] == {chosen["variant"]}


async def test_every_use_of_a_prompt_takes_part_unless_it_pins_a_version(
    admin: httpx.AsyncClient, ann: httpx.AsyncClient, upstream: FakeUpstream
) -> None:
    """A version or another label that a request names is what it gets."""
    upstream.speakers["listen"] = json.dumps
    await with_prompt(admin, "greeting")
    await admin.put("/prompts/greeting/labels/staging", json={"version": 1})
    variants = [{"name": "old", "prompt_version": 1}, {"name": "new", "prompt_version": 2}]
    await made(admin, "greetings", prompt="greeting", variants=variants)
    found: Counter[tuple[str | None, int]] = Counter()
    for number in range(20):
        use = {"id": "greeting", "variables": {"x": "text"}}
        answer = await asked(ann, model="fake/listen", user=str(number), prompt=use, messages=[])
        kept = await row(ann, answer)
        assert sent(answer)["messages"][0]["content"] == f"version {kept['prompt_version']} of text"
        found[kept["variant"], kept["prompt_version"]] += 1
    assert set(found) == {("old", 1), ("new", 2)}
    pins: list[dict[str, Any]] = [{"version": 2}, {"label": "staging"}]
    for pinned in pins:
        use = {"id": "greeting", "variables": {"x": "y"}, **pinned}
        kept = await row(ann, await asked(ann, user="1", prompt=use, messages=[]))
        assert (kept["experiment"], kept["prompt"]) == (None, "greeting")


async def test_a_variant_may_be_another_model_or_an_ensemble(
    admin: httpx.AsyncClient, ann: httpx.AsyncClient, upstream: FakeUpstream
) -> None:
    """In the shares of `round_robin`, whatever model the request names; its row says which variant it was."""
    upstream.modes |= dict.fromkeys(("other", "cool", "one", "two", "three"), says("yes"))
    ensemble = {"strategy": "voting", "models": ["fake/one", "fake/two", "fake/three"]}
    variants = [
        {"name": "other", "model": "fake/other"},
        {"name": "panel", "ensemble": ensemble},
        {"name": "both", "model": "fake/cool", "parameters": {"temperature": 0.1}},
    ]
    await made(admin, "models", variants=variants, assignment="round_robin")
    seen: Counter[tuple[str, str]] = Counter()
    for _ in range(9):
        answer = await asked(ann, routing={"experiment": "models"})
        kept = await row(ann, answer)
        seen[kept["variant"], answer.headers["x-proxy-model"]] += 1
        assert len(kept["attempts"]) == (3 if kept["variant"] == "panel" else 1)
    assert {name: count for (name, _), count in seen.items()} == {"other": 3, "panel": 3, "both": 3}
    assert {model for name, model in seen if name == "other"} == {"fake/other"}
    assert {model for name, model in seen if name == "both"} == {"fake/cool"}
    usage = (await admin.get("/usage", params={"group_by": "experiment,variant"})).json()
    calls = {each["variant"]: each["calls"] for each in usage["groups"] if each["experiment"] == "models"}
    assert calls == {"other": 3, "panel": 3, "both": 3}


@pytest.mark.parametrize("whom", ["session", "conversation"])
async def test_a_session_or_a_conversation_keeps_its_variant(
    admin: httpx.AsyncClient, ann: httpx.AsyncClient, upstream: FakeUpstream, whom: str
) -> None:
    """Where no user is named."""
    await made(admin, f"by-{whom}")
    seen: dict[int, set[str]] = {}
    for number in [*range(10)] * 3:
        body: dict[str, Any] = {"model": "fake/ok", "messages": [{"role": "user", "content": f"talk {number}"}]}
        headers = {}
        if whom == "session":
            body["messages"], headers = [{"role": "user", "content": "hi"}], {"x-session-id": f"s {number}"}
        elif number in seen:  # the conversation went on
            body["messages"] += [{"role": "assistant", "content": "yes"}, {"role": "user", "content": "more"}]
        headers["x-proxy-experiment"] = f"by-{whom}"
        kept = await row(ann, await ann.post("/chat/completions", json=body, headers=headers))
        assert kept["experiment"] == f"by-{whom}"
        seen.setdefault(number, set()).add(kept["variant"])
    assert {len(variants) for variants in seen.values()} == {1}
    assert {name for variants in seen.values() for name in variants} == {"cold", "hot"}


async def test_a_version_in_a_running_experiment_is_not_archived(admin: httpx.AsyncClient) -> None:
    """409 until it is stopped; other versions may go."""
    await with_prompt(admin, "kept", 3)
    variants = [{"name": "a", "prompt_version": 2}, {"name": "b", "parameters": {"top_p": 1}}]
    await made(admin, "keeping", prompt="kept", variants=variants)
    refused = await admin.delete("/prompts/kept/versions/2")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")
    assert "keeping" in refused.json()["error"]["message"]
    assert (await admin.delete("/prompts/kept")).status_code == 409
    assert (await admin.delete("/prompts/kept/versions/3")).status_code == 200
    await admin.post("/experiments/keeping/stop")
    assert (await admin.delete("/prompts/kept/versions/2")).status_code == 200


async def test_ratings_make_a_verdict_and_move_the_label_and_back(
    admin: httpx.AsyncClient, ann: httpx.AsyncClient, upstream: FakeUpstream
) -> None:
    """Undecided with a leader until it is proven; then the label moves once, is recorded, and can be moved back."""
    await with_prompt(admin, "pitch")
    variants = [{"name": "old", "prompt_version": 1}, {"name": "new", "prompt_version": 2}]
    rules: dict[str, Any] = {"minimum_samples": 5, "minimum_effect": 0.5, "promote": True}
    await made(admin, "pitches", prompt="pitch", variants=variants, **rules)
    path = "/experiments/pitches/results"
    empty = (await ann.get(path)).json()
    assert (empty["verdict"], empty["winner"], empty["leader"]) == ("undecided", None, None)
    verdicts: list[str] = []
    for number in range(60):
        answer = await asked(ann, user=f"u{number}", prompt={"id": "pitch", "variables": {"x": "y"}}, messages=[])
        variant = (await row(ann, answer))["variant"]
        await ann.post("/feedback", json={"id": answer.json()["id"], "success": variant == "new"})
        found = (await ann.get(path)).json()
        verdicts.append(found["verdict"])
        if found["verdict"] == "winner":
            break
        assert found["winner"] is None
        assert found["reason"]
    assert verdicts[0] == "undecided"
    assert found["winner"] == found["leader"] == "new"
    old, new = found["variants"]
    assert (old["success"]["mean"], new["success"]["mean"], old["calls"] + new["calls"]) == (0, 1, len(verdicts))
    assert old["difference"]["low"] > 0
    assert new["difference"] is None
    labels = (await ann.get("/prompts/pitch/labels")).json()
    assert labels["labels"] == {"production": 2}
    assert labels["history"][0]["note"] == "experiment pitches: new won"
    stored = (await ann.get("/experiments/pitches")).json()
    assert (stored["winner"], stored["promoted_version"], stored["promoted_from"]) == ("new", 2, 1)
    versions = (await ann.get("/prompts/pitch/versions")).json()["data"]
    assert [each["performance_score"] for each in versions] == [1.0, 0.0]
    reverted = await admin.post("/experiments/pitches/revert")
    assert reverted.status_code == 200, reverted.text
    assert (await ann.get("/prompts/pitch/labels")).json()["labels"] == {"production": 1}
    await ann.get(path)  # a look does not promote again
    assert (await ann.get("/prompts/pitch/labels")).json()["labels"] == {"production": 1}
    assert (await admin.post("/experiments/pitches/revert")).status_code == 409


async def test_outcomes_of_the_answer_itself_need_no_rating(
    admin: httpx.AsyncClient, ann: httpx.AsyncClient, upstream: FakeUpstream
) -> None:
    """Valid JSON, refusals, cost and latency, of whole answers and of streams."""
    upstream.modes |= {"json": says('{"a": 1}'), "prose": says("no json")}
    variants = [{"name": "json", "model": "fake/json"}, {"name": "prose", "model": "fake/prose"}]
    variants.append({"name": "no", "model": "fake/refusal"})
    await made(admin, "shapes", variants=variants, assignment="round_robin", metric="valid_json")
    for number in range(6):
        answer = await asked(ann, stream=number >= 3, routing={"experiment": "shapes"})
        assert answer.status_code == 200, answer.text
    found = {each["name"]: each for each in (await ann.get("/experiments/shapes/results")).json()["variants"]}
    assert {name: each["valid_json"] for name, each in found.items()} == {
        "json": {"count": 2, "mean": 1.0},
        "prose": {"count": 2, "mean": 0.0},
        "no": {"count": 2, "mean": 0.0},
    }
    assert {name: each["refusal"]["mean"] for name, each in found.items()} == {"json": 0.0, "prose": 0.0, "no": 1.0}
    assert all(each["latency_ms"]["mean"] > 0 and each["cost_usd"]["mean"] > 0 for each in found.values())
    assert all(each["units"] == each["calls"] == 2 for each in found.values())


async def test_a_user_counts_once_however_many_calls(admin: httpx.AsyncClient, ann: httpx.AsyncClient) -> None:
    """The mean of the ratings of its calls; of one call the last rating counts, or the mean."""
    for rule, mean in (("last", 0.5), ("mean", 0.75)):
        name = f"units-{rule}"
        await made(admin, name, metric="score", outcome_rule=rule)
        for scores in ([1.0, 0.0], [1.0]):  # two calls of one user
            answer = await asked(ann, user="one", routing={"experiment": name})
            for score in scores:
                rated = await ann.post("/feedback", json={"id": answer.json()["id"], "score": score})
                assert rated.status_code == 200
        variants = (await ann.get(f"/experiments/{name}/results")).json()["variants"]
        (hers,) = [each for each in variants if each["calls"]]
        assert (hers["calls"], hers["units"], hers["score"]) == (2, 1, {"count": 1, "mean": mean})


async def test_outcomes_without_a_call(admin: httpx.AsyncClient, ann: httpx.AsyncClient) -> None:
    """A program that applies variants itself asks for them, and tracks what became of it."""
    await made(admin, "tracked", metric="score", minimum_samples=5)
    for number in range(40):
        unit = f"visitor {number}"
        chosen = (await ann.get("/experiments/tracked/variant", params={"unit": unit})).json()["variant"]
        score = 0.9 if chosen == "hot" else 0.2
        body = {"variant": chosen, "unit": unit, "score": score}
        answer = await ann.post("/experiments/tracked/outcomes", json=body)
        assert answer.status_code == 201, answer.text
    found = (await ann.get("/experiments/tracked/results")).json()
    assert found["winner"] == "hot"
    assert sum(each["units"] for each in found["variants"]) == 40
    assert [each["calls"] for each in found["variants"]] == [0, 0]


async def test_a_stopped_experiment_serves_its_winner_and_counts_no_more(
    admin: httpx.AsyncClient, ann: httpx.AsyncClient
) -> None:
    """Without a winner its first variant. Its results stay."""
    await made(admin, "over")
    answer = await asked(ann, routing={"experiment": "over"})
    assert (await admin.post("/experiments/over/stop")).json()["status"] == "stopped"
    for number in range(6):
        found = await row(ann, await asked(ann, user=str(number), routing={"experiment": "over"}))
        assert found["variant"] == "cold"
    await ann.post("/feedback", json={"id": answer.json()["id"], "success": True})  # late
    results = (await ann.get("/experiments/over/results")).json()
    assert sum(each["calls"] for each in results["variants"]) == 1
    assert sum(each["success"]["count"] for each in results["variants"]) == 1
    assert (await admin.post("/experiments/over/start")).status_code == 409


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"variants": []}, "variants"),
        ({"variants": [{"name": "a"}]}, "variants"),
        ({"variants": [{"name": "a"}] * 2}, "variants.1.name"),
        ({"variants": [{"name": f"v{number}"} for number in range(11)]}, "variants"),
        ({"variants": ["a", "b"]}, "variants.0"),
        ({"variants": [{"name": "a"}, {"name": "b", "wieght": 2}]}, "variants.1.wieght"),
        ({"variants": [{"name": "a"}, {"name": "b", "weight": 0}]}, "variants.1.weight"),
        ({"variants": [{"name": "a"}, {"name": "b", "weight": "2"}]}, "variants.1.weight"),
        ({"variants": [{"name": "a"}, {"name": "b", "prompt_version": 2}]}, "prompt"),
        ({"variants": [{"name": "a"}, {"name": "b", "model": "fake"}]}, "variants.1.model"),
        ({"variants": [{"name": "a"}, {"name": "b", "parameters": {"stream": True}}]}, "variants.1.parameters.stream"),
        ({"variants": [{"name": "a"}, {"name": "b\n"}]}, "variants.1.name"),
        ({"id": "a/b"}, "id"),
        ({"metric": "happiness"}, "metric"),
        ({"alpha": 0}, "alpha"),
        ({"alpha": True}, "alpha"),
        ({"floor": 0.6}, "floor"),
        ({"minimum_effect": 0}, "minimum_effect"),
        ({"minimum_samples": 1}, "minimum_samples"),
        ({"promote": True}, "promote"),
        ({"label": "latest"}, "label"),
        ({"asignment": "random"}, "asignment"),
    ],
)
async def test_a_wrong_definition_is_refused_by_field(
    admin: httpx.AsyncClient, fields: dict[str, Any], param: str
) -> None:
    """400 that names it."""
    body = {"id": "wrong", "variants": [{"name": "a"}, {"name": "b"}], **fields}
    answer = await admin.post("/experiments", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
    assert (await admin.get("/experiments/wrong")).status_code == 404


async def test_what_is_unknown_is_404_with_what_exists(admin: httpx.AsyncClient, ann: httpx.AsyncClient) -> None:
    """By path, by hint, and for a variant."""
    await made(admin, "known", start=False)
    for path in ("", "/results", "/variant"):
        answer = await ann.get(f"/experiments/knwon{path}")
        assert answer.status_code == 404, path
        assert "known" in answer.json()["error"]["message"]
    answer = await asked(ann, routing={"experiment": "knwon"})
    assert answer.status_code == 404
    assert "Did you mean known?" in answer.json()["error"]["message"]
    draft = await asked(ann, routing={"experiment": "known"})
    assert (draft.status_code, draft.json()["error"]["code"]) == (409, "conflict")
    body = {"variant": "hto", "success": True}
    answer = await ann.post("/experiments/known/outcomes", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "variant")
    for wrong in ({"variant": "hot"}, {"variant": "hot", "score": 2}, {"variant": "hot", "unit": "", "success": True}):
        assert (await ann.post("/experiments/known/outcomes", json=wrong)).status_code == 400
    answer = await ann.post("/experiments/known/outcomes", json={"variant": "hot", "success": True})
    assert answer.status_code == 409  # not running


async def test_changes_are_for_admins_and_refuse_a_stale_revision(
    admin: httpx.AsyncClient, ann: httpx.AsyncClient
) -> None:
    """412 for an ETag of yesterday; a running experiment neither changes nor goes."""
    await made(admin, "owned", start=False)
    etag = (await ann.get("/experiments/owned")).headers["etag"]
    for method, path in (("PUT", ""), ("DELETE", ""), ("POST", "/start"), ("POST", "/stop"), ("POST", "/revert")):
        answer = await ann.request(method, f"/experiments/owned{path}", json={})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "admin_required")
    body = {"variants": [{"name": "a"}, {"name": "b"}], "notes": "changed"}
    answer = await admin.put("/experiments/owned", json=body | {"notes": 1})
    assert answer.status_code == 400
    changed = await admin.put("/experiments/owned", json={"variants": body["variants"]}, headers={"if-match": etag})
    assert (changed.status_code, changed.json()["revision"]) == (200, 2)
    stale = await admin.post("/experiments/owned/start", headers={"if-match": etag})
    assert (stale.status_code, stale.json()["error"]["code"]) == (412, "conflict")
    for step in ("promote", "revert"):
        late = await admin.post(f"/experiments/owned/{step}", headers={"if-match": etag})
        assert (late.status_code, late.json()["error"]["param"]) == (412, None)
        assert (await admin.post(f"/experiments/owned/{step}")).status_code == 409  # nothing to move
    assert (await admin.post("/experiments/owned/start")).status_code == 200
    assert (await admin.put("/experiments/owned", json={"variants": body["variants"]})).status_code == 409
    assert (await admin.delete("/experiments/owned")).status_code == 409
    await admin.post("/experiments/owned/stop")
    assert (await admin.delete("/experiments/owned")).json() == {"id": "owned", "deleted": True}


async def test_two_experiments_do_not_vary_one_prompt_at_a_time(admin: httpx.AsyncClient) -> None:
    """The second starts once the first has stopped. Missing prompts and versions are named at the start."""
    await with_prompt(admin, "single")
    variants = [{"name": "a", "prompt_version": 1}, {"name": "b", "prompt_version": 2}]
    await made(admin, "first", prompt="single", variants=variants)
    await made(admin, "second", prompt="single", variants=variants, start=False)
    refused = await admin.post("/experiments/second/start")
    assert (refused.status_code, "first" in refused.json()["error"]["message"]) == (409, True)
    await admin.post("/experiments/first/stop")
    assert (await admin.post("/experiments/second/start")).status_code == 200
    for name, prompt, version, param in (("x1", "none", 1, "prompt"), ("x2", "single", 9, "variants.0.prompt_version")):
        chosen = [{"name": "a", "prompt_version": version}, {"name": "b"}]
        await made(admin, name, prompt=prompt, variants=chosen, start=False)
        answer = await admin.post(f"/experiments/{name}/start")
        assert (answer.status_code, answer.json()["error"]["param"]) == (409, param)


async def test_concurrent_users_and_ratings_are_all_counted(
    admin: httpx.AsyncClient, ann: httpx.AsyncClient, upstream: FakeUpstream
) -> None:
    """Forty at once: the sums are those of the rows, and rows keep a hash in place of the user."""
    await made(admin, "crowd")

    async def once(number: int) -> httpx.Response:
        answer = await asked(ann, user=f"secret-user-{number}", routing={"experiment": "crowd"})
        rated = await ann.post("/feedback", json={"id": answer.json()["id"], "success": number % 2 == 0})
        assert rated.status_code in (200, 429)
        return answer

    answers = await asyncio.gather(*(once(number) for number in range(40)))
    variants = Counter([(await row(ann, answer))["variant"] for answer in answers])
    found = (await ann.get("/experiments/crowd/results")).json()
    assert {each["name"]: each["calls"] for each in found["variants"]} == variants
    assert sum(each["units"] for each in found["variants"]) == 40
    assert found["sample_ratio"]["mismatch"] is False
    assert unit_hash("crowd", "secret-user-1") != unit_hash("tracked", "secret-user-1")
    assert "secret-user" not in json.dumps(found)


async def test_auto_sends_more_calls_to_the_better_variant(admin: httpx.AsyncClient, ann: httpx.AsyncClient) -> None:
    """The shares in the results are those of Thompson sampling, with the floor."""
    await made(admin, "adaptive", assignment="auto", floor=0.2, minimum_samples=1000)
    for number in range(60):
        variant = "hot" if number % 2 else "cold"
        body = {"variant": variant, "success": variant == "hot"}
        assert (await ann.post("/experiments/adaptive/outcomes", json=body)).status_code == 201
    found = (await ann.get("/experiments/adaptive/results")).json()
    assert {each["name"]: each["share"] for each in found["variants"]} == pytest.approx(
        {"cold": 0.2, "hot": 0.8}, abs=0.01
    )
    assert found["sample_ratio"] is None
