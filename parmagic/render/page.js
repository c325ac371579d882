"use strict";
// Draws the lanes of a run. Times are nanoseconds from the first arm's begin.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const { states: STATES, items: ITEMS, waits: WAITS, call: CALL, gap: GAP } = data.sizes, MAP = 34;
const TINTS = ["#a6d3ee", "#f3d28f", "#a3dccb", "#e8c1d8", "#f2ea9c", "#c3cbd6"];
const MOST_ARROWS = 60, WIDE = 8;  // in view: those of the longest waits, and of none that is narrower (pixels)
const ERROR = "#b0003a", CHOSEN = "#ff2d55", MOST_HITS = 20000, UNRECORDED = "functions were not recorded here";
const whole = { begin: 0, end: Math.max(1, ...data.arms.map((arm) => arm.end)) };
const looks = new Map(data.states.map(([state, words, color, inferred]) => [state, { words, color, inferred }]));
const view = { begin: whole.begin, end: whole.end };
const lanes = [];
let asked = false, chosen = null, blocker = null, range = null, found = null, told = 0;

// ---- what is drawn -------------------------------------------------------------------------------------------------------------

function unpack(text, kind) {
  const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  return new kind(bytes.buffer);
}

// A row of slices that do not overlap: begins and ends rise along it.
function rowOf(packed, kind, keys, top, height) {
  const begin = unpack(packed.begin, Float64Array), took = unpack(packed.took, Float32Array);
  return { kind, begin, took, key: unpack(keys, Uint32Array), top, height };
}

function rowsOf(lane) {
  const rows = [];
  let top = STATES + GAP;
  const add = (packed, kind, keys, height) => {
    const row = rowOf(packed, kind, keys, top, height - (kind === "call" ? 1 : 0));
    if (!row.begin.length) return;
    rows.push(row);
    top += height + (kind === "call" ? 0 : GAP);
  };
  add(lane.items, "item", lane.items.key, ITEMS);
  add(lane.waits, "wait", lane.waits.key, WAITS);
  const calls = top;
  for (const each of lane.calls) add(each, "call", each.name, CALL);
  if (lane.gaps.length) top = Math.max(top, calls + CALL);
  return { rows, calls, height: top };
}

function nameOf({ kind, key }, place) {
  if (kind === "call") return data.names[key[place]];
  return kind === "wait" ? data.waits[key[place]].name : `item ${key[place]}`;
}

// The words that fit on a slice.
function textOf(row, place) {
  return row.kind === "item" ? String(row.key[place]) : nameOf(row, place).replace(/ \(.*:\d+\)$/, "");
}

function colorOf(lane, { kind, key }, place) {
  if (kind === "call") return TINTS[key[place] % TINTS.length];
  if (kind === "wait") return data.waits[key[place]].color;
  return lane.items.errors[key[place]] ? ERROR : key[place] % 2 ? "#8b95a2" : "#b3bbc5";
}

// The seconds in a state from the arm's begin to a time: straight lines between the steps.
function until(arm, sums, time) {
  const at = (Math.min(Math.max(time, arm.begin), arm.end) - arm.begin) / Math.max(1, arm.end - arm.begin) * (sums.length - 1);
  const step = Math.min(sums.length - 2, Math.floor(at));
  return sums[step] + (sums[step + 1] - sums[step]) * (at - step);
}

// ---- words ---------------------------------------------------------------------------------------------------------------------

function make(tag, parent, text = "", kind = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  if (kind) element.className = kind;
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

function percent(share) {
  return `${Math.round(share * 100)} %`;
}

// ---- finding -------------------------------------------------------------------------------------------------------------------

// The first place in a row whose end is after a time, from `low` on.
function firstAfter({ begin, took }, time, low = 0) {
  let high = begin.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (begin[middle] + took[middle] > time) high = middle;
    else low = middle + 1;
  }
  return low;
}

// The slice at a time, or one within a pixel of it; -1 where there is none.
function near(row, time) {
  const slack = (view.end - view.begin) / Math.max(1, $("axis").clientWidth);
  const place = firstAfter(row, time - slack);
  return place < row.begin.length && row.begin[place] <= time + slack ? place : -1;
}

