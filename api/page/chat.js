/* The chat page. Uses the public API only.
 *
 * What was said is what the server says was said (`/api/sessions/{id}/messages`): a reply, an
 * event and a poll only make this page look. What the customer writes is kept in the browser,
 * with its Idempotency-Key, until the server has accepted it: it survives a reload and a lost
 * connection, and is never done twice. All text goes in by textContent.
 */
"use strict";

const WORDS = {
  es: {
    title: "Chat", online: "En línea", offline: "Sin conexión. Reintentando…",
    human: "Te atiende una persona de nuestro equipo", closed: "La conversación está cerrada",
    write: "Escribí tu mensaje", send: "Enviar", typing: "Escribiendo…", sending: "Enviando…",
    you: "Vos", person: "Persona del equipo", assistant: "Asistente", suggestions: "Respuestas sugeridas",
    log: "Conversación",
    welcome: "¡Hola! Contanos qué necesitás y te pasamos una cotización al momento.",
    starters: ["Quiero una cotización", "¿Qué productos tienen?", "Hablar con una persona"],
    quote: "Cotización", total: "Total", tax: "IVA incluido: {tax}", unit: "{unit} por m²",
    valid: "Válida hasta el {date}", pdf: "Ver PDF", accept: "Aceptar", reject: "Rechazar",
    sure: "¿Seguro que querés rechazarla?", from: "Desde el {date}",
    draft: "Vigente", sent: "Vigente", accepted: "Aceptada", rejected: "Rechazada",
    expired: "Vencida", superseded: "Reemplazada", failed: "No se pudo enviar.", retry: "Reintentar",
    refused: "El mensaje no se pudo aceptar.", denied: "Este chat no está disponible en este momento.",
    unanswered: "No pudimos responder este mensaje.", later: "No se pudo hacer. Probá de nuevo en un momento.",
  },
  en: {
    title: "Chat", online: "Online", offline: "No connection. Trying again…",
    human: "A person from our team is answering you", closed: "This conversation is closed",
    write: "Write your message", send: "Send", typing: "Typing…", sending: "Sending…",
    you: "You", person: "Person from our team", assistant: "Assistant", suggestions: "Suggested answers",
    log: "Conversation",
    welcome: "Hello! Tell us what you need and we will quote it right away.",
    starters: ["I would like a quote", "What products do you have?", "Talk to a person"],
    quote: "Quote", total: "Total", tax: "Tax included: {tax}", unit: "{unit} per m²",
    valid: "Valid until {date}", pdf: "View PDF", accept: "Accept", reject: "Reject",
    sure: "Reject this quote?", from: "Since {date}",
    draft: "Open", sent: "Open", accepted: "Accepted", rejected: "Rejected",
    expired: "Expired", superseded: "Replaced", failed: "It could not be sent.", retry: "Try again",
    refused: "The message could not be accepted.", denied: "This chat is not available right now.",
    unanswered: "We could not answer this message.", later: "That did not work. Try again in a moment.",
  },
};
const language = (navigator.language || "es").toLowerCase().startsWith("es") ? "es" : "en";
const words = WORDS[language];
const locale = (navigator.languages || []).find((each) => each.toLowerCase().startsWith(language))
  || (language === "es" ? "es-UY" : "en-US");
const POLL_MS = 3000;
const SLOW_POLL_MS = 30000; // beside an open stream: it may have missed nothing, and might
const LONGEST_PAUSE_MS = 15000;

const $ = (id) => document.getElementById(id);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const filled = (text, facts) => text.replace(/\{(\w+)\}/g, (_, name) => facts[name]);

// -- what the browser keeps -------------------------------------------------------------

const kept = {
  read(name, otherwise) {
    try {
      return JSON.parse(localStorage.getItem(name)) ?? otherwise;
    } catch {
      return otherwise;
    }
  },
  write(name, value) {
    try {
      localStorage.setItem(name, JSON.stringify(value));
    } catch {
      // Storage is full or forbidden: the page works until it is reloaded.
    }
  },
};

