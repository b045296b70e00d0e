// The report's own behaviour: charts on sight, sortable tables, data behind figures, downloads, theme, current section.
const root = document.documentElement;

const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);

const draw = async (chart) => {
  const spec = JSON.parse(chart.parentElement.querySelector("script.spec").textContent);
  try {
    await drawFigure(chart, spec, { tooltip: { theme: dark() ? "dark" : "light" } });
    chart.dataset.drawn = "";
  } catch (error) {
    const note = document.createElement("p");
    note.className = "error";
    note.textContent = `This chart could not be drawn: ${error.message}`;
    chart.replaceChildren(note);
    console.error(error);
  }
};

const charts = [...document.querySelectorAll(".chart")];
const sight = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) {
        sight.unobserve(entry.target);
        draw(entry.target);
      }
    }
  },
  { rootMargin: "600px" },
);
charts.forEach((chart) => sight.observe(chart));
addEventListener("beforeprint", () => charts.filter((chart) => !("drawn" in chart.dataset)).forEach(draw));

const parseCsv = (text) => {
  const rows = [[]];
  let field = "";
  let quoted = false;
  for (let i = 0; i < text.length; i += 1) {
    const letter = text[i];
    if (quoted) {
      if (letter === '"' && text[i + 1] === '"') {
        field += '"';
        i += 1;
      } else if (letter === '"') quoted = false;
      else field += letter;
    } else if (letter === '"') quoted = true;
    else if (letter === ",") {
      rows.at(-1).push(field);
      field = "";
    } else if (letter === "\n") {
      rows.at(-1).push(field);
      rows.push([]);
      field = "";
    } else if (letter !== "\r") field += letter;
  }
  return rows.filter((row) => row.length);
};

const records = (csv) => {
  const [heads, ...rows] = parseCsv(csv);
  const typed = (value) => (value === "" ? null : value.trim() !== "" && Number.isFinite(Number(value)) ? Number(value) : value);
  return rows.map((row) => Object.fromEntries(heads.map((head, i) => [head, typed(row[i] ?? "")])));
};

const save = (name, type, text) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};

const button = (text, action) => {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.addEventListener("click", action);
  return made;
};

for (const place of document.querySelectorAll(".downloads")) {
  const payload = () => JSON.parse(place.parentElement.querySelector("script.payload").textContent);
  const parts = payload().map(([name]) => name);
  const stem = place.dataset.name;
  parts.forEach((name, i) => {
    const suffix = parts.length > 1 ? `-${name.replace(/[^\w-]+/g, "-")}` : "";
    const shown = parts.length > 1 ? ` ${name}` : "";
    place.append(button(`CSV${shown}`, () => save(`${stem}${suffix}.csv`, "text/csv", payload()[i][1])));
  });
  if (parts.length) {
    place.append(
      button("JSON", () => {
        const all = Object.fromEntries(payload().map(([name, csv]) => [name, records(csv)]));
        save(`${stem}.json`, "application/json", JSON.stringify(all, null, 1));
      }),
    );
  }
}

const MOST = 200;
const dataTable = (name, csv) => {
  const [heads, ...rows] = parseCsv(csv);
  const holder = document.createElement("div");
  const line = (tag, values) => {
    const row = document.createElement("tr");
    for (const value of values) {
      const cell = document.createElement(tag);
      cell.textContent = value;
      if (tag === "th") cell.scope = "col";
      row.append(cell);
    }
    return row;
  };
  const table = document.createElement("table");
  table.createTHead().append(line("th", heads));
  table.createTBody().append(...rows.slice(0, MOST).map((row) => line("td", row)));
  const scroll = document.createElement("div");
  scroll.className = "scroll";
  scroll.tabIndex = 0;
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", `Data: ${name}`);
  scroll.append(table);
  const note = document.createElement("p");
  note.textContent = rows.length > MOST ? `${name}: the first ${MOST} of ${rows.length} rows; the CSV has all.` : name;
  holder.append(note, scroll);
  return holder;
};
for (const details of document.querySelectorAll("details.behind")) {
  details.addEventListener("toggle", () => {
    const place = details.querySelector(".behind-tables");
    if (!details.open || place.childElementCount) return;
    const payload = JSON.parse(details.parentElement.querySelector("script.payload").textContent);
    place.append(...payload.map(([name, csv]) => dataTable(name, csv)));
  });
}

const sortBy = (head, table) => {
  const at = [...head.parentElement.children].indexOf(head);
  const up = head.getAttribute("aria-sort") !== "ascending";
  const key = (row) => row.children[at].dataset.v;
  const order = (a, b) => {
    const [first, second] = [key(a), key(b)];
    const numbers = [Number(first), Number(second)];
    const numeric = numbers.map((value, i) => [first, second][i] !== "" && Number.isFinite(value));
    if (numeric[0] && numeric[1]) return numbers[0] - numbers[1];
    if (numeric[0] !== numeric[1]) return numeric[0] ? -1 : 1;
    return first.localeCompare(second);
  };
  const rows = [...table.tBodies[0].rows].sort((a, b) => (up ? order(a, b) : order(b, a)));
  for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  table.tBodies[0].append(...rows);
};
for (const table of document.querySelectorAll("figure.table table")) {
  for (const head of table.tHead.rows[0].cells) {
    const made = button("", () => sortBy(head, table));
    const words = document.createElement("span");
    words.append(...head.childNodes);
    made.append(words);
    head.append(made);
  }
}

const themes = ["system", "light", "dark"];
const toggle = document.querySelector(".theme");
const setTheme = (theme) => {
  if (theme === "system") delete root.dataset.theme;
  else root.dataset.theme = theme;
  toggle.textContent = `Theme: ${theme}`;
};
const remembered = (theme) => {
  try {
    if (theme) localStorage.setItem("benchkit-theme", theme);
    return localStorage.getItem("benchkit-theme");
  } catch {
    return null; // storage may be closed to files; the choice then lasts as long as the page
  }
};
let theme = themes.includes(remembered()) ? remembered() : "system";
setTheme(theme);
toggle.hidden = false;
toggle.addEventListener("click", () => {
  theme = themes[(themes.indexOf(theme) + 1) % themes.length];
  remembered(theme);
  setTheme(theme);
});

const links = new Map([...document.querySelectorAll(".side a")].map((link) => [link.hash.slice(1), link]));
const reading = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting && links.has(entry.target.id)) {
        links.forEach((link) => link.removeAttribute("aria-current"));
        links.get(entry.target.id).setAttribute("aria-current", "true");
      }
    }
  },
  { rootMargin: "-10% 0px -80% 0px" },
);
document.querySelectorAll("section.part[id], .chapter[id]").forEach((part) => reading.observe(part));
