// Tables follow the choice: other cells for another metric or split, and only the rows of chosen conditions.
const first = new WeakMap(); // figure -> its caption, headings and rows as the report came

const viewCell = (study, model, [text, detail, mark, strong, sortValue], name, at) => {
  const cell = make(at ? "td" : "th", { ...(at ? {} : { scope: "row" }), className: `${model.classList.contains("right") ? "right" : "left"}${strong ? " strong" : ""}` }, text);
  cell.dataset.v = sortValue;
  if (study.places.has(name)) cell.dataset.c = study.places.get(name);
  if (mark) cell.append(" ", make("span", { className: "mark" }, mark));
  if (detail) cell.append(make("span", { className: "detail" }, detail));
  return cell;
};

const linkCells = (study, figure) => {
  for (const cell of figure.querySelectorAll("[data-c]")) {
    const text = cell.firstChild;
    if (text?.nodeType !== Node.TEXT_NODE) continue; // linked already
    const condition = Number(cell.dataset.c);
    const made = button(text.textContent.trim(), () => openPanel(study, { condition, trial: null }), {
      className: "condition",
      "aria-haspopup": "dialog",
    });
    text.replaceWith(made, " ");
    const number = cell.parentElement.querySelector("[data-t]");
    if (number?.firstChild?.nodeType !== Node.TEXT_NODE) continue;
    const trial = Number(number.dataset.t);
    const open = () => openPanel(study, { condition, trial });
    const link = button(number.textContent, open, { className: "condition", "aria-label": `Trial ${trial}`, "aria-haspopup": "dialog" });
    number.replaceChildren(link);
  }
};

const fillTable = (study, figure, view) => {
  const table = figure.querySelector("table");
  const heads = [...table.tHead.rows[0].cells];
  if (!first.has(figure)) {
    const caption = figure.querySelector(".caption").textContent;
    const words = heads.map((head) => [...head.querySelector("button span").childNodes]);
    first.set(figure, { caption, words, rows: [...table.tBodies[0].rows] });
  }
  const before = first.get(figure);
  figure.querySelector(".caption").textContent = view?.caption ?? before.caption;
  heads.forEach((head, at) => {
    const made = view?.heads[at];
    const words = made ? [made[0], ...(made[1] ? [" ", make("span", { className: "unit" }, made[1])] : [])] : before.words[at];
    head.querySelector("button span").replaceChildren(...words);
    head.removeAttribute("aria-sort");
  });
  const row = (cells, at) => make("tr", {}, ...cells.map((cell, i) => viewCell(study, heads[i], cell, view.names[at][i], i)));
  table.tBodies[0].replaceChildren(...(view ? view.rows.map(row) : before.rows));
};

const startTable = (study, figure) => {
  makeSortable(figure.querySelector("table"));
  addFilter(study, figure);
  reachable(figure.querySelector(".scroll"));
  linkCells(study, figure);
  let view = study.choices?.main;
  const show = async () => {
    const followed = await figureView(study, figure);
    const now = followed.found ? study.view : study.choices?.main;
    if (now !== view) {
      fillTable(study, figure, followed.found);
      linkCells(study, figure);
      view = now;
    }
    hideRows(study, figure);
    noteFollowed(figure, study, { ...followed, followsConditions: Boolean(figure.querySelector("[data-c]")) });
  };
  study.watchers.push(show);
};
