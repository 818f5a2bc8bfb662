// A stand-in for the widget model of a notebook: the state of a page that has no kernel.

export class Model {
  #values;
  #listeners = [];

  constructor(values) {
    this.#values = values;
  }

  get(name) {
    return this.#values[name];
  }

  set(name, value) {
    this.#values[name] = value;
    for (const [event, listener] of this.#listeners) if (event === `change:${name}`) listener();
  }

  on(event, listener) {
    this.#listeners.push([event, listener]);
  }

  off(event, listener) {
    this.#listeners = this.#listeners.filter((pair) => pair[0] !== event || pair[1] !== listener);
  }

  save_changes() {} // there is nobody to send them to
}
