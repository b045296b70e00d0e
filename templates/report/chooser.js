// The bar that chooses metric, split and conditions for all tables and figures of a study.
const startChooser = (study) => {
  const form = study.root.querySelector("form.chooser");
  if (!form) return;
  const boxes = [...form.querySelectorAll("input[name=condition]")];
  const choose = (patch) => {
    study.change(patch);
    writeAddress();
  };
  const ticked = () => new Set(boxes.flatMap((box, place) => (box.checked ? [place] : [])));

  boxes.forEach((box, place) => box.parentElement.querySelector(".swatch").append(swatch(study.conditions[place])));
  form.addEventListener("change", () =>
    choose({
      metric: form.elements.metric?.value ?? study.state.metric,
      split: form.elements.split?.value ?? study.state.split,
      shown: ticked(),
    }),
  );
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    choose(study.first());
  });
  form.querySelector(".pick-all").addEventListener("click", () => choose({ shown: study.first().shown }));
  form.querySelector(".pick-none").addEventListener("click", () => choose({ shown: new Set() }));

  const pick = form.querySelector(".pick");
  form.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !pick.open) return;
    pick.open = false;
    pick.querySelector("summary").focus();
  });
  document.addEventListener("click", (event) => {
    if (!pick.contains(event.target)) pick.open = false;
  });

  const show = () => {
    const { metric, split, shown } = study.state;
    if (form.elements.metric) Object.assign(form.elements.metric, { value: metric });
    if (form.elements.split) Object.assign(form.elements.split, { value: split });
    boxes.forEach((box, place) => Object.assign(box, { checked: shown.has(place) }));
    form.querySelector(".picked").textContent = `${shown.size} of ${boxes.length}`;
    form.querySelector("[type=reset]").disabled = study.atMain && study.showsAll;
    form.querySelector(".choice").textContent =
      study.atMain && study.showsAll ? "" : `Showing ${study.words} of ${shown.size} of ${boxes.length} conditions.`;
  };
  study.watchers.push(show);
  form.hidden = false;
  show();
};

// Sentences are written for what the report shows first: where a reader has chosen something else, that is said.
const startSentences = (study) => {
  const places = study.root.querySelectorAll("div.answer:not(.finding), section.part:has(> .finding)");
  const notes = [...places].map((place) => make("p", { className: "follows", role: "status" }));
  notes.forEach((note, at) => (places[at].matches(".part") ? places[at].querySelector("h2").after(note) : places[at].append(note)));
  const show = () => {
    const what = study.atMain ? "" : study.choices.words[study.choices.main];
    const all = study.showsAll ? "" : "all conditions";
    const words = [what, all].filter(Boolean).join(" of ");
    for (const note of notes) note.textContent = words ? `These sentences are about ${words}, whatever is chosen.` : "";
  };
  study.watchers.push(show);
};

// Below a table or figure: what of the choice it does not follow, in words; empty while nothing is chosen.
const noteFollowed = (figure, study, { followsMetric, missing, followsConditions }) => {
  const note = figure.querySelector(".follows");
  if (!note) return; // own templates may leave it out
  const words = [];
  const fixed = note.dataset.fixed;
  if (!study.atMain && missing) words.push(`There is no ${study.words} to show here; this is still ${fixed || "the first view"}.`);
  else if (!study.atMain && !followsMetric)
    words.push(`Shows ${fixed || "what its caption names"}, whatever metric and split are chosen.`);
  if (!study.showsAll && !followsConditions) words.push("Does not follow the chosen conditions.");
  const text = words.join(" ");
  if (note.textContent !== text) note.textContent = text;
};
