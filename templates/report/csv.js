// CSV as the report writes it (RFC 4180): rows of text, and records with numbers.
const parseCsv = (text) => {
  const rows = [[]];
  let field = "";
  let quoted = false;
  for (let i = 0; i < text.length; i += 1) {
    const letter = text[i];
    if (quoted) {
      if (letter === '"' && text[i + 1] === '"') {
        field += '"';
        i += 1;
      } else if (letter === '"') quoted = false;
      else field += letter;
    } else if (letter === '"') quoted = true;
    else if (letter === ",") {
      rows.at(-1).push(field);
      field = "";
    } else if (letter === "\n") {
      rows.at(-1).push(field);
      rows.push([]);
      field = "";
    } else if (letter !== "\r") field += letter;
  }
  return rows.filter((row) => row.length);
};

const records = (csv) => {
  const [heads, ...rows] = parseCsv(csv);
  const typed = (value) => (value === "" ? null : value.trim() !== "" && Number.isFinite(Number(value)) ? Number(value) : value);
  return rows.map((row) => Object.fromEntries(heads.map((head, i) => [head, typed(row[i] ?? "")])));
};
