// The page asks for the status and shows it. All addresses are relative: it works below any prefix.
"use strict";

const TITLES = {
  locking: ["Waiting for the lock", "busy"],
  staging_in: ["Fetching the project", "busy"],
  ready: ["Ready", "good"],
  saving: ["Saving", "good"],
  staging_out: ["Closing: the last save", "busy"],
  save_failed: ["The last save does not succeed", "bad"],
  released: ["Closed", "good"],
  failed: ["Stopped", "bad"],
};
const ENDED = ["released", "failed"];
const $ = (id) => document.getElementById(id);

let status = null;
let failures = 0;

function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (bytes >= 999.95 && unit < units.length - 1) { bytes /= 1000; unit += 1; }
  return `${unit ? bytes.toFixed(1) : Math.round(bytes)} ${units[unit]}`;
}

function duration(seconds) {
  seconds = Math.max(0, Math.round(seconds));
  if (seconds < 90) return `${seconds} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
  return `${Math.round(seconds / 86400)} days`;
}

const since = (time) => (Date.now() - Date.parse(time)) / 1000;
const ago = (time) => (since(time) < 5 ? "just now" : `${duration(since(time))} ago`);
const clock = (time) => new Date(time).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
const files = (count) => (count === 1 ? "1 file" : `${count.toLocaleString()} files`);

function showTransfer(name, amount) {
  const part = $("transfer").content.cloneNode(true);
  const share = amount.bytes_total ? amount.bytes_done / amount.bytes_total
    : amount.files_total ? amount.files_done / amount.files_total : 0;
  part.querySelector("strong").textContent = name;
  const bar = part.querySelector("progress");
  bar.value = share;
  bar.setAttribute("aria-label", name);
  part.querySelector(".left").textContent = amount.seconds_left === null ? "" : `${duration(amount.seconds_left)} left`;
  part.querySelector(".done").textContent =
    `${amount.files_done.toLocaleString()} of ${files(amount.files_total)}, ${size(amount.bytes_done)} of ${size(amount.bytes_total)}`;
  part.querySelector(".rate").textContent = amount.rate ? `${size(amount.rate)}/s` : "";
  return part;
}

function showTransfers() {
  const moving = [];
  const coming = status.phase === "staging_in" || status.arriving;
  if (coming && status.project) moving.push(["The project", status.project]);
  if (status.source && status.source.bytes_done < status.source.bytes_total) moving.push(["The source data", status.source]);
  if (status.saving) moving.push(["Saving", status.saving]);
  $("transfers").replaceChildren(...moving.map(([name, amount]) => showTransfer(name, amount)));
  $("transfers").hidden = moving.length === 0;
}

function showFacts() {
  const facts = [];
  if (status.generation !== null) facts.push(["Generation", String(status.generation)]);
  if (status.last_saved) facts.push(["Last saved", ago(status.last_saved)]);
  if (status.last_checked && !status.unsaved) facts.push(["All was saved", ago(status.last_checked)]);
  if (status.next_save) facts.push(["Next save", since(status.next_save) > -2 ? "now" : `in ${duration(-since(status.next_save))}`]);
  if (status.arriving) facts.push(["Still arriving", `${files(status.arriving.files)}, ${size(status.arriving.bytes)}`]);
  if (status.deadline && !ENDED.includes(status.phase)) facts.push(["Closes", `${clock(status.deadline)}, in ${duration(-since(status.deadline))}`]);
  facts.push(["Working copy", status.work]);
  if (status.lease) facts.push(["Locked for", status.lease.holder]);
  $("facts").replaceChildren(...facts.flatMap(([name, value]) => {
    const dt = document.createElement("dt");
    const dd = document.createElement("dd");
    dt.textContent = name;
    dd.textContent = value;
    return [dt, dd];
  }));
}

function showList(id, rows) {
  $(id).hidden = rows.length === 0;
  $(id).querySelector("ul").replaceChildren(...rows.map(([strong, text]) => {
    const item = document.createElement("li");
    const code = document.createElement(id === "problems" ? "code" : "span");
    code.className = "muted";
    code.textContent = strong;
    item.append(code, " ", text);
    return item;
  }));
}

function showNote(id, text) {
  $(id).hidden = !text;
  $(id).querySelector("p").textContent = text || "";
}

function show() {
  const [title, mood] = TITLES[status.phase];
  $("title").textContent = title;
  $("dot").dataset.mood = mood;
  document.title = `${title} · Scipion Cloud`;
  $("storage").textContent = status.storage;
  $("message").textContent = status.message;
  showNote("warning", status.warning);
  showNote("question", status.question);
  showTransfers();
  showFacts();
  showList("errors", status.errors.map((e) => [clock(e.time), e.text]));
  showList("problems", status.problems.map((p) => [p.path, p.text]));
  $("problems").querySelector("p").textContent =
    status.problems_total > status.problems.length ? `The first ${status.problems.length} of ${status.problems_total}.` : "";
  $("save").disabled = !["ready", "saving", "save_failed"].includes(status.phase);
}

async function order(path, done) {
  $("said").textContent = "";
  try {
    const answer = await fetch(path, { method: "POST", headers: { "X-Scipion-Cloud": "1" } });
    const said = await answer.json();
    $("said").textContent = answer.ok ? done(said) : said.detail;
  } catch {
    $("said").textContent = "The agent does not answer.";
  }
}

async function saveNow() {
  $("save").disabled = true;
  $("said").textContent = "Saving…";
  await order("save?wait=1", (said) => (said.saved ? `Saved as generation ${said.generation}.` : "Nothing had changed."));
  await look();
}

async function look() {
  try {
    status = await (await fetch("status")).json();
    failures = 0;
    show();
  } catch {
    failures += 1;
    if (failures > 1 && !(status && ENDED.includes(status.phase))) {
      $("title").textContent = "The agent does not answer";
      $("dot").dataset.mood = "bad";
      $("message").textContent = status ? `Last heard of ${ago(status.updated)}.` : "";
      $("save").disabled = true;
    }
  }
}

async function keepLooking() {
  await look();
  setTimeout(keepLooking, document.hidden ? 5000 : 1000);
}

$("save").addEventListener("click", saveNow);
$("confirm").addEventListener("click", () => order("confirm", () => "It will be saved like this."));
keepLooking();
