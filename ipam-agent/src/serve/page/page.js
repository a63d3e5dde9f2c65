// The page reads without this. With it, it is renewed every two seconds, says times as
// "3 min ago", draws the maps of large pools, and opens an address's story in place.
"use strict";

const EVERY = 2000; // ms
const main = document.getElementById("main");
const standing = document.getElementById("standing");

// Documents come by XMLHttpRequest: it parses HTML without ever running what is in it.
function get(url, kind, tag) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("GET", url);
    request.responseType = kind;
    request.timeout = 15000;
    if (tag) request.setRequestHeader("If-None-Match", tag);
    request.onload = () => resolve(request);
    request.onerror = request.ontimeout = () => reject(new Error("no answer"));
    request.send();
  });
}

// --- times -------------------------------------------------------------------------------

function span(seconds) {
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

function tell(time, now) {
  time.title ||= time.textContent;
  const seconds = Math.floor((now - Date.parse(time.dateTime)) / 1000);
  let text = time.title;
  if (Math.abs(seconds) < 1) text = "now";
  else if (seconds > 0 && seconds < 86400) text = `${span(seconds)} ago`;
  else if (seconds < 0 && seconds > -86400) text = `in ${span(-seconds)}`;
  if (time.textContent !== text) time.textContent = text;
}

// The daemon's clock: the browser's may be another's.
let ahead = 0;
function tellTimes(within) {
  const now = Date.now() + ahead;
  for (const time of within.querySelectorAll("time")) tell(time, now);
}

// --- maps --------------------------------------------------------------------------------

const PITCH = 3, SIDE = 16, TILE = SIDE * PITCH + 3;
// What is drawn of each state, three by three pixels: told apart without colours too.
const GLYPHS = { a: 0b111111111, q: 0b101000101, s: 0b001010100, r: 0b010101010, f: 0b111101111, u: 0b000111000, x: 0b000010000, ".": 0 };
const NAMES = { a: "active", q: "quiet", s: "stale", r: "quarantined", f: "fenced", u: "unknown", x: "excluded", ".": "free" };

function* runs(cells) {
  for (const [, letter, count] of cells.matchAll(/([a-z.!])(\d*)/gi)) {
    const plain = letter === "!" ? "." : letter.toLowerCase();
    yield [plain, plain !== letter, count ? Number(count) : 1];
  }
}

function summary(row) {
  const counts = {};
  let hot = 0;
  for (const [kind, contested, count] of runs(row.cells)) {
    counts[kind] = (counts[kind] || 0) + count;
    if (contested) hot += count;
  }
  const parts = Object.keys(NAMES).filter((kind) => counts[kind]).map((kind) => `${counts[kind]} ${NAMES[kind]}`);
  if (hot) parts.unshift(`${hot} in a conflict`);
  return { hot, text: `${row.first}: ${parts.join(", ")}` };
}

function paint(canvas, rows, columns) {
  const lines = Math.ceil(rows.length / columns);
  const [width, height] = [columns * TILE, lines * TILE];
  canvas.width = width;
  canvas.height = height;
  const style = getComputedStyle(document.documentElement);
  const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const colour = (name) => {
    probe.fillStyle = style.getPropertyValue(name).trim();
    probe.fillRect(0, 0, 1, 1);
    const [r, g, b] = probe.getImageData(0, 0, 1, 1).data;
    return (255 << 24 | b << 16 | g << 8 | r) >>> 0;
  };
  const inks = { a: colour("--a"), q: colour("--a"), s: colour("--s"), r: colour("--r"), f: colour("--f"), u: colour("--dim"), x: colour("--x-ink"), ".": 0 };
  const [hot, ground] = [colour("--hot"), colour("--x")];
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  rows.forEach((row, index) => {
    const left = (index % columns) * TILE + 1, top = Math.floor(index / columns) * TILE + 1;
    for (let y = 0; y < SIDE * PITCH; y++) {
      pixels.fill(ground, (top + y) * width + left, (top + y) * width + left + SIDE * PITCH);
    }
    let at = 0;
    for (const [kind, contested, count] of runs(row.cells)) {
      const glyph = contested ? 0b111111111 : GLYPHS[kind];
      const ink = contested ? hot : inks[kind];
      for (const end = at + count; at < end; at++) {
        if (!glyph) continue;
        const x = left + (at % SIDE) * PITCH, y = top + (at >> 4) * PITCH;
        for (let bit = 0; bit < 9; bit++) {
          if (glyph >> (8 - bit) & 1) pixels[(y + Math.floor(bit / 3)) * width + x + bit % 3] = ink;
        }
      }
    }
  });
  context.putImageData(image, 0, 0);
}

const drawn = new Map(); // What is there of each map: its rows and its version.

async function draw(tiles) {
  const { map, pool, v, name } = tiles.dataset;
  let known = drawn.get(map);
  if (known?.v !== v) {
    const answer = await get(map, "json", known?.v).catch(() => null);
    if (!answer || (answer.status !== 200 && answer.status !== 304)) return;
    if (answer.status === 200) known = { rows: answer.response };
    known.v = v;
    drawn.set(map, known);
  }
  const columns = Math.min(16, known.rows.length);
  // Few tiles are drawn larger.
  const scale = columns <= 4 ? 3 : columns <= 8 ? 2 : 1;
  const focused = tiles.contains(document.activeElement) ? document.activeElement.pathname + document.activeElement.search : null;
  const canvas = document.createElement("canvas");
  canvas.setAttribute("aria-hidden", "true");
  tiles.style.gridTemplateColumns = `repeat(${columns}, 1fr)`;
  tiles.style.maxWidth = `${columns * TILE * scale}px`;
  tiles.setAttribute("role", "group");
  tiles.setAttribute("aria-label", `${name}, 256 addresses a tile`);
  const links = known.rows.map((row) => {
    const link = document.createElement("a");
    const { hot, text } = summary(row);
    link.href = `${pool}&block=${encodeURIComponent(row.first)}`;
    link.setAttribute("aria-label", text);
    if (hot) link.className = "hot";
    return link;
  });
  tiles.replaceChildren(canvas, ...links);
  rove(tiles);
  if (focused) links.find((link) => link.pathname + link.search === focused)?.focus();
  paint(canvas, known.rows, columns);
}

const inView = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    inView.unobserve(target);
    draw(target);
  }
}, { rootMargin: "300px" });

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const tiles of document.querySelectorAll(".tiles:has(canvas)")) draw(tiles);
});