function search(text) {
  const words = text.trim().toLowerCase();
  if (!words) return null;
  const names = data.names.map((name) => name.toLowerCase().includes(words));
  const waits = data.waits.map(({ name, known }) => [name, ...Object.values(known)].some((each) => String(each).toLowerCase().includes(words)));
  const number = /^(item )?(\d+)$/.exec(words);
  const is = ({ kind, key }, place) =>
    kind === "call" ? names[key[place]] : kind === "wait" ? waits[key[place]] : number !== null && key[place] === +number[2];
  const hits = [];
  let count = 0;
  for (const at of lanes) {
    for (const row of at.rows) {
      for (let place = 0; place < row.begin.length; place++) {
        if (!is(row, place)) continue;
        count++;
        if (hits.length < MOST_HITS) hits.push({ at, row, place });
      }
    }
  }
  hits.sort((a, b) => a.row.begin[a.place] - b.row.begin[b.place]);
  return { is, hits, count, now: -1 };
}

function step(way) {
  if (!found || !found.hits.length) return;
  found.now = (found.now + way + found.hits.length) % found.hits.length;
  const { at, row, place } = found.hits[found.now];
  choose({ at, row, place });
  const span = view.end - view.begin, middle = row.begin[place] + row.took[place] / 2;
  if (row.took[place] < span / 400 || row.took[place] > span) look(middle - row.took[place] * 10, middle + row.took[place] * 10);
  else look(middle - span / 2, middle + span / 2);
  at.canvas.scrollIntoView({ block: "nearest" });
  tell();
}

function tell() {
  $("hits").textContent = !found ? "" : found.count ? `${Math.max(found.now, 0) + (found.now >= 0 ? 1 : 0)} of ${found.count.toLocaleString("en")}` : "nothing found";
}

// ---- moving --------------------------------------------------------------------------------------------------------------------

function look(begin, end) {
  const most = whole.end - whole.begin, span = Math.min(most, Math.max(100, end - begin));
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
  const by = (view.end - view.begin) * share;
  look(view.begin + by, view.end + by);
}

function ask() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => { asked = false; draw(); });
}

// ---- drawing -------------------------------------------------------------------------------------------------------------------

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

function inks() {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(["ink", "soft", "shade", "line"].map((name) => [name, style.getPropertyValue(`--${name}`)]));
}

function draw() {
  const colors = inks();
  drawMap(colors);
  drawAxis(colors);
  for (const at of lanes) {
    const box = at.canvas.getBoundingClientRect();
    if (box.bottom < -200 || box.top > window.innerHeight + 200) {
      at.canvas.width = at.canvas.height = 0;  // what is out of sight takes no memory
      continue;
    }
    drawLane(pen(at.canvas, box.width, at.height), box.width, at, colors);
  }
  drawArrows();
  clearTimeout(told);
  told = setTimeout(drawTable, 120);
}

// Arrows between the lanes, where waits ended: from who had the thing, or woke, to who waited. That of the chosen wait is always there.
function drawArrows() {
  const across = $("axis").getBoundingClientRect().width, scale = across / (view.end - view.begin);
  const mine = chosen && arrowOf(chosen);
  const shown = data.arms.flatMap((arm) => arm.arrows).filter((arrow) => arrow.source >= 0 && arrow.source !== arrow.waiter
    && arrow.end >= view.begin && arrow.end <= view.end && (arrow === mine || (arrow.end - arrow.begin) * scale >= WIDE));
  shown.sort((one, other) => (other === mine) - (one === mine) || other.end - other.begin - (one.end - one.begin));
  const left = lanes.length ? lanes[0].canvas.offsetLeft : 0, x = (time) => left + (Math.max(time, view.begin) - view.begin) * scale;
  const paths = shown.slice(0, MOST_ARROWS).reverse().map((arrow) => {
    const from = arrow.lanes[arrow.source].canvas.offsetTop, to = arrow.lanes[arrow.waiter].canvas.offsetTop, down = to > from ? 1 : -1;
    const tip = to + STATES / 2 - down * (STATES / 2 - 4), at = x(arrow.end);
    const head = `M${at - 3.5} ${tip - 6 * down}L${at} ${tip}L${at + 3.5} ${tip - 6 * down}`;
    return { d: `M${x(arrow.woken)} ${from + STATES / 2}L${at} ${tip}${head}`, class: arrow === mine ? "mine" : "" };
  });
  $("arrows").replaceChildren();
  for (const path of paths) drawn("path", $("arrows"), path);
  const left_out = shown.length > MOST_ARROWS ? `: the ${MOST_ARROWS} longest waits of ${shown.length.toLocaleString("en")} in view` : "";
  $("arrowed").textContent = shown.length ? `↕ from who had it, or woke, to who waited${left_out}` : "";
}

