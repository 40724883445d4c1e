// Asks the report again and again, and knows how fresh what it has is.
//
// One request per answer is open at a time; quick while something changes, slower while nothing
// does, with growing pauses after errors, and not at all while the page is hidden or paused. The
// browser keeps the entity tags, so an unchanged answer costs a 304.

const QUICK_MS = 1_000;
const SLOW_MS = 5_000;
const GIVE_UP_MS = 8_000;
const RETRY_MIN_MS = 1_000;
const RETRY_MAX_MS = 15_000;

export class Feed {
  #urls;
  #onData;
  #onState;
  #tags = "";
  #timer;
  #delay = QUICK_MS;
  #failures = 0;
  #running = false;
  #paused = false;

  // What is known about the connection; times are of this machine's clock.
  state = { name: "connecting", lastAnswer: null, nextAttempt: null, problem: null };

  constructor(urls, onData, onState) {
    this.#urls = urls;
    this.#onData = onData;
    this.#onState = onState;
    document.addEventListener("visibilitychange", () => this.#wake());
    addEventListener("online", () => this.now());
  }

  start() {
    this.now();
  }

  now() {
    if (this.#paused || this.#running) return;
    clearTimeout(this.#timer);
    this.#ask();
  }

  set paused(paused) {
    this.#paused = paused;
    clearTimeout(this.#timer);
    if (paused) this.#become({ name: "paused", nextAttempt: null });
    else {
      this.#delay = QUICK_MS;
      this.#become({ name: this.#failures > 0 ? "reconnecting" : "connecting" });
      this.now();
    }
  }

  #wake() {
    if (document.hidden) clearTimeout(this.#timer);
    else this.now();
  }

  #become(change) {
    this.state = { ...this.state, ...change };
    this.#onState(this.state);
  }

  async #ask() {
    this.#running = true;
    try {
      const answers = await Promise.all(Object.entries(this.#urls).map(([name, url]) => read(name, url)));
      const tags = answers.map((answer) => answer.tag).join(" ");
      const changed = tags !== this.#tags;
      this.#tags = tags;
      this.#failures = 0;
      this.#delay = changed ? QUICK_MS : Math.min(this.#delay * 1.5, SLOW_MS);
      const data = Object.fromEntries(answers.map((answer) => [answer.name, answer.body]));
      this.#onData(data, changed, serverClock(answers[0].date));
      const name = this.#paused ? "paused" : "live";
      this.#become({ name, lastAnswer: Date.now(), nextAttempt: null, problem: null });
    } catch (error) {
      this.#failures += 1;
      const most = Math.min(RETRY_MIN_MS * 2 ** (this.#failures - 1), RETRY_MAX_MS);
      this.#delay = most * (0.75 + Math.random() / 4);
      const name = this.#paused ? "paused" : "reconnecting";
      this.#become({ name, nextAttempt: Date.now() + this.#delay, problem: reason(error) });
    } finally {
      this.#running = false;
    }
    if (!this.#paused && !document.hidden) this.#timer = setTimeout(() => this.now(), this.#delay);
  }
}

async function read(name, url) {
  const response = await fetch(url, { cache: "no-cache", signal: AbortSignal.timeout(GIVE_UP_MS) });
  if (!response.ok) {
    const problem = await response.json().catch(() => null);
    throw new Refused(problem?.detail ?? `the report answers ${response.status}`);
  }
  return { name, body: await response.json(), tag: response.headers.get("etag"), date: response.headers.get("date") };
}

class Refused extends Error {}

function reason(error) {
  if (error instanceof Refused) return `Not available: ${error.message}.`;
  if (error.name === "TimeoutError") return "The report takes too long to answer.";
  return "The report does not answer.";
}

// How far the server's clock is ahead of ours. Its `date` has whole seconds, so less than two is
// no difference.
function serverClock(date) {
  const ahead = Date.parse(date ?? "") - Date.now();
  return Number.isFinite(ahead) && Math.abs(ahead) > 2_000 ? ahead : 0;
}
