/*
 * The workflows page: definitions, runs, and one of them drawn.
 *
 * It is a client of the public API like any other, with the operator's token, which it keeps for
 * this tab only. A run's event stream only says that something happened: what is shown is always
 * read anew. All text goes in by textContent; the drawing is parsed as an image, not as markup.
 */
"use strict";

const RUNS_EVERY_MS = 5000;
const TOGETHER_MS = 150;
const LONGEST_PAUSE_MS = 15000;
const TOKEN = "operator-token";

const $ = (id) => document.getElementById(id);
const pause = (ms) => new Promise((done) => { setTimeout(done, ms); });

let token = sessionStorage.getItem(TOKEN) ?? "";
let chosen = null; // {kind: "workflow" | "run", id}
let watching = null; // of the run that is shown: its AbortController
let older = null;
let drawing = 0;
let drawn = "";

mermaid.initialize({
  startOnLoad: false,
  securityLevel: "strict",
  theme: "neutral",
  htmlLabels: false,
  flowchart: { htmlLabels: false, useMaxWidth: false },
  maxTextSize: 500000,
  maxEdges: 10000,
});

// -- the API ----------------------------------------------------------------------------

class Refused extends Error {}

async function call(path, options = {}) {
  const headers = { Accept: "application/json", ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(path, { ...options, headers, cache: "no-store" });
  if (answer.status === 401 || answer.status === 403) {
    signIn(token ? "The token is not the operator's." : "");
    throw new Refused();
  }
  return answer;
}

async function read(path) {
  const answer = await call(path);
  if (!answer.ok) throw new Error(await problem(answer));
  return answer.json();
}

async function problem(answer) {
  try {
    const told = await answer.json();
    const errors = (told.errors ?? []).map((each) => `${each.pointer} ${each.detail}`);
    return [told.detail ?? told.title, ...errors].join("; ");
  } catch {
    return `The desk answers ${answer.status}.`;
  }
}

// -- elements ---------------------------------------------------------------------------

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

const shortTime = (text) => (text ? new Date(text).toLocaleString() : "");

function took(step) {
  if (!step.started_at || !step.finished_at) return "";
  const ms = new Date(step.finished_at) - new Date(step.started_at);
  return ms < 10000 ? `${ms} ms` : `${Math.round(ms / 1000)} s`;
}

function button(text, act) {
  const made = element("button", "", text);
  made.type = "button";
  made.addEventListener("click", () => act(made));
  return made;
}

function say(text) {
  $("standing").textContent = text;
}

function showError(text) {
  $("error").textContent = text;
  $("error").hidden = !text;
}

// -- signing in -------------------------------------------------------------------------

function signIn(why) {
  watching?.abort();
  $("refused").textContent = why;
  $("desk").hidden = true;
  $("sign-in").hidden = false;
  $("token").focus();
}

$("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  sessionStorage.setItem(TOKEN, token);
  open();
});

// -- lists ------------------------------------------------------------------------------

async function showDefinitions() {
  const { workflows } = await read("/api/workflows");
  $("definitions").replaceChildren(...workflows.map((workflow) => {
    const entry = button(workflow.name || workflow.id, () => choose("workflow", workflow.id));
    const starts = workflow.starts.map((start) => start.event ?? start.cron).join(", ");
    const facts = `${workflow.id}, version ${workflow.version}, ${workflow.steps} steps`;
    entry.append(element("small", "", starts ? `${facts}; starts by ${starts}` : facts));
    return listed(entry, "workflow", workflow.id);
  }));
  if (!workflows.length) $("definitions").append(element("li", "", "None yet."));
}

async function showRuns(from = null) {
  const query = new URLSearchParams({ page_size: "50" });
  if ($("state").value) query.set("state", $("state").value);
  if (from) query.set("page_token", from);
  const { runs, next_page_token: next } = await read(`/api/workflows/runs?${query}`);
  const entries = runs.map((run) => {
    const entry = button(run.workflow, () => choose("run", run.id));
    entry.append(" ", element("span", `state ${run.state}`, run.state));
    entry.append(element("small", "", `${shortTime(run.created_at)} ${run.id}`));
    return listed(entry, "run", run.id);
  });
  if (from) $("runs").append(...entries);
  else $("runs").replaceChildren(...entries);
  if (!from && !runs.length) $("runs").append(element("li", "", "None."));
  older = next;
  $("more").hidden = !next;
}

