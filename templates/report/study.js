// One study of the page: what the reader has chosen for it, and who must hear of a change.
const studies = [];

class Study {
  constructor(root, choices) {
    this.root = root;
    this.name = root.dataset.study;
    this.choices = choices;
    this.conditions = choices?.conditions ?? [];
    this.places = new Map(this.conditions.map((one, place) => [one.label, place]));
    this.watchers = [];
    this.state = this.first();
  }

  static async open(root) {
    const node = root.querySelector("script.choices");
    return new Study(root, node ? await readJson(node) : null);
  }

  // What the report shows before anything is chosen.
  first() {
    const [split, metric] = (this.choices?.main ?? ".").split(".");
    return { metric, split, shown: new Set(this.conditions.keys()), open: null };
  }

  get view() {
    return `${this.state.split}.${this.state.metric}`;
  }

  get words() {
    return this.choices?.words[this.view] ?? this.view;
  }

  get atMain() {
    return this.view === this.choices?.main || !this.choices;
  }

  get showsAll() {
    return this.state.shown.size === this.conditions.length;
  }

  get hidden() {
    return new Set(this.conditions.filter((_, place) => !this.state.shown.has(place)).map((one) => one.label));
  }

  async trials() {
    return readOnce(this.root.querySelector("script.trials"));
  }

  change(patch) {
    this.state = { ...this.state, ...patch };
    this.watchers.forEach((watch) => watch(this));
  }
}
