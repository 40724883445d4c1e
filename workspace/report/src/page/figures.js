// The totals: counts, amounts, shares, and the countries.

import * as format from "./format.js";

const COUNTRIES_SHOWN = 7;
const CURRENCIES_SHOWN = 3;
const PAYMENTS = [["PAID", "Paid"], ["DECLINED", "Declined"], ["FAILED", "Failed"], ["OTHER", "Other"]];
const LEVELS = ["Critical", "High", "Medium", "Low", "Other"];

const at = (id) => document.getElementById(id);

export function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// Writes only what changed: a text that stays keeps its selection.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function showFigures(summary) {
  const orders = summary.orders.count;
  setText(at("orders-count"), format.count(orders));
  showValue(summary);
  showPayments(summary, orders);
  showAlerts(summary, orders);
  showCountries(summary, orders);
}

function showValue(summary) {
  const currencies = Object.entries(summary.by_currency).sort(([, a], [, b]) => b.count - a.count);
  const money = ([code, total]) => [code, format.amount(total.amounts[code] ?? "0")];
  const main = at("value-main");
  if (currencies.length === 0) {
    main.replaceChildren("–");
  } else {
    const [code, text] = money(currencies[0]);
    const digits = element("span", "", text);
    main.replaceChildren(element("small", "code", code), " ", digits);
    // The type gets smaller where the number would not fit into its card.
    main.style.setProperty("--characters", text.length + 3);
  }
  const others = currencies.slice(1, 1 + CURRENCIES_SHOWN).map((entry) => element("li", "", money(entry).join(" ")));
  const more = currencies.length - 1 - others.length;
  if (more > 0) others.push(element("li", "", `and ${more} more`));
  if (currencies.length === 1) others.push(element("li", "", "all orders in one currency"));
  at("value-others").replaceChildren(...others);
}

function showPayments(summary, orders) {
  const settled = (status) => summary.by_status[status]?.count ?? 0;
  const parts = PAYMENTS.map(([status, label]) => ({ kind: status.toLowerCase(), label, count: settled(status) }));
  // A payment can be stored a moment before its order.
  parts.push({ kind: "waiting", label: "Waiting", count: Math.max(0, orders - summary.payments.count) });
  setText(at("paid-count"), format.count(settled("PAID")));
  const paid = format.share(settled("PAID"), Math.max(orders, summary.payments.count));
  setText(at("paid-share"), paid && `${paid} of orders`);
  showParts("payments", parts.filter((part) => part.kind !== "other" || part.count > 0));
}

function showAlerts(summary, orders) {
  const alerts = summary.alerts.count;
  const parts = LEVELS.map((level) => ({
    kind: level.toLowerCase(), label: level, count: summary.by_risk_level[level]?.count ?? 0,
  }));
  setText(at("alerts-count"), format.count(alerts));
  const part = format.share(alerts, Math.max(orders, alerts));
  setText(at("alerts-share"), part && `${part} of orders`);
  showParts("alerts", parts.filter((level) => level.kind !== "other" || level.count > 0));
}

// A stacked bar and its legend.
function showParts(name, parts) {
  const bars = parts.filter((part) => part.count > 0).map((part) => {
    const bar = element("i", `part ${part.kind}`);
    bar.style.flexGrow = part.count;
    return bar;
  });
  at(`${name}-stack`).replaceChildren(...bars);
  const lines = parts.map((part) => {
    const line = element("li", part.count === 0 ? "none" : "");
    line.append(element("i", `key ${part.kind}`), part.label, " ", element("b", "", format.count(part.count)));
    return line;
  });
  at(`${name}-legend`).replaceChildren(...lines);
}

function showCountries(summary, orders) {
  const countries = Object.entries(summary.by_country).sort(([, a], [, b]) => b.count - a.count);
  const shown = countries.slice(0, COUNTRIES_SHOWN);
  const largest = shown[0]?.[1].count ?? 1;
  const lines = shown.map(([code, total]) => {
    const line = element("li");
    const name = element("span", "name", format.country(code));
    name.title = code;
    const bar = element("i", "bar-fill");
    bar.style.width = `${Math.max(1, (100 * total.count) / largest)}%`;
    const track = element("span", "track");
    track.setAttribute("aria-hidden", "true");
    track.append(bar);
    const number = element("span", "value", format.count(total.count));
    line.append(name, number, element("span", "quiet value share", format.share(total.count, orders)), track);
    return line;
  });
  at("countries").replaceChildren(...lines);
  if (lines.length === 0) at("countries").append(element("li", "quiet", "None yet"));
  const rest = countries.length - shown.length;
  setText(at("countries-rest"), rest > 0 ? `and ${rest} more ${rest === 1 ? "country" : "countries"}` : "");
}
