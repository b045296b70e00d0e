// Light, dark, or as the system has it.
const page = document.documentElement;
const dark = () => (page.dataset.theme ? page.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);

const themes = ["system", "light", "dark"];
const remembered = (theme) => {
  try {
    if (theme) localStorage.setItem("benchkit-theme", theme);
    return localStorage.getItem("benchkit-theme");
  } catch {
    return null; // storage may be closed to files; the choice then lasts as long as the page
  }
};

const startTheme = () => {
  const toggle = document.querySelector(".theme");
  const set = (theme) => {
    if (theme === "system") delete page.dataset.theme;
    else page.dataset.theme = theme;
    toggle.textContent = `Theme: ${theme}`;
  };
  let theme = themes.includes(remembered()) ? remembered() : "system";
  set(theme);
  toggle.hidden = false;
  toggle.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    remembered(theme);
    set(theme);
  });
};