function fresh() {
  const random = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

let session = kept.read("chat.session", null);
if (typeof session !== "string") {
  // Whoever knows it reads the conversation: it cannot be guessed.
  session = `web-${fresh()}`;
  kept.write("chat.session", session);
}
let outbox = kept.read("chat.outbox", []);
const keepOutbox = () => kept.write("chat.outbox", outbox);

// -- the API ----------------------------------------------------------------------------

const key = document.body.dataset.key;

function call(path, options = {}) {
  const headers = { Accept: "application/json", ...options.headers };
  if (key) headers["X-API-Key"] = key;
  return fetch(path, { ...options, headers, cache: "no-store" });
}

const ofSession = (rest) => `/api/sessions/${encodeURIComponent(session)}/${rest}`;

/** Calls until the server answers something other than "not now". */
async function insist(path, options) {
  for (let failures = 0; ; failures += 1) {
    let told = 0;
    try {
      const answer = await call(path, options);
      const later = answer.status === 409 && (await code(answer)) === "request_in_flight";
      if (answer.status !== 429 && answer.status !== 502 && answer.status !== 503
          && answer.status !== 504 && !later) {
        connected(true);
        return answer;
      }
      told = Number(answer.headers.get("Retry-After")) * 1000 || 0;
      connected(answer.status === 429 || later);
    } catch {
      connected(false);
    }
    await pause(Math.max(told, Math.min(500 * 2 ** failures, LONGEST_PAUSE_MS)) * (0.8 + Math.random() * 0.4));
  }
}

async function code(answer) {
  try {
    return (await answer.clone().json()).code;
  } catch {
    return null;
  }
}

// -- what is shown ----------------------------------------------------------------------

const seen = new Map(); // number of a message -> its element
const waiting = new Set(); // tasks whose reply has not come
let last = 0;
let human = false;
let closed = false;
let working = false;
let online = true;

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function atBottom() {
  const main = $("conversation");
  return main.scrollHeight - main.scrollTop - main.clientHeight < 120;
}

function toBottom() {
  const main = $("conversation");
  main.scrollTop = main.scrollHeight;
}

function bubble(role, text, at, by) {
  const item = element("li", `message ${role}`);
  const who = { customer: words.you, person: by ? `${by} · ${words.person}` : words.person,
                assistant: words.assistant }[role];
  if (who) item.append(element("span", role === "person" ? "who" : "visually-hidden", who));
  item.append(element("p", "bubble", text));
  if (at) {
    const when = element("time", "when", new Date(at).toLocaleTimeString(locale, { hour: "2-digit", minute: "2-digit" }));
    when.dateTime = new Date(at).toISOString();
    item.append(when);
  }
  return item;
}

/** Puts a message where its number belongs; what has none yet stays at the end. */
function place(item, n) {
  item.dataset.n = n;
  seen.set(n, item);
  const later = [...$("messages").children].find((each) => !each.dataset.n || Number(each.dataset.n) > n);
  $("messages").insertBefore(item, later ?? null);
}

function showMessage(message) {
  if (seen.has(message.n)) return;
  $("messages").querySelector(".welcome")?.remove();
  const stick = atBottom();
  if (message.role === "customer") {
    const mine = [...$("messages").children].find((each) => !each.dataset.n && each.dataset.key
      && (each.dataset.task === message.task_id || (!each.dataset.task && each.dataset.text === message.text)));
    if (mine) {
      mine.querySelector(".when")?.replaceChildren(
        new Date(message.at).toLocaleTimeString(locale, { hour: "2-digit", minute: "2-digit" }));
      place(mine, message.n);
      return;
    }
  }
  const item = bubble(message.role, message.text, message.at, message.by);
  if (message.quote) item.append(card(message.quote));
  place(item, message.n);
  if (stick) toBottom();
}

function showSuggestions(texts) {
  const buttons = texts.map((text) => {
    const button = element("button", "suggestion", text);
    button.type = "button";
    button.addEventListener("click", () => say(text));
    return button;
  });
  $("suggestions").replaceChildren(...buttons);
  if (buttons.length && atBottom()) toBottom();
}

function showState() {
  $("standing").textContent = !online ? words.offline : closed ? words.closed : human ? words.human : words.online;
  document.body.classList.toggle("offline", !online);
  const typing = online && !human && (working || waiting.size > 0 || outbox.some((entry) => !entry.failed));
  const stick = atBottom();
  if ($("typing").hidden === typing) {
    $("typing").hidden = !typing;
    $("typing-text").textContent = typing ? words.typing : "";
    if (typing && stick) toBottom();
  }
}

function connected(now) {
  if (now !== online) {
    online = now;
    showState();
  }
}

function notice(text) {
  $("notice").textContent = text ?? "";
  $("notice").hidden = !text;
}

// -- quotes -----------------------------------------------------------------------------

const cards = new Map(); // quote id -> how to show its state

function money(amount, currency) {
  try {
    return new Intl.NumberFormat(locale, { style: "currency", currency }).format(amount);
  } catch {
    return `${currency ?? ""} ${Number(amount).toFixed(2)}`.trim();
  }
}

function card(quote) {
  const box = element("section", "card");
  const heading = element("h2");
  const chip = element("span", "chip", words.sent);
  heading.append(element("span", null, `${words.quote} ${quote.codigo}`), chip);
  const inside = element("div", "inside");
  const list = element("ul");
  for (const item of quote.items ?? []) {
    const line = element("li");
    line.append(element("span", null, item.description ?? item.product), element("span", null, money(item.total, quote.moneda)));
    list.append(line);
  }
  if (!list.children.length) list.append(element("li", null, quote.descripcion));
  const total = element("p", "total");
  total.append(element("span", null, words.total), element("span", null, money(quote.total, quote.moneda)));
  inside.append(list, total);
  const fine = [];
  if (quote.impuesto != null) fine.push(filled(words.tax, { tax: money(quote.impuesto, quote.moneda) }));
  if (quote.precio_m2 != null) fine.push(filled(words.unit, { unit: money(quote.precio_m2, quote.moneda) }));
  if (fine.length) inside.append(element("p", "fine", fine.join(" · ")));
  if (quote.valido_hasta) {
    const date = new Date(quote.valido_hasta).toLocaleDateString(locale, { dateStyle: "long" });
    inside.append(element("p", "fine", filled(words.valid, { date })));
  }
  const deeds = element("div", "deeds");
  const pdf = element("a", "button pdf", words.pdf);
  pdf.href = quote.pdf;
  pdf.target = "_blank";
  pdf.rel = "noopener";
  const accept = element("button", "main accept", words.accept);
  const reject = element("button", "reject", words.reject);
  deeds.append(accept, reject, pdf);
  inside.append(deeds);
  box.append(heading, inside);

  const show = (state) => {
    const open = state === "sent" || state === "draft";
    chip.textContent = words[state] ?? state;
    chip.className = `chip ${state}`;
    accept.hidden = reject.hidden = !open;
  };
  const answer = async (deed) => {
    accept.disabled = reject.disabled = true;
    notice();
    try {
      const told = await call(`/api/quotes/${encodeURIComponent(quote.id)}/${deed}`, { method: "POST" });
      const body = await told.json();
      if (told.status === 200) show(standingOf(body));
      else if (told.status === 409 && body.standing) show(body.standing);
      else notice(words.later);
    } catch {
      notice(words.later);
    }
    accept.disabled = reject.disabled = false;
  };
  accept.type = reject.type = "button";
  accept.addEventListener("click", () => answer("accept"));
  reject.addEventListener("click", () => {
    if (window.confirm(words.sure)) answer("reject");
  });
  show("sent");
  cards.set(quote.id, show);
  return box;
}

const standingOf = (quote) => (quote.superseded_by ? "superseded" : quote.state);

/** What became of the quotes that are shown, for instance by a correction. */
async function lookAtQuotes() {
  for (const [id, show] of [...cards].slice(-10)) {
    try {
      const answer = await call(`/api/quotes/${encodeURIComponent(id)}`);
      if (answer.ok) show(standingOf(await answer.json()));
    } catch {
      return;
    }
  }
}

// -- reading ----------------------------------------------------------------------------

let reading = null;
let readAgain = false;

/** Shows what is new in the conversation; calls while it does so make it look once more. */
function sync() {
  readAgain = true;
  reading ??= (async () => {
    try {
      while (readAgain) {
        readAgain = false;
        await readNew();
      }
    } finally {
      reading = null;
    }
  })();
  return reading;
}

async function readNew() {
  let answer;
  try {
    answer = await call(ofSession(`messages?after=${last}`));
  } catch {
    connected(false);
    return;
  }
  if (answer.status === 404) return; // nothing was said yet
  connected(answer.status < 500);
  if (!answer.ok) return;
  const body = await answer.json();
  let suggestions = null;
  let quotes = false;
  for (const message of body.messages) {
    showMessage(message);
    last = Math.max(last, message.n);
    if (message.role === "customer") {
      suggestions = [];
    } else {
      suggestions = message.actions;
      quotes ||= Boolean(message.quote);
      if (message.role === "person") waiting.clear();
    }
  }
  if (suggestions) showSuggestions(suggestions);
  if (body.messages.length) {
    listen();
    showState();
  }
  if (quotes) await lookAtQuotes();
  if (body.messages.length && body.next_page_token) readAgain = true;
}

// -- the event stream -------------------------------------------------------------------

let listening = false;
let streaming = false;
let lastEvent = null;

/** Events only say that there is something to read. EventSource cannot send a key; this can. */
async function listen() {
  if (listening) return;
  listening = true;
  for (let failures = 0; ; failures += 1) {
    try {
      const headers = { Accept: "text/event-stream" };
      if (lastEvent !== null) headers["Last-Event-ID"] = lastEvent;
      const answer = await call(ofSession("events"), { headers });
      if (answer.status === 204) {
        // It is closed, and opens again with a message.
        listening = false;
        return;
      }
      if (answer.ok) {
        streaming = true;
        failures = 0;
        connected(true);
        sync();
        await receive(answer.body.pipeThrough(new TextDecoderStream()).getReader());
      }
    } catch {
      // The connection was lost, or there is no stream: polling goes on meanwhile.
    }
    streaming = false;
    await pause(Math.min(1000 * 2 ** failures, LONGEST_PAUSE_MS) * (0.8 + Math.random() * 0.4));
  }
}

async function receive(reader) {
  let left = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (left + value).split("\n\n");
    left = blocks.pop();
    blocks.forEach(happened);
  }
}

