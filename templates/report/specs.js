// Chart specs made to follow what is chosen: fewer conditions, without the legend that the page itself draws.
const isNode = (value) => value !== null && typeof value === "object";

const walk = (node, visit) => {
  if (!isNode(node)) return;
  if (!Array.isArray(node)) visit(node);
  for (const part of Object.values(node)) walk(part, visit);
};

// Every list of rows in the spec. Long series are stored as columns, so a field may hold a list of its own.
const eachRows = (spec, change) => {
  walk(spec, (node) => {
    if (Array.isArray(node.data?.values)) node.data.values = change(node.data.values);
  });
  for (const [name, rows] of Object.entries(spec.datasets ?? {})) if (Array.isArray(rows)) spec.datasets[name] = change(rows);
};

const drawnLabels = (spec, places) => {
  const found = new Set();
  eachRows(spec, (rows) => {
    for (const row of rows) [row?.condition].flat().forEach((label) => places.has(label) && found.add(label));
    return rows;
  });
  return [...places.keys()].filter((label) => found.has(label));
};

const withoutHidden = (row, hidden) => {
  if (!Array.isArray(row.condition)) return row;
  const keep = row.condition.map((label) => !hidden.has(label));
  const isSeries = (value) => Array.isArray(value) && value.length === keep.length;
  const cut = (value) => (isSeries(value) ? value.filter((_, at) => keep[at]) : value);
  return Object.fromEntries(Object.entries(row).map(([name, value]) => [name, cut(value)]));
};

// A panel for one condition filters its own rows, in itself or in one of its layers.
const ownLabel = (panel) =>
  [panel, ...(panel.layer ?? [])]
    .flatMap((part) => part.transform ?? [])
    .map((step) => (step.filter?.field === "condition" ? step.filter.equal : undefined))
    .find((label) => label !== undefined);

const restricted = (spec, hidden) => {
  const result = structuredClone(spec);
  if (!hidden.size) return result;
  eachRows(result, (rows) => rows.filter((row) => !hidden.has(row?.condition)).map((row) => withoutHidden(row, hidden)));
  walk(result, (node) => {
    for (const way of ["concat", "hconcat", "vconcat"]) {
      if (!Array.isArray(node[way]) || !node[way].some((panel) => hidden.has(ownLabel(panel)))) continue;
      node[way] = node[way].filter((panel) => !hidden.has(ownLabel(panel)));
      walk(node[way], (part) => {
        if (part.axis?.labels === false) part.axis.labels = true; // the panel that carried them may be gone
      });
    }
    if (node.field === "condition" && Array.isArray(node.legend?.values))
      node.legend.values = node.legend.values.filter((label) => !hidden.has(label));
    const options = node.bind?.options;
    if (Array.isArray(options) && options.some((label) => hidden.has(label))) {
      node.bind.options = options.filter((label) => !hidden.has(label));
      if (hidden.has(node.value) && node.bind.options.length) [node.value] = node.bind.options;
    }
  });
  return result;
};

// The page's own legend is reachable by keyboard and opens a condition's trials; Vega's would stand there twice.
const withoutLegend = (spec) => {
  walk(spec, (node) => {
    if (node.field === "condition" && node.legend) node.legend = null;
    if (node.bind === "legend") delete node.bind;
  });
  return spec;
};
