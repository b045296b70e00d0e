// Making elements: text goes in as text, never as markup.
const make = (tag, properties = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
};

const button = (text, action, properties = {}) => {
  const made = make("button", { type: "button", ...properties }, text);
  made.addEventListener("click", action);
  return made;
};

const drawing = (tag, attributes, ...children) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};

// A box that scrolls sideways must be reachable by keyboard and named for screen readers.
const scrollBox = (name, ...children) => make("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": name }, ...children);

// A table of text; `rowHeads` makes the first cell of every row its heading.
const textTable = (heads, rows, rowHeads = false) => {
  const cells = (values) =>
    values.map((value, at) => (rowHeads && at === 0 ? make("th", { scope: "row" }, value) : make("td", {}, value)));
  return make(
    "table",
    {},
    make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...cells(row)))),
  );
};