function happened(block) {
  const event = { name: "message", data: "" };
  for (const line of block.split("\n")) {
    if (line.startsWith("id: ")) lastEvent = line.slice(4);
    if (line.startsWith("event: ")) event.name = line.slice(7);
    if (line.startsWith("data: ")) event.data += line.slice(6);
  }
  if (event.name === "TEXT_MESSAGE_END") sync();
  if (event.name === "STATE_DELTA") {
    for (const change of JSON.parse(event.data).delta) {
      if (change.path === "/owner") human = change.value === "human";
      if (change.path === "/status") closed = change.value === "closed";
      if (change.path === "/working") working = change.value;
    }
    if (human) waiting.clear();
    showState();
  }
}

async function poll() {
  for (;;) {
    await pause(streaming ? SLOW_POLL_MS : POLL_MS);
    if (document.visibilityState === "visible" && (last || waiting.size || !online)) await sync();
  }
}

// -- writing ----------------------------------------------------------------------------

function say(text) {
  notice();
  showSuggestions([]);
  const entry = { key: fresh(), text };
  outbox.push(entry);
  keepOutbox();
  showPending(entry);
  showState();
  toBottom();
  deliver();
}

function showPending(entry) {
  $("messages").querySelector(".welcome")?.remove();
  const item = bubble("customer", entry.text);
  item.dataset.key = entry.key;
  item.dataset.text = entry.text;
  item.append(element("span", "when", words.sending));
  $("messages").append(item);
}