function listed(entry, kind, id) {
  entry.dataset.kind = kind;
  entry.dataset.id = id;
  entry.setAttribute("aria-current", String(chosen?.kind === kind && chosen.id === id));
  const item = element("li");
  item.append(entry);
  return item;
}

function mark() {
  for (const entry of document.querySelectorAll("nav li button")) {
    const current = chosen?.kind === entry.dataset.kind && chosen.id === entry.dataset.id;
    entry.setAttribute("aria-current", String(current));
  }
}

// -- one of them ------------------------------------------------------------------------

function choose(kind, id) {
  location.hash = `${kind}=${encodeURIComponent(id)}`;
}

async function followAddress() {
  const [kind, id] = location.hash.slice(1).split("=");
  chosen = ["workflow", "run"].includes(kind) && id ? { kind, id: decodeURIComponent(id) } : null;
  watching?.abort();
  drawn = "";
  mark();
  $("nothing").hidden = Boolean(chosen);
  $("one").hidden = !chosen;
  if (!chosen) return;
  $("diagram").replaceChildren();
  $("callbacks").replaceChildren();
  if (chosen.kind === "workflow") {
    await attempt(showWorkflow);
  } else {
    watching = new AbortController();
    watch(chosen.id, watching.signal);
  }
}

async function attempt(what) {
  try {
    await what();
    showError("");
  } catch (error) {
    if (!(error instanceof Refused)) showError(error.message);
  }
}

async function showWorkflow() {
  const { id } = chosen;
  const path = `/api/workflows/${encodeURIComponent(id)}`;
  const workflow = await read(path);
  if (chosen?.id !== id) return;
  $("title").textContent = workflow.name || workflow.id;
  $("run-state").textContent = "";
  $("run-state").className = "";
  $("actions").replaceChildren();
  $("steps").hidden = true;
  const needs = workflow.needs.length ? `, needs ${workflow.needs.join(", ")}` : "";
  $("facts").textContent = `${workflow.id}, version ${workflow.version}${needs}. ${workflow.description}`;
  await draw(`${path}/diagram`);
}

async function showRun(id) {
  const path = `/api/workflows/runs/${encodeURIComponent(id)}`;
  const run = await read(path);
  if (chosen?.id !== id) return true;
  $("title").textContent = run.workflow;
  $("run-state").textContent = run.state;
  $("run-state").className = `state ${run.state}`;
  const ended = run.finished_at ? `, ended ${shortTime(run.finished_at)}` : "";
  const parent = run.parent_id ? `, a step of ${run.parent_id}` : "";
  const why = run.error ? `. ${run.error.detail ?? run.error.code}` : "";
  $("facts").textContent = `${run.id}, version ${run.version}, started by ${run.trigger} ${shortTime(run.created_at)}${ended}${parent}${why}`;
  showActions(path, run);
  showCallbacks(path, run);
  showSteps(run.steps);
  await draw(`${path}/diagram`);
  return ["completed", "failed", "cancelled"].includes(run.state);
}

function showActions(path, run) {
  const verbs = {
    running: ["pause", "cancel"],
    paused: ["resume", "cancel"],
    compensating: [],
    failed: ["retry"],
    cancelled: ["retry"],
    completed: [],
  }[run.state] ?? [];
  $("actions").replaceChildren(...verbs.map((verb) => button(
    verb[0].toUpperCase() + verb.slice(1),
    async (made) => {
      made.disabled = true;
      await attempt(async () => {
        const answer = await call(`${path}/${verb}`, { method: "POST" });
        if (!answer.ok) throw new Error(await problem(answer));
      });
      if (chosen?.id === run.id) followAddress();
    },
  )));
}

