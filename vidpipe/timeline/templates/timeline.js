"use strict";
// Segments are never changed in place: an edit makes a new list, so that undo keeps the old one.

const NUDGE_SECONDS = 0.1;
const NEW_SECONDS = 2; // length of a new segment
const MIN_SECONDS = 0.01; // length of the shortest segment
const MAX_ROWS = 200; // of the table, until more are asked for
const MAX_LANES = 4; // rows of overlapping segments in the strip
const MAX_UNDO = 1000;
const MAX_CURVES = 12; // shown at first
const EDGE_PIXELS = 7; // how near to an edge a pointer takes hold of it
const STRIP = { truth: 10, lane: 26, gap: 4, axis: 18 }; // heights in CSS pixels

const data = JSON.parse(document.getElementById("data").textContent);
const element = Object.fromEntries([...document.querySelectorAll("[id]")].map((one) => [one.id, one]));
const player = element.video;
const colours = new Map(data.labels.map((label, number) => [label, data.colours[number]]));
const state = {
  video: data.videos[0],
  selected: null, // a segment of the video
  edge: "start",
  sort: { key: "probability", descending: false },
  view: { from: 0, to: 1 }, // seconds that the strip shows
  hidden: new Set(), // labels whose curves are not drawn
  maxRows: MAX_ROWS,
  undo: [],
  redo: [],
  unsaved: false,
  frameSeconds: 1 / 25, // until frames were seen
};

// --- times and texts

