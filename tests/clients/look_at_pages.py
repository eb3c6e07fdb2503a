"""Walks through the dashboard in Chromium and prints what went wrong, as JSON; screenshots go to the folder SHOTS.

Run in the environment `browser`, with the address of a keyed server, its admin key, and how much its pages show: usual,
empty or crowded.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from urllib.request import Request, urlopen

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

PAGES = ("", "?metric=calls&group=key", "?metric=p95&range=24h", "/requests", "/providers", "/keys", "/ensembles")
PAGES += ("/playground", "/settings", "/settings/text", "/settings/defaults")
SIZES = ((1280, 900), (390, 844))
SHOTS = os.environ.get("SHOTS")
PAGES += ("/prompts", "/prompts/extraction_v1?from=1&to=1", "/prompts/extraction_v1/new", "/new-prompt", "/experiments")
PAGES += ("/sites", "/sites/reddit", "/new-experiment?prompt=extraction_v1", "/import-prompts", "/experiments/walk")
PAGES += ("/nothing-here",)
EMPTY = ("", "?metric=p95&range=24h", "/requests", "/providers", "/keys", "/ensembles", "/experiments", "/playground")
EMPTY += (
    "/settings",
    "/prompts?archived=true",
    "/requests?session=none",
    "/sites?instructions=qqq&asset=https://q.example",
)
CROWDED = (*EMPTY, "?metric=calls&group=session", "?metric=tokens&group=key&range=24h", "?group=tag")


class Walk:
    """One walk. `wrong`: what a user would see as broken, or what a page asked another host for."""

    def __init__(self, browser: Browser, address: str, key: str, state: str) -> None:
        self.browser = browser
        self.address = address
        self.key = key
        self.state = state
        self.wrong: list[str] = []
        self.seen: list[str] = []

    def context(self, **options: object) -> BrowserContext:
        return self.browser.new_context(**options)  # type: ignore[arg-type]

    def page(self, context: BrowserContext, refused: str = "nothing") -> Page:
        """`refused`: the status with which the server refuses something here; browsers note it in the console."""
        page = context.new_page()
        page.on("console", lambda said: self.hear(page.url, said.text, refused))
        page.on("pageerror", lambda error: self.wrong.append(f"{page.url}: {error}"))
        page.on("request", lambda asked: self.judge(asked.url))
        return page

    def hear(self, url: str, text: str, refused: str) -> None:
        if f"responded with a status of {refused}" not in text:
            self.wrong.append(f"{url}: {text}")

    def judge(self, url: str) -> None:
        if not url.startswith((f"{self.address}/", "data:image/svg+xml,")):
            self.wrong.append(f"asked {url}")

    def check(self, is_right: bool, what: str) -> None:
        self.seen.append(what)
        if not is_right:
            self.wrong.append(what)

    def open(self, page: Page, path: str) -> None:
        answer = page.goto(f"{self.address}/dashboard{path}")
        page.wait_for_load_state("networkidle")
        status = 404 if path == "/nothing-here" else 200
        self.check(answer is not None and answer.status == status, f"{path} is served")
        self.fits(page, path or "/")

    def fits(self, page: Page, name: str) -> None:
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        self.check(wide <= 0, f"{name} fits into {page.viewport_size}, {wide} px too wide")

    def sign_in(self, page: Page) -> None:
        self.open(page, "/sign-in")
        page.get_by_label("Admin key").fill(self.key)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{self.address}/dashboard")

    def every_page(self) -> None:
        """Each at both widths and in both themes."""
        for theme in ("light", "dark"):
            for width, height in SIZES:
                context = self.context(viewport={"width": width, "height": height}, color_scheme=theme)
                page = self.page(context, "404")
                self.open(page, "/keys")
                self.check(page.url.endswith("/sign-in?next=/dashboard/keys"), "a page asks to sign in")
                self.shoot(page, f"sign-in-{theme}-{width}")
                self.sign_in(page)
                for path in {"usual": PAGES, "empty": EMPTY, "crowded": CROWDED}[self.state]:
                    self.open(page, path)
                    self.shoot(page, f"{re.sub(r'[^a-z0-9]+', '-', path).strip('-') or 'usage'}-{theme}-{width}")
                self.requests(page, f"{theme}-{width}")
                page.get_by_role("button", name="Sign out").click()
                page.wait_for_url(re.compile("/sign-in$"))
                context.close()

    def requests(self, page: Page, how: str) -> None:
        """The pages of single requests: of the last one, and of one that failed; of all that are hostile."""
        self.open(page, "/requests")
        places = {"usual": {"request": 0, "request-failed": 1}, "empty": {}}
        for name, place in places.get(self.state, {f"request-{number}": number for number in range(8)}).items():
            self.open(page, "/requests")
            page.locator("#rows time").nth(place).click()
            page.wait_for_url(re.compile(r"/requests/\w{26}$"))
            self.fits(page, name)
            self.shoot(page, f"{name}-{how}")

    def chart(self) -> None:
        """A drag chooses a time, and the table follows; a choice needs no button; the keyboard reaches everything."""
        page = self.page(context := self.context(viewport={"width": 1280, "height": 900}))
        self.sign_in(page)
        self.open(page, "?range=7d")
        box = page.locator(".plot").bounding_box()
        assert box is not None
        middle = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + box["width"] * 0.75, middle)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.99, middle, steps=5)
        page.mouse.up()
        page.wait_for_url(re.compile(r"since=.*until="))
        self.check("range=" not in page.url, "a drag over the chart chooses a period")
        self.check(page.locator("#table tfoot").count() == 1, "the table follows to days with calls")
        self.open(page, "?range=7d")
        page.mouse.move(box["x"] + box["width"] * 0.02, middle)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.4, middle, steps=5)
        page.mouse.up()
        page.wait_for_url(re.compile(r"since=.*until="))
        self.check("No calls in this period" in page.locator("#table").inner_text(), "and to days without")
        page.locator("select[name=metric]").select_option("tokens")
        page.wait_for_url(re.compile("metric=tokens"))
        self.check("since=" in page.url, "another figure keeps the period")
        page.keyboard.press("Tab")
        reached = set()
        for _ in range(60):
            reached.add(page.evaluate("document.activeElement.textContent.trim().slice(0, 20)"))
            page.keyboard.press("Tab")
        self.check({"Usage", "Requests", "Sign out", "30 days", "CSV"} <= reached, f"the keyboard reaches {reached}")
        context.close()

    def call(self) -> None:
        """One more call, by a program."""
        body = {"model": "fake/ok", "messages": [{"role": "user", "content": "hello"}]}
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        request = Request(f"{self.address}/v1/chat/completions", json.dumps(body).encode(), headers)
        with urlopen(request, timeout=20) as answer:
            answer.read()

    def live(self) -> None:
        """New requests are announced and not inserted; a page that refreshes stays where its reader is."""
        page = self.page(context := self.context(viewport={"width": 1280, "height": 700}))
        self.sign_in(page)
        page.clock.install()
        self.open(page, "/requests?outcome=ok")
        rows = page.locator("#rows tbody tr")
        before = rows.count()
        self.call()
        page.clock.run_for(5_000)
        note = page.locator("#fresh a")
        note.wait_for()
        self.check(note.inner_text() == "1 new request: show", "a new request is announced")
        self.check(rows.count() == before, "and not inserted")
        self.shoot(page, "requests-announced")
        note.click()
        page.wait_for_url(re.compile("outcome=ok"))
        page.locator("#rows tbody tr").nth(before).wait_for()
        self.check(page.locator("#rows tbody tr").count() == before + 1, "a click shows it")
        self.open(page, "?range=30d&metric=calls")
        page.locator("#chart summary").click()
        page.evaluate("scrollTo(0, 400)")
        calls = page.locator("#tiles .tile").nth(1).locator(".figure")
        seen = int(calls.inner_text())
        self.call()
        page.clock.run_for(11_000)
        page.get_by_text(str(seen + 1), exact=True).first.wait_for()
        self.check(int(calls.inner_text()) == seen + 1, "the page refreshes")
        self.check(page.evaluate("scrollY") == 400, "where its reader has scrolled to")
        self.check(page.locator("#chart details[open]").count() == 1, "with what was open")
        self.check(page.url.endswith("?range=30d&metric=calls"), "and the range")
        context.close()

    def settings(self) -> None:
        """Change the budget, see the difference, save, see the file and the running server, and roll back."""
        page = self.page(context := self.context(viewport={"width": 1280, "height": 900}), "400")
        self.sign_in(page)
        self.open(page, "/settings")
        version = page.locator("input[name=version]").first.input_value()
        budget = page.get_by_label("Daily budget, USD")
        budget.fill("much")
        page.get_by_role("button", name="Check the changes").click()
        self.check("Expected a number" in page.content(), "a wrong budget is marked")
        self.shoot(page, "settings-wrong")
        page.get_by_label("Daily budget, USD").fill("2.5")
        page.get_by_role("button", name="Check the changes").click()
        self.check("2.5" in (page.locator(".diff .added").text_content() or ""), "the difference is shown")
        page.get_by_label("Prompt", exact=True).fill("Classify this: good or bad?")
        page.get_by_role("button", name="Explain").click()
        page.get_by_role("button", name="Show the effect").click()
        self.check("would go to another model" in page.content(), "the effect on past calls is shown")
        self.shoot(page, "settings-change")
        page.get_by_role("button", name="Save", exact=True).click()
        page.wait_for_url(re.compile("saved="))
        self.check("The server runs it now" in page.content(), "the server runs what was saved")
        self.check("of $2.50" in page.content(), "the budget is the new one")
        page.get_by_role("button", name="Test").first.click()
        self.check(page.get_by_text("answered").count() == 1, "a provider answers its test")
        self.shoot(page, "settings-tested")
        self.open(page, f"/settings/versions/{version}")
        page.get_by_role("button", name="Save", exact=True).click()
        page.wait_for_url(re.compile(f"saved={version}"))
        self.check("of $1.00" in page.content(), "the budget is the earlier one again")
        context.close()

    def playground(self) -> None:
        """Two answers are streamed beside each other; a plan is shown before; a stream can be stopped."""
        page = self.page(context := self.context(viewport={"width": 1280, "height": 900}), "404")
        self.sign_in(page)
        self.open(page, "/playground")
        page.get_by_label("Model or route").fill("fake/ok")
        page.get_by_label("Compare with").fill("fake/ok(n_tokens=20)")
        page.get_by_label("Message", exact=True).fill("Say hello.")
        page.get_by_role("button", name="Show the plan").click()
        self.check(page.get_by_text("Nothing was called.").count() == 2, "the plans are shown")
        self.shoot(page, "playground-plan")
        page.get_by_role("button", name="Send").click()
        page.get_by_role("link", name="Why this model").nth(1).wait_for()
        said = page.locator(".answer").all_text_contents()
        self.check(len(said) == 2 and all(text.startswith("tok0") for text in said), f"both answer: {said}")
        self.check(page.get_by_text("tokens in").count() == 2, "both say what they cost")
        self.shoot(page, "playground-answers")
        page.get_by_label("Compare with").fill("")
        page.get_by_label("Model or route").fill("fake/stall_after(k=5)")
        page.get_by_role("button", name="Send").click()
        page.get_by_text("tok0").wait_for()
        with page.expect_event("requestfailed"):  # whoever sends once more does not pay for the answers of before
            page.get_by_role("button", name="Send").click()
        page.get_by_text("tok0").wait_for()
        page.get_by_role("button", name="Stop").click()
        page.get_by_text("Stopped.").wait_for()
        page.get_by_label("Model or route").fill("no-such-model")
        page.get_by_role("button", name="Send").click()
        page.locator("#answers [role=alert]").wait_for()
        context.close()

    def prompts(self) -> None:
        """A new version by its form, its label moved, and what differs: hostile words stay words."""
        evil = "<img src=x onerror=alert(1)> \u202e {x}"
        page = self.page(context := self.context(viewport={"width": 390, "height": 844}))
        self.sign_in(page)
        self.open(page, "/new-prompt")
        page.locator("input[name=id]").fill("walked")
        page.locator("textarea[name=template]").fill("Say {x.y}.")
        page.get_by_role("button", name="Create").click()
        wrong = page.locator("textarea[name=template][aria-invalid]")
        wrong.wait_for()
        self.wrong[:] = [each for each in self.wrong if not each.endswith("400 (Bad Request)")]  # the browser says so
        self.check(wrong.count() == 1 and wrong.input_value() == "Say {x.y}.", "a refused form keeps what was typed")
        wrong.fill("Say {x}.")
        page.get_by_role("button", name="Create").click()
        page.wait_for_url(re.compile("/prompts/walked$"))
        page.get_by_role("link", name="New version").click()
        page.locator("textarea[name=template]").fill(f"{evil}\n{'w' * 10_000}")
        page.locator("input[name=notes]").fill(evil)
        page.get_by_role("button", name="Save as the next version").click()
        page.wait_for_url(re.compile("/prompts/walked$"))
        page.locator("input[name=version]:not([type=hidden])").fill("2")
        page.get_by_role("button", name="Move").click()
        page.wait_for_url(re.compile("/prompts/walked#labels$"))
        self.check("to version 2" in page.locator("ol.history").inner_text(), "a label moves")
        self.open(page, "/prompts/walked?from=1&to=2")
        self.check(page.locator(".diff .added").count() >= 2, "versions are compared")
        page.locator("textarea[name='value.x']").fill("<b>{{7*7}}</b>")
        page.get_by_role("button", name="Render").click()
        self.check("<b>{{7*7}}</b>" in page.locator("#try pre.text").inner_text(), "a version is tried")
        self.check(page.locator("img").count() == 0, "a text is no markup")
        context.close()

    def without_scripts(self) -> None:
        """Signing in, choosing, paging: all by links and forms."""
        page = self.page(context := self.context(java_script_enabled=False))
        page.goto(f"{self.address}/dashboard/sign-in")
        self.sign_in_plainly(page)
        page.get_by_role("link", name="30 days").click()
        self.check(page.url.endswith("range=30d"), "a range is a link")
        page.locator("select[name=group]").select_option("key")
        page.locator("form:has(select[name=group]) button").click()
        self.check("group=key" in page.url and "range=30d" in page.url, "a form keeps the range")
        page.locator(".plot a").last.click(force=True)
        self.check("since=" in page.url, "a bar is a link")
        page.goto(f"{self.address}/dashboard/playground?model=fake/ok")
        page.get_by_label("Message", exact=True).fill("Say hello.")
        page.get_by_role("button", name="Send").click()
        self.check(page.locator(".answer").count() == 1, "an answer needs no script")
        context.close()

    def sign_in_plainly(self, page: Page) -> None:
        page.get_by_label("Admin key").fill(self.key)
        page.get_by_role("button", name="Sign in").click()
        self.check(page.url == f"{self.address}/dashboard", "signing in needs no script")

    def shoot(self, page: Page, name: str) -> None:
        if SHOTS:
            page.screenshot(path=str(Path(SHOTS) / f"{self.state}-{name}.png"), full_page=True)


def main(chromium: str, address: str, key: str, state: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        walk = Walk(browser, address, key, state)
        deeds = (walk.chart, walk.live, walk.settings, walk.playground, walk.prompts, walk.without_scripts)
        for part in (walk.every_page, *(deeds if state == "usual" else ())):
            try:
                part()
            except Exception as error:
                walk.wrong.append(f"{part.__name__}: {error!r:.600}")
        browser.close()
    print(json.dumps({"wrong": walk.wrong, "checks": len(walk.seen)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
