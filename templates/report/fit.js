// Charts made as wide as their place: panels that stand in a row are stacked and made narrower where there is no room.
const WIDEST = 1.5; // panels that stand alone are widened by so much
const NARROWEST = 120; // a plot narrower than this cannot be read; what is still too wide is then drawn smaller

const listed = (spec) => spec.hconcat ?? spec.vconcat ?? spec.concat;

const isText = (spec) => (spec.mark?.type ?? spec.mark) === "text";

// The pixels of the widest row that a change of the plots' widths changes; text beside a plot keeps its width.
const plotWidth = (spec) => {
  if (!listed(spec)) return typeof spec.width === "number" && !isText(spec) ? spec.width : 0;
  const widths = listed(spec).map(plotWidth);
  if (spec.vconcat) return Math.max(...widths);
  const across = spec.hconcat ? widths.length : (spec.columns ?? widths.length);
  const rows = Array.from({ length: Math.ceil(widths.length / across) }, (_, at) => widths.slice(at * across, (at + 1) * across));
  return Math.max(...rows.map((row) => row.reduce((sum, width) => sum + width, 0)));
};

const resized = (spec, factor) => {
  if (listed(spec)) listed(spec).forEach((panel) => resized(panel, factor));
  else if (typeof spec.width === "number" && !isText(spec)) {
    const square = spec.width === spec.height;
    spec.width = Math.max(NARROWEST, Math.round(spec.width * factor));
    if (square) spec.height = spec.width;
  }
  return spec;
};

// Whether a panel's rows are those of its neighbour on the left, which names them.
const leans = (panel) => {
  const parts = [panel, ...(panel.layer ?? [])].map((part) => part.encoding?.y).filter(Boolean);
  return parts.length > 0 && parts.every((y) => y.axis === null || (y.type === "nominal" && y.axis?.labels === false));
};

const nameable = (panel) => [panel, ...(panel.layer ?? [])].some((part) => part.encoding?.y?.axis?.labels === false);

// A panel that begins a row names what its neighbour on the left named for it.
const labelled = (panel) => walk(panel, (node) => node.axis?.labels === false && (node.axis.labels = true));

// Every row of panels cut into rows that are as wide as `share` of it, at least one panel each.
const stacked = (spec, share) => {
  listed(spec)?.forEach((panel) => stacked(panel, share));
  const across = (count) => Math.max(1, Math.floor(count * share));
  if (spec.concat) {
    spec.columns = across(Math.min(spec.columns ?? spec.concat.length, spec.concat.length));
    spec.concat.forEach((panel, at) => at % spec.columns === 0 && labelled(panel));
  }
  if (!spec.hconcat || spec.hconcat.length < 2) return spec;
  const cut = (together) => {
    const groups = [];
    for (const panel of spec.hconcat) {
      if (groups.length && together(panel)) groups.at(-1).push(panel);
      else groups.push([panel]);
    }
    return groups;
  };
  // Plots of the same rows stay together where there are others; by themselves, each can name its rows.
  const groups = cut(leans).length > 1 ? cut(leans) : cut((panel) => leans(panel) && !nameable(panel));
  if (groups.length < 2) return spec;
  const { hconcat, bounds, ...rest } = spec;
  const shared = Object.fromEntries(Object.entries({ bounds, spacing: rest.spacing, resolve: rest.resolve }).filter(([, value]) => value !== undefined));
  const rows = [];
  for (let at = 0; at < groups.length; at += across(groups.length)) rows.push(groups.slice(at, at + across(groups.length)).flat());
  for (const row of rows) labelled(row[0]);
  for (const name of Object.keys(spec)) delete spec[name];
  return Object.assign(spec, rest, { vconcat: rows.map((row) => (row.length > 1 ? { ...shared, hconcat: row } : row[0])) });
};

const drawnWidth = (place) => Number(place.querySelector("svg.marks")?.getAttribute("width")) || 0;

// How wide the panels with their axes came out, without the legends around them; the picture may be shown smaller.
const panelsWidth = (place) => {
  const boxes = [...place.querySelectorAll("svg.marks .role-scope[class*=concat_]")].map((one) => one.getBoundingClientRect());
  if (!boxes.length) return drawnWidth(place);
  const shown = Math.max(...boxes.map((box) => box.right)) - Math.min(...boxes.map((box) => box.left));
  return (shown * drawnWidth(place)) / place.querySelector("svg.marks").getBoundingClientRect().width;
};

// Legends above and below in as many columns as there is room for.
const ENTRY = 120;
const withRoom = (spec, room) => {
  walk(spec, ({ legend }) => {
    if (["top", "bottom"].includes(legend?.orient)) legend.columns = Math.min(legend.columns || 99, Math.max(1, Math.floor(room / ENTRY)));
  });
  return spec;
};

// Draw a spec, and again where it came out wider than its place: how much stands around the plots is only seen then.
const drawFitted = async (place, spec, options) => {
  const room = place.clientWidth;
  let shown = room < 560 ? withRoom(structuredClone(spec), room) : structuredClone(spec);
  let result = await drawFigure(place, shown, options);
  const cramped = listed(shown) && drawnWidth(place) > 1.3 * room;
  if (cramped) {
    shown = stacked(shown, room / drawnWidth(place));
    result.finalize();
    result = await drawFigure(place, shown, options);
  }
  const [width, plots] = [panelsWidth(place), plotWidth(shown)];
  if ((drawnWidth(place) > room + 1 || cramped) && plots > 0) {
    result.finalize();
    result = await drawFigure(place, resized(shown, Math.min(WIDEST, (room - (width - plots)) / plots)), options);
  }
  return result;
};