const round = (seconds) => Math.round(seconds * 1000) / 1000;
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** `83.5` -> `1:23.500` */
function clock(seconds, digits = 3) {
  const unit = 10 ** digits;
  const units = Math.round(Math.max(0, seconds) * unit);
  const minutes = Math.floor(units / unit / 60);
  const rest = ((units - minutes * 60 * unit) / unit).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  const hours = Math.floor(minutes / 60);
  return hours ? `${hours}:${String(minutes % 60).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

/** `83.5`, `1:23.5` and `0:01:23,5` are all 83.5 s; NaN where it is no time. */
function parseTime(text) {
  const parts = text.trim().replace(",", ".").split(":");
  if (parts.length > 3 || parts.some((part) => !/^\d+(\.\d*)?$|^\.\d+$/.test(part))) return NaN;
  return parts.reduce((seconds, part) => 60 * seconds + Number(part), 0);
}

function csvCell(text) {
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** The segments of all videos, as RFC 4180 has it; with split and group, where some videos have them. */
function csvText() {
  const optional = ["split", "group"].filter((name) => data.videos.some((video) => video[name]));
  const lines = [["video", "start_seconds", "stop_seconds", "label", ...optional].join(",")];
  for (const video of data.videos) {
    for (const one of inOrder(video.segments)) {
      const cells = [video.id, one.start.toFixed(3), one.stop.toFixed(3), one.label, ...optional.map((name) => video[name])];
      lines.push(cells.map(csvCell).join(","));
    }
  }
  return `${lines.join("\r\n")}\r\n`;
}

function say(text) {
  element.message.textContent = text;
}

// --- segments

const inOrder = (segments) => [...segments].sort((a, b) => a.start - b.start || a.stop - b.stop);

function durationSeconds() {
  if (Number.isFinite(player.duration) && player.duration > 0) return player.duration;
  const stops = [...state.video.segments, ...state.video.truth].map((one) => one.stop);
  return state.video.duration || stops.reduce((most, stop) => Math.max(most, stop), 1);
}

/** Where a segment may stop: the end of the video, where it is known. */
const lastSeconds = () => Math.max(durationSeconds(), state.selected ? state.selected.stop : 0);

function sortedSegments() {
  const { key, descending } = state.sort;
  const compare = (a, b) => {
    if (key === "label") return a.label.localeCompare(b.label, undefined, { numeric: true });
    if (a[key] === null || b[key] === null) return (a[key] === null) - (b[key] === null);
    return a[key] - b[key];
  };
  const sorted = inOrder(state.video.segments).sort(compare);
  return descending ? sorted.reverse() : sorted;
}

function edit(segments, selected) {
  state.undo.push({ video: state.video, segments: state.video.segments, selected: state.selected });
  if (state.undo.length > MAX_UNDO) state.undo.shift();
  state.redo = [];
  setSegments(segments, selected);
}

function setSegments(segments, selected) {
  state.video.segments = segments;
  state.selected = selected;
  state.unsaved = true;
  render();
}

function replaceSelected(change) {
  const old = state.selected;
  if (!old || Object.keys(change).every((key) => change[key] === old[key])) return;
  const changed = { ...old, ...change, edited: true };
  edit(state.video.segments.map((one) => (one === old ? changed : one)), changed);
}

function moveBack(from, to) {
  const step = from.pop();
  if (!step) return;
  if (step.video !== state.video) showVideo(step.video);
  to.push({ video: state.video, segments: state.video.segments, selected: state.selected });
  setSegments(step.segments, step.selected);
}

const undo = () => moveBack(state.undo, state.redo);
const redo = () => moveBack(state.redo, state.undo);

/** Move an edge of the selected segment as far as the other edge and the video allow. */
function moveEdge(edge, seconds) {
  const one = state.selected;
  if (!one) return;
  state.edge = edge;
  const [low, high] = edge === "start" ? [0, one.stop - MIN_SECONDS] : [one.start + MIN_SECONDS, lastSeconds()];
  const placed = round(clamp(seconds, low, high));
  const isMoved = Math.abs(placed - seconds) > 0.002;
  say(isMoved ? `The ${edge} cannot be at ${clock(Math.max(0, seconds))}: it is now at ${clock(placed)}.` : "");
  replaceSelected({ [edge]: placed });
  renderEdges();
}

function nudge(edge, seconds) {
  if (!state.selected) return;
  moveEdge(edge, state.selected[edge] + seconds);
  player.pause();
  seek(state.selected[edge]);
}

function setLabel(text) {
  const label = text.trim();
  if (!label) {
    say("A segment needs a label; delete it if it has none.");
    renderEditor();
  } else if (state.selected) {
    learnLabel(label);
    say("");
    replaceSelected({ label });
  }
}

function addSegment() {
  const start = round(Math.min(player.currentTime, Math.max(0, durationSeconds() - MIN_SECONDS)));
  const stop = round(Math.max(Math.min(start + NEW_SECONDS, durationSeconds()), start + MIN_SECONDS));
  const label = state.selected ? state.selected.label : data.labels[0] || "new";
  learnLabel(label);
  const added = { start, stop, label, probability: null, edited: true };
  edit([...state.video.segments, added], added);
  say(`New segment at ${clock(start)}: set its label and its edges.`);
}

function deleteSegment() {
  const old = state.selected;
  if (!old) return;
  const sorted = sortedSegments();
  const place = sorted.indexOf(old);
  const rest = sorted.filter((one) => one !== old);
  edit(state.video.segments.filter((one) => one !== old), rest[Math.min(place, rest.length - 1)] || null);
  say(`Deleted ${old.label}, ${clock(old.start)} to ${clock(old.stop)}.`);
}

function learnLabel(label) {
  if (colours.has(label)) return;
  colours.set(label, `hsl(${Math.round(colours.size * 222.5) % 360} 50% 55%)`);
  data.labels.push(label);
  renderLabels();
}

/** Segments of one label that overlap: training refuses them. */
function overlaps(video) {
  const found = [];
  const latest = new Map();
  for (const one of inOrder(video.segments)) {
    const other = latest.get(one.label);
    if (other && one.start < other.stop) found.push([other, one]);
    if (!other || one.stop > other.stop) latest.set(one.label, one);
  }
  return found;
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csvText()], { type: "text/csv;charset=utf-8" }));
  link.download = `${data.name}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  state.unsaved = false;
  say(savedMessage(link.download));
  renderActions();
}

function savedMessage(name) {
  for (const video of data.videos) {
    const [pair] = overlaps(video);
    if (pair) {
      const [one, other] = pair.map((segment) => `${clock(segment.start)} to ${clock(segment.stop)}`);
      const problem = `In ${video.id}, ${one} and ${other} overlap and have the label ${pair[0].label}`;
      return `Saved ${name}. ${problem}: training needs them apart.`;
    }
  }
  return `Saved ${name}.`;
}

