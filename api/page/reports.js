/*
 * The reports page: what is out of the usual, and the reports that were made.
 *
 * It is a client of the public API like any other, with the operator's token, which it keeps for
 * this tab only. All text goes in by textContent; a report is shown in a frame without scripts.
 */
"use strict";

const ALERTS_EVERY_MS = 30000;
const TOKEN = "operator-token";
const DAY_MS = 86400000;
const WAIT_S = 30;
const TRIES = 10;

const $ = (id) => document.getElementById(id);

let token = sessionStorage.getItem(TOKEN) ?? "";
let chosen = null;

class Refused extends Error {}

async function call(path, options = {}) {
  const headers = { ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(path, { ...options, headers, cache: "no-store" });
  if (answer.status === 401 || answer.status === 403) {
    signIn(token ? "The token is not the operator's." : "");
    throw new Refused();
  }
  if (!answer.ok && answer.status !== 503) {
    const told = await answer.json().catch(() => ({}));
    throw new Error(told.detail ?? `The front door answered ${answer.status}.`);
  }
  return answer;
}

/* A file that is being made is asked for again. */
async function file(path) {
  for (let n = 0; n < TRIES; n += 1) {
    const answer = await call(path);
    if (answer.ok) return answer.blob();
    await new Promise((done) => { setTimeout(done, 1000); });
  }
  throw new Error("The report is not ready yet; does a worker of the analytics agent run?");
}

async function read(path) {
  const answer = await call(path);
  if (!answer.ok) throw new Error("The store is unavailable just now.");
  return answer.json();
}

function guarded(act) {
  return async (...given) => {
    try {
      await act(...given);
    } catch (error) {
      if (!(error instanceof Refused)) say(error.message);
    }
  };
}

function say(text) {
  $("standing").textContent = text;
}

function signIn(why) {
  token = "";
  sessionStorage.removeItem(TOKEN);
  $("desk").hidden = true;
  $("sign-in").hidden = false;
  $("refused").textContent = why;
  $("token").focus();
}

function element(name, text, kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

const when = (text) => new Date(text).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
const day = (text) => new Date(text).toLocaleDateString([], { dateStyle: "medium" });

async function showAlerts() {
  const { alerts } = await read("/api/alerts?page_size=20");
  const language = $("language").value;
  const shown = alerts.map((alert) => {
    const item = element("li", alert.text[language], alert.state);
    const ended = alert.resolved_at ? `, over ${when(alert.resolved_at)}` : ", still so";
    item.append(element("small", `since ${when(alert.began_at)}${ended}`));
    return item;
  });
  $("alerts").replaceChildren(...(shown.length ? shown : [element("li", "All as usual.")]));
  const open = alerts.filter((alert) => alert.state === "open").length;
  document.title = open ? `(${open}) Reports` : "Reports";
}

async function showReports() {
  const { reports } = await read("/api/reports?page_size=50");
  $("reports").replaceChildren(...reports.map((report) => {
    const button = element("button", `${day(report.since)} – ${day(report.until)}`);
    button.type = "button";
    button.setAttribute("aria-current", String(report.id === chosen));
    button.append(element("small", `${report.kind}, made ${when(report.created_at)}`));
    button.addEventListener("click", guarded(() => open(report.id)));
    const item = document.createElement("li");
    item.append(button);
    return item;
  }));
}

async function open(id) {
  chosen = id;
  say("Opening …");
  const language = $("language").value;
  const page = await file(`/api/reports/${encodeURIComponent(id)}.html?language=${language}`);
  $("shown").srcdoc = await page.text();
  $("shown").hidden = false;
  $("nothing").hidden = true;
  $("downloads").replaceChildren(...["pdf", "csv", "html"].map((form) => {
    const button = element("button", form.toUpperCase());
    button.type = "button";
    button.addEventListener("click", guarded(() => download(id, form)));
    return button;
  }));
  $("downloads").hidden = false;
  say("");
  await showReports();
}

async function download(id, form) {
  const asked = form === "csv" ? "" : `?language=${$("language").value}`;
  const made = await file(`/api/reports/${encodeURIComponent(id)}.${form}${asked}`);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(made);
  link.download = `report-${id.slice(0, 12)}.${form}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

async function make() {
  const button = $("make").querySelector("button");
  button.disabled = true;
  say("Counting …");
  try {
    const since = new Date(Date.now() - Number($("span").value) * DAY_MS).toISOString();
    const answer = await call(`/api/reports?wait=${WAIT_S}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ since }),
    });
    if (!answer.ok) throw new Error("Nobody is there to make it.");
    const made = await answer.json();
    if (answer.status === 202) {
      say("It is being made, and will be in the list.");
      await showReports();
    } else {
      await open(made.id);
    }
  } finally {
    button.disabled = false;
  }
}

async function start() {
  await showAlerts();
  $("sign-in").hidden = true;
  $("desk").hidden = false;
  await showReports();
}

$("sign-in").addEventListener("submit", guarded(async (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  $("token").value = "";
  await start();
  sessionStorage.setItem(TOKEN, token);
}));
$("make").addEventListener("submit", guarded(async (event) => {
  event.preventDefault();
  await make();
}));
$("language").addEventListener("change", guarded(async () => {
  await showAlerts();
  if (chosen) await open(chosen);
}));
setInterval(guarded(async () => {
  if (!$("desk").hidden) await showAlerts();
}), ALERTS_EVERY_MS);
guarded(start)();
