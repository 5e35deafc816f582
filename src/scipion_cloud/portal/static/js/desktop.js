// The desktop in the page: waits for it, connects with a fresh ticket, comes back after a dropped network.

import RFB from "/static/vendor/novnc/core/rfb.js";
import { Clipboard } from "./desktop-clipboard.js";
import { Countdown } from "./desktop-countdown.js";

const RELAY_CODES = 4000; // and above: the relay's reasons to hang up, see desktops/relay.py
const FINAL = ["none", "stopped", "failed"];
const LONGEST_PAUSE = 10000; // ms between two attempts to reconnect

const SMALL = 720; // px

const root = document.getElementById("desktop");
const find = (name) => root.querySelector(`[data-${name}]`);
const [overlay, screen, question] = ["overlay", "screen", "question"].map(find);
const say = (text) => { find("status").textContent = text; };

let known = JSON.parse(document.getElementById("desktop-state").textContent);
let connection = null;
let attempts = 0;
let timer = 0;
let leaving = false;

async function ask(path, method = "GET") {
  const headers = { Accept: "application/json", "X-CSRFToken": root.dataset.csrf };
  const response = await fetch(root.dataset.url + path, { method, headers, redirect: "manual" });
  const isJson = (response.headers.get("Content-Type") ?? "").startsWith("application/json");
  const answer = isJson ? await response.json() : {};
  if (response.type === "opaqueredirect") throw new Refusal("You are signed out. Sign in again to come back.");
  if (response.status === 403 || response.status === 404) throw new Refusal("You have no access to this desktop any more.");
  if (!response.ok) throw new Error(answer.detail ?? "The server does not answer.");
  return answer;
}

class Refusal extends Error {}

function show({ title, text = "", step = "", busy = false, veil = false, open = false, retry = false }) {
  overlay.classList.remove("gone");
  overlay.classList.toggle("veil", veil);
  find("title").textContent = title;
  find("text").textContent = text;
  find("spinner").hidden = !busy;
  find("steps").hidden = !step;
  let reached = true;
  for (const item of find("steps").children) {
    const now = item.dataset.step === step;
    item.className = now ? "now" : reached ? "done" : "";
    if (now) reached = false;
  }
  find("retry").hidden = !retry;
  const form = find("open");
  if (form) form.hidden = !open;
}

function later(work, pause) {
  clearTimeout(timer);
  timer = setTimeout(work, pause);
}

const countdown = new Countdown(find("time"), find("extend"));
const clipboard = root.dataset.mayEdit ? new Clipboard(root, () => connection) : null;

// One look at the desktop's state, then whatever follows from it.
async function look() {
  try {
    known = await ask("state/");
  } catch (error) {
    return error instanceof Refusal ? refused(error.message) : lost();
  }
  follow();
}

function follow() {
  countdown.until(FINAL.includes(known.state) ? null : known.deadline);
  const stop = find("stop");
  if (stop) stop.hidden = FINAL.includes(known.state) || known.state === "stopping";
  if (known.state === "ready" && !connection) return connect();
  if (known.state === "ready") {
    tellPhase();
    return later(look, known.phase === "scipion-ready" ? 5000 : 700);
  }
  hangUp();
  say("");
  if (known.state === "starting") {
    const queued = known.message !== "";
    show({ title: "Opening the desktop", step: known.phase === "starting" && !queued ? "x" : "job", text: known.message, busy: true });
    return later(look, queued ? 1000 : 120);
  }
  if (known.state === "stopping") {
    show({ title: "The desktop is closing", text: "Protocols that it launched go on.", busy: true });
    return later(look, 500);
  }
  attempts = 0;
  const titles = { none: "No desktop is open", stopped: "The desktop is closed", failed: "The desktop has ended" };
  const closed = known.state === "stopped" && known.message === "Stopped." ? "" : known.message;
  const offer = root.dataset.mayEdit ? "Scipion itself, on this project, in this window." : "An editor of the project can open one; you can then watch.";
  show({ title: titles[known.state], text: closed || offer, open: true });
  if (!root.dataset.mayEdit) later(look, 5000);
}