// --- playing

function seek(seconds) {
  player.currentTime = clamp(seconds, 0, durationSeconds());
  showTime();
}

function togglePlay() {
  if (player.paused) play();
  else player.pause();
}

function play() {
  const one = element.lock.checked ? state.selected : null;
  if (one && (player.currentTime < one.start - 0.05 || player.currentTime >= one.stop - 0.02)) seek(one.start);
  player.play().catch(() => {}); // the video's error is shown by `refused`
}

/** Keep playback inside the selected segment. */
function keepInside() {
  const one = state.selected;
  if (!element.lock.checked || !one || player.paused || player.seeking || player.currentTime < one.stop) return;
  if (element.loop.checked) {
    player.currentTime = one.start;
  } else {
    player.pause();
    player.currentTime = Math.max(one.start, one.stop - 0.001);
  }
}

function whilePlaying() {
  keepInside();
  showTime();
  if (!player.paused && !player.ended) requestAnimationFrame(whilePlaying);
}

/** The time between frames, from frames that follow each other. */
function watchFrames() {
  let before = null;
  const see = (_, frame) => {
    const seconds = before && frame.presentedFrames === before.presentedFrames + 1 ? frame.mediaTime - before.mediaTime : 0;
    if (seconds > 0.003 && seconds < 1 && !player.paused) state.frameSeconds = seconds;
    before = frame;
    player.requestVideoFrameCallback(see);
  };
  if (player.requestVideoFrameCallback) player.requestVideoFrameCallback(see);
}

function select(segment, { jump = true } = {}) {
  state.selected = segment;
  if (segment && jump) {
    seek(segment.start);
    reveal(segment);
  }
  render();
}

function selectNext(step) {
  const sorted = sortedSegments();
  if (!sorted.length) return;
  const place = sorted.indexOf(state.selected);
  const next = place < 0 ? (step > 0 ? 0 : sorted.length - 1) : (place + step + sorted.length) % sorted.length;
  select(sorted[next]);
  element.segments.querySelector("[aria-current=true]")?.scrollIntoView({ block: "nearest" });
}

function showVideo(video) {
  state.video = video;
  state.selected = null;
  state.maxRows = MAX_ROWS;
  player.pause();
  element.refused.hidden = true;
  player.src = video.src;
  element.videos.value = String(data.videos.indexOf(video));
  say("");
  zoomAll();
  select(sortedSegments()[0] || null, { jump: false });
}

// --- the strip

const stripWidth = () => element.strip.clientWidth;
const toX = (seconds) => ((seconds - state.view.from) / (state.view.to - state.view.from)) * stripWidth();
const toSeconds = (x) => state.view.from + (x / stripWidth()) * (state.view.to - state.view.from);

function setView(from, to) {
  const whole = durationSeconds();
  const length = clamp(to - from, Math.min(1, whole), whole);
  const start = clamp(from, 0, whole - length);
  state.view = { from: start, to: start + length };
  drawStrip();
  showTime();
}

const zoomAll = () => setView(0, Infinity);

function zoom(factor) {
  const { from, to } = state.view;
  const now = player.currentTime;
  const centre = now >= from && now <= to ? now : (from + to) / 2;
  setView(centre - (centre - from) * factor, centre + (to - centre) * factor);
}

function zoomSegment() {
  const one = state.selected;
  if (!one) return;
  const margin = Math.max(1, one.stop - one.start);
  setView(one.start - margin, one.stop + margin);
}

/** Move the view so that a segment is in it. */
function reveal(segment) {
  const { from, to } = state.view;
  if (segment.start >= from && segment.stop <= to) return;
  const length = Math.max(to - from, (segment.stop - segment.start) * 1.2);
  const centre = (segment.start + segment.stop) / 2;
  setView(centre - length / 2, centre + length / 2);
}

