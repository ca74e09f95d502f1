// Numbers as people read them, and foreign text as text.

// What can not be seen, or turns the direction of what follows, is shown as an escape: control characters, those that
// format, and halves of surrogate pairs. So a URL is what it looks like.
const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;
const DASH = "\u2013";

/** Return foreign text with nothing in it that can not be seen. */
export function visible(text) {
  return String(text ?? "").replace(UNSEEN, (sign) => {
    const code = sign.codePointAt(0).toString(16);
    return code.length <= 2 ? `\\x${code.padStart(2, "0")}` : `\\u${code.padStart(4, "0")}`;
  });
}

/** Return visible text of at most so many characters: of a long URL the beginning and the end say most. */
export function shortened(text, most) {
  const signs = [...text];
  if (signs.length <= most) {
    return text;
  }
  const tail = Math.floor(most * 0.3);
  return `${signs.slice(0, most - tail - 1).join("")}\u2026${signs.slice(-tail).join("")}`;
}

const WHOLE = new Intl.NumberFormat("en", {maximumFractionDigits: 0});

/** Write a count. */
export function count(value) {
  return WHOLE.format(value);
}

/** Write a number of which the first digits say enough: 0.42, 8.1, 512, 12,400, 1.2M. */
export function number(value) {
  if (value >= 1e6) {
    return `${(value / 1e6).toFixed(value < 1e7 ? 1 : 0)}M`;
  }
  if (value >= 10 || value === 0) {
    return WHOLE.format(value);
  }
  return value >= 1 ? value.toFixed(1).replace(/\.0$/, "") : value.toFixed(2);
}

/** Write a rate per second. */
export function rate(value) {
  return `${number(value)}/s`;
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** Write a number of bytes. */
export function size(value) {
  let power = 0;
  while (value >= 1024 && power < UNITS.length - 1) {
    value /= 1024;
    power += 1;
  }
  return `${power === 0 || value >= 10 ? WHOLE.format(value) : value.toFixed(1)} ${UNITS[power]}`;
}

/** Write a share (0 to 1). */
export function share(value) {
  const percent = value * 100;
  return percent > 0 && percent < 1 ? "<1 %" : `${Math.floor(percent)} %`;
}

/** Write a short duration. */
export function brief(seconds) {
  if (seconds === null || seconds === undefined) {
    return DASH;
  }
  if (seconds === 0) {
    return "0";
  }
  if (seconds < 1) {
    const ms = seconds * 1000;
    return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
  }
  return seconds < 100 ? `${seconds.toFixed(seconds < 10 ? 2 : 1)} s` : clock(seconds);
}

/** Write a long duration: 0.4 s, 18 s, 4 min 10 s, 2 h 5 min, 3 d 4 h. */
export function clock(seconds) {
  if (seconds === null || seconds === undefined) {
    return DASH;
  }
  if (seconds > 0 && seconds < 9.95) {
    return seconds < 0.1 ? "<0.1 s" : `${seconds.toFixed(1)} s`;
  }
  const whole = Math.round(seconds);
  const [days, hours, minutes, rest] = [
    Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60, whole % 60,
  ];
  if (days) {
    return `${days} d ${hours} h`;
  }
  if (hours) {
    return `${hours} h ${minutes} min`;
  }
  return minutes ? `${minutes} min ${rest} s` : `${rest} s`;
}

const TIME = new Intl.DateTimeFormat("en-GB", {hour: "2-digit", minute: "2-digit", second: "2-digit"});
const DATE = new Intl.DateTimeFormat("en-GB", {
  year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit",
});

/** Write the time of day of a moment, here where the reader is. */
export function time(iso) {
  return TIME.format(new Date(iso));
}

/** Write a moment. */
export function date(iso) {
  return iso === null || iso === undefined ? DASH : DATE.format(new Date(iso));
}

/** Write how many there are of something. */
export function counted(value, noun) {
  return `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
}