function showCallbacks(path, run) {
  const names = run.callbacks.map((callback) => callback.name);
  const there = [...$("callbacks").querySelectorAll("form")].map((form) => form.dataset.name);
  // What somebody is writing is not taken away.
  if (names.join() === there.join()) return;
  $("callbacks").replaceChildren(...names.map((name) => {
    const item = element("li");
    const form = element("form");
    form.dataset.name = name;
    const label = element("label", "", `Waits for “${name}”. Answer it in place of the outside:`);
    const payload = element("textarea");
    payload.rows = 1;
    payload.value = '{"approved": true}';
    label.append(payload);
    const wrong = element("p", "wrong");
    const send = element("button", "", "Answer");
    form.append(label, send, wrong);
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      send.disabled = true;
      wrong.textContent = "";
      try {
        const answer = await call(`${path}/callbacks/${encodeURIComponent(name)}`, {
          method: "POST",
          headers: { "Content-Type": "application/json" },
          body: payload.value,
        });
        if (!answer.ok) throw new Error(await problem(answer));
      } catch (error) {
        if (!(error instanceof Refused)) wrong.textContent = error.message;
      }
      send.disabled = false;
    });
    item.append(form);
    return item;
  }));
}

function showSteps(steps) {
  $("steps").hidden = !steps.length;
  $("steps").tBodies[0].replaceChildren(...steps.map((step) => {
    const line = element("tr");
    const state = element("td");
    state.append(element("span", `state ${step.state}`, step.state));
    line.append(
      element("td", "", step.key),
      element("td", "", step.kind),
      state,
      element("td", "", String(step.tries)),
      element("td", "", shortTime(step.started_at)),
      element("td", "", took(step)),
      element("td", "task", step.task_id ?? ""),
      element("td", "", step.code ?? step.way ?? ""),
    );
    return line;
  }));
}

async function draw(path) {
  const answer = await call(path, { headers: { Accept: "text/vnd.mermaid" } });
  if (!answer.ok) throw new Error(await problem(answer));
  const text = await answer.text();
  if (text === drawn) return;
  drawing += 1;
  const mine = drawing;
  let figure;
  try {
    const { svg } = await mermaid.render(`drawing-${mine}`, text);
    const parsed = new DOMParser().parseFromString(svg, "image/svg+xml");
    if (parsed.querySelector("parsererror")) throw new Error("It cannot be drawn.");
    figure = document.importNode(parsed.documentElement, true);
  } catch {
    // Too large to be laid out, perhaps; the text says the same.
    document.getElementById(`ddrawing-${mine}`)?.remove();
    figure = element("pre", "", text);
  }
  if (mine !== drawing) return;
  $("diagram").replaceChildren(figure);
  drawn = text;
}

// -- the event stream -------------------------------------------------------------------

/** Show a run now and after each of its events. EventSource cannot send a token; this can. */
async function watch(id, signal) {
  let due = false;
  let ended = false;
  const look = async () => {
    if (due) return;
    due = true;
    await pause(TOGETHER_MS);
    due = false;
    if (!signal.aborted) await attempt(async () => { ended = await showRun(id); });
  };
  await attempt(async () => { ended = await showRun(id); });
  for (let failures = 0; !ended && !signal.aborted; failures += 1) {
    try {
      const answer = await call(`/api/workflows/runs/${encodeURIComponent(id)}/events`, {
        headers: { Accept: "text/event-stream" },
        signal,
      });
      if (answer.ok && answer.status !== 204) {
        failures = 0;
        say("Live");
        await receive(answer.body.pipeThrough(new TextDecoderStream()).getReader(), look);
      }
    } catch {
      // The connection was lost, or another run is shown.
    }
    if (signal.aborted) break;
    await look();
    say(ended ? "" : "Connecting…");
    if (!ended) await pause(Math.min(1000 * 2 ** failures, LONGEST_PAUSE_MS));
  }
  if (!signal.aborted) say("");
}

async function receive(reader, look) {
  let left = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (left + value).split("\n\n");
    left = blocks.pop();
    if (blocks.some((block) => /^event: /m.test(block))) look();
  }
}

// -- beginning --------------------------------------------------------------------------

async function open() {
  try {
    await showDefinitions();
    await showRuns();
  } catch (error) {
    if (!(error instanceof Refused)) say(error.message);
    return;
  }
  say("");
  $("sign-in").hidden = true;
  $("desk").hidden = false;
  await followAddress();
}

$("state").addEventListener("change", () => attempt(() => showRuns()));
$("more").addEventListener("click", () => attempt(() => showRuns(older)));
window.addEventListener("hashchange", followAddress);
setInterval(() => {
  const atTop = $("runs").children.length <= 50;
  if (!$("desk").hidden && document.visibilityState === "visible" && atTop) {
    showRuns().catch(() => {});
  }
}, RUNS_EVERY_MS);
open();