/** Each segment's row in the strip: segments that overlap get different rows. */
function lanesOf(segments) {
  const ends = [];
  const lanes = new Map();
  for (const one of inOrder(segments)) {
    let lane = ends.findIndex((end) => end <= one.start + 0.0005);
    if (lane < 0) lane = ends.length < MAX_LANES ? ends.length : MAX_LANES - 1;
    ends[lane] = Math.max(ends[lane] || 0, one.stop);
    lanes.set(one, lane);
  }
  return { lanes, count: Math.max(1, ends.length) };
}

function layout() {
  const { lanes, count } = lanesOf(state.video.segments);
  const truth = state.video.truth.length ? STRIP.truth + STRIP.gap : 0;
  const laneHeight = count > 2 ? STRIP.lane * 0.6 : STRIP.lane;
  const curvesTop = truth + count * laneHeight + STRIP.gap;
  return { lanes, laneHeight, lanesTop: truth, curvesTop };
}

function drawStrip() {
  const canvas = element.drawing;
  const [width, height, scale] = [stripWidth(), canvas.clientHeight, window.devicePixelRatio || 1];
  if (!width) return;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  const paint = { context, width, height, ...themeColours() };
  context.fillStyle = paint.panel;
  context.fillRect(0, 0, width, height);
  const { lanes, laneHeight, lanesTop, curvesTop } = layout();
  for (const one of state.video.truth) drawBox(paint, one, 0, STRIP.truth, "");
  for (const [one, lane] of lanes) drawBox(paint, one, lanesTop + lane * laneHeight, laneHeight - 2, one.label);
  if (state.selected) drawSelected(paint, lanesTop + (lanes.get(state.selected) || 0) * laneHeight, laneHeight - 2);
  drawAxis(paint);
  drawCurves(paint, curvesTop, height - STRIP.axis);
}

/** The colours of the light or the dark style. */
function themeColours() {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(["ink", "faint", "panel", "line"].map((name) => [name, style.getPropertyValue(`--${name}`)]));
}

function drawBox({ context, width }, segment, top, height, text) {
  const [left, right] = [toX(segment.start), toX(segment.stop)];
  if (right < 0 || left > width) return;
  context.fillStyle = colours.get(segment.label);
  context.fillRect(left, top, Math.max(1, right - left - (right - left > 4 ? 1 : 0)), height);
  const [from, to] = [Math.max(0, left) + 4, Math.min(width, right) - 4];
  if (!text || to - from < 24) return;
  context.save();
  context.beginPath();
  context.rect(from, top, to - from, height);
  context.clip();
  context.fillStyle = textColour(segment.label);
  context.font = "12px system-ui, sans-serif";
  context.textBaseline = "middle";
  context.fillText(text, from, top + height / 2 + 1);
  context.restore();
}

function drawSelected({ context, ink }, top, height) {
  const { start, stop } = state.selected;
  const [left, right] = [toX(start), Math.max(toX(stop), toX(start) + 2)];
  context.strokeStyle = ink;
  context.lineWidth = 2;
  context.strokeRect(left + 1, top + 1, right - left - 2, height - 2);
  context.fillStyle = ink;
  const x = state.edge === "start" ? left : right;
  context.fillRect(x - 2.5, top, 5, height);
}

function drawAxis({ context, width, height, faint, line }) {
  const seconds = state.view.to - state.view.from;
  const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 36000];
  const step = steps.find((one) => (one / seconds) * width >= 70) || 86400;
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "alphabetic";
  for (let number = Math.ceil(state.view.from / step); number * step <= state.view.to; number += 1) {
    const x = toX(number * step);
    context.fillStyle = line;
    context.fillRect(x, height - STRIP.axis, 1, 5);
    context.fillStyle = faint;
    const text = clock(number * step, step < 1 ? 1 : 0);
    context.fillText(text, clamp(x - context.measureText(text).width / 2, 0, width - context.measureText(text).width), height - 3);
  }
}

/** Curves are kept as a picture: an edit of segments does not change them. */
const drawn = { key: "", picture: document.createElement("canvas") };

