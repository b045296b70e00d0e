// Tables: sorted by a click on a heading, filtered by text.
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

const makeSortable = (table) => {
  for (const head of table.tHead.rows[0].cells) {
    const words = make("span", {}, ...head.childNodes);
    head.append(button("", () => sortBy(head, table), {}));
    head.firstChild.append(words);
  }
};

const FEW_ROWS = 5;

// Rows are hidden for two reasons: their condition is not chosen, or they lack the text of the filter.
const hideRows = (study, figure) => {
  const rows = [...figure.querySelectorAll("tbody tr")];
  const wanted = figure.querySelector(".filter input")?.value.trim().toLowerCase() ?? "";
  const chosen = (row) => [...row.querySelectorAll("[data-c]")].every((cell) => study.state.shown.has(Number(cell.dataset.c)));
  const words = wanted.split(/\s+/);
  const found = (row) => words.every((word) => row.textContent.toLowerCase().includes(word));
  for (const row of rows) row.hidden = !chosen(row) || !found(row);
  const shown = rows.filter((row) => !row.hidden).length;
  const count = figure.querySelector(".filter output");
  if (count) count.textContent = shown === rows.length ? "" : `${shown} of ${rows.length} rows`;
};

// What scrolls must be reachable by keyboard; what does not would only be one more stop on the way.
const reachable = (box) => new ResizeObserver(() => (box.tabIndex = box.scrollWidth > box.clientWidth ? 0 : -1)).observe(box);

const addFilter = (study, figure) => {
  if (figure.querySelectorAll("tbody tr").length < FEW_ROWS) return;
  const input = make("input", { type: "search", autocomplete: "off", spellcheck: false });
  input.addEventListener("input", () => hideRows(study, figure));
  const number = figure.querySelector("figcaption strong").textContent.replace(".", "");
  const words = make("span", { className: "unseen" }, ` of ${number}`);
  figure
    .querySelector(".scroll")
    .before(make("div", { className: "filter" }, make("label", {}, "Filter rows", words, " ", input), make("output", { "aria-live": "polite" })));
};
