"use strict";
// Draws the lanes of a run. Times are nanoseconds from the first arm's begin.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const STATES = 18, ITEMS = 14, CALL = 15, GAP = 2;
const TINTS = ["#a6d3ee", "#f3d28f", "#a3dccb", "#e8c1d8", "#f2ea9c", "#c3cbd6"];
const ERROR = "#d55e00";
const whole = { begin: 0, end: Math.max(1, ...data.arms.map((arm) => arm.end)) };
const looks = new Map(data.states.map(([state, words, color, inferred]) => [state, { words, color, inferred }]));
const view = { begin: whole.begin, end: whole.end };
const lanes = [];
let asked = false;

function make(tag, parent, text = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  parent.append(element);
  return element;
}

function duration(ns) {
  const size = Math.abs(ns);
  for (const [scale, unit] of [[1e9, "s"], [1e6, "ms"], [1e3, "µs"]]) {
    if (size >= 0.9995 * scale) return `${+(ns / scale).toPrecision(size / scale >= 1000 ? 6 : 3)} ${unit}`;
  }
  return `${Math.round(ns)} ns`;
}

// The first place in a row of [begins, durations] whose end is after a time; ends rise along a row.
function firstAfter(begins, took, time) {
  let low = 0, high = begins.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (begins[middle] + took[middle] > time) high = middle;
    else low = middle + 1;
  }
  return low;
}