function drawn(tag, parent, attributes) {
  const element = document.createElementNS($("arrows").namespaceURI, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  parent.append(element);
  return element;
}

// What is known of who caused a wait: the shortest of those that its middle lies in.
function arrowOf({ at, row, place }) {
  const middle = row.begin[place] + row.took[place] / 2;
  return row.kind === "wait" ? at.arrows.findLast((arrow) => arrow.begin <= middle && middle <= arrow.end) || null : null;
}

// The lane of who caused a wait, or ended it, and when it is to be looked at there.
function blockerOf(slice) {
  const arrow = slice && arrowOf(slice);
  if (!arrow) return null;
  const lane = arrow.blocker >= 0 ? arrow.blocker : arrow.waker;
  return lane < 0 ? null : { at: arrow.lanes[lane], time: arrow.blocker >= 0 ? arrow.begin : arrow.woken, arrow };
}

// Chooses what the blocker of the chosen wait was in at that moment: a wait of its own, else its item.
function goToBlocker() {
  if (!blocker) return;
  const { at, time } = blocker;
  for (const kind of ["wait", "item"]) {
    const row = at.rows.find((each) => each.kind === kind), place = row ? firstAfter(row, time) : -1;
    if (!row || place >= row.begin.length || row.begin[place] > time) continue;
    if (time < view.begin || time > view.end) look(time - (view.end - view.begin) / 2, time + (view.end - view.begin) / 2);
    choose({ at, row, place });
    break;
  }
  at.canvas.scrollIntoView({ block: "nearest" });
  at.canvas.focus({ preventScroll: true });
}

// Chooses the next wait for others in view, on the lane that has the focus.
function nextWait(way) {
  const at = lanes.find(({ canvas }) => canvas === document.activeElement), row = at && at.rows.find(({ kind }) => kind === "wait");
  if (!row) return;
  const here = chosen && chosen.row === row ? chosen.place + way : way > 0 ? firstAfter(row, view.begin) : firstAfter(row, view.end) - 1;
  for (let place = here; place >= 0 && place < row.begin.length; place += way) {
    if (row.begin[place] + row.took[place] < view.begin || row.begin[place] > view.end) return;
    if (arrowOf({ at, row, place })) return choose({ at, row, place });
  }
}

function snap(x) {
  const ratio = window.devicePixelRatio || 1;
  return Math.round(x * ratio) / ratio;
}

// The lanes of all arms on top of each other: what the workers did on average, over the whole run.
function drawMap(colors) {
  const width = $("map").getBoundingClientRect().width, context = pen($("map"), width, MAP);
  const x = (time) => ((time - whole.begin) / (whole.end - whole.begin)) * width;
  for (const arm of data.arms) {
    const mine = lanes.filter((at) => at.arm === arm), from = snap(x(arm.begin)), to = snap(x(arm.end));
    context.fillStyle = colors.shade;
    context.fillRect(from, 0, to - from, MAP);
    mine.forEach((at, place) => drawStates(context, width, at, x, place * (MAP / mine.length), MAP / mine.length));
  }
  context.fillStyle = colors.ink;
  context.globalAlpha = 0.35;
  context.fillRect(0, 0, x(view.begin), MAP);
  context.fillRect(x(view.end), 0, width - x(view.end), MAP);
  context.globalAlpha = 1;
  context.strokeStyle = colors.ink;
  context.lineWidth = 2;
  context.strokeRect(x(view.begin) + 1, 1, Math.max(2, x(view.end) - x(view.begin) - 2), MAP - 2);
}

function drawAxis(colors) {
  const width = $("axis").getBoundingClientRect().width, context = pen($("axis"), width, 20);
  const span = view.end - view.begin, rough = span / Math.max(2, width / 110);
  const power = 10 ** Math.floor(Math.log10(rough));
  const tick = power * [1, 2, 5, 10].find((each) => each * power >= rough);
  context.strokeStyle = colors.line;
  context.fillStyle = colors.soft;
  for (let each = Math.ceil(view.begin / tick); each * tick <= view.end; each++) {
    const x = ((each * tick - view.begin) / span) * width;
    context.beginPath();
    context.moveTo(x, 14);
    context.lineTo(x, 20);
    context.stroke();
    const text = tickText(each * tick, tick), room = context.measureText(text).width;
    context.fillText(text, Math.min(Math.max(0, x - room / 2), width - room), 7);
  }
}

function tickText(time, tick) {
  const [scale, unit] = [[1e9, "s"], [1e6, "ms"], [1e3, "µs"], [1, "ns"]].find(([each]) => Math.max(Math.abs(time), tick) >= each) || [1, "ns"];
  const digits = Math.max(0, -Math.floor(Math.log10(tick / scale) + 1e-9));
  return time ? `${(time / scale).toFixed(digits)} ${unit}` : "0";
}

function drawLane(context, width, at, colors) {
  const scale = width / (view.end - view.begin), x = (time) => (time - view.begin) * scale;
  const left = Math.max(0, x(at.arm.begin)), right = Math.min(width, x(at.arm.end));
  if (right <= left) return;
  context.fillStyle = colors.shade;
  context.fillRect(left, 0, right - left, STATES);
  drawStates(context, width, at, x, 0, STATES);
  drawGaps(context, width, at, x, colors);
  for (const row of at.rows) drawRow(context, width, at, row, scale);
  if (range) {
    context.fillStyle = colors.ink;
    context.globalAlpha = 0.12;
    context.fillRect(x(range.begin), 0, x(range.end) - x(range.begin), at.height);
    context.globalAlpha = 1;
  }
  if (blocker && blocker.at === at) {
    context.strokeStyle = CHOSEN;
    context.lineWidth = 2;
    context.setLineDash([4, 3]);
    context.strokeRect(x(blocker.arrow.begin), 1, Math.max(2, (blocker.arrow.end - blocker.arrow.begin) * scale), STATES - 2);
    context.setLineDash([]);
  }
  if (chosen && chosen.at === at) {
    const { row, place } = chosen, from = x(row.begin[place]);
    context.strokeStyle = CHOSEN;
    context.lineWidth = 2;
    context.strokeRect(from, row.top, Math.max(2, row.took[place] * scale), row.height);
  }
}

// In each column the states are stacked by their share of it; columns are whole device pixels, or steps where those are wider.
function drawStates(context, width, at, x, top, height) {
  const { arm, sums } = at, steps = at.steps, size = (arm.end - arm.begin) / steps;
  const from = Math.max(0, x(arm.begin)), to = Math.min(width, x(arm.end)), back = (x(arm.end) - x(arm.begin)) / (arm.end - arm.begin);
  const ratio = window.devicePixelRatio || 1, wide = Math.max(1 / ratio, size * back);
  const count = Math.max(1, Math.ceil((to - from) / wide - 1e-6));
  const first = wide > 1 / ratio ? Math.floor((from - x(arm.begin)) / wide) : 0, origin = wide > 1 / ratio ? x(arm.begin) : from;
  for (let column = first; column <= first + count; column++) {
    const left = origin + column * wide, right = Math.min(left + wide, to);
    if (right <= Math.max(left, from)) continue;
    const begin = arm.begin + (left - x(arm.begin)) / back, end = arm.begin + (right - x(arm.begin)) / back;
    let bottom = top + height;
    for (const [state, each] of sums) {
      const share = ((until(arm, each, end) - until(arm, each, begin)) * 1e9) / Math.max(1e-9, end - begin);
      const high = Math.min(share * height, bottom - top);
      if (high <= 0.01) continue;
      context.fillStyle = looks.get(state).color;
      context.fillRect(snap(left), bottom - high, Math.max(1 / ratio, snap(right) - snap(left)), high);
      bottom -= high;
    }
  }
}

// Where functions were not recorded, their rows are hatched.
function drawGaps(context, width, at, x, colors) {
  const { calls, height } = at, high = height - calls - 1;
  for (const [begin, end] of at.lane.gaps) {
    const from = Math.max(0, x(begin)), to = Math.min(width, x(end));
    if (to <= from) continue;
    context.save();
    context.beginPath();
    context.rect(from, calls, Math.max(1, to - from), high);
    context.clip();
    context.fillStyle = colors.shade;
    context.fill();
    context.strokeStyle = colors.line;
    context.lineWidth = 2;
    for (let left = from - high - ((from - high) % 8); left < to; left += 8) {
      context.beginPath();
      context.moveTo(left, calls + high);
      context.lineTo(left + high, calls);
      context.stroke();
    }
    const words = fit(context, UNRECORDED, to - from - 6);
    context.fillStyle = colors.soft;
    if (to - from >= 40) context.fillText(words, from + 3, height - CALL / 2);  // below calls that go on
    context.restore();
  }
}

// Slices that are narrower than a pixel are skipped a pixel at a time, so that a view of them all costs no more than its width.
function drawRow(context, width, at, row, scale) {
  const { begin, took, top, height } = row;
  let drawn = -1;
  for (let place = firstAfter(row, view.begin); place < begin.length && begin[place] < view.end; place++) {
    let from = (begin[place] - view.begin) * scale, to = from + took[place] * scale;
    if (to <= drawn + 0.5) {
      place = firstAfter(row, view.begin + (drawn + 0.5) / scale, place + 1) - 1;
      continue;
    }
    from = Math.max(0, from);
    to = Math.min(width, to);
    const wide = Math.max(to - from - (to - from > 3 ? 0.7 : 0), 0.7);
    context.globalAlpha = found && !found.is(row, place) ? 0.18 : 1;
    context.fillStyle = colorOf(at.lane, row, place);
    context.fillRect(from, top, wide, height);
    drawn = Math.max(from + 0.7, to);
    if (wide < 14 || height < 10) continue;
    const words = fit(context, textOf(row, place), wide - 6);
    context.fillStyle = "#14171c";
    if (words) context.fillText(words, from + 3, top + height / 2 + 0.5);
  }
  context.globalAlpha = 1;
}

function fit(context, text, width) {
  if (text.length * 7 <= width || context.measureText(text).width <= width) return text;
  const keep = Math.floor(width / 6.2) - 1;
  return keep > 1 && !/^\d+$/.test(text) ? `${text.slice(0, keep)}…` : "";
}

// ---- figures of what is in view, or chosen -----------------------------------------------------------------------------------------

function drawTable() {
  const part = range || view, all = part.begin <= whole.begin && part.end >= whole.end;
  $("part").textContent = range ? `In the chosen ${duration(range.end - range.begin)}` : all ? "In the whole run" : `In view: ${duration(part.end - part.begin)}`;
  const table = $("states");
  table.replaceChildren();
  const states = [...looks.keys()].filter((state) => lanes.some(({ sums }) => sums.has(state)));
  const head = make("tr", make("thead", table));
  make("th", head, "worker", "words");
  for (const state of states) make("th", head, looks.get(state).words);
  const body = make("tbody", table);
  for (const at of lanes) {
    const begin = Math.max(part.begin, at.arm.begin), end = Math.min(part.end, at.arm.end);
    if (end <= begin) continue;
    const row = make("tr", body);
    make("td", row, `${at.arm.label}, ${at.lane.name}`, "words");
    for (const state of states) {
      const sums = at.sums.get(state), ns = sums ? (until(at.arm, sums, end) - until(at.arm, sums, begin)) * 1e9 : 0;
      const rough = ns > 0 && looks.get(state).inferred && !at.lane.measured ? "~" : "";
      make("td", row, ns > 0 ? `${rough}${duration(ns)} · ${percent(ns / (end - begin))}` : "–");
    }
  }
  if (!body.children.length) make("td", make("tr", body), "between the arms, no worker ran", "words");
}

// What a lane was at a time, in the panel of what is chosen.
function tellOf(at, time) {
  choose(null);
  const [head, ...shares] = describe(at, time, 0).split("\n");
  if (!head) return;
  const panel = $("chosen");
  panel.hidden = false;
  dismissable(panel);
  make("b", panel, "at");
  make("bdi", panel, head);
  for (const share of shares) {
    const [, figure, words] = /^(~?\d+ %) (.*)$/.exec(share);
    make("b", panel, words);
    make("bdi", panel, figure);
  }
}

function dismissable(panel) {
  const close = make("button", panel, "×");
  close.setAttribute("aria-label", "close");
  close.addEventListener("click", () => choose(null));
}

function choose(slice) {
  chosen = slice;
  blocker = blockerOf(slice);
  const panel = $("chosen");
  panel.replaceChildren();
  panel.hidden = !slice;
  if (slice) {
    dismissable(panel);
    for (const [name, value] of facts(slice)) {
      make("b", panel, name);
      make("bdi", panel, value);
    }
    if (blocker) {
      const leads = make("button", panel, `what ${blocker.at.lane.name} did then (B)`);
      leads.id = "leads";
      leads.addEventListener("click", goToBlocker);
    }
  }
  ask();
}

function* facts({ at, row, place }) {
  const begin = row.begin[place], took = row.took[place], name = nameOf(row, place);
  if (row.kind === "call") {
    const [, words, file, line] = /^(.*?)(?: \((.*):(\d+)\))?$/s.exec(name);
    yield ["function", words];
    if (file) yield [/^In\[/.test(file) ? "cell" : "file", file];
    if (line) yield ["line", line];
  } else if (row.kind === "wait") {
    const { known, flags } = data.waits[row.key[place]];
    yield ["wait", name];
    const arrow = arrowOf({ at, row, place });
    for (const [word, value] of Object.entries(arrow ? { ...known, object: arrow.thing } : known)) yield [word, value];
    for (const flag of flags) yield [flag, "yes"];
    if (arrow) {
      if (arrow.waited) yield ["place", arrow.waited];
      yield* Object.entries(arrow.causes);
      if (arrow.source < 0) yield ["given up", "yes"];
    }
  } else {
    yield ["item", String(row.key[place])];
    const error = at.lane.items.errors[row.key[place]];
    if (error) yield ["failed", error];
  }
  yield ["took", duration(took)];
  yield ["from", `${duration(begin - at.arm.begin)} after the begin of ${at.arm.label}`];
  yield ["in", `${at.lane.name} (${at.lane.who})`];
  if (row.kind === "item") return;
  const items = at.rows.find(({ kind }) => kind === "item");
  const item = items ? firstAfter(items, begin + took / 2) : -1;
  if (items && item < items.begin.length && items.begin[item] <= begin + took / 2) yield ["in item", String(items.key[item])];
}

// The slice under a place of a canvas, or null.
function sliceAt(at, time, y) {
  const row = at.rows.find(({ top, height }) => y >= top - 0.5 && y <= top + height + 0.5);
  const place = row ? near(row, time) : -1;
  return place < 0 ? null : { at, row, place };
}

function describe(at, time, y) {
  const { arm, lane } = at;
  if (time < arm.begin || time > arm.end) return "";
  const lines = [`${arm.label}, ${lane.name}, at ${duration(time - arm.begin)}`];
  if (y <= STATES) {
    const half = Math.max((arm.end - arm.begin) / at.steps, (view.end - view.begin) / Math.max(1, $("axis").clientWidth)) / 2;
    const begin = Math.max(arm.begin, time - half), end = Math.min(arm.end, time + half);
    for (const [state, sums] of at.sums) {
      const share = ((until(arm, sums, end) - until(arm, sums, begin)) * 1e9) / Math.max(1, end - begin);
      if (share >= 0.005) lines.push(`${looks.get(state).inferred && !lane.measured ? "~" : ""}${percent(share)} ${looks.get(state).words}`);
    }
    return lines.join("\n");
  }
  const slice = sliceAt(at, time, y);
  if (!slice && y >= at.calls && lane.gaps.some(([begin, end]) => begin <= time && time < end)) {
    return [...lines, `${UNRECORDED}, to keep tracing within 5 % or 50 ms`].join("\n");
  }
  if (!slice) return "";
  const causes = Object.entries(arrowOf(slice)?.causes || {}).map(([how, who]) => `${how} ${who}`);
  return [...lines, nameOf(slice.row, slice.place), duration(slice.row.took[slice.place]), ...causes].join("\n");
}

// ---- hands ---------------------------------------------------------------------------------------------------------------------

function listen(at) {
  const { canvas } = at;
  const share = (event) => (event.clientX - canvas.getBoundingClientRect().left) / Math.max(1, canvas.getBoundingClientRect().width);
  const time = (event) => view.begin + share(event) * (view.end - view.begin);
  let held = null, moved = false;
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) move((event.deltaX || event.deltaY) / 1000);
    else zoom(Math.exp(Math.max(-300, Math.min(300, event.deltaY * (event.deltaMode ? 30 : 1))) / 400), share(event));
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    held = { x: event.clientX, y: event.clientY, from: event.shiftKey ? time(event) : null };
    moved = false;
    canvas.setPointerCapture(event.pointerId);
    hide();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!held) return show(event, describe(at, time(event), event.offsetY));
    if (!moved && Math.abs(held.x - event.clientX) + Math.abs(held.y - event.clientY) < 4) return;
    moved = true;
    canvas.classList.add("held");
    if (held.from !== null) {
      range = { begin: Math.min(held.from, time(event)), end: Math.max(held.from, time(event)) };
      return ask();
    }
    move((held.x - event.clientX) / canvas.getBoundingClientRect().width);
    window.scrollBy(0, held.y - event.clientY);
    held.x = event.clientX;
    held.y = event.clientY;
  });
  const release = () => { held = null; canvas.classList.remove("held"); };
  canvas.addEventListener("pointerup", (event) => {
    if (held && !moved && event.offsetY <= STATES) tellOf(at, time(event));
    else if (held && !moved) choose(sliceAt(at, time(event), event.offsetY));
    release();
  });
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", hide);
  canvas.addEventListener("dblclick", () => look(whole.begin, whole.end));
}