// One stop of the Tab key a map; in it, the arrows.
function rove(map) {
  const links = map.querySelectorAll("a");
  links.forEach((link, index) => { link.tabIndex = index ? -1 : 0; });
  if (!map.nextElementSibling?.matches(".readout")) {
    const readout = document.createElement("p");
    readout.className = "readout";
    map.after(readout);
  }
}

function readOut(link) {
  const map = link?.closest(".map, .tiles");
  const readout = map?.nextElementSibling;
  if (readout?.matches(".readout")) readout.textContent = link.getAttribute("aria-label") || "";
}

document.addEventListener("mouseover", (event) => readOut(event.target.closest?.(".map a, .tiles a")));
document.addEventListener("focusin", (event) => {
  const link = event.target.closest?.(".map a, .tiles a");
  if (!link) return;
  readOut(link);
  for (const other of link.parentElement.querySelectorAll("a[tabindex='0']")) other.tabIndex = -1;
  link.tabIndex = 0;
});
document.addEventListener("keydown", (event) => {
  const link = event.target.closest?.(".map a, .tiles a");
  if (!link || event.ctrlKey || event.altKey || event.metaKey) return;
  const links = [...link.parentElement.querySelectorAll("a")];
  const columns = getComputedStyle(link.parentElement).gridTemplateColumns.split(" ").length;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -Infinity, End: Infinity, PageUp: -4 * columns, PageDown: 4 * columns };
  const step = steps[event.key];
  if (step === undefined) return;
  event.preventDefault();
  const from = links.indexOf(link);
  let to = Math.max(0, Math.min(links.length - 1, from + step));
  // Past the first or last line: stay, rather than jump to its end.
  if (event.key.startsWith("Arrow") && from + step !== to) to = from;
  links[to].focus();
});

// --- the story of an address, in place -----------------------------------------------------

const dialog = document.createElement("dialog");
const [top_, body, back, close] = ["div", "div", "button", "button"].map((name) => document.createElement(name));
top_.className = "top";
body.className = "body";
back.textContent = "← Back";
close.textContent = "Close";
top_.append(back, close);
dialog.append(top_, body);
document.body.append(dialog);
const way = []; // What was opened, the last on top.

async function show(url) {
  const answer = await get(url, "document").catch(() => null);
  const content = answer?.response?.getElementById("main");
  if (!content) return void location.assign(url);
  body.replaceChildren(...document.importNode(content, true).childNodes);
  back.hidden = way.length < 2;
  dialog.setAttribute("aria-label", body.querySelector("h1")?.textContent || url);
  enhance(body);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  (body.querySelector(".map a") || close).focus({ preventScroll: true });
}

