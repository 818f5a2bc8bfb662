// A page inside another, as below a notebook's cell: as high as what it shows, on the ground that it has there.

// place: the element that holds the page's content, `.ts-explorer` inside it. free: called when the frame goes, for
// what listens to the page around it.
export function fitFrame(place, free) {
  const frame = window.frameElement; // null where there is none, or where it is none of our business
  if (!frame) return;
  const root = place.querySelector(".ts-explorer");
  const fit = () => {
    document.documentElement.style.colorScheme = root.dataset.theme; // scrollbars, what is beyond round corners
    document.body.style.background = getComputedStyle(root).backgroundColor;
    frame.style.height = `${Math.ceil(root.getBoundingClientRect().height) + 12}px`;
  };
  place.style.padding = "0";
  window.addEventListener("pagehide", ({ persisted }) => persisted || free()); // persisted: it may come back
  new ResizeObserver(fit).observe(root);
  new MutationObserver(fit).observe(root, { attributeFilter: ["data-theme"] });
}