const pendingItem = (entry) => $("messages").querySelector(`[data-key="${entry.key}"]`);

let delivering = false;

/** One after the other, so that the server accepts them in the order in which they were said. */
async function deliver() {
  if (delivering) return;
  delivering = true;
  for (let entry; (entry = outbox.find((each) => !each.failed)); ) {
    const answer = await insist("/api/chat?wait=0", {
      method: "POST",
      headers: { "Content-Type": "application/json", "Idempotency-Key": `"${entry.key}"` },
      body: JSON.stringify({ message: entry.text, session_id: session, language }),
    });
    const body = await answer.json().catch(() => ({}));
    if (answer.ok || body.task_id) {
      outbox = outbox.filter((each) => each.key !== entry.key);
      keepOutbox();
      if (body.session_id && body.session_id !== session) adopt(body.session_id);
      const item = pendingItem(entry);
      if (item) {
        item.dataset.task = body.task_id;
        item.querySelector(".when")?.replaceChildren("");
      }
      waiting.add(body.task_id);
      follow(body.task_id);
      sync();
    } else {
      entry.failed = true;
      keepOutbox();
      failed(entry, answer.status === 401 || answer.status === 403 ? words.denied : words.refused);
    }
    showState();
  }
  delivering = false;
}

/** The server gave this conversation another id. */
function adopt(id) {
  session = id;
  kept.write("chat.session", session);
  seen.clear();
  last = 0;
  lastEvent = null;
  [...$("messages").children].forEach((item) => item.dataset.n && item.remove());
}

