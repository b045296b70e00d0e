// The numbers of a table or figure as CSV and JSON, a chart as SVG and PNG: files made in the page.
const save = (name, type, content) => {
  const link = make("a", { href: URL.createObjectURL(new Blob([content], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};

const addDownloads = (study, place) => {
  const figure = place.parentElement;
  const parts = JSON.parse(place.dataset.parts ?? "[]");
  const stem = () => (study.atMain || !figure.querySelector("script.views") ? place.dataset.name : `${place.dataset.name}-${study.view.replace(".", "-")}`);
  const what = figure.querySelector("figcaption strong").textContent.replace(".", "");
  place.append(make("summary", {}, `Download ${what.toLowerCase()}`));
  parts.forEach((name, i) => {
    const several = parts.length > 1;
    const suffix = several ? `-${name.replace(/[^\w-]+/g, "-")}` : "";
    const action = async () => save(`${stem()}${suffix}.csv`, "text/csv", (await payloadOf(study, figure))[i][1]);
    place.append(button(several ? `CSV ${name}` : "CSV", action));
  });
  if (parts.length) {
    const action = async () => {
      const all = Object.fromEntries((await payloadOf(study, figure)).map(([name, csv]) => [name, records(csv)]));
      save(`${stem()}.json`, "application/json", JSON.stringify(all, null, 1));
    };
    place.append(button("JSON", action));
  }
  if (figure.querySelector(".chart"))
    for (const kind of ["svg", "png"]) place.append(button(kind.toUpperCase(), () => saveChart(study, figure, stem(), kind)));
};