function drawCurves(paint, top, bottom) {
  const { context, width, height, line } = paint;
  const { picture } = drawn;
  const number = data.videos.indexOf(state.video);
  const key = [number, state.view.from, state.view.to, element.drawing.width, height, top, line, ...state.hidden].join();
  if (key !== drawn.key) {
    drawn.key = key;
    [picture.width, picture.height] = [element.drawing.width, element.drawing.height];
    const own = picture.getContext("2d");
    own.scale(picture.width / width, picture.height / height);
    paintCurves({ ...paint, context: own }, top, bottom);
  }
  if (picture.width && picture.height) context.drawImage(picture, 0, 0, width, height);
}

function paintCurves({ context, line, width }, top, bottom) {
  const y = (value) => bottom - 2 - value * (bottom - top - 4);
  context.fillStyle = line;
  for (const value of [0, 0.5, 1]) context.fillRect(0, y(value), width, 1);
  for (const curve of state.video.curves.filter((one) => !state.hidden.has(one.label))) {
    context.strokeStyle = colours.get(curve.label);
    context.lineWidth = 1.5;
    context.beginPath();
    const [first, last] = visiblePart(curve.seconds);
    for (let place = first; place < last; place += 1) context.lineTo(toX(curve.seconds[place]), y(curve.values[place]));
    context.stroke();
  }
}