function build() {
  for (const { words, color } of looks.values()) {
    const entry = make("span", $("legend"));
    make("i", entry).style.background = color;
    entry.append(words);
  }
  jump("all", whole);
  if (data.arms.length > 1) for (const arm of data.arms) jump(arm.label, arm);
  make("span", $("jumps"), "wheel or W S: zoom · drag or A D: move · double-click: all").id = "help";
  for (const arm of data.arms) {
    make("h3", $("lanes"), `${arm.label}, ${duration(arm.end - arm.begin)}`);
    for (const lane of arm.lanes) {
      const row = make("div", $("lanes"));
      row.className = "lane";
      make("span", row, `worker ${lane.rank}`);
      const canvas = make("canvas", row);
      const height = STATES + (lane.items.item.length ? GAP + ITEMS : 0) + (lane.calls.length ? GAP + lane.calls.length * CALL : 0);
      canvas.style.height = `${height}px`;
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${arm.label}, worker ${lane.rank}: see the table of the workers`);
      lane.failed = new Set(lane.items.failed);
      lanes.push({ arm, lane, canvas, height });
      listen(canvas, arm, lane);
    }
  }
}

function jump(label, range) {
  const room = (range.end - range.begin) * (range === whole ? 0 : 0.02);
  make("button", $("jumps"), label).addEventListener("click", () => look(range.begin - room, range.end + room));
}

function look(begin, end) {
  const most = whole.end - whole.begin;
  const span = Math.min(most, Math.max(100, end - begin));
  view.begin = Math.min(Math.max((begin + end - span) / 2, whole.begin), whole.end - span);
  view.end = view.begin + span;
  ask();
}

function zoom(factor, share) {
  const span = view.end - view.begin, at = view.begin + span * share;
  const wanted = Math.min(whole.end - whole.begin, Math.max(100, span * factor));
  look(at - wanted * share, at + wanted * (1 - share));
}

function move(share) {
  const step = (view.end - view.begin) * share;
  look(view.begin + step, view.end + step);
}

function ask() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => { asked = false; draw(); });
}

// Gives a pen for a canvas of the right size; pixels are CSS pixels.
function pen(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const across = Math.round(width * ratio), down = Math.round(height * ratio);
  if (canvas.width !== across || canvas.height !== down) { canvas.width = across; canvas.height = down; }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "middle";
  return context;
}

function draw() {
  const style = getComputedStyle(document.documentElement);
  const colors = { ink: style.getPropertyValue("--ink"), soft: style.getPropertyValue("--soft"), shade: style.getPropertyValue("--shade"), line: style.getPropertyValue("--line") };
  drawAxis(colors);
  for (const { arm, lane, canvas, height } of lanes) {
    const box = canvas.getBoundingClientRect();
    if (box.bottom < -200 || box.top > window.innerHeight + 200) {
      canvas.width = canvas.height = 0;  // what is out of sight takes no memory
      continue;
    }
    drawLane(pen(canvas, box.width, height), box.width, arm, lane, colors);
  }
}

function drawAxis(colors) {
  const width = $("axis").getBoundingClientRect().width;
  const context = pen($("axis"), width, 20);
  const span = view.end - view.begin, rough = span / Math.max(2, width / 110);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((each) => each * power >= rough);
  context.strokeStyle = colors.line;
  context.fillStyle = colors.soft;
  for (let tick = Math.ceil(view.begin / step); tick * step <= view.end; tick++) {
    const x = ((tick * step - view.begin) / span) * width;
    context.beginPath();
    context.moveTo(x, 14);
    context.lineTo(x, 20);
    context.stroke();
    const text = tickText(tick * step, step), room = context.measureText(text).width;
    context.fillText(text, Math.min(Math.max(0, x - room / 2), width - room), 7);
  }
}

function tickText(time, step) {
  const [scale, unit] = [[1e9, "s"], [1e6, "ms"], [1e3, "µs"], [1, "ns"]].find(([each]) => Math.max(Math.abs(time), step) >= each) || [1, "ns"];
  const digits = Math.max(0, -Math.floor(Math.log10(step / scale) + 1e-9));
  return time ? `${(time / scale).toFixed(digits)} ${unit}` : "0";
}

function drawLane(context, width, arm, lane, colors) {
  const scale = width / (view.end - view.begin), x = (time) => (time - view.begin) * scale;
  const left = Math.max(0, x(arm.begin)), right = Math.min(width, x(arm.end));
  if (right <= left) return;
  context.fillStyle = colors.shade;
  context.fillRect(left, 0, right - left, STATES);
  drawBins(context, width, arm, lane, x);
  let top = STATES + GAP;
  const { begin, took, item } = lane.items;
  if (item.length) {
    const paint = (place) => (lane.failed.has(item[place]) ? ERROR : item[place] % 2 ? "#8b95a2" : "#b3bbc5");
    drawRow(context, width, begin, took, top, ITEMS, x, paint, (place) => String(item[place]));
    top += ITEMS + GAP;
  }
  lane.calls.forEach(([starts, lengths, names], depth) => {
    drawRow(context, width, starts, lengths, top + depth * CALL, CALL - 1, x, (place) => TINTS[names[place] % TINTS.length], (place) => data.names[names[place]]);
  });
}

// As many bins as make a pixel are drawn as one, with their mean shares, on whole device pixels: no seams.
function drawBins(context, width, arm, lane, x) {
  const states = [...looks.keys()].filter((state) => lane.bins[state]);
  if (!states.length) return;
  const count = lane.bins[states[0]].length, size = (arm.end - arm.begin) / count;
  const together = Math.max(1, Math.ceil(1 / Math.max(1e-9, x(size) - x(0))));
  for (let bin = 0; bin < count; bin += together) {
    const last = Math.min(count, bin + together);
    const from = x(arm.begin + bin * size), to = x(arm.begin + last * size);
    if (to < 0 || from > width) continue;
    let bottom = STATES;
    for (const state of states) {
      let sum = 0;
      for (let each = bin; each < last; each++) sum += lane.bins[state][each];
      const height = (sum / (last - bin) / 1000) * STATES;
      if (height <= 0) continue;
      context.fillStyle = looks.get(state).color;
      context.fillRect(snap(from), bottom - height, snap(to) - snap(from), height);
      bottom -= height;
    }
  }
}

function snap(x) {
  const ratio = window.devicePixelRatio || 1;
  return Math.round(x * ratio) / ratio;
}

function drawRow(context, width, begins, took, top, height, x, paint, text) {
  let drawn = -1;
  for (let place = firstAfter(begins, took, view.begin); place < begins.length && begins[place] < view.end; place++) {
    const from = Math.max(0, x(begins[place])), to = Math.min(width, x(begins[place] + took[place]));
    if (to <= drawn + 0.3) continue;
    const wide = Math.max(to - from - (to - from > 3 ? 0.7 : 0), 0.7);
    context.fillStyle = paint(place);
    context.fillRect(from, top, wide, height);
    drawn = Math.max(from + 0.7, to);
    if (wide < 14) continue;
    const words = fit(context, text(place), wide - 6);
    context.fillStyle = "#14171c";
    if (words) context.fillText(words, from + 3, top + height / 2 + 0.5);
  }
}

function fit(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  const keep = Math.floor(width / 6.2) - 1;
  return keep > 1 && !/^\d+$/.test(text) ? `${text.slice(0, keep)}…` : "";
}

function describe(arm, lane, time, y) {
  const lines = [`${arm.label}, worker ${lane.rank}, at ${duration(time - arm.begin)}`];
  if (time < arm.begin || time > arm.end) return "";
  const below = y - STATES - GAP;
  const row = Math.floor((below - (lane.items.item.length ? ITEMS + GAP : 0)) / CALL);
  if (y <= STATES) {
    for (const [state, { words, inferred }] of looks) {
      const shares = lane.bins[state];
      if (!shares) continue;
      const share = shares[Math.min(shares.length - 1, Math.floor(((time - arm.begin) / (arm.end - arm.begin)) * shares.length))];
      if (share >= 5) lines.push(`${inferred && !lane.measured ? "~" : ""}${Math.round(share / 10)} % ${words}`);
    }
  } else if (lane.items.item.length && below < ITEMS) {
    const { begin, took, item } = lane.items, place = near(begin, took, time);
    if (place < 0) return "";
    lines.push(`item ${item[place]}${lane.failed.has(item[place]) ? " (failed)" : ""}`, duration(took[place]));
  } else if (lane.calls[row]) {
    const [begin, took, names] = lane.calls[row], place = near(begin, took, time);
    if (place < 0) return "";
    lines.push(data.names[names[place]], duration(took[place]));
  } else return "";
  return lines.join("\n");
}

// The slice at a time, or one within a pixel of it; -1 where there is none.
function near(begin, took, time) {
  const slack = (view.end - view.begin) / Math.max(1, $("axis").getBoundingClientRect().width);
  const place = firstAfter(begin, took, time - slack);
  return place < begin.length && begin[place] <= time + slack ? place : -1;
}

function listen(canvas, arm, lane) {
  const share = (event) => (event.clientX - canvas.getBoundingClientRect().left) / Math.max(1, canvas.getBoundingClientRect().width);
  let held = null;
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) move((event.deltaX || event.deltaY) / 1000);
    else zoom(Math.exp(Math.max(-300, Math.min(300, event.deltaY * (event.deltaMode ? 30 : 1))) / 400), share(event));
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    held = [event.clientX, event.clientY];
    canvas.setPointerCapture(event.pointerId);
    canvas.classList.add("held");
    hide();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!held) return show(event, describe(arm, lane, view.begin + share(event) * (view.end - view.begin), event.offsetY));
    move((held[0] - event.clientX) / canvas.getBoundingClientRect().width);
    window.scrollBy(0, held[1] - event.clientY);
    held = [event.clientX, event.clientY];
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { held = null; canvas.classList.remove("held"); });
  canvas.addEventListener("pointerleave", hide);
  canvas.addEventListener("dblclick", () => look(whole.begin, whole.end));
}

function show(event, text) {
  if (!text) return hide();
  const tip = $("tip");
  tip.textContent = text;
  tip.style.display = "block";
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, window.innerWidth - width - 8))}px`;
  tip.style.top = `${event.clientY + 18 + height > window.innerHeight ? event.clientY - height - 10 : event.clientY + 18}px`;
}

function hide() {
  $("tip").style.display = "none";
}

const keys = { w: () => zoom(0.7, 0.5), s: () => zoom(1 / 0.7, 0.5), a: () => move(-0.15), d: () => move(0.15) };
window.addEventListener("keydown", (event) => {
  const act = keys[event.key.toLowerCase()];
  if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
  hide();
  act();
});
window.addEventListener("resize", ask);
window.addEventListener("scroll", ask, { passive: true });
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", ask);
build();
draw();
