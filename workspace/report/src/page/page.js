// Puts the feed and the parts of the page together.

import { Feed } from "./feed.js";
import * as format from "./format.js";
import { element, setText, showFigures } from "./figures.js";
import { showOrders } from "./orders.js";
import { redrawOnResize, showArrivals } from "./arrivals.js";

const ROWS = 50;
const ANNOUNCE_EVERY_MS = 30_000;
const STATES = { connecting: "Connecting", live: "Live", reconnecting: "Reconnecting", paused: "Paused" };

const at = (id) => document.getElementById(id);
const feed = new Feed(
  // Relative, so that the page works behind a proxy that puts it under a prefix.
  { summary: "api/summary", analytics: `api/analytics?limit=${ROWS}`, arrivals: "api/arrivals?minutes=15" },
  onData,
  onState,
);

let clockAhead = 0;
let newest = null;
let arrivedSince = 0;
let announcedAt = Date.now();

const serverNow = () => Date.now() + clockAhead;

function onData({ summary, analytics, arrivals }, changed, ahead) {
  clockAhead = ahead;
  newest = summary.newest_order_time_ms;
  // The chart moves on also when nothing arrives.
  showArrivals(at("arrivals"), at("arrivals-readout"), arrivals, serverNow());
  if (!changed) return;
  showFigures(summary);
  arrivedSince += showOrders(at("rows"), analytics, serverNow());
  const total = summary.orders.count;
  const shown = analytics.orders.length;
  const all = total > shown ? `the newest ${shown} of ${format.count(total)}` : `all ${format.count(shown)}`;
  setText(at("orders-note"), shown > 0 ? `Showing ${all}` : "");
  showEmpty(shown === 0, "No orders yet", "They appear here as soon as analytics has stored them.");
}

function onState(state) {
  document.body.dataset.state = state.name;
  setText(at("connection"), STATES[state.name]);
  at("trouble").hidden = state.name !== "reconnecting";
  if (state.name === "reconnecting") {
    setText(at("trouble-what"), state.problem ?? "");
    if (!state.lastAnswer) showEmpty(true, "Nothing to show yet", "The orders appear once the report answers.");
  }
  tick();
}

function showEmpty(empty, what, why) {
  at("no-rows").hidden = !empty;
  at("orders").hidden = empty;
  setText(at("no-rows-what"), what);
  setText(at("no-rows-why"), why);
}

// Everything that changes with the clock alone.
function tick() {
  const { name, lastAnswer, nextAttempt } = feed.state;
  const fresh = name === "live" && Date.now() - lastAnswer < 7_000;
  setText(at("updated"), !lastAnswer || fresh ? "" : `updated ${format.age(Date.now() - lastAnswer)}`);
  setText(at("orders-age"), newest === null ? "none received yet" : `newest ${format.age(serverNow() - newest)}`);
  if (nextAttempt) {
    const seconds = Math.max(0, Math.ceil((nextAttempt - Date.now()) / 1000));
    const shown = lastAnswer ? `Shown is the data of ${format.time(lastAnswer)}. ` : "";
    setText(at("trouble-then"), `${shown}${seconds > 0 ? `Next attempt in ${seconds} s.` : "Trying again."}`);
  }
  if (arrivedSince > 0 && Date.now() - announcedAt > ANNOUNCE_EVERY_MS) {
    setText(at("announce"), `New orders have arrived. ${at("orders-count").textContent} in all.`);
    announcedAt = Date.now();
    arrivedSince = 0;
  }
}

function showSkeleton() {
  const lines = Array.from({ length: 8 }, () => {
    const line = element("tr", "skeleton");
    line.setAttribute("aria-hidden", "true");
    for (const cell of ["", "wide", "wide", "wide", "number", "", ""]) {
      const td = element("td", cell);
      td.append(element("i"));
      line.append(td);
    }
    return line;
  });
  at("rows").replaceChildren(...lines);
}

at("pause").addEventListener("click", () => {
  const paused = at("pause").getAttribute("aria-pressed") !== "true";
  at("pause").setAttribute("aria-pressed", String(paused));
  feed.paused = paused;
});
at("retry").addEventListener("click", () => feed.now());

showSkeleton();
redrawOnResize(at("arrivals"), at("arrivals-readout"));
setInterval(tick, 1_000);
feed.start();
