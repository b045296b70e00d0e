// Charts as files: the present view with its legend, on white, as SVG or PNG.
const INK = "#1f2328";

const standalone = async (study, figure) => {
  const spec = restricted(await specOf(study, figure), study.hidden);
  const printed = JSON.parse(JSON.stringify({ ...spec, background: "#ffffff" }).replaceAll('"currentColor"', `"${INK}"`));
  const place = make("div", { className: "offstage", "aria-hidden": "true" });
  document.body.append(place);
  const result = await drawFigure(place, printed, { actions: false, tooltip: false });
  return { view: result.view, done: () => (result.finalize(), place.remove()) };
};

const saveChart = async (study, figure, name, kind) => {
  const { view, done } = await standalone(study, figure);
  try {
    if (kind === "svg") return save(`${name}.svg`, "image/svg+xml", await view.toSVG());
    const canvas = await view.toCanvas(2);
    const picture = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    return save(`${name}.png`, "image/png", picture);
  } finally {
    done();
  }
};
