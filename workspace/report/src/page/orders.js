// The table of the latest orders. Rows are kept by order id, so that what stays on screen is not
// drawn again, and only what is new lights up. Texts of an order are set as text, never as markup.

import * as format from "./format.js";
import { element, setText } from "./figures.js";

const PAYMENT_WORDS = { PAID: "Paid", DECLINED: "Declined", FAILED: "Failed" };
const LEVELS = new Set(["Critical", "High", "Medium", "Low"]);

const rows = new Map();
let shownBefore = false;

// Shows the orders; says how many were not there before.
export function showOrders(body, { orders, details }, now) {
  const wanted = details.map((detail, index) => {
    const key = detail.order_id;
    const isNew = !rows.has(key);
    if (isNew) rows.set(key, newRow(key));
    const row = rows.get(key);
    fill(row, orders[index], detail, now);
    return { key, row, isNew };
  });
  const arrived = wanted.filter((entry) => entry.isNew).length;
  // Where most rows are new the whole table would flash, which says nothing.
  const light = shownBefore && arrived <= wanted.length / 2;
  let next = body.firstChild;
  for (const { row, isNew } of wanted) {
    row.tr.classList.toggle("arrived", isNew ? light : row.tr.classList.contains("arrived"));
    if (row.tr === next) next = next.nextSibling;
    else body.insertBefore(row.tr, next);
  }
  while (next) {
    const gone = next;
    next = next.nextSibling;
    gone.remove();
  }
  const kept = new Set(wanted.map((entry) => entry.key));
  for (const key of rows.keys()) if (!kept.has(key)) rows.delete(key);
  const counts = shownBefore ? arrived : 0;
  shownBefore = true;
  return counts;
}

function newRow(key) {
  const tr = element("tr");
  const head = element("th", "order");
  head.scope = "row";
  const link = element("a", "id", key);
  link.href = `api/orders/${encodeURIComponent(key)}`;
  link.title = key;
  const under = element("span", "under quiet");
  head.append(link, under);
  const received = element("time");
  const receivedCell = element("td", "wide quiet");
  receivedCell.append(received);
  const customer = element("td", "wide clip");
  const country = element("td", "wide");
  const money = element("td", "number");
  const code = element("span", "code");
  const digits = element("span");
  money.append(code, " ", digits);
  const payment = element("td");
  const risk = element("td");
  tr.append(head, receivedCell, customer, country, money, payment, risk);
  tr.addEventListener("animationend", () => tr.classList.remove("arrived"));
  return { tr, under, received, customer, country, code, digits, payment, risk };
}

function fill(row, order, detail, now) {
  const ours = order._orderflow ?? {};
  const at = ours.record_time;
  if (Number.isFinite(at)) {
    setText(row.received, format.moment(at, now));
    row.received.dateTime = new Date(at).toISOString();
    row.received.title = new Date(at).toLocaleString();
  }
  const code = typeof order.country === "string" ? order.country : "ZZ";
  const name = format.country(code);
  const customer = order.customer_id ?? order.vendor;
  setText(row.customer, customer === undefined || customer === null ? "–" : String(customer));
  row.customer.title = row.customer.textContent;
  setText(row.country, name);
  setText(row.under, Number.isFinite(at) ? `${code} ${format.moment(at, now)}` : code);
  setText(row.code, ours.currency ?? "");
  // The exact text; the JSON number beside it passed through a float here.
  setText(row.digits, format.amount(ours.amount ?? order.amount));
  row.digits.parentNode.title = `${row.digits.textContent} ${row.code.textContent}`;
  fillPayment(row.payment, detail.payment);
  fillRisk(row.risk, detail.alert);
}

function fillPayment(cell, payment) {
  const status = payment?.status;
  const word = payment ? PAYMENT_WORDS[status] ?? String(status) : "Waiting";
  const kind = payment ? (status in PAYMENT_WORDS ? status.toLowerCase() : "other") : "waiting";
  showBadge(cell, kind, word, "");
}

function fillRisk(cell, alert) {
  if (!alert) return showBadge(cell, "clear", "None", "");
  const level = LEVELS.has(alert.riskLevel) ? alert.riskLevel : "Other";
  showBadge(cell, level.toLowerCase(), level, Number.isFinite(alert.riskScore) ? String(alert.riskScore) : "");
}

function showBadge(cell, kind, word, score) {
  const same = cell.dataset.shown === `${kind} ${word} ${score}`;
  if (same) return;
  cell.dataset.shown = `${kind} ${word} ${score}`;
  const badge = element("span", `badge ${kind}`, word);
  if (score) {
    const points = element("b", "score", score);
    points.setAttribute("aria-label", `score ${score} of 100`);
    badge.append(" ", points);
  }
  cell.replaceChildren(badge);
}