back.addEventListener("click", () => { way.pop(); show(way.at(-1)); });
close.addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("close", () => { way.length = 0; });
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href^='/address/'], a[href^='/pool?']");
  if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  way.push(link.getAttribute("href"));
  show(way.at(-1));
});

// --- renewing ------------------------------------------------------------------------------

function enhance(within) {
  tellTimes(within);
  for (const map of within.querySelectorAll(".map")) rove(map);
  for (const tiles of within.querySelectorAll(".tiles")) inView.observe(tiles);
}

// What has focus or is open in `old` is so in `fresh`, if it is still there.
function put(old, fresh) {
  const live = document.importNode(fresh, true);
  if (old.open) live.open = true;
  for (const open of old.querySelectorAll("details[open]")) {
    const same = open.id && live.querySelector(`details#${CSS.escape(open.id)}`);
    if (same) same.open = true;
  }
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  const href = focused?.getAttribute("href");
  const index = href ? [...old.querySelectorAll("a")].filter((a) => a.getAttribute("href") === href).indexOf(focused) : -1;
  const tiles = [...old.querySelectorAll(".tiles:has(canvas)")];
  old.replaceWith(live);
  // A map that is drawn stays until the new one is.
  for (const before of tiles) {
    const after = [...live.querySelectorAll(".tiles")].find((after) => after.dataset.map === before.dataset.map);
    if (!after) continue;
    const { v } = after.dataset;
    const readout = before.nextElementSibling;
    after.replaceWith(before);
    if (readout?.matches(".readout")) before.after(readout);
    if (before.dataset.v !== v) {
      before.dataset.v = v;
      draw(before);
    }
  }
  enhance(live);
  if (href) [...live.querySelectorAll("a")].filter((a) => a.getAttribute("href") === href)[Math.max(0, index)]?.focus({ preventScroll: true });
}

// Brings `live`, which the script has changed, from what was told before to what is told now.
function renew(live, before, now) {
  if (before.isEqualNode(now)) return;
  if (!("parts" in now.dataset) || !("parts" in before.dataset)) return put(live, now);
  const partsOf = (node) => new Map([...node.children].filter((part) => part.id).map((part) => [part.id, part]));
  const [lives, befores] = [partsOf(live), partsOf(before)];
  let last = null;
  for (const part of now.children) {
    let known = lives.get(part.id);
    if (known) {
      renew(known, befores.get(part.id), part);
      known = document.getElementById(part.id);
    } else {
      known = document.importNode(part, true);
      enhance(known);
    }
    const place = last ? last.nextElementSibling : live.firstElementChild;
    if (place !== known) live.insertBefore(known, place);
    last = known;
  }
  const kept = new Set([...now.children].map((part) => part.id));
  for (const [id, part] of lives) if (!kept.has(id)) part.remove();
}

let told = null, tag = null, looking = false;

async function look() {
  if (looking) return;
  looking = true;
  const silent = document.getElementById("silent");
  try {
    const answer = await get("/", "document", tag);
    if (answer.status !== 200 && answer.status !== 304) throw new Error(`it says ${answer.status}`);
    const asof = document.querySelector("#asof time");
    if (answer.status === 200) {
      const fresh = answer.response;
      // Another version of the daemon: another page.
      if (fresh.body.dataset.version !== document.body.dataset.version) return location.reload();
      const now = fresh.getElementById("main");
      ahead = Date.parse(fresh.querySelector("#asof time").dateTime) - Date.now();
      for (const part of now.children) {
        const [live, before] = [document.getElementById(part.id), told.querySelector(`#${part.id}`)];
        renew(live, before, part);
      }
      told = now;
      tag = answer.getResponseHeader("ETag");
      if (document.title !== fresh.title) document.title = fresh.title;
      document.body.dataset.level = fresh.body.dataset.level;
    }
    asof.dateTime = new Date(Date.now() + ahead).toISOString();
    asof.title = `${asof.dateTime.slice(0, 19).replace("T", " ")}Z`;
    silent.hidden = true;
    document.getElementById("live").hidden = false;
  } catch (error) {
    const since = document.querySelector("#asof time").title;
    silent.textContent = `The agent gives no answer (${error.message}). What is below is of ${since}, and may be over.`;
    silent.hidden = false;
    document.getElementById("live").hidden = true;
  } finally {
    looking = false;
  }
}

async function keepLooking() {
  if (!document.hidden) await look();
  setTimeout(keepLooking, EVERY);
}

if (standing) {
  told = main.cloneNode(true);
  ahead = Date.parse(document.querySelector("#asof time").dateTime) - Date.now();
  document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
  setTimeout(keepLooking, EVERY);
}
enhance(document);
setInterval(() => tellTimes(document), 1000);
