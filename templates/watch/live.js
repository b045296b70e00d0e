// The live page: sections come as events, each in the place of its older self; charts are drawn when in sight.
const content = document.getElementById("content");
const parts = document.getElementById("parts");
const study = content.dataset.study;
const SILENCE = 25000; // two pings and some
const HIDDEN = 5000; // a page out of sight gives up its stream after this

const results = new WeakMap(); // chart -> what drew it
let state = content.dataset.state;
let heard = Date.now();
let ended = false; // the server said so

const known = new Map(); // part -> its newest HTML, for the other pages of this browser

const forget = (place) => {
  for (const chart of place.querySelectorAll(".chart")) {
    results.get(chart)?.finalize();
    results.delete(chart);
  }
};

// Each drawing is a task of its own, also where one chart takes several to fit: the page answers in between.
const drawFigure = async (...given) => {
  await new Promise((resolve) => setTimeout(resolve));
  return globalThis.drawFigure(...given);
};

const drawNow = async (chart) => {
  if (!chart.isConnected) return;
  results.get(chart)?.finalize();
  chart.style.visibility = "hidden"; // no drawing on the way to the fitting one is seen
  try {
    const spec = await readJson(chart.closest("figure").querySelector("script.spec"));
    const result = await drawFitted(chart, spec, { actions: false, tooltip: { theme: dark() ? "dark" : "light" } });
    if (chart.isConnected) results.set(chart, result);
    else result.finalize();
  } catch (error) {
    chart.replaceChildren(make("p", { className: "error" }, `This chart could not be drawn: ${error.message}`));
    console.error(error);
  }
  chart.style.minHeight = chart.style.visibility = "";
  chart.dataset.drawn = "";
};

let lastDrawn = Promise.resolve(); // one chart after the other
const drawLive = (chart) => (lastDrawn = lastDrawn.then(() => drawNow(chart)));

const sight = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      sight.unobserve(target);
      drawLive(target);
    }
  },
  { rootMargin: "300px" },
);

const specText = (figure) => figure.querySelector("script.spec")?.textContent;

// What was open stays open, what was drawn and is the same stays drawn, and what was sorted stays sorted.
const keepUp = (old, fresh) => {
  const opened = new Set([...old.querySelectorAll("details[open] > summary")].map((one) => one.textContent));
  for (const one of fresh.querySelectorAll("details > summary")) one.parentElement.open = opened.has(one.textContent);
  for (const figure of fresh.querySelectorAll("figure.figure[id]")) {
    const before = old.querySelector(`#${CSS.escape(figure.id)}`);
    const [was, now] = [before?.querySelector(".chart"), figure.querySelector(".chart")];
    if (!was || !now) continue;
    if (specText(before) === specText(figure)) now.replaceWith(was);
    else now.style.minHeight = `${was.offsetHeight}px`;
  }
  for (const figure of fresh.querySelectorAll("figure.table[id]")) {
    const head = old.querySelector(`#${CSS.escape(figure.id)} th[aria-sort]`);
    if (!head) continue;
    const at = [...head.parentElement.children].indexOf(head);
    figure.dataset.sorted = `${at} ${head.getAttribute("aria-sort")}`;
  }
};

const startPart = (part) => {
  for (const table of part.querySelectorAll("figure.table table")) {
    makeSortable(table);
    const [at, order] = (table.closest("figure").dataset.sorted ?? "").split(" ");
    const head = order && table.tHead.rows[0].cells[at];
    for (let turn = 0; head && head.getAttribute("aria-sort") !== order && turn < 2; turn += 1) sortBy(head, table);
  }
  for (const chart of part.querySelectorAll(".chart:not([data-drawn])")) sight.observe(chart);
};

const listContents = () => {
  const links = [...parts.querySelectorAll("section.part")].map((part) =>
    make("li", {}, make("a", { href: `#${part.id}` }, part.querySelector("h2").textContent)),
  );
  document.querySelector(".side ol").replaceChildren(...links);
};

