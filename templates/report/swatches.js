// A condition's look in small: its colour, its dash and its shape, so that colour is never the only difference.
const OUTLINES = {
  circle: "M5 0A5 5 0 1 1-5 0A5 5 0 1 1 5 0Z",
  square: "M-4.5-4.5H4.5V4.5H-4.5Z",
  "triangle-up": "M0-5L5.5 4.5H-5.5Z",
  "triangle-down": "M0 5L5.5-4.5H-5.5Z",
  "triangle-right": "M5 0L-4.5 5.5V-5.5Z",
  diamond: "M0-6L5 0L0 6L-5 0Z",
  cross: "M-5-2H-2V-5H2V-2H5V2H2V5H-2V2H-5Z",
};

const swatch = ({ colour, dash, shape }) =>
  drawing(
    "svg",
    { class: "look", viewBox: "-16 -7 32 14", width: 32, height: 14, "aria-hidden": "true", focusable: "false" },
    drawing("line", { x1: -16, x2: 16, stroke: colour, "stroke-width": 2, "stroke-dasharray": dash.join(" ") }),
    drawing("path", { d: OUTLINES[shape] ?? OUTLINES.circle, fill: colour }),
  );