function tellPhase() {
  const closed = known.message || "Scipion is closed. The button in the panel below opens it again.";
  const text = { "x-ready": "Scipion is loading", "scipion-closed": closed }[known.phase] ?? "";
  const hint = find("hint");
  hint.hidden = !text;
  hint.classList.toggle("busy", known.phase === "x-ready");
  if (hint.textContent !== text) hint.textContent = text;
}

async function connect() {
  clearTimeout(timer);
  if (attempts === 0) show({ title: "Opening the desktop", step: "connect", busy: true });
  let pass;
  try {
    pass = await ask("ticket/", "POST");
  } catch (error) {
    return error instanceof Refusal ? refused(error.message) : lost();
  }
  const socket = new WebSocket(new URL(pass.path, location.href.replace(/^http/, "ws")), ["binary", `scipion-cloud.ticket.${pass.ticket}`]);
  const rfb = new RFB(screen, socket, { shared: true });
  let close = null;
  socket.addEventListener("close", (event) => { close = event; });
  connection = rfb;
  rfb.viewOnly = pass.viewOnly;
  // whoever only watches, or has a small window, sees the whole screen at the size that it has
  rfb.scaleViewport = pass.viewOnly || screen.clientWidth < SMALL;
  rfb.resizeSession = !rfb.scaleViewport;
  rfb.qualityLevel = 8;
  rfb.compressionLevel = 2;
  rfb.background = "#17202a";
  rfb.addEventListener("connect", () => {
    attempts = 0;
    overlay.classList.add("gone");
    root.dataset.connected = "yes";
    if (!pass.viewOnly && !question.open) rfb.focus();
    tellPhase();
    later(look, 300);
  });
  rfb.addEventListener("disconnect", () => {
    if (connection !== rfb) return; // we hung up ourselves
    connection = null;
    delete root.dataset.connected;
    if (leaving) return;
    if (!(close?.code >= RELAY_CODES)) return lost();
    say(close.reason); // the relay hung up on purpose: the desktop's state tells what comes next
    attempts += 1;
    later(look, 300 * attempts);
  });
  clipboard?.follow(rfb);
}

function hangUp() {
  const old = connection;
  connection = null;
  delete root.dataset.connected;
  old?.disconnect();
}

function lost() {
  hangUp();
  attempts += 1;
  const pause = attempts === 1 ? 300 : Math.min(LONGEST_PAUSE, 500 * 2 ** (attempts - 1)) * (0.75 + Math.random() / 2);
  show({ title: "Connection lost", text: "The desktop goes on without you. Reconnecting…", busy: true, veil: true, retry: attempts > 2 });
  later(look, pause);
}

function refused(reason) {
  hangUp();
  clearTimeout(timer);
  countdown.until(null);
  show({ title: "The desktop is out of reach", text: reason, retry: true });
}

find("retry").addEventListener("click", look);
addEventListener("online", () => { if (!connection) look(); });
addEventListener("pagehide", () => { leaving = true; });
addEventListener("pageshow", (event) => {
  leaving = false;
  if (event.persisted) look();
});

find("fullscreen").addEventListener("click", async () => {
  if (document.fullscreenElement) await document.exitFullscreen();
  else await root.requestFullscreen();
  connection?.focus();
});
document.addEventListener("fullscreenchange", () => {
  find("fullscreen").textContent = document.fullscreenElement ? "Leave fullscreen" : "Fullscreen";
});

async function act(path) {
  try {
    known = await ask(path, "POST");
  } catch (error) {
    return say(error.message);
  }
  follow();
}
find("extend")?.addEventListener("click", async () => {
  await act("extend/");
  connection?.focus();
});
find("stop")?.addEventListener("click", () => question.showModal());
question.addEventListener("close", () => {
  if (question.returnValue === "stop") act("stop/");
  else connection?.focus();
});

follow();
