// The data behind a figure as tables in the page, made when a reader opens them.
const MOST = 200;

const dataTable = (name, csv) => {
  const [heads, ...rows] = parseCsv(csv);
  const words = rows.length > MOST ? `${name}: the first ${MOST} of ${rows.length} rows; the CSV has all.` : name;
  return make("div", {}, make("p", {}, words), scrollBox(`Data: ${name}`, textTable(heads, rows.slice(0, MOST))));
};

const startBehind = (study, details) => {
  const place = details.querySelector(".behind-tables");
  let filled;
  const fill = async () => {
    const view = study.view;
    if (!details.open || filled === view) return;
    filled = view;
    const payload = await payloadOf(study, details.parentElement);
    place.replaceChildren(...payload.map(([name, csv]) => dataTable(name, csv)));
  };
  details.addEventListener("toggle", fill);
  study.watchers.push(fill);
};
