// Charts: drawn when they come into sight, and again when the choice changes what they show.
const drawn = new WeakMap(); // chart -> { result, signature, run }
const DESIGNED = 700; // no chart is wider by itself; above, its place's width does not matter

// What a figure shows in the present view: the embedded spec, caption and data, or those of the chosen metric.
const figureView = async (study, figure) => {
  const views = figure.querySelector("script.views");
  const found = views && !study.atMain ? (await readOnce(views))[study.view] : undefined;
  return { found, followsMetric: Boolean(views), missing: Boolean(views) && !study.atMain && !found };
};

const specOf = async (study, figure) => {
  const { found } = await figureView(study, figure);
  return found?.spec ?? readOnce(figure.querySelector("script.spec"));
};

const payloadOf = async (study, figure) => {
  const { found } = await figureView(study, figure);
  return found?.data ?? (found?.csv ? [[figure.id.replace(/^table-/, ""), found.csv]] : readJson(figure.querySelector("script.payload")));
};

const colours = (spec) => {
  let found = false;
  // A scale with colours of its own, as of leading conditions and others, tells no condition from another.
  const own = (channel) => channel?.field === "condition" && !channel.scale?.range;
  walk(spec, (node) => (found ||= ["color", "fill", "stroke"].some((channel) => own(node.encoding?.[channel]))));
  return found;
};

const legendOf = (study, chart, labels, coloured) => {
  const figure = chart.closest("figure");
  figure.querySelector(".legend")?.remove();
  if (!labels.length) return;
  const entry = (label) => {
    const place = study.places.get(label);
    const made = button("", () => openPanel(study, { condition: place, trial: null }), {
      className: "condition",
      "aria-haspopup": "dialog",
      title: `${label}: show its trials`,
    });
    if (coloured) made.append(swatch(study.conditions[place])); // else the chart's colours mean something else
    made.append(make("span", { className: "name" }, label));
    const mark = (marked) => highlight(chart, marked ? label : null);
    for (const [event, marked] of Object.entries({ pointerenter: true, focus: true, pointerleave: false, blur: false }))
      made.addEventListener(event, () => mark(marked));
    return make("li", {}, made);
  };
  const list = make("ul", { className: "entries", "aria-label": "Conditions in this figure; each opens its trials" });
  if (!coloured) list.append(make("li", { className: "verb" }, "Trials of:"));
  list.append(...labels.map(entry));
  const many = labels.length > 12;
  const summary = make("summary", {}, `${coloured ? "Legend" : "Trials"}: ${labels.length} conditions`);
  chart.before(many ? make("details", { className: "legend" }, summary, list) : make("div", { className: "legend" }, list));
};

// Charts that can single out a condition have a selection of that name; the legend sets it.
const highlight = (chart, label) => {
  const view = drawn.get(chart)?.result?.view;
  if (!view) return;
  const store = "conditions_store";
  if (!(store in view.getState({ data: (name) => name === store, signals: () => false }).data)) return;
  const chosen = { unit: "", fields: [{ type: "E", field: "condition" }], values: [label] };
  view.data(store, label === null ? [] : [chosen]).runAsync();
};

const note = (chart, className, text) => chart.replaceChildren(make("p", { className }, text));

const drawChart = async (study, chart) => {
  const figure = chart.closest("figure");
  const before = drawn.get(chart);
  const run = (before?.run ?? 0) + 1;
  drawn.set(chart, { ...before, run });
  const followed = await figureView(study, figure);
  const spec = await specOf(study, figure);
  const all = drawnLabels(spec, study.places);
  const labels = all.filter((label) => !study.hidden.has(label));
  const signature = JSON.stringify([followed.found ? study.view : "", labels, dark(), Math.min(chart.clientWidth, DESIGNED)]);
  noteFollowed(figure, study, { ...followed, followsConditions: all.length > 0 });
  if (drawn.get(chart).run !== run || before?.signature === signature) return;
  chart.style.minHeight = `${chart.offsetHeight}px`; // the page must not jump while the chart is made anew
  delete chart.dataset.drawn;
  before?.result?.finalize();
  drawn.set(chart, { run, signature });
  legendOf(study, chart, labels, colours(spec));
  if (all.length && !labels.length) note(chart, "absent", "None of the chosen conditions is in this figure.");
  else await drawInto(chart, withoutLegend(restricted(spec, study.hidden)));
  chart.style.minHeight = "";
  chart.dataset.drawn = "";
};

const drawInto = async (chart, spec) => {
  try {
    const options = { actions: false, tooltip: { theme: dark() ? "dark" : "light" } };
    const result = await drawFitted(chart, spec, options);
    drawn.set(chart, { ...drawn.get(chart), result });
  } catch (error) {
    note(chart, "error", `This chart could not be drawn: ${error.message}`);
    console.error(error);
  }
};

const follow = async (study, figure) => {
  const { found } = await figureView(study, figure);
  const caption = figure.querySelector("figcaption .caption");
  caption.dataset.first ??= caption.textContent;
  caption.textContent = found?.caption ?? caption.dataset.first;
  const chart = figure.querySelector(".chart");
  chart.dataset.first ??= chart.getAttribute("aria-label");
  chart.setAttribute("aria-label", found?.alt ?? chart.dataset.first);
};

const startCharts = (study) => {
  const charts = [...study.root.querySelectorAll(".chart")];
  const draw = (chart) => drawChart(study, chart);
  const sight = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        sight.unobserve(entry.target);
        draw(entry.target);
      }
    },
    { rootMargin: "600px" },
  );
  charts.forEach((chart) => sight.observe(chart));
  // A page is printed as soon as the promises at hand are settled: what is packed must have been unpacked before.
  charts.forEach((chart) => specOf(study, chart.closest("figure")));
  addEventListener("beforeprint", () => {
    study.root.querySelectorAll("details.legend").forEach((legend) => (legend.open = true));
    charts.filter((chart) => !("drawn" in chart.dataset)).forEach(draw);
  });
  let waiting;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => charts.filter((chart) => "drawn" in chart.dataset).forEach(draw), 200);
  });
  study.watchers.push(() => {
    for (const chart of charts) {
      follow(study, chart.closest("figure"));
      sight.unobserve(chart);
      sight.observe(chart);
    }
  });
};
