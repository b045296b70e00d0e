// A trial's epochs as two small charts and as a table.
const SERIES = { train: { colour: "#1E78B4", dash: [6, 3] }, val: { colour: "#C34B00", dash: [1, 0] } };

const historyRows = (history) =>
  history.epoch.flatMap((epoch, at) =>
    Object.keys(SERIES).map((split) => {
      const share = history[`${split}_accuracy`][at];
      return { epoch, split, loss: history[`${split}_loss`][at], accuracy: share === null ? null : +(100 * share).toPrecision(4) };
    }),
  );

const historySpec = (study, history, description) => {
  const looks = Object.values(SERIES);
  const domain = Object.keys(SERIES);
  const panel = (field, title, legend) => ({
    width: 250,
    height: 130,
    mark: { type: "line", point: { size: 14 }, tooltip: true },
    encoding: {
      x: { field: "epoch", type: "quantitative", title: "Epoch", axis: { format: "d", tickMinStep: 1, tickCount: 5 } },
      y: { field, type: "quantitative", title, scale: { zero: false } },
      color: { field: "split", type: "nominal", scale: { domain, range: looks.map((one) => one.colour) }, legend },
      strokeDash: { field: "split", type: "nominal", scale: { domain, range: looks.map((one) => one.dash) }, legend },
    },
  });
  return {
    description,
    config: study.choices.config,
    background: null,
    data: { values: historyRows(history) },
    resolve: { legend: { color: "independent", strokeDash: "independent" } },
    hconcat: [panel("loss", "Loss (nats)", { title: null, orient: "top", symbolType: "stroke", symbolSize: 350 }), panel("accuracy", "Accuracy (%)", null)],
  };
};

const historyTable = (history) => {
  const names = Object.keys(history);
  const heads = names.map((name) => name.replace("_", " "));
  const rows = history.epoch.map((_, at) => names.map((name) => String(history[name][at] ?? "–")));
  return textTable(heads, rows, true);
};

const historyBlock = (study, trial) => {
  const { history, number } = trial;
  if (!history.epoch) return [make("p", { className: "quiet" }, "No epoch was recorded.")];
  const label = `Loss and accuracy of trial ${number} by epoch, training dashed and validation solid; the table below has the numbers.`;
  const chart = make("div", { className: "trial-chart", role: "img", "aria-label": label });
  const options = { actions: false, tooltip: { theme: dark() ? "dark" : "light" } };
  requestAnimationFrame(() => drawFitted(chart, historySpec(study, history, label), options));
  const thinned = history.epoch.length < history.epoch.at(-1) ? `, ${history.epoch.length} of ${history.epoch.at(-1)}` : "";
  const numbers = make("details", {}, make("summary", {}, `Epochs as a table${thinned}`));
  numbers.append(scrollBox(`Epochs of trial ${number}`, historyTable(history)));
  return [chart, numbers];
};