/** The places of the points in view, and of one more on either side. */
function visiblePart(seconds) {
  const before = (limit) => {
    let [low, high] = [0, seconds.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (seconds[middle] < limit) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  return [Math.max(0, before(state.view.from) - 1), Math.min(seconds.length, before(state.view.to) + 2)];
}

/** Black or white, whichever is easier to read on a label's colour. */
function textColour(label) {
  const hex = /^#(..)(..)(..)$/.exec(colours.get(label));
  if (!hex) return "#000000";
  const [red, green, blue] = hex.slice(1).map((part) => Number.parseInt(part, 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#000000" : "#ffffff";
}

function segmentAt(seconds, y) {
  const { lanes, laneHeight, lanesTop, curvesTop } = layout();
  if (y < lanesTop || y >= curvesTop) return null;
  const lane = Math.floor((y - lanesTop) / laneHeight);
  return [...lanes.keys()].find((one) => lanes.get(one) === lane && one.start <= seconds && seconds < one.stop) || null;
}

/** The edge of the selected segment under a pointer, or null. */
function edgeAt(x, y) {
  const one = state.selected;
  if (!one || y >= layout().curvesTop) return null;
  const distance = { start: Math.abs(toX(one.start) - x), stop: Math.abs(toX(one.stop) - x) };
  const edge = distance.start <= distance.stop ? "start" : "stop";
  return distance[edge] <= EDGE_PIXELS ? edge : null;
}

let held = null; // what a pointer moves: an edge and the segment as it was, or the playhead

function takeHold(event) {
  if (event.button !== 0) return;
  const box = element.strip.getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  const edge = edgeAt(x, y);
  const inside = segmentAt(toSeconds(x), y);
  element.strip.setPointerCapture(event.pointerId);
  if (edge) {
    held = { edge, before: state.video.segments, selected: state.selected };
    state.edge = edge;
    renderEdges();
    drawStrip();
  } else {
    held = { edge: null };
    seek(toSeconds(x));
    if (inside && inside !== state.selected) select(inside, { jump: false });
  }
}

function moveHeld(event) {
  const box = element.strip.getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  if (!held) {
    element.strip.style.cursor = edgeAt(x, y) ? "ew-resize" : "pointer";
  } else if (held.edge) {
    dragEdge(held.edge, toSeconds(x));
  } else {
    seek(toSeconds(clamp(x, 0, box.width)));
  }
}

/** Move an edge while the pointer is down; `letGo` makes one step of undo of it. */
function dragEdge(edge, seconds) {
  const old = state.selected;
  const [low, high] = edge === "start" ? [0, old.stop - MIN_SECONDS] : [old.start + MIN_SECONDS, lastSeconds()];
  const moved = { ...old, [edge]: round(clamp(seconds, low, high)), edited: true };
  state.video.segments = state.video.segments.map((one) => (one === old ? moved : one));
  state.selected = moved;
  player.pause();
  seek(moved[edge]);
  renderEditor();
  drawStrip();
}

function letGo() {
  const done = held;
  held = null;
  if (!done || !done.edge || state.video.segments === done.before) return;
  const [segments, selected] = [state.video.segments, state.selected];
  state.video.segments = done.before;
  state.selected = done.selected;
  edit(segments, selected);
}

// --- what the page shows

function render() {
  renderTable();
  renderEditor();
  renderActions();
  renderVideos();
  drawStrip();
  showTime();
}

const labelsAt = (segments, now) => segments.filter((one) => one.start <= now && now < one.stop).map((one) => one.label).join(", ");

function showTime() {
  const now = player.currentTime;
  const { from, to } = state.view;
  if (!player.paused && (now < from || now > to) && !held) setViewFrom(now);
  element.playhead.style.transform = `translateX(${toX(now)}px)`;
  element.clock.textContent = `${clock(now, 1)} / ${clock(durationSeconds(), 1)}`;
  const shown = labelsAt(state.video.segments, now);
  element.current.textContent = shown + (state.video.truth.length ? ` (truth: ${labelsAt(state.video.truth, now) || "–"})` : "");
  element.strip.setAttribute("aria-valuemax", durationSeconds().toFixed(1));
  element.strip.setAttribute("aria-valuenow", now.toFixed(1));
  element.strip.setAttribute("aria-valuetext", `${clock(now, 1)} ${shown}`);
}

function setViewFrom(seconds) {
  const length = state.view.to - state.view.from;
  if (length < durationSeconds() - 0.001) setView(seconds, seconds + length);
}

function renderEdges() {
  element["start-edge"].classList.toggle("chosen", state.edge === "start");
  element["stop-edge"].classList.toggle("chosen", state.edge === "stop");
}

function renderEditor() {
  const one = state.selected;
  for (const control of element.editor.querySelectorAll("input, button")) control.disabled = !one && control.id !== "add";
  element.label.value = one ? one.label : "";
  element.start.value = one ? clock(one.start) : "";
  element.stop.value = one ? clock(one.stop) : "";
  renderEdges();
}

function renderActions() {
  element.undo.disabled = !state.undo.length;
  element.redo.disabled = !state.redo.length;
  element.save.textContent = state.unsaved ? "Save CSV •" : "Save CSV";
  element.save.title = state.unsaved ? "There are unsaved changes" : "";
}

function renderVideos() {
  data.videos.forEach((video, number) => {
    const text = describeVideo(video);
    const option = element.videos.options[number];
    if (option.textContent !== text) option.textContent = text;
  });
}

function describeVideo(video) {
  const known = video.segments.map((one) => one.probability).filter((probability) => probability !== null);
  const least = known.length ? `, least certain ${known.reduce((a, b) => Math.min(a, b)).toFixed(2)}` : "";
  return `${video.id} (${video.segments.length} segment${video.segments.length === 1 ? "" : "s"}${least})`;
}

function renderLabels() {
  element.labels.replaceChildren(...data.labels.map((label) => Object.assign(document.createElement("option"), { value: label })));
  element.legend.replaceChildren(...data.labels.map(legendButton));
}

function legendButton(label, number) {
  const button = document.createElement("button");
  button.type = "button";
  const name = document.createElement("bdi");
  name.textContent = label;
  button.append(swatch(label), ...(number < 9 ? [`${number + 1} `] : []), name);
  button.setAttribute("aria-pressed", String(!state.hidden.has(label)));
  button.addEventListener("click", () => {
    if (!state.hidden.delete(label)) state.hidden.add(label);
    button.setAttribute("aria-pressed", String(!state.hidden.has(label)));
    drawStrip();
  });
  return button;
}

function swatch(label) {
  const box = document.createElement("span");
  box.className = "swatch";
  box.style.background = colours.get(label);
  return box;
}

const rowOf = new WeakMap(); // the table's row of each segment

/** Put rows into the table; those that are there already stay, so that an edit costs one row. */
function setRows(rows) {
  const body = element.segments.tBodies[0];
  const kept = new Set(rows);
  for (const row of [...body.rows]) if (!kept.has(row)) row.remove();
  let there = body.firstElementChild;
  for (const row of rows) {
    if (row === there) there = there.nextElementSibling;
    else body.insertBefore(row, there);
  }
  body.querySelector("[aria-current]")?.removeAttribute("aria-current");
  rowOf.get(state.selected)?.setAttribute("aria-current", "true");
}

function renderTable() {
  const sorted = sortedSegments();
  const place = sorted.indexOf(state.selected);
  if (place >= state.maxRows) state.maxRows = place + 1;
  setRows(sorted.slice(0, state.maxRows).map((one) => rowOf.get(one) || tableRow(one)));
  element.more.hidden = sorted.length <= state.maxRows;
  element.more.textContent = `Show all ${sorted.length} segments`;
  for (const heading of element.segments.tHead.rows[0].cells) {
    if (heading.dataset.key === state.sort.key) heading.setAttribute("aria-sort", state.sort.descending ? "descending" : "ascending");
    else heading.removeAttribute("aria-sort");
  }
}

function tableRow(segment) {
  const row = document.createElement("tr");
  const name = document.createElement("bdi");
  name.textContent = segment.label;
  const choose = document.createElement("button");
  choose.type = "button";
  choose.textContent = clock(segment.start);
  row.insertCell().append(choose);
  row.insertCell().textContent = clock(segment.stop);
  row.insertCell().append(swatch(segment.label), name);
  const last = row.insertCell();
  last.className = "number";
  last.textContent = [segment.probability === null ? "–" : segment.probability.toFixed(3), segment.edited ? "edited" : ""].join(" ").trim();
  row.addEventListener("click", () => select(segment));
  rowOf.set(segment, row);
  return row;
}

function sortBy(key) {
  state.sort = { key, descending: state.sort.key === key && !state.sort.descending };
  renderTable();
}

// --- keys

const KEYS = {
  " ": togglePlay,
  ArrowLeft: () => seek(player.currentTime - NUDGE_SECONDS),
  ArrowRight: () => seek(player.currentTime + NUDGE_SECONDS),
  ",": () => stepFrame(-1),
  ".": () => stepFrame(1),
  n: () => selectNext(1),
  p: () => selectNext(-1),
  "[": () => moveEdge("start", player.currentTime),
  "]": () => moveEdge("stop", player.currentTime),
  e: () => chooseEdge(state.edge === "start" ? "stop" : "start"),
  a: addSegment,
  Delete: deleteSegment,
  Backspace: deleteSegment,
  Enter: () => element.label.select(),
  l: () => element.lock.click(),
  m: () => element.sound.click(),
  u: undo,
  "+": () => zoom(0.5),
  "-": () => zoom(2),
  0: zoomAll,
};
const SHIFTED = {
  ArrowLeft: () => nudge(state.edge, -NUDGE_SECONDS),
  ArrowRight: () => nudge(state.edge, NUDGE_SECONDS),
};
const WITH_CONTROL = { z: undo, y: redo, s: save };

function stepFrame(step) {
  player.pause();
  seek(player.currentTime + step * state.frameSeconds);
}

function chooseEdge(edge) {
  state.edge = edge;
  if (state.selected) seek(state.selected[edge]);
  renderEdges();
  drawStrip();
}

function keyAction(event) {
  const isAltGraph = event.getModifierState("AltGraph"); // makes [ and ] on many keyboards; some report it as Ctrl and Alt
  if ((event.ctrlKey || event.metaKey) && !isAltGraph) {
    const key = event.key.toLowerCase();
    return key === "z" && event.shiftKey ? redo : WITH_CONTROL[key];
  }
  if (event.altKey && !isAltGraph) return undefined;
  if (event.shiftKey && SHIFTED[event.key]) return SHIFTED[event.key];
  if (/^[1-9]$/.test(event.key) && data.labels[event.key - 1] !== undefined) return () => setLabel(data.labels[event.key - 1]);
  return KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
}

/** Whether a key belongs to the control that has the focus. */
function isTyped(event) {
  const target = event.target;
  const isControl = event.ctrlKey || event.metaKey;
  if (target.matches("input:not([type=checkbox])")) return !(isControl && event.key.toLowerCase() === "s");
  if (target.matches("select")) return !isControl;
  return target.matches("button, summary, input[type=checkbox]") && (event.key === " " || event.key === "Enter");
}

function pressKey(event) {
  if (isTyped(event)) return;
  const action = keyAction(event);
  if (!action) return;
  event.preventDefault();
  action();
}

// --- start

function whenLoaded() {
  zoomAll();
  if (state.selected && player.currentTime === 0) seek(state.selected.start);
}

function refuse() {
  element.refused.hidden = false;
  element.refused.textContent =
    `The browser cannot play ${state.video.id}: the file was moved, or has a format that browsers do not play. ` +
    "`vidpipe timeline annotate` writes a copy that they play.";
}

function onEnter(input, action) {
  input.addEventListener("change", () => action(input.value));
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape") renderEditor();
    if (event.key === "Enter" || event.key === "Escape") {
      event.preventDefault();
      input.blur();
    }
  });
}

function typeTime(edge, text) {
  const seconds = parseTime(text);
  if (Number.isNaN(seconds)) {
    say(`“${text}” is no time: 83.5 and 1:23.5 are.`);
  } else if (state.selected && Math.abs(seconds - state.selected[edge]) >= 0.0005) {
    moveEdge(edge, seconds);
    seek(state.selected[edge]);
  }
  renderEditor();
}

function connect() {
  const clicks = {
    undo, redo, save, add: addSegment, delete: deleteSegment, play: togglePlay,
    previous: () => selectNext(-1), next: () => selectNext(1),
    "start-here": () => moveEdge("start", player.currentTime), "stop-here": () => moveEdge("stop", player.currentTime),
    "zoom-in": () => zoom(0.5), "zoom-out": () => zoom(2), "zoom-all": zoomAll, "zoom-segment": zoomSegment,
    more: () => { state.maxRows = Infinity; renderTable(); },
  };
  for (const [id, action] of Object.entries(clicks)) element[id].addEventListener("click", action);
  for (const button of document.querySelectorAll("[data-nudge]")) {
    button.addEventListener("click", () => nudge(button.dataset.nudge, Number(button.dataset.seconds)));
  }
  for (const heading of element.segments.tHead.rows[0].cells) heading.addEventListener("click", () => sortBy(heading.dataset.key));
  element.editor.addEventListener("submit", (event) => event.preventDefault());
  element.videos.addEventListener("change", () => showVideo(data.videos[element.videos.value]));
  element.speed.addEventListener("change", () => { player.playbackRate = player.defaultPlaybackRate = Number(element.speed.value); });
  element.sound.addEventListener("change", () => { player.muted = !element.sound.checked; });
  player.addEventListener("click", togglePlay);
  onEnter(element.label, setLabel);
  onEnter(element.start, (text) => typeTime("start", text));
  onEnter(element.stop, (text) => typeTime("stop", text));
  element.strip.addEventListener("pointerdown", takeHold);
  element.strip.addEventListener("pointermove", moveHeld);
  for (const name of ["pointerup", "pointercancel"]) element.strip.addEventListener(name, letGo);
  window.addEventListener("keydown", pressKey, { capture: true });
  // A button that was clicked gives up the focus, so that the space bar plays; one reached by Tab keeps it.
  window.addEventListener("click", (event) => { if (event.detail > 0) event.target.closest("button, input[type=checkbox]")?.blur(); });
  window.addEventListener("beforeunload", (event) => { if (state.unsaved) event.preventDefault(); });
  new ResizeObserver(() => { drawStrip(); showTime(); }).observe(element.strip);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawStrip);
}

function connectPlayer() {
  player.addEventListener("loadedmetadata", whenLoaded);
  player.addEventListener("error", refuse);
  player.addEventListener("play", () => { element.play.textContent = "Pause"; whilePlaying(); });
  player.addEventListener("pause", () => { element.play.textContent = "Play"; showTime(); });
  for (const name of ["seeked", "timeupdate"]) player.addEventListener(name, showTime);
  watchFrames();
}

function start() {
  for (const label of data.labels.slice(MAX_CURVES)) state.hidden.add(label);
  element.videos.replaceChildren(...data.videos.map((video, number) => new Option(describeVideo(video), String(number))));
  renderLabels();
  connect();
  connectPlayer();
  showVideo(data.videos[0]);
}

start();
