// Small parts of the pages that need a script: the menu on a phone, copying, and confirmations.
"use strict";

document.documentElement.classList.add("scripted");

const menu = document.querySelector("button.menu");
if (menu) {
  const navigation = document.getElementById(menu.getAttribute("aria-controls"));
  menu.addEventListener("click", () => {
    const open = navigation.classList.toggle("open");
    menu.setAttribute("aria-expanded", String(open));
  });
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  await navigator.clipboard.writeText(source.value ?? source.textContent);
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
});

document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.confirm ?? event.target.dataset.confirm;
  if (question && !window.confirm(question)) event.preventDefault();
});

// The live view: one row for each call, the newest first.
const MOST_ROWS = 200;
const live = document.getElementById("live");
if (live) watch(live);

function watch(table) {
  const body = table.tBodies[0];
  const state = document.getElementById("live-state");
  const pause = document.getElementById("pause");
  const rows = new Map();
  let paused = false;
  let seen = 0;
  let skipped = 0;
  let sampled = false;
  const source = new EventSource(table.dataset.stream + window.location.search);
  source.onopen = () => show();
  source.onerror = () => { state.textContent = "The connection was lost. Connecting again…"; };
  source.onmessage = (message) => {
    const part = JSON.parse(message.data);
    seen += part.events.length;
    skipped += part.skipped;
    sampled = part.sampled;
    if (!paused) part.events.forEach(add);
    show();
  };
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Continue" : "Pause";
    show();
  });

  function show() {
    let missing = skipped ? ` ${skipped} more were left out, because they came too fast.` : "";
    if (sampled) missing = " Calls come faster than they can be shown: this is a sample of them.";
    state.textContent = `${paused ? "Paused" : "Watching"}: ${seen} events.${missing}`;
  }

  function add(event) {
    document.getElementById("live-empty").hidden = true;
    let row = rows.get(event.call_id);
    if (!row) {
      row = body.insertRow(0);
      for (let i = 0; i < 6; i += 1) row.insertCell();
      row.cells[4].className = row.cells[5].className = "amount";
      rows.set(event.call_id, row);
      if (rows.size > MOST_ROWS) {
        const [oldest] = rows.keys();
        rows.get(oldest).remove();
        rows.delete(oldest);
      }
    }
    const [result, tone] = resultOf(event);
    const badge = document.createElement("span");
    badge.className = `state ${tone}`;
    badge.textContent = result;
    row.cells[0].textContent = new Date(event.at * 1000).toISOString().slice(11, 23);
    const name = `${event.server}__${event.tool}`;
    if (table.dataset.recorded) {
      const story = document.createElement("a");
      story.href = `/console/calls/${encodeURIComponent(event.call_id)}`;
      story.textContent = name;
      row.cells[1].replaceChildren(story);
    } else row.cells[1].textContent = name;
    row.cells[2].textContent = event.key ?? "";
    row.cells[3].replaceChildren(badge, event.code ? ` ${event.code}` : "", event.rule ? ` by rule ${event.rule}` : "");
    if (event.latency_us) row.cells[4].textContent = `${(event.latency_us / 1000).toFixed(1)} ms`;
    if (event.charge) row.cells[5].textContent = `$${(event.charge / 1e6).toFixed(4)}`;
  }

  function resultOf(event) {
    return {
      "call.allowed": ["running", "warn"], "call.denied": ["denied", "bad"],
      "call.completed": ["completed", "good"], "call.failed": ["failed", "bad"],
    }[event.event];
  }
}
