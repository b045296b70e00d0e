// Shows the reports whose words hold all that was typed, of the chosen data set. The index is window.BENCHKIT_INDEX.
(function () {
  "use strict";
  const index = window.BENCHKIT_INDEX;
  const form = document.getElementById("search");
  const words = document.getElementById("words");
  const data = document.getElementById("data");
  const names = [...new Set(index.flatMap((one) => one.data))].sort();
  for (const name of names) data.add(new Option(name, name));
  function show() {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const one of index) {
      const fits = wanted.every((word) => one.text.includes(word)) && (!data.value || one.data.includes(data.value));
      document.getElementById(one.name).hidden = !fits;
      shown += fits;
    }
    document.getElementById("count").textContent = `${shown} of ${index.length}`;
  }
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  show();
})();
