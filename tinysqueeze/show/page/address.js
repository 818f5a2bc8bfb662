// A picture by its address on the web: a field for it, and what is there, or why it can't be had.

import { button, h } from "./dom.js";

const PATIENCE = 30; // seconds
const REMEDY = "Save the picture on your disk and choose the file";

// What a line of text calls an address.
export const addressName = (address) =>
  (/^data:/i.test(address) ? "the picture in the address" : address.replace(/[?#].*/, "").split("/").findLast(Boolean));

// The file at an address. Throws an Error that says why there is none, and what to do.
export async function fetched(address) {
  const name = addressName(address);
  const fail = (why) => { throw new Error(`${name} ${why}`); };
  const answer = await fetch(address, { signal: AbortSignal.timeout(1000 * PATIENCE) }).catch(async (error) => {
    if (error.name === "TimeoutError") fail(`does not come in ${PATIENCE} seconds. ${REMEDY}`);
    if (await isShown(address)) fail(`is there, but its site lets no other page read it (CORS). ${REMEDY}`);
    fail(`can't be loaded: there is no network, no such address, or no leave to read it. ${REMEDY}`);
  });
  if (!answer.ok) fail(`is not there: its site answers ${answer.status}. Look at the address again`);
  return new File([await answer.blob()], name);
}

// Whether a page may show a picture from there, which it may even where it must not read it.
function isShown(address) {
  const picture = new Image();
  picture.src = address;
  return picture.decode().then(() => true, () => false);
}

// go(address) is called for what may be one, trouble(words) for what can't.
export function addressField(go, trouble) {
  const field = h("input", { type: "url", placeholder: "https://…" });
  const load = () => {
    const address = field.value.trim();
    if (/^(https?:\/\/.|data:)/i.test(address)) go(address);
    else trouble("A picture's address begins with https:// or data:");
  };
  field.addEventListener("keydown", (event) => event.key === "Enter" && load());
  const loader = button("load", load, { title: "Load the picture at this address" });
  const element = h("span", { className: "ts-row" }, h("label", {}, "or its address ", field), loader);
  const block = (blocked) => { field.disabled = loader.disabled = blocked; };
  const clear = () => { field.value = ""; };
  return { element, block, clear };
}