// On the map, a drag chooses what is in view; a click moves the view there.
function listenToTheMap() {
  const map = $("map");
  const time = (event) => {
    const box = map.getBoundingClientRect();
    return whole.begin + Math.min(1, Math.max(0, (event.clientX - box.left) / Math.max(1, box.width))) * (whole.end - whole.begin);
  };
  let from = null;
  map.addEventListener("pointerdown", (event) => { from = time(event); map.setPointerCapture(event.pointerId); });
  map.addEventListener("pointermove", (event) => {
    if (from !== null && Math.abs(time(event) - from) > (whole.end - whole.begin) / 200) look(Math.min(from, time(event)), Math.max(from, time(event)));
  });
  map.addEventListener("pointerup", (event) => {
    const half = (view.end - view.begin) / 2;
    if (from !== null && Math.abs(time(event) - from) <= (whole.end - whole.begin) / 200) look(from - half, from + half);
    from = null;
  });
  map.addEventListener("dblclick", () => look(whole.begin, whole.end));
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

function clear() {
  range = null;
  $("search").value = "";
  found = null;
  tell();
  choose(null);
}

const keys = {
  w: () => zoom(0.7, 0.5), s: () => zoom(1 / 0.7, 0.5), a: () => move(-0.15), d: () => move(0.15),
  arrowup: () => zoom(0.7, 0.5), arrowdown: () => zoom(1 / 0.7, 0.5), arrowleft: () => move(-0.15), arrowright: () => move(0.15),
  f: () => { const at = range || (chosen && { begin: chosen.row.begin[chosen.place], end: chosen.row.begin[chosen.place] + chosen.row.took[chosen.place] }); if (at) look(at.begin, at.end); },
  b: goToBlocker, n: () => nextWait(1), p: () => nextWait(-1),
  0: () => look(whole.begin, whole.end), escape: clear, "/": () => $("search").focus(),
};

function onKey(event) {
  const writing = event.target === $("search");
  if (writing && event.key === "Enter") { event.preventDefault(); return step(event.shiftKey ? -1 : 1); }
  if (writing && event.key === "Escape") $("search").blur();
  const act = keys[event.key.toLowerCase()];
  if (!act || event.ctrlKey || event.metaKey || event.altKey || (writing && event.key !== "Escape")) return;
  // in the page itself, arrows scroll; on a lane, they move in time
  if (event.key.startsWith("Arrow") && document.activeElement.tagName !== "CANVAS") return;
  event.preventDefault();
  hide();
  act();
}

// ---- the whole -----------------------------------------------------------------------------------------------------------------

function jump(label, part) {
  const room = (part.end - part.begin) * (part === whole ? 0 : 0.02);
  make("button", $("jumps"), label).addEventListener("click", () => look(part.begin - room, part.end + room));
}

function build() {
  for (const { words, color } of looks.values()) {
    const entry = make("span", $("legend"));
    make("i", entry).style.background = color;
    entry.append(words);
  }
  if (data.arms.some((arm) => arm.lanes.some((lane) => Object.keys(lane.items.errors).length))) {
    const entry = make("span", $("legend"));
    make("i", entry).style.background = ERROR;
    entry.append("failed item");
  }
  if (data.arms.some(({ arrows }) => arrows.length)) $("help").append(" · N P: a lane's waits for others · B: who had it");
  jump("all", whole);
  if (data.arms.length > 1) for (const arm of data.arms) jump(arm.label, arm);
  for (const arm of data.arms) {
    make("h3", $("lanes"), `${arm.label}, ${duration(arm.end - arm.begin)}`);
    const mine = [];
    arm.arrows = arm.arrows.map(([waiter, blocker, waker, source, begin, end, woken, thing, waited, causes]) => (
      { waiter, blocker, waker, source, begin, end, woken, thing, waited, causes, lanes: mine }));
    for (const lane of arm.lanes) {
      const row = make("div", $("lanes"), "", "lane");
      make("span", row, lane.name.replace(/^worker \d+ ›/, "›")).title = lane.name;
      const canvas = make("canvas", row), sums = new Map();
      for (const state of looks.keys()) if (lane.states[state]) sums.set(state, unpack(lane.states[state], Float32Array));
      const { rows, calls, height } = rowsOf(lane);
      canvas.style.height = `${height}px`;
      canvas.tabIndex = 0;
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${arm.label}, ${lane.name}: its figures are in the tables of the states and of the workers`);
      const at = { arm, lane, canvas, rows, calls, height, sums, steps: Math.max(1, ...[...sums.values()].map((each) => each.length - 1)) };
      at.arrows = arm.arrows.filter(({ waiter }) => waiter === mine.length);
      mine.push(at);
      lanes.push(at);
      listen(at);
    }
  }
  listenToTheMap();
  $("search").addEventListener("input", () => { found = search($("search").value); tell(); ask(); });
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  window.addEventListener("keydown", onKey);
  new ResizeObserver(ask).observe($("lanes"));  // in a notebook's frame, there may be no room at first
  // what is scrolled to comes to lie below the bar, not behind it
  new ResizeObserver(() => $("lanes").style.setProperty("--bar", `${$("bar").offsetHeight}px`)).observe($("bar"));
  window.addEventListener("resize", ask);
  window.addEventListener("scroll", ask, { passive: true });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", ask);
}

build();
draw();
