// Long work in slices, so that the page answers meanwhile.

const SLICE = 30; // milliseconds that a page may stand still

// What a generator returns, run in slices; say(words) hears where it is. Null if it is no longer wanted.
export async function unhurried(work, say, wanted = () => true) {
  for (;;) {
    const end = performance.now() + SLICE;
    let words;
    while (performance.now() < end) {
      const { done, value } = work.next();
      if (done) return value;
      words = value;
    }
    say(words);
    await new Promise((go) => setTimeout(go));
    if (!wanted()) return null;
  }
}

// Pieces of work, each a function that gives a promise, one after another.
export class Queue {
  // When all that was asked for before is done; null if that was dropped meanwhile.
  after(work) {
    const { turn } = this;
    return this.last = Promise.resolve(this.last).then(() => (turn === this.turn ? work() : null));
  }

  // At once: what was asked for before and has not begun is dropped.
  instead(work) {
    Object.assign(this, { last: null, turn: {} });
    return this.after(work);
  }
}
