// What the pages gain with a script: they refresh, copy, and a drag over the chart chooses a time. All works without.
document.documentElement.classList.add("scripted");

document.querySelector(".top nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

for (const form of document.querySelectorAll("form[data-auto]")) {
  form.addEventListener("change", () => form.submit());
}

for (const chooser of document.querySelectorAll("input[data-into]")) {
  chooser.addEventListener("change", async () => {
    const text = await chooser.files[0]?.text();
    if (text !== undefined) chooser.form.elements[chooser.dataset.into].value = text;
  });
}

for (const block of document.querySelectorAll("pre.code")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(block.querySelector("code").textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(block.querySelector("code"));
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  block.prepend(button);
}

let isDragging = false;
const seen = new Map(); // by id: what a part was when it last came

async function loaded() {
  const answer = await fetch(location.href, { headers: { accept: "text/html" } });
  if (answer.redirected) location.reload(); // the session is over
  return answer.ok ? new DOMParser().parseFromString(await answer.text(), "text/html") : null;
}

// Only what changed is replaced, so that scroll, focus, open details and selections stay.
async function refresh() {
  const next = await loaded();
  if (next === null || isDragging) return;
  for (const part of document.querySelectorAll("[data-live]")) {
    const fresh = next.getElementById(part.id);
    if (fresh === null || fresh.innerHTML === (seen.get(part.id) ?? part.innerHTML)) continue;
    if (part.contains(document.activeElement)) continue;
    seen.set(part.id, fresh.innerHTML);
    const isOpen = [...part.querySelectorAll("details")].map((each) => each.open);
    const scrolled = [...part.querySelectorAll(".wide")].map((each) => each.scrollLeft);
    part.replaceChildren(...fresh.childNodes);
    part.querySelectorAll("details").forEach((each, place) => (each.open = isOpen[place] ?? false));
    part.querySelectorAll(".wide").forEach((each, place) => (each.scrollLeft = scrolled[place] ?? 0));
  }
}

async function announce() {
  const note = document.getElementById("fresh");
  const first = document.querySelector("#rows tr[data-id]");
  const next = await loaded();
  if (next === null) return;
  const ids = [...next.querySelectorAll("#rows tr[data-id]")].map((row) => row.dataset.id);
  const place = first === null ? ids.length : ids.indexOf(first.dataset.id);
  const count = place < 0 ? `More than ${ids.length}` : place;
  note.hidden = place === 0;
  if (place === 0) return;
  const link = document.createElement("a");
  link.href = location.href;
  link.textContent = `${count} new ${count === 1 ? "request" : "requests"}: show`;
  if (note.textContent !== link.textContent) note.replaceChildren(link);
}

function every(seconds, work) {
  const step = async () => {
    if (!document.hidden) {
      try {
        await work();
      } catch (error) {
        if (!(error instanceof TypeError)) throw error; // the server is away for a moment
      }
    }
    setTimeout(step, seconds * 1000);
  };
  setTimeout(step, seconds * 1000);
}

if (document.body.dataset.refresh) every(Number(document.body.dataset.refresh), refresh);
if (document.querySelector("[data-watch]")) every(4, announce);

// The playground: each answer is streamed by the API's own way, and can be stopped.
const playground = document.getElementById("playground");

// The events of a stream, each as the object behind `data: `.
async function* events(body) {
  let rest = "";
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
    const lines = (rest + piece.value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data: {")) yield JSON.parse(line.slice(6));
  }
}

async function problem(answer) {
  if (answer.redirected) location.reload(); // the session is over
  const body = await answer.text();
  if (body.startsWith("{")) return JSON.parse(body).error.message;
  return new DOMParser().parseFromString(body, "text/html").querySelector("[role=alert]")?.textContent ?? "The request failed.";
}

async function stream(side, card, signal) {
  const [name, text, facts] = ["h2", "div", "p"].map((tag) => card.appendChild(document.createElement(tag)));
  [name.className, text.className, facts.className] = ["name", "answer", "hint"];
  name.textContent = playground.elements[side ? "other" : "model"].value || "auto";
  text.setAttribute("aria-live", "polite");
  const fail = (message) => {
    const alert = document.createElement("p");
    [alert.className, alert.textContent] = ["alert", message];
    alert.setAttribute("role", "alert");
    card.insertBefore(alert, facts);
  };
  const fields = new URLSearchParams(new FormData(playground));
  fields.set("side", side);
  const started = performance.now();
  const passed = () => `${Math.round(performance.now() - started)} ms`;
  const answer = await fetch(playground.dataset.stream, { method: "POST", body: fields, signal });
  const said = [answer.headers.get("x-proxy-model")];
  if (!(answer.headers.get("content-type") ?? "").startsWith("text/event-stream")) {
    fail(await problem(answer));
  } else {
    for await (const event of events(answer.body)) {
      const delta = event.choices?.[0]?.delta;
      if (event.error) fail(event.error.message);
      if (delta?.content && !text.hasChildNodes()) said.push(`first token ${passed()}`);
      if (delta?.content) text.append(delta.content);
      if (delta?.tool_calls) text.append(JSON.stringify(delta.tool_calls));
      if (event.usage) {
        said.push(`${event.usage.prompt_tokens} tokens in, ${event.usage.completion_tokens} out`);
        said.push(typeof event.usage.cost === "number" ? `$${event.usage.cost.toFixed(6)}` : "cost not known");
      }
    }
    said.push(passed());
  }
  facts.append(`${said.filter(Boolean).join(" · ")} `);
  if (answer.headers.has("x-request-id")) {
    const link = facts.appendChild(document.createElement("a"));
    link.textContent = "Why this model";
    link.href = playground.dataset.requests + answer.headers.get("x-request-id");
  }
}

let control = null; // of the calls that run

playground?.addEventListener("submit", async (event) => {
  if (event.submitter?.value === "plan") return; // the page that the server renders
  event.preventDefault();
  control?.abort(); // nobody sees those answers any more, and they cost money
  const own = (control = new AbortController());
  const [answers, stop] = [document.getElementById("answers"), document.getElementById("stop")];
  const cards = (playground.elements.other.value.trim() ? [0, 1] : [0]).map(() => document.createElement("section"));
  cards.forEach((card) => (card.className = "card"));
  answers.replaceChildren(...cards);
  stop.hidden = false;
  stop.onclick = () => own.abort();
  const work = cards.map(async (card, side) => {
    try {
      await stream(side, card, own.signal);
    } catch (error) {
      const note = card.appendChild(document.createElement("p"));
      [note.className, note.textContent] = ["hint", error.name === "AbortError" ? "Stopped." : "The server does not answer."];
    }
  });
  await Promise.all(work);
  if (control === own) stop.hidden = true;
});

// A drag over the chart: from the first bar to the last one.
document.addEventListener("pointerdown", (down) => {
  const plot = down.target.closest?.(".plot");
  if (!plot || down.button !== 0) return;
  const chart = plot.closest(".chart");
  const starts = chart.dataset.starts.split(" ");
  const ends = chart.dataset.ends.split(" ");
  const hits = [...plot.querySelectorAll("rect.hit")];
  const at = (event) => {
    const box = plot.getBoundingClientRect();
    return Math.min(starts.length - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * starts.length)));
  };
  const from = at(down);
  let to = from;
  isDragging = true;
  const move = (event) => {
    to = at(event);
    hits.forEach((hit, place) => hit.classList.toggle("chosen", place >= Math.min(from, to) && place <= Math.max(from, to)));
  };
  const up = () => {
    document.removeEventListener("pointermove", move);
    isDragging = false;
    hits.forEach((hit) => hit.classList.remove("chosen"));
    if (to === from) return; // a click: the bar's own link
    plot.addEventListener("click", (event) => event.preventDefault(), { capture: true, once: true });
    const url = new URL(location.href);
    url.searchParams.delete("range");
    url.searchParams.set("since", starts[Math.min(from, to)]);
    url.searchParams.set("until", ends[Math.max(from, to)]);
    location.assign(url);
  };
  document.addEventListener("pointermove", move);
  document.addEventListener("pointerup", up, { once: true });
});
document.addEventListener("dragstart", (event) => {
  if (event.target.closest?.(".plot")) event.preventDefault();
});
