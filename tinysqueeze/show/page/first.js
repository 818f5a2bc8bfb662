// What a page begins with, to go back to: its images, labels and parameters.

// Own pictures and labels come as new arrays, so that the first ones stay as they were.
export function firstOf(state) {
  const { images, labels, params } = state;
  return {
    // Whether a step is of others.
    left: (step) => step.params !== params || step.maps[0].data !== images || step.labels.some((label, n) => label !== labels[n]),
    bringBack: () => Object.assign(state, { images, labels }),
  };
}

// All images, with other pixels for the n-th.
export function withImage(images, pixels, n) {
  const all = images.slice();
  all.set(pixels, n * pixels.length);
  return all;
}
