// The data inside the page: JSON, long pieces of it deflated and only unpacked when they are asked for.
const inflate = (text) => {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
};

const readJson = async (node) => {
  const content = JSON.parse(node.textContent);
  return typeof content?.packed === "string" ? JSON.parse(await inflate(content.packed)) : content;
};

const kept = new WeakMap();
const readOnce = (node) => {
  if (!kept.has(node)) kept.set(node, readJson(node));
  return kept.get(node);
};
