// What the pages do beyond links and forms: refresh, reorder, follow a log, tips, theme.
// Everything here has a way that works without it.

const REFRESH_MS = 5000;
const LOG_MS = 1500;
const $ = (id) => document.getElementById(id);
let etag = "";
let dragged = null;
const shown = new Map();
for (const part of document.querySelectorAll("[data-live]")) shown.set(part.id, part.innerHTML);

// ------------------------------------------------------------------ refresh

function status(text, css = "good") {
  if ($("live-text").textContent !== text) $("live-text").textContent = text;
  $("live").firstElementChild.className = `dot ${css}`;
}

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

// Puts new content in place of old, and gives back what the person had: focus, scroll, open tables.
function swap(part, fresh) {
  const held = part.contains(document.activeElement) && document.activeElement;
  const label = held && (held.getAttribute("aria-label") || held.textContent);
  const scrolls = [...part.querySelectorAll(".scroll")].map((each) => each.scrollLeft);
  const open = [...part.querySelectorAll("details")].map((each) => each.open);
  part.innerHTML = fresh;
  part.querySelectorAll("details").forEach((each, i) => { each.open = open[i]; });
  part.querySelectorAll(".scroll").forEach((each, i) => { each.scrollLeft = scrolls[i] || 0; });
  if (!label) return;
  const same = [...part.querySelectorAll("a, button")].find(
    (each) => (each.getAttribute("aria-label") || each.textContent) === label && !each.disabled);
  const grip = held.closest("li") && part.querySelector(`[data-job="${held.closest("li").dataset.job}"] .grip`);
  (same || grip || part).focus();
}

async function refresh() {
  const answer = await fetch(location.href, {
    headers: { "If-None-Match": etag, Accept: "text/html" }, cache: "no-store",
  });
  if (answer.status === 304) return;
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (dragged) return;
  etag = answer.headers.get("ETag") || "";
  for (const fresh of page.querySelectorAll("[data-live]")) {
    const part = $(fresh.id);
    if (!part || shown.get(fresh.id) === fresh.innerHTML) continue;
    shown.set(fresh.id, fresh.innerHTML);
    swap(part, fresh.innerHTML);
  }
}

async function tick() {
  if (document.hidden || dragged) return;
  try {
    await refresh();
    status("live");
  } catch {
    status("no answer", "bad");
  }
}

setInterval(tick, REFRESH_MS);
document.addEventListener("visibilitychange", tick);
status("live");

// ------------------------------------------------------------------ reorder

async function move(job, version, place, of) {
  const answer = await fetch(`/v1/jobs/${encodeURIComponent(job)}/position`, {
    method: "PUT",
    headers: { "Content-Type": "application/json", "If-Match": `"${version}"` },
    body: JSON.stringify(of ? { place, of } : { place }),
  });
  const said = await answer.json().catch(() => ({}));
  const late = answer.status === 412 || answer.status === 409;
  if (late) notice("Somebody changed this queue meanwhile. This is its order now.");
  else notice(answer.ok ? "" : said.detail || `It did not work (${answer.status}).`);
  etag = "";
  await refresh();
}

const row = (target) => target.closest?.("[data-reorder] > li");

document.addEventListener("dragstart", (event) => {
  if (!event.target.classList?.contains("grip")) return;
  dragged = row(event.target);
  dragged.classList.add("dragged");
  event.dataTransfer.effectAllowed = "move";
  event.dataTransfer.setData("text/plain", dragged.dataset.job);
  event.dataTransfer.setDragImage(dragged, 10, 10);
  status("paused while dragging", "warn");
});

function lands(event) {
  const over = row(event.target);
  if (!dragged || !over || over.parentElement !== dragged.parentElement) return null;
  const box = over.getBoundingClientRect();
  return { over, place: event.clientY > box.top + box.height / 2 ? "after" : "before" };
}

function clearMarks() {
  document.querySelectorAll(".over").forEach((each) => each.classList.remove("over", "after"));
}

document.addEventListener("dragover", (event) => {
  const to = lands(event);
  clearMarks();
  if (!to) return;
  event.preventDefault();
  to.over.classList.add("over");
  to.over.classList.toggle("after", to.place === "after");
});

document.addEventListener("drop", async (event) => {
  const to = lands(event);
  const from = dragged;
  if (!to || to.over === from) return;
  event.preventDefault();
  dragged = null;
  await move(from.dataset.job, from.dataset.version, to.place, to.over.dataset.job);
});

document.addEventListener("dragend", () => {
  document.querySelector(".dragged")?.classList.remove("dragged");
  clearMarks();
  dragged = null;
  status("live");
});

document.addEventListener("keydown", async (event) => {
  if (!event.target.classList?.contains("grip")) return;
  const up = event.key === "ArrowUp";
  if (!up && event.key !== "ArrowDown") return;
  event.preventDefault();
  const item = row(event.target);
  const beside = up ? item.previousElementSibling : item.nextElementSibling;
  if (beside) await move(item.dataset.job, item.dataset.version, up ? "before" : "after", beside.dataset.job);
});

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.action.endsWith("/move") || !row(form)) return;
  event.preventDefault();
  const fields = new FormData(form);
  await move(row(form).dataset.job, fields.get("version"), fields.get("place"), fields.get("of"));
});

// ------------------------------------------------------------------ log

const log = document.querySelector("[data-log]");
if (log) {
  let offset = Number(log.dataset.offset);
  let epoch = log.dataset.epoch;
  let decoder = new TextDecoder();
  log.scrollTop = log.scrollHeight;
  const follow = async () => {
    let on = true;
    try {
      if (document.hidden) return;
      const answer = await fetch(`${log.dataset.log}?offset=${offset}`, { cache: "no-store" });
      if (!answer.ok) return;
      const now = answer.headers.get("X-Log-Epoch") ?? epoch;
      if (now !== epoch) {
        [offset, epoch, decoder] = [0, now, new TextDecoder()];
        log.append(`\n--- next attempt ---\n`);
        return;
      }
      const bytes = await answer.arrayBuffer();
      const atEnd = log.scrollTop + log.clientHeight > log.scrollHeight - 40;
      offset += bytes.byteLength;
      if (bytes.byteLength) log.append(decoder.decode(bytes, { stream: true }));
      if (atEnd) log.scrollTop = log.scrollHeight;
      on = bytes.byteLength > 0 || ["draft", "queued", "leased", "running"].includes(answer.headers.get("X-Job-State"));
      if (!on) $("log-note").textContent = "complete";
    } catch {
      // The next look tries again; the light at the top says that nobody answers.
    } finally {
      if (on) setTimeout(follow, LOG_MS);
    }
  };
  if ("follow" in log.dataset) setTimeout(follow, LOG_MS);
}

// ------------------------------------------------------------------ small things

const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
document.body.append(tip);
document.addEventListener("pointermove", (event) => {
  const text = event.target.closest?.("[data-tip]")?.dataset.tip;
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  tip.style.left = `${Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8)}px`;
});

document.addEventListener("change", (event) => event.target.closest("form[data-auto]")?.requestSubmit());

$("theme").hidden = false;
$("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme
    ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  document.cookie = `theme=${root.dataset.theme}; path=/; max-age=31536000; samesite=lax`;
});
