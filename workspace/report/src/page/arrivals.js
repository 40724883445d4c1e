// The chart: orders per time slot, and how many of them have an alert. An SVG in the size of its
// place, drawn anew when data or size changes.

import * as format from "./format.js";
import { setText } from "./figures.js";

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 44;
const BOTTOM = 22;
const TOP = 8;
// A chart that just began is not squeezed into its last tenth.
const SHORTEST_MS = 3 * 60_000;

let last;

export function showArrivals(place, readout, arrivals, now) {
  last = { arrivals, now };
  draw(place, readout);
}

export function redrawOnResize(place, readout) {
  new ResizeObserver(() => last && draw(place, readout)).observe(place);
}

function draw(place, readout) {
  const { arrivals, now } = last;
  const { width, height } = place.getBoundingClientRect();
  if (width < 80 || height < 60) return;
  const slotMs = arrivals.slot_ms;
  const end = (Math.floor(now / slotMs) + 1) * slotMs;
  const longest = arrivals.minutes * 60_000;
  const slots = arrivals.slots.filter((slot) => slot.start_ms < end && slot.start_ms >= end - longest);
  const span = Math.min(longest, Math.max(SHORTEST_MS, end - (slots[0]?.start_ms ?? end)));
  const begin = end - Math.ceil(span / slotMs) * slotMs;
  const top = niceAbove(Math.max(4, ...slots.map((slot) => Math.max(slot.orders, slot.alerts))));
  const x = (ms) => LEFT + ((ms - begin) / (end - begin)) * (width - LEFT);
  const y = (count) => TOP + (1 - count / top) * (height - TOP - BOTTOM);

  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img" });
  svg.setAttribute("aria-label", inWords(slots, span));
  for (const tick of slots.length > 0 ? [0, top / 2, top] : [0]) {
    svg.append(make("line", { x1: LEFT, x2: width, y1: y(tick), y2: y(tick), class: tick === 0 ? "axis" : "grid" }));
    svg.append(make("text", { x: LEFT - 8, y: y(tick) + 4, class: "tick end" }, format.count(tick)));
  }
  for (const ms of timeTicks(begin, end, (width - LEFT) / 80)) {
    svg.append(make("text", { x: x(ms), y: height - 4, class: "tick middle" }, format.minutes(ms)));
  }
  const step = (width - LEFT) / ((end - begin) / slotMs);
  const bar = Math.max(1, Math.min(step * 0.78, step - 1, 26));
  for (const slot of slots) {
    const left = x(slot.start_ms) + (step - bar) / 2;
    svg.append(column(left, bar, y(slot.orders), y(0), "orders"));
    if (slot.alerts > 0) svg.append(column(left, bar, y(slot.alerts), y(0), "alerts"));
  }
  if (slots.length === 0) {
    const text = `No orders in the last ${arrivals.minutes} minutes`;
    svg.append(make("text", { x: LEFT + (width - LEFT) / 2, y: height / 2, class: "nothing middle" }, text));
  }
  follow(svg, readout, { slots, begin, step, slotMs, height, width });
  place.replaceChildren(svg);
}

// Tells the slot under the pointer; without a pointer, the last full one.
function follow(svg, readout, { slots, begin, step, slotMs, height, width }) {
  const byStart = new Map(slots.map((slot) => [slot.start_ms, slot]));
  const mark = make("rect", { class: "mark", y: TOP, height: height - TOP - BOTTOM, width: step, visibility: "hidden" });
  svg.prepend(mark);
  const tell = (start) => {
    const { orders, alerts } = byStart.get(start) ?? { orders: 0, alerts: 0 };
    setText(readout, `${format.time(start)}: ${format.count(orders)} orders, ${format.count(alerts)} alerts`);
  };
  const busiest = slots.reduce((most, slot) => (slot.orders > (most?.orders ?? 0) ? slot : most), null);
  const rest = () => {
    mark.setAttribute("visibility", "hidden");
    const text = busiest && `Busiest at ${format.time(busiest.start_ms)} with ${format.count(busiest.orders)} orders`;
    setText(readout, text ?? "\u00a0");
  };
  svg.addEventListener("pointermove", (event) => {
    const across = event.clientX - svg.getBoundingClientRect().left;
    const index = Math.floor((across - LEFT) / step);
    if (across < LEFT || across > width) return rest();
    mark.setAttribute("x", LEFT + index * step);
    mark.setAttribute("visibility", "visible");
    tell(begin + index * slotMs);
  });
  svg.addEventListener("pointerleave", rest);
  rest();
}

function inWords(slots, span) {
  const sum = (name) => slots.reduce((all, slot) => all + slot[name], 0);
  const minutes = Math.round(span / 60_000);
  return `Orders per 10 seconds over the last ${minutes} minutes: ${format.count(sum("orders"))} orders, ` +
    `${format.count(sum("alerts"))} alerts`;
}

// A column with a rounded top.
function column(left, width, top, bottom, name) {
  const height = Math.max(1, bottom - top);
  const radius = Math.min(3, width / 2, height);
  const path = `M${left},${bottom}v${-(height - radius)}q0,${-radius} ${radius},${-radius}` +
    `h${width - 2 * radius}q${radius},0 ${radius},${radius}v${height - radius}z`;
  return make("path", { d: path, class: name });
}

// The next of 4, 6, 10, 20, 30, 40, 60, 100...: its half is a whole number too.
function niceAbove(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  const step = [1, 2, 3, 4, 6, 10].find((factor) => factor * power >= value);
  return step * power === 1 ? 2 : step * power + ((step * power) % 2);
}

function* timeTicks(begin, end, most) {
  const step = [1, 2, 3, 5, 10].map((minutes) => minutes * 60_000).find((ms) => (end - begin) / ms <= most) ?? 900_000;
  const margin = (end - begin) / 20;
  for (let ms = Math.ceil((begin + margin) / step) * step; ms <= end - margin; ms += step) yield ms;
}

function make(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}