const take = ({ state: version, title, order, parts: news, note }) => {
  heard = Date.now();
  ended = false;
  state = version;
  if (title) document.title = title;
  for (const [name, html] of Object.entries(news)) {
    known.set(name, html);
    const fresh = new DOMParser().parseFromString(html, "text/html").body.firstElementChild;
    const old = document.getElementById(name);
    if (old) {
      keepUp(old, fresh);
      forget(old);
      old.replaceWith(fresh);
    } else parts.append(fresh);
    startPart(fresh);
  }
  for (const part of [...parts.children]) {
    if (!order.includes(part.id)) {
      forget(part);
      part.remove();
    }
  }
  const sorted = order.map((name) => document.getElementById(name)).filter(Boolean);
  if (sorted.some((part, at) => parts.children[at] !== part)) parts.append(...sorted);
  if (Object.keys(news).length) listContents();
  said = { note, order, title };
  tell();
};

let said = {};

// Whether the page is live, in words.
const shown = document.querySelector(".live");
const tell = () => {
  const silent = Date.now() - heard > SILENCE;
  const since = new Date(heard).toLocaleTimeString();
  const words = ended ? `ended at ${since}` : silent ? `no answer since ${since}` : said.note ? said.note : "live";
  shown.dataset.live = ended || silent || said.note ? "no" : "yes";
  if (shown.textContent !== words) shown.textContent = words;
};

// One stream for all pages of this study in one browser: a browser has six connections to a server. Whoever holds the
// lock has the stream and passes on what comes. Where there are no locks (plain http from elsewhere), each has its own.
let source;
const open = () => {
  source?.close();
  source = new EventSource(`events?${new URLSearchParams({ study, state })}`);
  source.onmessage = ({ data }) => {
    const told = JSON.parse(data);
    take(told);
    channel?.postMessage({ told });
  };
  source.onopen = () => {
    heard = Date.now();
    ended = false;
    tell();
  };
  source.addEventListener("ping", () => {
    heard = Date.now();
    ended = false;
    tell();
    channel?.postMessage({ ping: true });
  });
  source.addEventListener("ended", () => {
    heard = Date.now();
    ended = true;
    tell();
    channel?.postMessage({ ended });
  });
};

const close = () => {
  source?.close();
  source = undefined;
};

const channel = navigator.locks ? new BroadcastChannel(`benchkit ${location.pathname} ${study}`) : undefined;
let letGo; // ends our turn at the stream, or our wait for it
let waiting;

const join = () => {
  if (waiting) return;
  if (!navigator.locks) {
    waiting = true;
    letGo = () => (waiting = undefined);
    open();
    return;
  }
  const left = new AbortController();
  let done;
  const turn = new Promise((resolve) => (done = resolve));
  letGo = () => {
    left.abort();
    done();
    waiting = undefined;
  };
  channel.postMessage({ asked: true }); // whoever has the stream tells what is newest
  waiting = navigator.locks
    .request(`benchkit ${location.pathname} ${study}`, { signal: left.signal }, () => {
      if (left.signal.aborted) return undefined;
      open();
      return turn;
    })
    .catch((error) => {
      if (error.name !== "AbortError") throw error;
    });
};

const leave = () => {
  close();
  letGo?.();
  letGo = undefined;
};

if (channel)
  channel.onmessage = ({ data }) => {
    if (data.told && data.told.state !== state) take(data.told);
    if (data.ping || data.told || data.ended) {
      heard = Date.now();
      ended = Boolean(data.ended);
      tell();
    }
    if (data.asked && source)
      channel.postMessage({ told: { ...said, state, parts: Object.fromEntries(known) } });
  };

let hiding;
const attend = () => {
  clearTimeout(hiding);
  if (document.visibilityState === "visible") join();
  else hiding = setTimeout(leave, HIDDEN);
};

// What sleeps, or stands behind a proxy whose server went away, is not told of it: who has the stream asks anew.
setInterval(() => {
  tell();
  if (source && (source.readyState === EventSource.CLOSED || Date.now() - heard > SILENCE) && Date.now() - tried > 5000) {
    tried = Date.now();
    open();
  }
}, 1000);
let tried = 0;

startTheme();
startContents();
for (const part of parts.children) {
  known.set(part.id, part.outerHTML);
  startPart(part);
}
said.order = [...parts.children].map((part) => part.id);
let resizing;
addEventListener("resize", () => {
  clearTimeout(resizing);
  resizing = setTimeout(() => parts.querySelectorAll(".chart[data-drawn]").forEach(drawLive), 200);
});
document.addEventListener("visibilitychange", attend);
addEventListener("pagehide", leave);
addEventListener("pageshow", attend);
attend();
