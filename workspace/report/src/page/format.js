// Words and numbers for people. Pure.

const whole = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const clockMinutes = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const regions = new Intl.DisplayNames("en", { type: "region", fallback: "code" });

export const count = (number) => whole.format(number);

// Groups the digits of a decimal text; the text itself is kept, because a float could not hold it.
export function amount(text) {
  const [integer, fraction] = String(text).split(".");
  const grouped = integer.replace(/\B(?=(\d{3})+$)/g, ",");
  return fraction === undefined ? grouped : `${grouped}.${fraction}`;
}

export function share(part, all) {
  if (!(all > 0)) return "";
  const percent = (100 * part) / all;
  if (percent > 0 && percent < 0.1) return "< 0.1 %";
  // 99.97 % is not 100 %.
  if (percent < 100 && percent > 99.9) return "> 99.9 %";
  return `${percent >= 100 || percent === 0 ? percent.toFixed(0) : percent.toFixed(1)} %`;
}

export function country(code) {
  if (code === "ZZ") return "Unknown";
  try {
    return regions.of(code);
  } catch {
    return String(code);
  }
}

export const time = (ms) => clock.format(ms);
export const minutes = (ms) => clockMinutes.format(ms);

// The clock for today, with the day in front otherwise.
export function moment(ms, now) {
  const sameDay = new Date(ms).toDateString() === new Date(now).toDateString();
  return sameDay ? time(ms) : `${day.format(ms)}, ${minutes(ms)}`;
}

export function age(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 2) return "just now";
  if (seconds < 100) return `${seconds} s ago`;
  const inMinutes = Math.round(seconds / 60);
  if (inMinutes < 100) return `${inMinutes} min ago`;
  const hours = Math.round(seconds / 3600);
  return hours < 48 ? `${hours} h ago` : `${Math.round(hours / 24)} days ago`;
}