function failed(entry, why) {
  const item = pendingItem(entry);
  item.classList.add("failed");
  item.querySelector(".when")?.remove();
  const again = element("button", "retry", words.retry);
  again.type = "button";
  again.addEventListener("click", () => {
    item.remove();
    outbox = outbox.filter((each) => each.key !== entry.key);
    keepOutbox();
    say(entry.text);
  });
  item.append(again);
  notice(why);
}

/** Waits for what becomes of an accepted message; the reply itself is read as a message. */
async function follow(task) {
  for (;;) {
    const answer = await insist(`/api/tasks/${encodeURIComponent(task)}?wait=20`);
    const body = await answer.json().catch(() => ({}));
    const final = ["completed", "failed", "cancelled"].includes(body.state);
    if (!answer.ok || final) {
      await sync();
      waiting.delete(task);
      if (body.state === "failed" || body.state === "cancelled") notice(words.unanswered);
      showState();
      return;
    }
    if (human || !waiting.has(task)) return;
  }
}

// -- the page ---------------------------------------------------------------------------

function grow() {
  const text = $("text");
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight + 2}px`;
}

async function introduce() {
  try {
    const answer = await call("/api/business");
    if (!answer.ok) return;
    const business = await answer.json();
    $("title").textContent = business.name;
    document.title = business.name;
    if (/^#[0-9a-f]{6}$/i.test(business.colour)) {
      document.documentElement.style.setProperty("--accent", business.colour);
    }
  } catch {
    // The page works without a name.
  }
}

function begin() {
  document.documentElement.lang = language;
  $("title").textContent = words.title;
  $("text-label").textContent = words.write;
  $("text").placeholder = words.write;
  $("send-text").textContent = words.send;
  $("suggestions").setAttribute("aria-label", words.suggestions);
  $("messages").setAttribute("aria-label", words.log);
  $("conversation").setAttribute("aria-label", words.log);
  const logo = $("logo");
  const noLogo = () => logo.classList.add("missing");
  logo.addEventListener("error", noLogo);
  if (logo.complete && !logo.naturalWidth) noLogo();

  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = $("text").value.trim();
    if (!text) return;
    $("text").value = "";
    grow();
    say(text);
    $("text").focus();
  });
  $("text").addEventListener("input", grow);
  $("text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      $("form").requestSubmit();
    }
  });
  window.addEventListener("online", () => sync());
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && sync());

  showState();
  introduce();
  sync().then(() => {
    outbox.forEach((entry) => {
      showPending(entry);
      if (entry.failed) failed(entry, words.failed);
    });
    if (!last && !outbox.length) {
      const item = bubble("assistant", words.welcome);
      item.classList.add("welcome");
      $("messages").append(item);
      showSuggestions(words.starters);
    }
    deliver();
    toBottom();
    showState();
  });
  poll();
}

begin();
