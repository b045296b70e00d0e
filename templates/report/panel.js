// The panel with a condition's trials: a modal dialog, which keeps the focus, closes on Escape and gives the focus back.
const pairs = (facts) => make("dl", { className: "pairs" }, ...facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));

const titled = (title, ...content) => (content.length ? [make("h4", {}, title), ...content] : []);

const trialBody = (study, trial) => [
  pairs(trial.facts),
  ...(trial.params.length ? titled("Chosen settings", pairs(trial.params)) : []),
  ...(trial.scores.length
    ? titled("Scores", scrollBox(`Scores of trial ${trial.number}`, textTable(["metric", "train", "val", "test"], trial.scores, true)))
    : []),
  ...titled("History", ...historyBlock(study, trial)),
  ...titled("Random seeds", pairs(trial.seeds)),
  ...(trial.log ? titled("End of its log", make("pre", { tabIndex: 0, "aria-label": `End of the log of trial ${trial.number}` }, trial.log)) : []),
];

const trialDetails = (study, trial, condition) => {
  const words = [`Trial ${trial.number}`, trial.facts.slice(0, 2).map(([name, value]) => (name === "stage" ? value : `${name} ${value}`)).join(", "), trial.state, trial.main];
  const made = make("details", { className: `trial ${trial.state}` }, make("summary", {}, make("h3", {}, words.filter(Boolean).join(" · "))));
  made.dataset.number = trial.number;
  made.addEventListener("toggle", () => {
    if (made.open && made.childElementCount === 1) made.append(make("div", { className: "trial-body" }, ...trialBody(study, trial)));
    const { open } = study.state;
    if (open?.condition !== condition) return;
    const last = [...made.parentElement.querySelectorAll("details.trial[open]")].at(-1);
    study.state.open = { condition, trial: made.open ? trial.number : last ? Number(last.dataset.number) : null };
    writeAddress();
  });
  return made;
};

const panelContent = async (study, condition, dialog) => {
  const { settings, trials } = (await study.trials())[condition];
  const look = study.conditions[condition];
  const title = make("h2", { id: "panel-title", tabIndex: -1 }, swatch(look), look.label);
  const close = button("Close", () => dialog.close(), { className: "close" });
  const counts = new Map();
  trials.forEach((trial) => counts.set(trial.state, (counts.get(trial.state) ?? 0) + 1));
  const summary = trials.length ? [...counts].map(([state, n]) => `${n} ${state}`).join(", ") : "No trial has been started.";
  return [
    make("div", { className: "panel-head" }, title, close),
    ...(settings.length ? [pairs(settings)] : []),
    make("p", { className: "quiet" }, trials.length ? `Trials: ${summary}.` : summary),
    ...trials.map((trial) => trialDetails(study, trial, condition)),
  ];
};

let dialogShown = null;

const showPanel = async (study) => {
  const { open } = study.state;
  const shown = dialogShown;
  if (!open) return shown?.study === study && shown.dialog.close();
  if (shown?.study === study && shown.condition === open.condition) return revealTrial(shown.dialog, open.trial);
  shown?.dialog.close();
  const dialog = make("dialog", { className: "panel", "aria-labelledby": "panel-title" });
  const mine = { study, condition: open.condition, dialog };
  dialogShown = mine;
  dialog.append(...(await panelContent(study, open.condition, dialog)));
  if (dialogShown !== mine) return; // another was opened or this one closed meanwhile
  document.body.append(dialog);
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (dialogShown?.dialog === dialog) dialogShown = null;
    if (study.state.open?.condition === mine.condition) {
      study.change({ open: null });
      writeAddress();
    }
  });
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.showModal();
  dialog.querySelector("h2").focus();
  revealTrial(dialog, open.trial);
};

const revealTrial = (dialog, number) => {
  const found = dialog.querySelector(`details.trial[data-number="${Number(number)}"]`);
  if (!found || found.open) return;
  found.open = true;
  found.querySelector("summary").focus();
  found.scrollIntoView({ block: "start" });
};

const openPanel = (study, open) => {
  study.change({ open });
  writeAddress({ push: true });
};

const startPanel = (study) => {
  study.watchers.push(() => showPanel(study));
};
