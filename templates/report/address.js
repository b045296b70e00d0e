// What is chosen stands in the page's address, behind its anchor: #results?metric=loss&split=val&without=1f3a.
const addressParts = () => {
  const [anchor, query] = location.hash.slice(1).split("?");
  return { anchor, query };
};

const nameIn = (study, key) => (studies.length > 1 ? `${study.name}.${key}` : key);

const stateFrom = (study, query) => {
  const asked = new URLSearchParams(query);
  const get = (key) => asked.get(nameIn(study, key));
  const state = study.first();
  for (const key of ["metric", "split"]) {
    const options = [...study.root.querySelectorAll(`.chooser select[name=${key}] option`)].map((one) => one.value);
    if (options.includes(get(key))) state[key] = get(key);
  }
  const ids = study.conditions.map((one) => one.id);
  const places = (text) => text.split(".").map((id) => ids.indexOf(id));
  if (get("with") !== null) state.shown = new Set(places(get("with")).filter((place) => place >= 0));
  if (get("without")) places(get("without")).forEach((place) => state.shown.delete(place));
  const condition = ids.indexOf(get("condition"));
  if (condition >= 0) state.open = { condition, trial: Number(get("trial")) || null };
  return state;
};

const queryOf = (study, { metric, split, shown, open } = study.state) => {
  const first = study.first();
  const found = [];
  const add = (key, value) => found.push(`${encodeURIComponent(nameIn(study, key))}=${encodeURIComponent(value)}`);
  if (metric !== first.metric) add("metric", metric);
  if (split !== first.split) add("split", split);
  if (shown.size < study.conditions.length) {
    const few = 2 * shown.size <= study.conditions.length;
    const listed = study.conditions.filter((_, place) => shown.has(place) === few);
    add(few ? "with" : "without", listed.map((one) => one.id).join("."));
  }
  if (open) add("condition", study.conditions[open.condition].id);
  if (open?.trial) add("trial", open.trial);
  return found;
};

const writeAddress = ({ push = false } = {}) => {
  const query = studies.flatMap((study) => queryOf(study)).join("&");
  const { anchor, query: before } = addressParts();
  if (query === (before ?? "")) return;
  const hash = `#${anchor}${query || !anchor ? `?${query}` : ""}`; // a bare # would scroll to the top
  if (push) location.hash = hash;
  else location.replace(hash);
};

const readAddress = () => {
  const { anchor, query } = addressParts();
  for (const study of studies) {
    const asked = query === undefined ? { ...study.state, open: null } : stateFrom(study, query);
    if (queryOf(study, asked).join() !== queryOf(study).join()) study.change(asked);
  }
  if (query === undefined) writeAddress(); // a link within the page keeps what is chosen
  return anchor;
};
