// Everything is put to work, study by study; then the address says what was chosen.
startTheme();
startContents();
for (const root of document.querySelectorAll("[data-study]")) studies.push(await Study.open(root));
for (const study of studies) {
  startChooser(study);
  startSentences(study);
  study.root.querySelectorAll("figure.table").forEach((figure) => startTable(study, figure));
  study.root.querySelectorAll(".downloads").forEach((place) => addDownloads(study, place));
  study.root.querySelectorAll("details.behind").forEach((details) => startBehind(study, details));
  startPanel(study);
  startCharts(study);
}
const anchor = readAddress();
if (anchor && addressParts().query) document.getElementById(anchor)?.scrollIntoView();
addEventListener("hashchange", readAddress);
